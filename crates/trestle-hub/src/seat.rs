//! Places in rooms: reserved, taken, left.
//!
//! What always holds: the last place that is given back closes the room.

use std::{
    collections::hash_map::Entry as Slot,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    Audience, Member,
    listen::Core,
    room::{Inside, Pump, Room},
};

/// A room, and the places in it that were given out; it goes with the last.
pub(crate) struct Entry {
    room: Arc<Room>,
    places: usize,
}

impl Core {
    /// A place in the room of `audience`, which is made if there is none.
    pub(crate) fn reserve(self: &Arc<Self>, audience: Audience, make: impl FnOnce(Audience) -> Room) -> Reserved {
        let mut rooms = self.rooms.lock();
        let entry = match rooms.entry(audience) {
            Slot::Occupied(there) => there.into_mut(),
            Slot::Vacant(free) => {
                let room = Arc::new(make(free.key().clone()));
                if !matches!(room.audience, Audience::Watchers(_)) {
                    self.metrics.rooms.inc();
                }
                free.insert(Entry { room, places: 0 })
            }
        };
        entry.places += 1;
        Reserved { core: Arc::clone(self), room: Arc::clone(&entry.room) }
    }

    /// The room of `audience`, if there is one.
    pub(crate) fn room(&self, audience: &Audience) -> Option<Arc<Room>> {
        self.rooms.lock().get(audience).map(|entry| Arc::clone(&entry.room))
    }

    fn give_back(&self, audience: &Audience) {
        let mut rooms = self.rooms.lock();
        let Some(entry) = rooms.get_mut(audience) else { return };
        entry.places -= 1;
        if entry.places == 0 {
            if !matches!(audience, Audience::Watchers(_)) {
                self.metrics.rooms.dec();
            }
            if let Some(entry) = rooms.remove(audience) {
                // The task that listens holds the room, so it has to be ended here.
                if let Some(pump) = entry.room.open.get() {
                    pump.0.abort();
                }
            }
        }
    }
}

/// A place in a room, not taken yet; dropping it gives it back.
pub(crate) struct Reserved {
    core: Arc<Core>,
    pub(crate) room: Arc<Room>,
}

impl Reserved {
    /// Takes the place, with the room held still while `enter` does what comes before.
    pub(crate) fn seat<T>(self, member: &Arc<Member>, enter: impl FnOnce(&mut Inside) -> T) -> (Seat, T) {
        let room = Arc::clone(&self.room);
        let (taken, result) = room.inside(|inside| {
            // One that sits here already is to hear nothing older after that.
            inside.catch_up(&member.session);
            let result = enter(inside);
            (inside.enter(member), result)
        });
        (self.taken(member, taken), result)
    }

    /// The seat of a member that has entered, or has been in there before.
    pub(crate) fn taken(self, member: &Arc<Member>, taken: bool) -> Seat {
        if taken && self.room.channel().is_some() {
            self.core.metrics.subscriptions.inc();
        }
        Seat { place: self, member: Arc::clone(member), taken }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.core.give_back(&self.room.audience);
    }
}

/// A member's place in a room; dropping it leaves the room.
#[must_use]
pub struct Seat {
    place: Reserved,
    member: Arc<Member>,
    /// Whether the member entered the room by this seat, and not by one before.
    taken: bool,
}

impl Seat {
    /// How far the member has heard; 0 where there is no history.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.place.room.inside(|inside| {
            inside.catch_up(&self.member.session);
            inside.offset
        })
    }

    /// Leaves the room, and says how far the member has heard there: everything up to this offset has gone into its
    /// outbox, and nothing after it. 0 where there is no history.
    pub fn leave(mut self) -> u64 {
        self.stand_up()
    }

    fn stand_up(&mut self) -> u64 {
        let taken = std::mem::take(&mut self.taken);
        let offset = self.place.room.inside(|inside| {
            if taken {
                inside.leave(&self.member);
            }
            inside.offset
        });
        if taken && self.place.room.channel().is_some() {
            self.place.core.metrics.subscriptions.dec();
        }
        offset
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stand_up();
    }
}

/// An admitted session's presence on this node; dropping it ends it.
#[must_use]
pub struct Presence {
    core: Arc<Core>,
    member: Arc<Member>,
    _user: Option<Seat>,
    /// Listens for a session that another node began.
    _moved: Option<Pump>,
}

impl Presence {
    /// Lets the session be found.
    pub(crate) fn new(core: &Arc<Core>, member: &Arc<Member>, user: Option<Seat>, moved: Option<Pump>) -> Self {
        core.sessions.lock().insert(member.session.clone(), Arc::clone(member));
        core.everyone.inside(|inside| inside.enter(member));
        if !member.away.load(Ordering::Relaxed) {
            core.metrics.connected_users.inc();
        }
        Self { core: Arc::clone(core), member: Arc::clone(member), _user: user, _moved: moved }
    }
}

impl Presence {
    /// Whether its client has no connection: pushes that wait for it are counted as queued, not as delivered.
    pub fn set_away(&self, away: bool) {
        if self.member.away.swap(away, Ordering::Relaxed) != away {
            let connected = &self.core.metrics.connected_users;
            _ = if away { connected.dec() } else { connected.inc() };
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // One that came back as another member is not taken away.
        let mut sessions = self.core.sessions.lock();
        if sessions.get(&self.member.session).is_some_and(|there| Arc::ptr_eq(there, &self.member)) {
            sessions.remove(&self.member.session);
        }
        drop(sessions);
        self.core.everyone.inside(|inside| inside.leave(&self.member));
        if !self.member.away.load(Ordering::Relaxed) {
            self.core.metrics.connected_users.dec();
        }
    }
}
