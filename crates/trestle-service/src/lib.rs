//! Rust SDK for services on the gRPC side.
//!
//! A [`Service`] attaches to a gateway, runs a handler for each message of the types it takes, and acknowledges what
//! succeeded. It reconnects by itself. A [`Pusher`] sends messages to clients from anywhere else, and changes the groups and
//! tags of their sessions.
//!
//! ```no_run
//! use trestle_service::{Context, Nack, Service, Target};
//!
//! #[derive(Clone, PartialEq, prost::Message)]
//! struct OrderPaid {
//!     #[prost(string, tag = "1")]
//!     order_id: String,
//! }
//!
//! async fn book(context: Context, order: OrderPaid) -> Result<(), Nack> {
//!     let session = context.sender().session.clone();
//!     context.push(Target::Session(session), "shop.v1.OrderPaid", &order).await?;
//!     Ok(())
//! }
//!
//! # async fn main_() -> Result<(), trestle_service::ServiceError> {
//! Service::builder("billing")
//!     .endpoint("http://127.0.0.1:9090")
//!     .on("shop.v1.OrderPaid", book)
//!     .run(async { drop(tokio::signal::ctrl_c().await) })
//!     .await
//! # }
//! ```

mod attached;
mod context;
mod error;
mod events;
mod handler;
mod pending;
mod pusher;
mod run;
mod service;
mod target;
mod trace;
mod update;

pub use context::Context;
pub use error::{PushError, ServiceError};
pub use handler::Nack;
pub use pusher::{PushStream, Pusher, Receipt};
pub use service::{Builder, Service};
pub use target::Target;
pub use trestle_wire::v1;
pub use update::Update;
