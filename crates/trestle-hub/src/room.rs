//! The members that listen to one thing, and how far they have heard.
//!
//! What always holds: a member is in a room at most once, and joins and leaves without a search; every member of a
//! channel has heard exactly what came since the offset it was told when it joined.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{sync::OnceCell, task::AbortHandle};
use trestle_wire::SessionId;

use crate::{Audience, Member, Members};

/// The listeners of one audience on this node.
pub(crate) struct Room {
    pub(crate) audience: Audience,
    /// Whether the channel keeps a history; never for other audiences.
    pub(crate) history: bool,
    /// Set once the room's subject is listened to.
    pub(crate) open: OnceCell<Pump>,
    inside: Mutex<Inside>,
}

/// The members, and what they have heard.
#[derive(Default)]
pub(crate) struct Inside {
    members: Members,
    places: HashMap<SessionId, usize>,
    /// Offset of the last message; 0 without history.
    pub(crate) offset: u64,
}

/// Ends a room's listening when dropped.
pub(crate) struct Pump(pub(crate) AbortHandle);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Room {
    pub(crate) fn new(audience: Audience, history: bool) -> Self {
        Self { audience, history, open: OnceCell::new(), inside: Mutex::default() }
    }

    /// Holds the room still while `look` looks at it.
    pub(crate) fn inside<T>(&self, look: impl FnOnce(&mut Inside) -> T) -> T {
        look(&mut self.inside.lock())
    }
}

impl Inside {
    pub(crate) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Whether it was not in the room before.
    pub(crate) fn enter(&mut self, member: Arc<Member>) -> bool {
        let Entry::Vacant(place) = self.places.entry(member.session.clone()) else { return false };
        place.insert(self.members.len());
        self.members.push(member);
        true
    }

    pub(crate) fn leave(&mut self, session: &SessionId) -> bool {
        let Some(place) = self.places.remove(session) else { return false };
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
        Arc::new(Member { session, encoding: Encoding::Json, outbox })
    }

    #[test]
    fn members_come_and_go_in_any_order() {
        let (mut inside, all): (Inside, Vec<_>) = (Inside::default(), (0..5).map(member).collect());
        assert!(all.iter().all(|one| inside.enter(Arc::clone(one))));
        assert!(!inside.enter(Arc::clone(&all[3])), "once is enough");
        for gone in [0, 4, 2] {
            assert!(inside.leave(&all[gone].session));
            assert!(!inside.leave(&all[gone].session));
        }
        let mut left: Vec<_> = inside.members().iter().map(|one| one.session.clone()).collect();
        left.sort();
        assert_eq!(left, [all[1].session.clone(), all[3].session.clone()]);
    }
}
