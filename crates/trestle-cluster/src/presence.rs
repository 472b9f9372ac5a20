//! Who is on which channel, over all nodes.
//!
//! Every node with somebody on a channel keeps a replica of everybody there. Comings and goings are told on the channel's
//! presence subject, counted for each node, so that whoever missed something asks. A node that dies takes its members with it
//! when [`Nodes`] knows, at most `cluster.node_timeout` and 2 s later.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use trestle_bus::{BusError, BusState, Fabric};
use trestle_wire::{ChannelName, NodeId, SessionId, Subjects, UserId, v1};

use crate::{
    config::{ClusterConfig, MEMBER_BYTES_MAX},
    metrics::PresenceMetrics,
    nodes::Nodes,
    roll::{self, Lives},
    room::{Room, Tending},
    stamp::Stamp,
    table,
};

/// Who hears of events: called with each channel that somebody on this node is on, one call at a time for a channel. It
/// must not wait.
pub type EventSink = Arc<dyn Fn(ChannelName, v1::PresenceEvent) + Send + Sync>;

/// How long an answer of another node is waited for after the one before, and of this process's own.
const QUIET: Duration = Duration::from_millis(300);
const QUIET_EMBEDDED: Duration = Duration::from_millis(50);

/// What a message holds beside its members.
const HEAD_BYTES: usize = 256;

/// What [`Presence`] is made of.
pub struct PresenceParts<'a> {
    /// The nodes of the bus.
    pub nodes: &'a Nodes,
    /// The subjects of the bus.
    pub subjects: Subjects,
    /// The bus.
    pub fabric: Fabric,
    /// What is told how often, and how long a node is waited for.
    pub config: ClusterConfig,
    /// Who hears of events.
    pub sink: EventSink,
    /// Where its metrics are registered.
    pub registry: &'a mut Registry,
}

/// Who is on which channel.
pub struct Presence {
    inner: Arc<Inner>,
    /// A task for each channel, ended with this.
    tasks: Mutex<JoinSet<()>>,
}

/// What the channels of one node share.
pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) subjects: Subjects,
    pub(crate) fabric: Fabric,
    pub(crate) config: ClusterConfig,
    pub(crate) sink: EventSink,
    pub(crate) lives: watch::Receiver<Arc<Lives>>,
    pub(crate) metrics: PresenceMetrics,
    rooms: Mutex<HashMap<ChannelName, Arc<Room>>>,
    stamp: Stamp,
}

/// A session's seat on a channel; dropping it gives it back. The session is shown for `cluster.presence_linger` more,
/// unless it takes a seat anew.
pub struct Seat {
    inner: Arc<Inner>,
    room: Arc<Room>,
    session: SessionId,
    entered: bool,
}

impl Presence {
    /// Presence on this node, with nobody there.
    #[must_use]
    pub fn open(parts: PresenceParts<'_>) -> Arc<Self> {
        let inner = Inner {
            node: parts.nodes.node().clone(),
            subjects: parts.subjects,
            fabric: parts.fabric,
            config: parts.config,
            sink: parts.sink,
            lives: parts.nodes.lives_watch(),
            metrics: PresenceMetrics::register(parts.registry),
            rooms: Mutex::default(),
            stamp: Stamp::after(roll::started(&parts.nodes.info())),
        };
        Arc::new(Self { inner: Arc::new(inner), tasks: Mutex::default() })
    }

    /// `session` comes to `channel`, where it stays until the seat is dropped.
    ///
    /// # Errors
    /// [`BusError`] if this node cannot listen to who is there.
    pub async fn enter(
        &self,
        channel: ChannelName,
        session: SessionId,
        user: Option<&UserId>,
    ) -> Result<Seat, BusError> {
        let room = self.inner.reserve(channel);
        // From here on the seat gives the place back, also if this future is dropped while it waits.
        let mut seat = Seat { inner: Arc::clone(&self.inner), room: Arc::clone(&room), session, entered: false };
        room.opened.get_or_try_init(|| self.open_room(&room)).await?;
        room.enter(&seat.session, user);
        seat.entered = true;
        Ok(seat)
    }

    async fn open_room(&self, room: &Arc<Room>) -> Result<(), BusError> {
        let tending = Tending::begin(Arc::clone(&self.inner), Arc::clone(room)).await?;
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(tending.run());
        Ok(())
    }

    /// Who is on `channel`, over all nodes that live. By this node's replica if it has one and knows that nothing is missing;
    /// else the nodes are asked.
    ///
    /// # Errors
    /// [`BusError`] if they cannot be asked.
    pub async fn state(&self, channel: &ChannelName) -> Result<v1::PresenceState, BusError> {
        let most = self.inner.config.presence_members_max;
        let room = self.inner.rooms.lock().get(channel).cloned();
        if let Some(room) = room.filter(|_| self.inner.is_connected())
            && let Some(state) = room.state_in_sync(most, Instant::now())
        {
            return Ok(state);
        }
        ask_presence(&self.inner.fabric, &self.inner.subjects, channel, most).await
    }
}

/// Who is on `channel`, by asking all nodes; without names where there are more than `members_max`. For those who keep no
/// replica.
///
/// # Errors
/// [`BusError`] if they cannot be asked.
pub async fn ask_presence(
    fabric: &Fabric,
    subjects: &Subjects,
    channel: &ChannelName,
    members_max: usize,
) -> Result<v1::PresenceState, BusError> {
    let quiet = if fabric.bus.nodes_max() == Some(1) { QUIET_EMBEDDED } else { QUIET };
    let ask = v1::PresenceAsk::default().encode_to_vec().into();
    // A node with a crowd answers in several messages, so they are not counted.
    let answers = fabric.bus.gather(&subjects.presence_ask(channel), ask, usize::MAX, quiet).await?;
    let answers: Vec<_> = answers.into_iter().filter_map(|answer| v1::PresenceChange::decode(answer).ok()).collect();
    Ok(table::merged(channel, &answers, members_max))
}

impl Inner {
    /// The room of `channel`, with one more holder.
    fn reserve(&self, channel: ChannelName) -> Arc<Room> {
        let mut rooms = self.rooms.lock();
        let room = rooms.entry(channel).or_insert_with_key(|channel| {
            self.metrics.channels.inc();
            let alone = self.fabric.bus.nodes_max() == Some(1);
            Arc::new(Room::new(channel.clone(), self.node.clone(), self.stamp.next(), alone, Instant::now()))
        });
        room.hold();
        Arc::clone(room)
    }

    /// Lets go of `room` if nobody holds it. True: it is gone.
    pub(crate) fn close(&self, room: &Room) -> bool {
        let mut rooms = self.rooms.lock();
        let idle = room.is_idle();
        if idle && rooms.get(&room.channel).is_some_and(|there| std::ptr::eq(&**there, room)) {
            rooms.remove(&room.channel);
            self.metrics.channels.dec();
        }
        idle
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(*self.fabric.bus.state().borrow(), BusState::Connected(_))
    }

    /// Most members of a message that the bus takes.
    pub(crate) fn members_max(&self) -> usize {
        (self.fabric.bus.payload_bytes_max().saturating_sub(HEAD_BYTES) / MEMBER_BYTES_MAX).max(1)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let gone_at = Instant::now() + self.inner.config.presence_linger;
        self.room.release(self.entered.then_some(&self.session), gone_at);
        // A room that was never opened has no task to let go of it.
        if !self.room.opened.initialized() {
            self.inner.close(&self.room);
        }
    }
}
