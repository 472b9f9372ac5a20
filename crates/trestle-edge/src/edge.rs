//! The edge of one node: what all its connections share.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use axum::{Router, routing::any};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trestle_auth::{Channels, Gate, Identity};
use trestle_bus::{BusError, Fabric};
use trestle_cluster::{Nodes, Presence, Registry, Ticket};
use trestle_codec::Limits;
use trestle_hub::Hub;
use trestle_schema::Schemas;
use trestle_session::{Rules, SessionConfig, Spills};
use trestle_telemetry::trace::Tracer;
use trestle_wire::{ChannelName, NodeId, Refusal, Subjects, v1};

use crate::{
    EdgeConfig, Hello, Stream, admission::Admission, coming::Coming, connection, handled::Handled, metrics::Metrics,
    signal::Signal, stay::Stay, upgrade, websocket::WebSocket,
};

/// Session events that may wait for the bus; more are dropped and counted. 4,096 x 200 B are 800 KiB.
const EVENTS_MAX: usize = 4096;
/// How often the registry of nodes is told how many sessions there are.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);

/// What the edge is made of.
pub struct Parts<'a> {
    /// The node.
    pub node: NodeId,
    /// Its sockets.
    pub config: EdgeConfig,
    /// Its sessions.
    pub session: SessionConfig,
    /// By which sessions are put into groups.
    pub rules: Rules,
    /// Who may connect.
    pub gate: Gate,
    /// Who may do what on a channel.
    pub channels: Arc<Channels>,
    /// The types in use.
    pub schemas: Schemas,
    /// The bus.
    pub fabric: Fabric,
    /// The subjects on it.
    pub subjects: Subjects,
    /// Who listens to what.
    pub hub: Arc<Hub>,
    /// Which nodes live.
    pub nodes: Arc<Nodes>,
    /// What outlives a node of its sessions.
    pub sessions: Arc<Registry>,
    /// Who is on which channel.
    pub presence: Arc<Presence>,
    /// Where messages wait for which outboxes have no room.
    pub spills: Arc<dyn Spills>,
    /// Spans for messages.
    pub tracer: Tracer,
    /// Where the metrics are registered.
    pub registry: &'a mut prometheus_client::registry::Registry,
}

/// The edge of one node.
pub struct Edge {
    pub(crate) node: NodeId,
    pub(crate) config: EdgeConfig,
    pub(crate) session: Arc<SessionConfig>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    pub(crate) channels: Arc<Channels>,
    pub(crate) schemas: Schemas,
    pub(crate) fabric: Fabric,
    pub(crate) subjects: Subjects,
    pub(crate) hub: Arc<Hub>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) spills: Arc<dyn Spills>,
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Metrics,
    pub(crate) handled: Arc<Handled>,
    pub(crate) coming: Coming,
    /// How many clients come in at once.
    pub(crate) admission: Admission,
    /// One for each connection there may be.
    pub(crate) places: Arc<Semaphore>,
    /// The connections, and the stays without one.
    pub(crate) tasks: TaskTracker,
    /// What goes on beside them; nobody waits for it.
    pub(crate) background: TaskTracker,
    events: mpsc::Sender<v1::SessionEvent>,
    /// Cancelled when an operator has the node drained.
    pub(crate) told_to_drain: CancellationToken,
    /// Cancelled when the node takes no more clients.
    pub(crate) leaving: CancellationToken,
    /// Raised when clients are parted from.
    pub(crate) drain: Signal,
    /// Raised when it stops whatever is left.
    pub(crate) stop: Signal,
}

impl Edge {
    /// An edge without sockets yet.
    ///
    /// # Errors
    /// [`BusError`] if services' acknowledgements cannot be listened to.
    pub async fn open(parts: Parts<'_>) -> Result<Arc<Self>, BusError> {
        let handled = Handled::listen(&parts.fabric, &parts.subjects.handled(&parts.node)).await?;
        let (events, waiting) = mpsc::channel(EVENTS_MAX);
        let (rate, burst) = (parts.config.admission_rate, parts.config.admission_burst);
        let edge = Arc::new(Self {
            admission: Admission::new(rate, burst, tokio::time::Instant::now().into_std()),
            places: Arc::new(Semaphore::new(parts.config.connections_max)),
            node: parts.node,
            config: parts.config,
            session: Arc::new(parts.session),
            rules: Arc::new(parts.rules),
            limits: Limits::default(),
            gate: parts.gate,
            channels: parts.channels,
            schemas: parts.schemas,
            fabric: parts.fabric,
            subjects: parts.subjects,
            hub: parts.hub,
            nodes: parts.nodes,
            registry: parts.sessions,
            presence: parts.presence,
            spills: parts.spills,
            tracer: parts.tracer,
            metrics: Metrics::register(parts.registry),
            handled,
            coming: Coming::default(),
            tasks: TaskTracker::new(),
            background: TaskTracker::new(),
            events,
            told_to_drain: CancellationToken::new(),
            leaving: CancellationToken::new(),
            drain: Signal::default(),
            stop: Signal::default(),
        });
        edge.listen_to_neighbours().await?;
        edge.background.spawn(publish_events(Arc::downgrade(&edge), waiting));
        edge.background.spawn(Self::part_from_lost(Arc::downgrade(&edge), edge.registry.lost()));
        edge.background.spawn(say_load(Arc::downgrade(&edge)));
        Ok(edge)
    }

    /// The routes of the edge: `/ws`. To be served by [`Accept`](crate::Accept).
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/ws", any(upgrade::upgrade)).with_state(Arc::clone(self))
    }

    /// Serves a client on a stream that has become a WebSocket already, until it goes.
    pub async fn serve_stream<S: Stream>(self: &Arc<Self>, stream: S, hello: Hello) {
        // As an upgrade: a drain either refuses this one or waits for it.
        let _counted = self.tasks.token();
        if self.leaving.is_cancelled() {
            return;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let socket = WebSocket::new(stream, Bytes::new(), hello.encoding, self.config.frame_bytes_max);
        connection::run(Arc::clone(self), socket, hello, place).await;
    }

    /// Open connections, and sessions without one.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.tasks.len()
    }

    /// Ready once an operator has asked for this node to be drained.
    pub async fn told_to_drain(&self) {
        self.told_to_drain.cancelled().await;
    }

    /// Asks every client to go on elsewhere, if there is an elsewhere; then lets what is in flight end, keeps what is left
    /// of each session where the next node finds it, and closes; within `deadline`.
    ///
    /// From here on no upgrade is taken.
    pub async fn drain(self: &Arc<Self>, deadline: Duration) {
        let end = tokio::time::Instant::now() + deadline;
        self.leaving.cancel();
        self.nodes.set_draining();
        self.ask_all_to_leave(deadline / 2).await;
        // From here on connections read no further frames.
        self.drain.raise();
        self.tasks.close();
        if tokio::time::timeout_at(end, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), ?deadline, "connections left at the deadline are cut");
            self.stop.raise();
            // Each has its close frame to write, and gives the client time to take it.
            let _all = tokio::time::timeout(self.config.close_timeout, self.tasks.wait()).await;
        }
        // While the bus is away nothing can be written: that is known from its own log.
        let _written = tokio::time::timeout(self.config.close_timeout, self.registry.flush()).await;
    }

    /// Why `identity` may not listen to `channel`, which the refusal names; `None` if it may.
    pub(crate) fn forbids(&self, identity: &Identity, channel: &ChannelName) -> Option<Refusal> {
        let refusal = self.channels.may_subscribe(identity, channel).err()?;
        Some(refusal.field(channel.as_str()))
    }

    /// Whether `channel` keeps a history.
    pub(crate) fn keeps(&self, channel: &ChannelName) -> bool {
        self.channels.of(channel).is_ok_and(|namespace| namespace.history.is_some())
    }

    /// Whether it is said who is on `channel`.
    pub(crate) fn has_presence(&self, channel: &ChannelName) -> bool {
        self.channels.of(channel).is_ok_and(|namespace| namespace.presence)
    }

    /// The token that resumes `stay` next.
    pub(crate) fn token(&self, stay: &Stay, identity: &Identity, epoch: u64) -> String {
        let issued = SystemTime::now();
        let longest = issued + self.config.resume_token_ttl;
        self.registry.issue(&Ticket {
            session: stay.member.session.clone(),
            epoch,
            begun: stay.begun,
            issued,
            expires: identity.expires.map_or(longest, |expires| expires.min(longest)),
            identity_expires: identity.expires,
            user: identity.user.clone(),
            scopes: identity.scopes.clone(),
            groups: identity.groups.clone(),
            tags: identity.tags.clone(),
        })
    }

    /// Tells whoever wants to know what happens to a session.
    pub(crate) fn tell(&self, stay: &Stay, change: v1::SessionChange) {
        self.say(self.event(stay, change));
    }

    /// What is told of a session to which this happens now.
    pub(crate) fn event(&self, stay: &Stay, change: v1::SessionChange) -> v1::SessionEvent {
        v1::SessionEvent {
            change: change.into(),
            session_id: stay.member.session.to_string(),
            user: stay.session.identity().user.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: self.node.to_string(),
            time: Some(SystemTime::now().into()),
        }
    }

    /// Tells it.
    pub(crate) fn say(&self, event: v1::SessionEvent) {
        if self.events.try_send(event).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

/// Publishes session events in their order, until the edge is gone.
async fn publish_events(edge: Weak<Edge>, mut waiting: mpsc::Receiver<v1::SessionEvent>) {
    while let Some(event) = waiting.recv().await {
        let Some(edge) = edge.upgrade() else { return };
        let sent = edge.fabric.bus.publish(&edge.subjects.session_events(), event.encode_to_vec().into()).await;
        if sent.is_err() {
            edge.metrics.events_dropped.inc();
        }
    }
}

/// Says how many sessions there are, until the edge is gone.
async fn say_load(edge: Weak<Edge>) {
    let mut interval = tokio::time::interval(LOAD_INTERVAL);
    loop {
        interval.tick().await;
        let Some(edge) = edge.upgrade() else { return };
        let pending = u32::try_from(edge.metrics.pending.get()).unwrap_or(0);
        let sessions = u32::try_from(edge.hub.sessions()).unwrap_or(u32::MAX);
        edge.nodes.set_load(sessions.saturating_sub(pending), pending);
    }
}
