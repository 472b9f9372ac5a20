//! One client's conversation as a state machine: events in, actions out; owns the outbox. No I/O, no clock of its own.
//!
//! [`Session`] decides and does nothing: whoever owns the client feeds it [`Event`]s with the time they happened, and
//! carries out the [`Action`]s it answers with. It outlives sockets: [`State::Pending`] is a session whose client may come back.
//! [`Outbox`] is the queue between the fan-out and the socket, and [`Mailbox`] what others want of the owner: the only
//! state of a client that tasks share. [`Replay`] is what was written and may be wanted again.

mod action;
mod admission;
mod belonging;
mod config;
mod event;
mod finished;
mod frames;
mod label;
mod lane;
mod ledger;
mod losses;
mod mailbox;
mod outbox;
mod overflow;
mod replay;
mod rules;
mod session;
mod spill;
mod subscriptions;

pub use action::Action;
pub use config::SessionConfig;
pub use event::{Admitted, Event, Reattached, Resumed};
pub use finished::Finished;
pub use label::Label;
pub use mailbox::Mailbox;
pub use outbox::{Full, Outbox, OutboxLimits, Pushed, Taken};
pub use replay::{Replay, ReplayLimits};
pub use rules::Rules;
pub use session::{Session, State, survives};
pub use spill::{Spill, Spills};
