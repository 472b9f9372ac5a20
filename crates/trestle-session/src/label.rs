//! What is known of a message that waits for a client: enough to let it go honestly when there is no room.

use trestle_wire::{ChannelName, v1};

/// Lanes of an outbox, the first to be written first.
pub(crate) const LANES: usize = 3;
/// The lane of [`v1::Priority::High`].
pub(crate) const HIGH: usize = 0;
/// The lane of everything that has no priority of its own.
pub(crate) const NORMAL: usize = 1;
/// The lane of [`v1::Priority::Low`].
pub(crate) const LOW: usize = 2;

/// Where a message comes from and what may become of it. One for each message, shared by all the outboxes it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// The channel; `None` for what was pushed to a session, a user, a group or everyone.
    pub channel: Option<ChannelName>,
    /// Its place in the channel's history; 0 where none is kept.
    pub offset: u64,
    /// A hash of the envelope's id.
    pub id: u64,
    /// A hash of who said it, where no history gives it its place: what one publisher says keeps its order.
    pub publisher: u64,
    /// What happens when there is no room; unspecified is [`v1::Overflow::Disconnect`].
    pub overflow: v1::Overflow,
    /// For [`v1::Overflow::Conflate`]: a hash of what tells messages apart.
    pub key: u64,
    /// Which messages go first; unspecified is [`v1::Priority::Normal`].
    pub priority: v1::Priority,
}

impl Label {
    /// The lane it waits in. What has an offset, or may wait on disk, keeps its place among its like.
    pub(crate) fn lane(&self) -> usize {
        if self.offset != 0 || self.overflow == v1::Overflow::Spill {
            return NORMAL;
        }
        match self.priority {
            v1::Priority::High => HIGH,
            v1::Priority::Low => LOW,
            v1::Priority::Normal | v1::Priority::Unspecified => NORMAL,
        }
    }

    /// Whether it may go to make room for another.
    pub(crate) fn droppable(&self) -> bool {
        match self.overflow {
            v1::Overflow::DropOldest | v1::Overflow::DropNewest | v1::Overflow::Conflate | v1::Overflow::Sample => true,
            v1::Overflow::Disconnect | v1::Overflow::Spill | v1::Overflow::Unspecified => false,
        }
    }

    /// Whether it goes to the end of a plain queue, if there is room.
    pub(crate) fn is_plain(&self) -> bool {
        self.lane() == NORMAL && self.overflow != v1::Overflow::Sample
    }
}
