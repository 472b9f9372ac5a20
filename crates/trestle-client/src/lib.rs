//! Rust SDK for programs on the WebSocket side.
//!
//! A [`Client`] speaks protobuf: it sends messages to services, asks them, publishes on channels and listens to them. A
//! [`JsonClient`] speaks JSON, frame by frame, for tools that have no schemas: the gateway transcodes.
//!
//! ```no_run
//! use std::time::Duration;
//! use trestle_client::{Client, Event, Listen, Options, Outgoing, Since, Token, Typed};
//! # mod chat { #[derive(Clone, PartialEq, prost::Message)] pub struct Comment { #[prost(string, tag = 1)] pub text: String }
//! # impl prost::Name for Comment { const NAME: &'static str = "Comment"; const PACKAGE: &'static str = "chat.v1"; } }
//! # mod shop { #[derive(Clone, PartialEq, prost::Message)] pub struct Quote { #[prost(int64, tag = 1)] pub cents: i64 }
//! # impl prost::Name for Quote { const NAME: &'static str = "Quote"; const PACKAGE: &'static str = "shop.v1"; } }
//! # use {chat::Comment, shop::Quote};
//! # async fn log_in() -> Result<String, std::io::Error> { Ok(String::new()) }
//!
//! # async fn example(question: Vec<u8>) -> Result<(), trestle_client::Error> {
//! // Any of these gateways will do, and `log_in` is asked for a fresh token whenever one is needed.
//! let options = Options {
//!     endpoints: vec!["wss://b.example/ws".to_owned()],
//!     ..Options::with_token(Token::asked(log_in))
//! };
//! let client = Client::connect("wss://a.example/ws", options).await?;
//!
//! // The last 20 comments, then what is new; over lost connections and restarted gateways.
//! let mut room = client.listen("room:42", Listen::since(Since::Last(20))).await?;
//! client.publish("room:42", Outgoing::of(&Comment { text: "hi".to_owned() })).await?;
//! while let Some(event) = room.next_as::<Comment>().await {
//!     match event {
//!         Typed::Message(comment, envelope) => println!("{}: {}", envelope.offset, comment.text),
//!         Typed::Other(Event::Gap(gap)) => println!("missed what is between {} and {}", gap.from, gap.to),
//!         Typed::Other(other) => println!("{other:?}"),
//!         Typed::Malformed(envelope, fault) => println!("{}: {fault}", envelope.id),
//!     }
//! }
//!
//! let ask = Outgoing::new("GET_QUOTE", question).idempotent();
//! let quote: Quote = client.request_as(ask, Duration::from_secs(2)).await?;
//! println!("{} cents", quote.cents);
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # A connection that is lost
//! The client makes another one, to any of its endpoints, and resumes its session there: what it missed comes before what
//! is new, each message once, answers that were on their way still come. Messages that were sent or published and whose
//! answer was lost are repeated under their id, by which the gateway knows them. Where the gateway no longer has the
//! session a new one begins: channels that keep a history go on after the last message that was read, and for all others
//! there is an [`Event::Gap`]. When a gateway is about to stop, the client has its next connection before it leaves the
//! old one. [`Client::state`] shows all that; only [`Client::close`], a refused token and what the gateway means for good
//! end the client.
//!
//! # A reader that is slower than its messages
//! Every queue towards the program is bounded by [`Options::queue_messages_max`]. When one is full, what comes next is
//! not kept, and the program reads an [`Event::Gap`] in its place that says how many and, where the channel has offsets,
//! which. Answers are not queued behind messages, so a program that reads nothing can still send and ask.

mod asks;
mod backlog;
mod channels;
mod client;
mod connection;
mod dial;
mod driver;
mod error;
mod event;
mod inbox;
mod json;
mod link;
mod listen;
mod options;
mod outgoing;
mod place;
mod session;
mod state;
mod subscription;
mod tls;
mod up;
mod upgrade;
mod wire;

pub use client::Client;
pub use error::{Closed, Error};
pub use event::{Event, Typed};
pub use inbox::Inbox;
pub use json::{JsonClient, JsonFrame, JsonFrames};
pub use listen::{Listen, Page, Since};
pub use options::{Options, Reconnect, Roots, Token};
pub use outgoing::Outgoing;
pub use state::State;
pub use subscription::{Deliveries, Subscription};
pub use trestle_wire::v1;
