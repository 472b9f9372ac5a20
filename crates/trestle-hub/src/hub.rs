//! Joining and leaving.
//!
//! What always holds: a room exists exactly while somebody has a seat in it; its subject is listened to before its first
//! member is told so; a seat is given back by dropping it, wherever its owner was when it ended.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{task::AbortHandle, time::timeout};
use trestle_bus::{BusError, Fabric};
use trestle_codec::Encoded;
use trestle_schema::Schemas;
use trestle_telemetry::trace::Tracer;
use trestle_wire::{ChannelName, NodeId, Refusal, Subjects, UserId};

use crate::{
    Audience, Member,
    listen::Core,
    metrics::Metrics,
    room::{Pump, Room},
};

/// How long a client waits for a channel: the store's time limit of 3 s, and a second for the subscription itself.
const JOIN_TIMEOUT: Duration = Duration::from_secs(4);

/// What the hub is made of.
pub struct Parts<'a> {
    /// The node it serves.
    pub node: NodeId,
    /// The subjects it listens to.
    pub subjects: Subjects,
    /// The bus.
    pub fabric: Fabric,
    /// The types in use.
    pub schemas: Schemas,
    /// Spans for messages.
    pub tracer: Tracer,
    /// Where its metrics are registered.
    pub registry: &'a mut Registry,
}

/// The rooms of one node.
pub struct Hub {
    core: Arc<Core>,
    rooms: Mutex<HashMap<Audience, Entry>>,
    /// The room of everyone, whose seat the hub keeps so that it never closes.
    everyone: Arc<Room>,
    /// Ends the listening that lasts as long as the hub.
    _pumps: Vec<Pump>,
}

struct Entry {
    room: Arc<Room>,
    /// Seats given out; the room goes with the last.
    seats: usize,
}

impl Hub {
    /// A hub that listens for its sessions and for everyone.
    ///
    /// # Errors
    /// [`BusError`] if the bus cannot be listened to.
    pub async fn open(parts: Parts<'_>) -> Result<Arc<Self>, BusError> {
        let core = Arc::new(Core {
            node: parts.node,
            subjects: parts.subjects,
            fabric: parts.fabric,
            schemas: parts.schemas,
            tracer: parts.tracer,
            metrics: Metrics::register(parts.registry),
            sessions: Mutex::default(),
        });
        let pushes = core.fabric.bus.subscribe(&core.subjects.sessions_of(&core.node), None).await?;
        let everyone = Arc::new(Room::new(Audience::Everyone, false));
        let (all, _) = core.open(&everyone).await?;
        let pumps = vec![
            spawn(Arc::clone(&core).pump_sessions(pushes)),
            spawn(Arc::clone(&core).pump(Arc::clone(&everyone), all)),
        ];
        Ok(Arc::new(Self { core, rooms: Mutex::default(), everyone, _pumps: pumps }))
    }

    /// Takes in an admitted session: from now on pushes to it, to its user and to everyone reach it.
    ///
    /// # Errors
    /// `bus_away` if the subject of its user cannot be listened to.
    pub async fn arrive(self: &Arc<Self>, member: &Arc<Member>, user: Option<&UserId>) -> Result<Presence, Refusal> {
        let seat = match user {
            Some(user) => Some(self.seat(member, Audience::User(user.clone()), false, |_| None).await?),
            None => None,
        };
        self.core.sessions.lock().insert(member.session.clone(), Arc::clone(member));
        self.everyone.inside(|inside| inside.enter(Arc::clone(member)));
        self.core.metrics.connected_users.inc();
        Ok(Presence { hub: Arc::clone(self), member: Arc::clone(member), _user: seat })
    }

    /// Takes a seat in `channel`. Once it is in force, the frame that `welcome` makes of the channel's last offset goes
    /// into the outbox, before the first message.
    ///
    /// # Errors
    /// `bus_away` or `timeout` if the channel cannot be listened to.
    pub async fn join(
        self: &Arc<Self>,
        member: &Arc<Member>,
        channel: ChannelName,
        history: bool,
        welcome: impl FnOnce(u64) -> Option<Encoded> + Send,
    ) -> Result<Seat, Refusal> {
        let seat = self.seat(member, Audience::Channel(channel), history, welcome).await?;
        self.core.metrics.subscriptions.inc_by(i64::from(seat.taken));
        Ok(seat)
    }

    async fn seat(
        self: &Arc<Self>,
        member: &Arc<Member>,
        audience: Audience,
        history: bool,
        welcome: impl FnOnce(u64) -> Option<Encoded> + Send,
    ) -> Result<Seat, Refusal> {
        let room = self.reserve(audience, history);
        // From here on the seat gives the reservation back, also if this future is dropped while it waits.
        let mut seat =
            Seat { hub: Arc::clone(self), room: Arc::clone(&room), member: Arc::clone(member), taken: false };
        // Those who wait for a bus that hangs would try it one after the other, each for its whole patience.
        let open = timeout(JOIN_TIMEOUT, room.open.get_or_try_init(|| self.open_room(&room)));
        open.await.unwrap_or(Err(BusError::Timeout(JOIN_TIMEOUT))).map_err(Refusal::from)?;
        room.inside(|inside| {
            if let Some(frame) = welcome(inside.offset) {
                // A full outbox closes itself; the connection sees that.
                let _closed = member.outbox.push(frame);
            }
            seat.taken = inside.enter(Arc::clone(member));
        });
        Ok(seat)
    }

    async fn open_room(&self, room: &Arc<Room>) -> Result<Pump, BusError> {
        let (subscription, offset) = self.core.open(room).await?;
        room.inside(|inside| inside.offset = offset);
        Ok(spawn(Arc::clone(&self.core).pump(Arc::clone(room), subscription)))
    }

    fn reserve(&self, audience: Audience, history: bool) -> Arc<Room> {
        let mut rooms = self.rooms.lock();
        let entry = rooms.entry(audience.clone()).or_insert_with(|| {
            self.core.metrics.rooms.inc();
            Entry { room: Arc::new(Room::new(audience, history)), seats: 0 }
        });
        entry.seats += 1;
        Arc::clone(&entry.room)
    }

    fn give_back(&self, audience: &Audience) {
        let mut rooms = self.rooms.lock();
        let Some(entry) = rooms.get_mut(audience) else { return };
        entry.seats -= 1;
        if entry.seats == 0 {
            self.core.metrics.rooms.dec();
            if let Some(entry) = rooms.remove(audience) {
                // The task that listens holds the room, so it has to be ended here.
                if let Some(pump) = entry.room.open.get() {
                    pump.0.abort();
                }
            }
        }
    }

    /// Sessions on this node.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.core.sessions.lock().len()
    }

    /// Subjects that are listened to for clients.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.rooms.lock().len()
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Pump {
    let handle: AbortHandle = tokio::spawn(task).abort_handle();
    Pump(handle)
}

/// A member's place in a room; dropping it leaves the room.
#[must_use]
pub struct Seat {
    hub: Arc<Hub>,
    room: Arc<Room>,
    member: Arc<Member>,
    /// Whether the member entered the room by this seat, and not by one before.
    taken: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let sat = self.taken && self.room.inside(|inside| inside.leave(&self.member.session));
        if sat && matches!(self.room.audience, Audience::Channel(_)) {
            self.hub.core.metrics.subscriptions.dec();
        }
        self.hub.give_back(&self.room.audience);
    }
}

/// An admitted session's presence on this node; dropping it ends it.
#[must_use]
pub struct Presence {
    hub: Arc<Hub>,
    member: Arc<Member>,
    _user: Option<Seat>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.hub.core.sessions.lock().remove(&self.member.session);
        self.hub.everyone.inside(|inside| inside.leave(&self.member.session));
        self.hub.core.metrics.connected_users.dec();
    }
}
