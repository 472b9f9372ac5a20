//! Who listens to what on this node, and the fan-out to them.
//!
//! A [`Member`] is a client's session as the hub sees it: an encoding, an outbox, a mailbox. Members take [`Seat`]s in
//! rooms: a channel, the sessions of one user, a group, or everyone. A room listens to its subject on the bus only while
//! somebody sits in it; what comes is encoded once per encoding and put into every outbox. Dropping a seat leaves the
//! room, and the last one out ends the bus subscription.
//!
//! | station | file | in -> out |
//! | --- | --- | --- |
//! | join | `hub.rs`, `seat.rs` | member -> seat |
//! | recall | `join.rs`, `recall.rs` | a place in a channel -> the missed messages, then a seat |
//! | listen | `listen.rs`, `fill.rs` | subject -> the room's messages, in order, each once |
//! | push | `pushes.rs` | subject -> messages for single sessions, and for those that match |
//! | control | `control.rs` | subject -> [`Mail`] for those that it concerns |
//! | read | `read.rs`, `page.rs` | a channel's log -> a stretch of it, a page of it |
//! | fan out | `fanout.rs`, `slices.rs` | one message -> n outboxes |

mod control;
mod fanout;
mod fill;
mod hub;
mod join;
mod listen;
mod member;
mod metrics;
mod page;
#[doc(hidden)]
pub mod planted;
mod pushes;
mod read;
mod recall;
mod room;
mod seat;
mod slices;

use std::sync::Arc;

pub use fanout::Delivered;
pub use hub::{Hub, Parts};
pub use join::{Join, Joined};
pub use member::{Facts, Mail, Member};
pub use seat::{Presence, Seat};
use trestle_wire::{ChannelName, GroupName, UserId};

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Audience {
    Channel(ChannelName),
    User(UserId),
    Group(GroupName),
    Everyone,
    /// Those who want to know who comes to a channel and who leaves it. Nothing on the bus: this node tells them.
    Watchers(ChannelName),
}

/// Members under one roof.
type Members = Vec<Arc<Member>>;
