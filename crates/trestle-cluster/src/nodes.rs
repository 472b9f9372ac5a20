//! Heartbeats of this node, and those of the others.
//!
//! A name belongs to one process. One that starts while another of its name answers on the bus is told so and does not
//! start. Where nobody answers, the key is what a crash left behind and is taken over at once. A node that finds its key
//! taken over (it was cut off while another started) says so in the log and in [`Nodes::displaced`], and is silent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::{
    sync::{Notify, broadcast, mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use trestle_bus::{BusError, BusState, Fabric, Heard, KvEvent, Subscription};
use trestle_wire::{NodeId, Subject, Subjects, v1};

use crate::{
    config::ClusterConfig,
    metrics::NodeMetrics,
    roll::{Lives, NodeChange, Patience, Roll},
};

/// Where the heartbeats are in the Kv.
const PREFIX: &str = "node.";
/// How much later than the timeout a node that is gone may still be shown: a look each second, and a second for the Kv.
const SLACK: Duration = Duration::from_secs(2);
/// How often silent nodes are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a process of the same name has to answer. One that was killed has no subscription, which is known at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a start is tried while another of the same name comes and goes.
const STARTS_MAX: usize = 5;
/// Changes that wait for one reader; 256 x 40 B, and whoever is slower reads [`Nodes::alive`].
const CHANGES_MAX: usize = 256;
/// Before a watch that failed or ended is made again.
const PAUSE: Duration = Duration::from_millis(500);

/// What [`Nodes`] is made of.
pub struct NodesParts<'a> {
    /// This node.
    pub node: NodeId,
    /// Its roles: `edge`, `bridge`, `connector`.
    pub roles: Vec<String>,
    /// The version of this program.
    pub version: String,
    /// Where clients connect to this node; empty if it was not told.
    pub endpoint: String,
    /// The subjects of the bus.
    pub subjects: Subjects,
    /// The bus.
    pub fabric: Fabric,
    /// How often is said what, and what is believed for how long.
    pub config: ClusterConfig,
    /// Where its metrics are registered.
    pub registry: &'a mut Registry,
}

/// Why a node cannot take its place among the others.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// Another process has its name.
    #[error(
        "node: the name {node} belongs to a process that lives (at {endpoint:?}); stop that one, give this one another \
         name, or leave `node` unset to have one made up"
    )]
    Taken {
        /// The name.
        node: NodeId,
        /// Where clients connect to the other one; empty if it does not say.
        endpoint: String,
    },
    /// The bus cannot be used.
    #[error("cannot announce this node on the bus")]
    Bus(#[from] BusError),
}

/// The nodes of one bus. Dropping it ends the heartbeats, and the node is gone for the others after the timeout;
/// [`Nodes::leave`] says so at once.
pub struct Nodes {
    inner: Arc<Inner>,
    /// Ended with this.
    _tasks: JoinSet<()>,
}

struct Inner {
    me: v1::NodeInfo,
    node: NodeId,
    key: String,
    fabric: Fabric,
    timeout: Duration,
    active: AtomicU32,
    pending: AtomicU32,
    draining: AtomicBool,
    beat: tokio::sync::Mutex<Beat>,
    /// Wakes the heartbeat before its time.
    sooner: Notify,
    displaced: watch::Sender<bool>,
    roll: Mutex<Roll>,
    changes: broadcast::Sender<NodeChange>,
    lives: watch::Sender<Arc<Lives>>,
    metrics: NodeMetrics,
}

/// What the heartbeat knows of its key.
#[derive(Default)]
struct Beat {
    revision: u64,
    /// No more heartbeats: the node has left, or was displaced.
    over: bool,
    /// Whether the last heartbeat was not stored: those of others may not be either.
    stalled: bool,
}

impl Nodes {
    /// Takes this node's place among the others, and reads who they are.
    ///
    /// # Errors
    /// [`NodesError::Taken`] if another process of this name lives; [`NodesError::Bus`] if the bus cannot be used.
    pub async fn open(parts: NodesParts<'_>) -> Result<Arc<Self>, NodesError> {
        let config = &parts.config;
        let patience = Patience { silence: config.node_timeout + SLACK, after_break: config.heartbeat_interval * 2 };
        let inner = Arc::new(Inner {
            me: v1::NodeInfo {
                node: parts.node.as_str().into(),
                roles: parts.roles,
                version: parts.version,
                started: Some(SystemTime::now().into()),
                endpoint: parts.endpoint,
                ..v1::NodeInfo::default()
            },
            key: format!("{PREFIX}{}", parts.node),
            node: parts.node,
            fabric: parts.fabric,
            timeout: config.node_timeout,
            active: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            beat: tokio::sync::Mutex::default(),
            sooner: Notify::new(),
            displaced: watch::Sender::new(false),
            roll: Mutex::new(Roll::new(patience)),
            changes: broadcast::Sender::new(CHANGES_MAX),
            lives: watch::Sender::new(Arc::default()),
            metrics: NodeMetrics::register(parts.registry),
        });
        let here = here(&parts.subjects, &inner.node);
        let questions = inner.take_place(&here).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&inner).answer(questions));
        let events = inner.fabric.kv.watch(PREFIX).await?;
        inner.read().await?;
        tasks.spawn(Arc::clone(&inner).beat_on(config.heartbeat_interval));
        tasks.spawn(Arc::clone(&inner).listen(events));
        Ok(Arc::new(Self { inner, _tasks: tasks }))
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.inner.node
    }

    /// What this node says of itself now.
    #[must_use]
    pub fn info(&self) -> v1::NodeInfo {
        self.inner.info()
    }

    /// The nodes that live, this one included, in the order of their names.
    #[must_use]
    pub fn alive(&self) -> Vec<v1::NodeInfo> {
        let mut alive: Vec<_> = self.inner.roll.lock().infos().cloned().collect();
        alive.push(self.info());
        alive.sort_by(|one, other| one.node.cmp(&other.node));
        alive
    }

    /// Whether `node` lives. This one always does.
    #[must_use]
    pub fn lives(&self, node: &NodeId) -> bool {
        *node == self.inner.node || self.inner.roll.lock().contains(node)
    }

    /// What happens to other nodes from now on. A reader that is told `Lagged` reads [`Nodes::alive`].
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<NodeChange> {
        self.inner.changes.subscribe()
    }

    /// How many sessions this node has: with a connection, and waiting for theirs. Told with the next heartbeat.
    pub fn set_load(&self, active: u32, pending: u32) {
        self.inner.active.store(active, Ordering::Relaxed);
        self.inner.pending.store(pending, Ordering::Relaxed);
    }

    /// This node is about to stop. Told at once.
    pub fn set_draining(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
        self.inner.sooner.notify_one();
    }

    /// Whether another process has taken this node's name: the operator must end one of the two.
    #[must_use]
    pub fn displaced(&self) -> watch::Receiver<bool> {
        self.inner.displaced.subscribe()
    }

    /// Ends the heartbeats and tells the others that this node is gone.
    ///
    /// # Errors
    /// [`BusError`] if they cannot be told; they will see it by the timeout.
    pub async fn leave(&self) -> Result<(), BusError> {
        let mut beat = self.inner.beat.lock().await;
        if std::mem::replace(&mut beat.over, true) {
            return Ok(());
        }
        self.inner.fabric.kv.delete(&self.inner.key).await
    }

    /// The others, as a number for each that is new whenever it comes or begins anew.
    pub(crate) fn lives_watch(&self) -> watch::Receiver<Arc<Lives>> {
        self.inner.lives.subscribe()
    }
}

/// Where a node of this name answers that it lives.
pub(crate) fn here(subjects: &Subjects, node: &NodeId) -> Subject {
    Subject::from_trusted(format!("{}.node.{node}.here", subjects.prefix()))
}

fn decode(value: &Bytes) -> Option<v1::NodeInfo> {
    v1::NodeInfo::decode(value.clone()).inspect_err(|error| tracing::warn!(%error, "a heartbeat cannot be read")).ok()
}

fn node_of(key: &str) -> Option<NodeId> {
    NodeId::parse(key.strip_prefix(PREFIX)?).ok()
}

impl Inner {
    fn info(&self) -> v1::NodeInfo {
        v1::NodeInfo {
            heartbeat: Some(SystemTime::now().into()),
            active: self.active.load(Ordering::Relaxed),
            pending: self.pending.load(Ordering::Relaxed),
            draining: self.draining.load(Ordering::Relaxed),
            ..self.me.clone()
        }
    }

    /// Puts the first heartbeat where no living process of this name has its own; gives the questions to answer.
    async fn take_place(&self, here: &Subject) -> Result<Subscription, NodesError> {
        for _ in 0..STARTS_MAX {
            let there = self.fabric.kv.get(&self.key).await?;
            match self.fabric.bus.request(here, Bytes::new(), ANSWER_TIMEOUT).await {
                Ok(answer) => {
                    let endpoint = decode(&answer).map(|info| info.endpoint).unwrap_or_default();
                    return Err(NodesError::Taken { node: self.node.clone(), endpoint });
                }
                Err(BusError::NoResponders(_) | BusError::Timeout(_)) => {}
                Err(error) => return Err(error.into()),
            }
            // Before the key, so that whoever finds the key finds somebody to ask.
            let questions = self.fabric.bus.subscribe(here, None).await?;
            let revision = there.map_or(0, |entry| entry.revision);
            let (value, ttl) = (self.info().encode_to_vec().into(), Some(self.timeout));
            if let Some(revision) = self.fabric.kv.compare_and_set(&self.key, revision, value, ttl).await? {
                self.beat.lock().await.revision = revision;
                return Ok(questions);
            }
        }
        Err(NodesError::Taken { node: self.node.clone(), endpoint: String::new() })
    }

    async fn answer(self: Arc<Self>, mut questions: Subscription) {
        while let Some(heard) = questions.next().await {
            let Heard::Message(question) = heard else { continue };
            let Some(reply_to) = question.reply_to else { continue };
            if let Err(error) = self.fabric.bus.publish(&reply_to, self.info().encode_to_vec().into()).await {
                tracing::debug!(%error, "cannot say that this node lives");
            }
        }
    }

    async fn beat_on(self: Arc<Self>, every: Duration) {
        let mut state = self.fabric.bus.state();
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await; // the first one was put when the place was taken
        loop {
            tokio::select! {
                biased; // a seed of the simulation goes the same way each time
                _ = tick.tick() => {}
                () = self.sooner.notified() => {}
                changed = state.changed() => if changed.is_err() { return },
            }
            if *state.borrow_and_update() == BusState::Closed {
                return;
            }
            if !self.beat().await {
                tick.reset_after(every.min(PAUSE));
            }
        }
    }

    /// One heartbeat; a second try where the first finds what it did not expect. False if it is to be tried again soon.
    async fn beat(&self) -> bool {
        let mut beat = self.beat.lock().await;
        for _ in 0..2 {
            if beat.over {
                return true;
            }
            let value = self.info().encode_to_vec().into();
            match self.fabric.kv.compare_and_set(&self.key, beat.revision, value, Some(self.timeout)).await {
                Ok(Some(revision)) => {
                    beat.revision = revision;
                    if std::mem::take(&mut beat.stalled) {
                        tracing::info!("heartbeats of this node are stored again");
                        self.change(|roll| roll.recovered(Instant::now()));
                    }
                    return true;
                }
                Ok(None) => self.look_at_key(&mut beat).await,
                Err(error) => {
                    if !std::mem::replace(&mut beat.stalled, true) {
                        tracing::warn!(%error, "a heartbeat of this node was not stored; it is tried again");
                    }
                    self.change(Roll::stalled);
                    return false;
                }
            }
        }
        false
    }

    /// The key is not as it was left: it has expired, an earlier heartbeat was stored after all, or it is another's.
    async fn look_at_key(&self, beat: &mut Beat) {
        match self.fabric.kv.get(&self.key).await {
            Ok(None) => beat.revision = 0,
            Ok(Some(entry)) if decode(&entry.value).is_some_and(|info| info.started == self.me.started) => {
                beat.revision = entry.revision;
            }
            Ok(Some(_)) => {
                beat.over = true;
                self.displaced.send_replace(true);
                tracing::error!(
                    node = %self.node,
                    "another process has taken this node's name while it was cut off: end one of the two, or give it \
                     another `node`"
                );
            }
            Err(error) => tracing::warn!(%error, "cannot look at this node's heartbeat"),
        }
    }

    /// Follows the others until the bus is closed.
    async fn listen(self: Arc<Self>, first: mpsc::Receiver<KvEvent>) {
        let (mut events, mut state) = (Some(first), self.fabric.bus.state());
        state.borrow_and_update();
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let Some(there) = &mut events else {
                if *state.borrow() == BusState::Closed {
                    return;
                }
                sleep(PAUSE).await;
                events = self.watch_again().await;
                continue;
            };
            tokio::select! {
                biased; // what comes seldom, first
                changed = state.changed() => {
                    let now = *state.borrow_and_update();
                    if changed.is_err() || now == BusState::Closed {
                        return;
                    }
                    self.reconnected(now).await;
                }
                _ = look.tick() => self.look().await,
                event = there.recv() => match event {
                    Some(event) => self.take(event),
                    None => events = None,
                },
            }
        }
    }

    async fn watch_again(&self) -> Option<mpsc::Receiver<KvEvent>> {
        let events = self.fabric.kv.watch(PREFIX).await.ok()?;
        self.read().await.ok()?;
        Some(events)
    }

    fn take(&self, event: KvEvent) {
        let Some(node) = node_of(&event.key).filter(|node| *node != self.node) else { return };
        let now = Instant::now();
        self.change(|roll| match event.entry {
            None => roll.gone(&node),
            Some(entry) => decode(&entry.value).into_iter().for_each(|info| roll.heard(node.clone(), info, now)),
        });
    }

    async fn read(&self) -> Result<(), BusError> {
        let entries = self.fabric.kv.entries(PREFIX).await?;
        let parsed = entries.iter().filter_map(|(key, entry)| Some((node_of(key)?, decode(&entry.value)?)));
        let others = parsed.filter(|(node, _)| *node != self.node).collect();
        self.change(|roll| roll.read(others, Instant::now()));
        Ok(())
    }

    /// A bus that came back may have lost what happened meanwhile.
    async fn reconnected(&self, state: BusState) {
        if !matches!(state, BusState::Connected(_)) {
            return self.change(Roll::stalled);
        }
        self.change(|roll| roll.recovered(Instant::now()));
        if let Err(error) = self.read().await {
            tracing::warn!(%error, "cannot read which nodes live; the watch will tell");
        }
    }

    /// Looks at those that are silent for too long, unless the bus is the one that is silent.
    async fn look(&self) {
        if !matches!(*self.fabric.bus.state().borrow(), BusState::Connected(_)) {
            return;
        }
        let silent = self.change(|roll| roll.overdue(Instant::now()));
        for node in silent {
            if let Ok(entry) = self.fabric.kv.get(&format!("{PREFIX}{node}")).await {
                let there = entry.and_then(|entry| decode(&entry.value));
                self.change(|roll| roll.looked(node, there, Instant::now()));
            }
        }
    }

    /// Changes the roll, and tells what has changed.
    fn change<T>(&self, change: impl FnOnce(&mut Roll) -> T) -> T {
        let mut roll = self.roll.lock();
        let result = change(&mut roll);
        let changes = roll.changes();
        if !changes.is_empty() {
            // Under the lock, so that readers see the changes in their order.
            self.lives.send_replace(roll.lives());
            for change in changes {
                tracing::info!(?change, "nodes");
                let _nobody_listens = self.changes.send(change);
            }
        }
        self.metrics.alive.set(i64::try_from(roll.infos().count() + 1).unwrap_or(i64::MAX));
        result
    }
}
