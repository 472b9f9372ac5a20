//! One client's conversation as a state machine: events in, actions out; owns the outbox. No I/O, no clock of its own.
//!
//! [`Session`] decides and does nothing: whoever owns the socket feeds it [`Event`]s with the time they happened, and
//! carries out the [`Action`]s it answers with. [`Outbox`] is the queue between the fan-out and the socket, the only
//! state of a client that two tasks share.

mod config;
mod outbox;
mod session;

pub use config::SessionConfig;
pub use outbox::{Full, Outbox, OutboxLimits};
pub use session::{Action, Event, Session, State};
