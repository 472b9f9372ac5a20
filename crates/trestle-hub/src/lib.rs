//! Who listens to what on this node, and the fan-out to them.
//!
//! A [`Member`] is a client's socket as the hub sees it: a session, an encoding, an outbox. Members take [`Seat`]s in
//! rooms: a channel, the sessions of one user, or everyone. A room listens to its subject on the bus only while somebody
//! sits in it; what comes is encoded once per encoding and put into every outbox. Dropping a seat leaves the
//! room, and the last one out ends the bus subscription.

mod fanout;
mod hub;
mod listen;
mod metrics;
mod room;

use std::sync::Arc;

pub use fanout::Delivered;
pub use hub::{Hub, Parts, Presence, Seat};
use trestle_codec::Encoding;
use trestle_session::Outbox;
use trestle_wire::{ChannelName, SessionId, UserId};

/// A client's socket, as the hub sees it. Owned by its connection, shared with the rooms it sits in.
pub struct Member {
    /// The session on it.
    pub session: SessionId,
    /// How its frames are written.
    pub encoding: Encoding,
    /// Where its frames go.
    pub outbox: Outbox,
}

/// Whom a message on the bus is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Audience {
    Channel(ChannelName),
    User(UserId),
    Everyone,
}

/// Members under one roof.
type Members = Vec<Arc<Member>>;
