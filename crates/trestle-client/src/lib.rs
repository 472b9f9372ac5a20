//! Rust SDK for programs on the WebSocket side.
//!
//! A [`Client`] speaks protobuf: it sends messages to services, asks them, publishes on channels and listens to them. A
//! [`JsonClient`] speaks JSON, frame by frame, for tools that have no schemas: the gateway transcodes.
//!
//! ```no_run
//! use std::time::Duration;
//! use trestle_client::{Client, Event, Options, Outgoing};
//!
//! # async fn example(comment: Vec<u8>, question: Vec<u8>) -> Result<(), trestle_client::Error> {
//! let client = Client::connect("ws://127.0.0.1:8080/ws", Options::default()).await?;
//!
//! let mut room = client.subscribe("room:42").await?;
//! client.publish("room:42", Outgoing::new("chat.v1.Comment", comment)).await?;
//! match room.next().await {
//!     Some(Event::Message(envelope)) => println!("{} at {}", envelope.message_type, envelope.offset),
//!     Some(Event::Gap(gap)) => println!("missed {} messages", gap.count),
//!     Some(Event::Error(_)) | None => println!("closed: {}", client.closed().await),
//! }
//!
//! let quote = client.request(Outgoing::new("GET_QUOTE", question), Duration::from_secs(2)).await?;
//! println!("{} bytes of {}", quote.payload.len(), quote.message_type);
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # A reader that is slower than its messages
//! Every queue towards the program is bounded by [`Options::queue_messages_max`]. When one is full, what comes next is
//! not kept, and the program reads an [`Event::Gap`] in its place that says how many and, where the channel has offsets,
//! which. Answers are not queued behind messages, so a program that reads nothing can still send and ask.

mod client;
mod connection;
mod error;
mod event;
mod inbox;
mod json;
mod options;
mod outgoing;
mod routes;
mod subscription;
mod upgrade;
mod wire;

pub use client::Client;
pub use error::{Closed, Error};
pub use event::Event;
pub use json::{JsonClient, JsonFrame, JsonFrames};
pub use options::Options;
pub use outgoing::Outgoing;
pub use subscription::{Deliveries, Subscription};
pub use trestle_wire::v1;
