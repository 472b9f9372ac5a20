//! The members that listen to one thing, and how far they have heard.
//!
//! What always holds: a member is in a room at most once, and joins and leaves without a search; every member of a
//! channel has heard exactly what came since the offset it was told when it joined.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OnceCell},
    task::AbortHandle,
};
use trestle_wire::{ChannelName, SessionId, Subject, v1::Overflow};

use crate::{Audience, Member, Members, recall::Recall, slices::Run};

/// The listeners of one audience on this node.
pub(crate) struct Room {
    pub(crate) audience: Audience,
    /// What becomes of messages that find no room, if their type does not say.
    pub(crate) overflow: Overflow,
    /// Where the channel's history is; `None` without one, as for other audiences.
    pub(crate) past: Option<Box<Past>>,
    /// Set once the room's subject is listened to.
    pub(crate) open: OnceCell<Pump>,
    inside: Mutex<Inside>,
}

/// The members, and what they have heard.
#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) members: Members,
    places: HashMap<SessionId, usize>,
    /// What is on its way to the members, if that takes more than one slice.
    pub(crate) run: Option<Box<Run>>,
    /// Offset of the last message; 0 without history.
    pub(crate) offset: u64,
    /// How often the log has lost what was heard.
    pub(crate) begun: u32,
    /// Whether nothing was heard since it did.
    pub(crate) fresh: bool,
    /// What those who come back are given, while some do.
    pub(crate) recall: Recall,
}

/// A channel's history.
pub(crate) struct Past {
    pub(crate) channel: ChannelName,
    /// Name of the log it is in.
    pub(crate) log: String,
    /// Its subject there.
    pub(crate) subject: Subject,
    /// Messages that are kept.
    pub(crate) size: u64,
    /// For how long.
    pub(crate) ttl: Duration,
    /// Held by the one who reads the log for all that wait to join.
    pub(crate) reading: tokio::sync::Mutex<()>,
    /// Whether the room's recall holds anything.
    pub(crate) recalling: AtomicBool,
    /// Wakes the room's pump.
    pub(crate) nudge: Notify,
    /// Whether the pump is to read on in the log, as somebody knows of more than it has heard.
    wanting: AtomicBool,
    /// Told when it has done so.
    pub(crate) filled: Notify,
}

/// Ends a room's listening when dropped.
pub(crate) struct Pump(pub(crate) AbortHandle);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Room {
    pub(crate) fn new(audience: Audience, overflow: Overflow, past: Option<Past>) -> Self {
        let past = past.map(Box::new);
        Self { audience, overflow, past, open: OnceCell::new(), inside: Mutex::default() }
    }

    /// A room of no channel: what is pushed there closes the outbox that has no room, if its type does not say otherwise.
    pub(crate) fn plain(audience: Audience) -> Self {
        Self::new(audience, Overflow::Disconnect, None)
    }

    /// The channel, if it is one's.
    pub(crate) fn channel(&self) -> Option<&ChannelName> {
        match &self.audience {
            Audience::Channel(channel) => Some(channel),
            Audience::User(_) | Audience::Group(_) | Audience::Everyone | Audience::Watchers(_) => None,
        }
    }

    /// Holds the room still while `look` looks at it.
    pub(crate) fn inside<T>(&self, look: impl FnOnce(&mut Inside) -> T) -> T {
        look(&mut self.inside.lock())
    }
}

impl Past {
    pub(crate) fn new(channel: ChannelName, log: String, subject: Subject, size: u64, ttl: Duration) -> Self {
        Self {
            channel,
            log,
            subject,
            size,
            ttl,
            reading: tokio::sync::Mutex::default(),
            recalling: AtomicBool::new(false),
            nudge: Notify::new(),
            wanting: AtomicBool::new(false),
            filled: Notify::new(),
        }
    }

    /// Asks the pump to read on; `filled` tells when it has.
    pub(crate) fn want_more(&self) {
        self.wanting.store(true, Ordering::Release);
        self.nudge.notify_one();
    }

    /// Whether that was asked since the last call.
    pub(crate) fn wanted_more(&self) -> bool {
        self.wanting.swap(false, Ordering::AcqRel)
    }
}

impl Inside {
    /// Whether it was not in the room before. One of the same session gives its place to it.
    pub(crate) fn enter(&mut self, member: &Arc<Member>) -> bool {
        let Some(place) = self.catch_up(&member.session) else {
            self.places.insert(member.session.clone(), self.members.len());
            self.members.push(Arc::clone(member));
            return true;
        };
        let there = &mut self.members[place];
        let other = !Arc::ptr_eq(there, member);
        // One that was given away while it was on its way: its client has come as the other.
        if other && member.outbox.is_closed() {
            return false;
        }
        *there = Arc::clone(member);
        other
    }

    /// The place of `session`, if it is here: what is on its way to all has gone into its outbox then.
    pub(crate) fn catch_up(&mut self, session: &SessionId) -> Option<usize> {
        let place = self.places.get(session).copied()?;
        Some(self.reach(place))
    }

    /// Lets the members in two places change them.
    pub(crate) fn swap(&mut self, one: usize, other: usize) {
        if one == other {
            return;
        }
        self.members.swap(one, other);
        for place in [one, other] {
            self.places.insert(self.members[place].session.clone(), place);
        }
    }

    /// Whether it was in the room.
    pub(crate) fn leave(&mut self, member: &Arc<Member>) -> bool {
        let Some(place) = self.catch_up(&member.session) else { return false };
        if !Arc::ptr_eq(&self.members[place], member) {
            return false;
        }
        let place = self.move_out(place);
        self.places.remove(&member.session);
        self.members.swap_remove(place);
        if let Some(moved) = self.members.get(place) {
            self.places.insert(moved.session.clone(), place);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use trestle_codec::Encoding;
    use trestle_session::{Outbox, OutboxLimits};
    use trestle_wire::NodeId;

    use super::*;

    fn member(number: u128) -> Arc<Member> {
        let session = SessionId::new(&NodeId::parse("n").unwrap(), number);
        let outbox = Outbox::new(OutboxLimits { bytes_max: 1, frames_max: 1 });
        Arc::new(Member::new(session, Encoding::Json, outbox))
    }

    #[test]
    fn members_come_and_go_in_any_order() {
        let (mut inside, all): (Inside, Vec<_>) = (Inside::default(), (0..5).map(member).collect());
        assert!(all.iter().all(|one| inside.enter(one)));
        assert!(!inside.enter(&all[3]), "once is enough");
        for gone in [0, 4, 2] {
            assert!(inside.leave(&all[gone]));
            assert!(!inside.leave(&all[gone]));
        }
        let mut left: Vec<_> = inside.members.iter().map(|one| one.session.clone()).collect();
        left.sort();
        assert_eq!(left, [all[1].session.clone(), all[3].session.clone()]);
    }

    #[test]
    fn a_session_that_comes_as_another_member_takes_its_place() {
        let (mut inside, old, new) = (Inside::default(), member(1), member(1));
        assert!(inside.enter(&old) && inside.enter(&new));
        assert!(!inside.leave(&old), "it has lost its place already");
        assert!(inside.members.iter().all(|there| Arc::ptr_eq(there, &new)));
        old.outbox.close();
        assert!(!inside.enter(&old) && !inside.leave(&old), "it was on its way when it was given up");
        assert!(inside.leave(&new) && inside.members.is_empty());
    }
}
