//! Arriving, joining and leaving.
//!
//! What always holds: a room exists exactly while somebody has a seat in it; its subject is listened to before its first
//! member is told so; a seat is given back by dropping it, wherever its owner was when it ended.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{sync::Semaphore, time::timeout};
use trestle_auth::Channels;
use trestle_bus::{BusError, Fabric, Heard, Subscription};
use trestle_schema::Schemas;
use trestle_telemetry::trace::Tracer;
use trestle_wire::{ChannelName, GroupName, NodeId, Refusal, SessionId, Subjects, UserId, v1::server_frame::Frame};

use crate::{
    Audience, Member, Presence, Seat,
    control::CONTROLS_MAX,
    listen::{Core, Scope},
    metrics::Metrics,
    room::{Pump, Room},
    seat::Reserved,
};

/// How long a client waits for a room: the store's time limit of 3 s, and a second for the subscription itself.
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
    /// What holds for channels: history, and what becomes of what finds no room.
    pub channels: Arc<Channels>,
    /// Bytes that may wait for one client: half of them is the most that a page of history has.
    pub outbox_bytes_max: usize,
    /// Spans for messages.
    pub tracer: Tracer,
    /// Where its metrics are registered.
    pub registry: &'a mut Registry,
}

/// The rooms of one node.
pub struct Hub {
    pub(crate) core: Arc<Core>,
    /// Ends the listening that lasts as long as the hub.
    _pumps: Vec<Pump>,
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
            channels: parts.channels,
            page_bytes_max: parts.outbox_bytes_max / 2,
            tracer: parts.tracer,
            metrics: Metrics::register(parts.registry),
            sessions: Mutex::default(),
            rooms: Mutex::default(),
            everyone: Arc::new(Room::plain(Audience::Everyone)),
            turn: tokio::sync::Mutex::default(),
            budget: Arc::default(),
            selectors: Mutex::default(),
            controls: Arc::new(Semaphore::new(CONTROLS_MAX)),
        });
        let (bus, subjects) = (&core.fabric.bus, &core.subjects);
        let sessions = bus.subscribe(&subjects.sessions_of(&core.node), None).await?;
        let select = bus.subscribe(&subjects.select(), None).await?;
        let control = bus.subscribe(&subjects.control(), None).await?;
        let (all, _) = core.open(&core.everyone).await?;
        let pumps = vec![
            spawn(Arc::clone(&core).pump_sessions(sessions)),
            spawn(Arc::clone(&core).pump_selected(select)),
            spawn(Arc::clone(&core).pump_control(control)),
            spawn(Arc::clone(&core).pump(Arc::clone(&core.everyone), all)),
        ];
        Ok(Arc::new(Self { core, _pumps: pumps }))
    }

    /// Takes in an admitted session: from now on pushes to it, to its user, to everyone and by its tags reach it, and
    /// what is to be done with it. A session that another node began is listened for on subjects of its own.
    ///
    /// # Errors
    /// `bus_away` if a subject cannot be listened to.
    pub async fn arrive(self: &Arc<Self>, member: &Arc<Member>, user: Option<&UserId>) -> Result<Presence, Refusal> {
        let user = match user {
            Some(user) => Some(self.sit(member, Audience::User(user.clone())).await?),
            None => None,
        };
        let moved = match member.session.node() == self.core.node {
            true => None,
            false => Some(self.listen_for_moved(&member.session).await?),
        };
        Ok(Presence::new(&self.core, member, user, moved))
    }

    async fn listen_for_moved(&self, session: &SessionId) -> Result<Pump, Refusal> {
        let (bus, subjects) = (&self.core.fabric.bus, &self.core.subjects);
        let listening = timeout(JOIN_TIMEOUT, async {
            let pushes = bus.subscribe(&subjects.session(session), None).await?;
            Ok((pushes, bus.subscribe(&subjects.session_control(session), None).await?))
        });
        let (pushes, control) = listening.await.unwrap_or(Err(BusError::Timeout(JOIN_TIMEOUT)))?;
        Ok(spawn(Arc::clone(&self.core).pump_moved(session.clone(), pushes, control)))
    }

    /// Takes a seat among the sessions of `group`.
    ///
    /// # Errors
    /// `bus_away` or `timeout` if the group's subject cannot be listened to.
    pub async fn join_group(self: &Arc<Self>, member: &Arc<Member>, group: GroupName) -> Result<Seat, Refusal> {
        self.sit(member, Audience::Group(group)).await
    }

    /// Takes a seat among those whom [`Hub::tell_watchers`] tells of `channel`.
    pub fn watch(self: &Arc<Self>, member: &Arc<Member>, channel: &ChannelName) -> Seat {
        let reserved = self.core.reserve(Audience::Watchers(channel.clone()), Room::plain);
        reserved.seat(member, |_| ()).0
    }

    /// Tells those who watch `channel`, without asking the bus, and all of them in one go.
    pub fn tell_watchers(&self, channel: &ChannelName, frame: Frame) {
        let Some(room) = self.core.room(&Audience::Watchers(channel.clone())) else { return };
        let mut run = self.core.word(frame);
        room.inside(|inside| inside.members.iter().for_each(|member| run.reach(member)));
        run.end(&self.core.metrics).for_each(drop);
    }

    async fn sit(&self, member: &Arc<Member>, audience: Audience) -> Result<Seat, Refusal> {
        let reserved = self.reserve(audience, Room::plain).await?;
        Ok(reserved.seat(member, |_| ()).0)
    }

    /// A place in a room whose subject is listened to.
    pub(crate) async fn reserve(
        &self,
        audience: Audience,
        room: impl FnOnce(Audience) -> Room,
    ) -> Result<Reserved, Refusal> {
        // From here on the reservation is given back by its drop, also if this future is dropped while it waits.
        let reserved = self.core.reserve(audience, room);
        // Those who wait for a bus that hangs would try it one after the other, each for its whole patience.
        let open = timeout(JOIN_TIMEOUT, reserved.room.open.get_or_try_init(|| self.open_room(&reserved.room)));
        open.await.unwrap_or(Err(BusError::Timeout(JOIN_TIMEOUT)))?;
        Ok(reserved)
    }

    async fn open_room(&self, room: &Arc<Room>) -> Result<Pump, BusError> {
        let (subscription, offset) = self.core.open(room).await?;
        room.inside(|inside| inside.offset = offset);
        Ok(spawn(Arc::clone(&self.core).pump(Arc::clone(room), subscription)))
    }

    /// The session `id`, if it is on this node.
    #[must_use]
    pub fn member(&self, id: &SessionId) -> Option<Arc<Member>> {
        self.core.sessions.lock().get(id).cloned()
    }

    /// All sessions on this node.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.core.sessions.lock().values().cloned().collect()
    }

    /// Sessions on this node.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.core.sessions.lock().len()
    }

    /// Subjects that are listened to for clients.
    #[must_use]
    pub fn rooms(&self) -> usize {
        self.core.rooms.lock().keys().filter(|audience| !matches!(audience, Audience::Watchers(_))).count()
    }
}

impl Core {
    /// Listens for `room`, and says from which offset on.
    async fn open(&self, room: &Room) -> Result<(Subscription, u64), BusError> {
        let subject = match &room.audience {
            Audience::Channel(channel) => self.subjects.channel(channel),
            Audience::User(user) => self.subjects.user(user),
            Audience::Group(group) => self.subjects.group(group),
            Audience::Everyone => self.subjects.all(),
            Audience::Watchers(_) => return Err(BusError::Refused("watchers are told by their own node".into())),
        };
        let subscription = self.fabric.bus.subscribe(&subject, None).await?;
        // After the subscription is in force, so that nothing falls between.
        let offset = match &room.past {
            Some(past) => self.last(past).await?,
            None => 0,
        };
        Ok((subscription, offset))
    }

    /// Carries pushes to a session that another node began, and what is to be done with it: in boxes, as there is a task
    /// for each such session.
    async fn pump_moved(self: Arc<Self>, session: SessionId, mut pushes: Subscription, mut control: Subscription) {
        loop {
            tokio::select! {
                biased; // what comes seldom, first
                Some(heard) = control.next() => match heard {
                    Heard::Message(message) => Box::pin(self.control(message)).await,
                    Heard::Lost(count) => tracing::warn!(count, %session, "the bus lost what was to be done"),
                },
                Some(heard) = pushes.next() => match heard {
                    Heard::Message(message) => Box::pin(self.push_to(&session, message)).await,
                    Heard::Lost(count) => Box::pin(self.lost_pushes("a session", Scope::One(&session), count)).await,
                },
                else => return,
            }
        }
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Pump {
    Pump(tokio::spawn(task).abort_handle())
}
