//! Sessions whose node is gone: looked after by another until their client comes back or their window is over.
//!
//! A node that dies or stops leaves its sessions in the Kv. The next living edge in the order of names finds them there,
//! does with them what services and operators want, and ends those that nobody has come back to, which it tells services.
//! Nobody is asked who that is: all see the same names, and where two see different ones for a moment, the
//! compare-and-set of the record lets one do it.

mod record;
mod table;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::registry::Registry as Metrics;
use prost::Message as _;
use tokio::{
    sync::{Notify, broadcast::error::RecvError},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use trestle_bus::{BusError, BusState, Entry, Fabric, Heard, Message, Subscription};
use trestle_wire::{
    NodeId, SessionId, Subject, Subjects,
    v1::{self, control::Action, target::Target},
};

use self::{
    record::Estate,
    table::{Table, heir},
};
use crate::{NodeChange, Nodes, Registry, metrics::LeftMetrics, nodes::here, store::session_key};

/// How long what is wanted of sessions is remembered, for those whose node has just died: a node is known to be gone
/// `cluster.node_timeout` + 2 s later, and then all records are looked at.
const SEARCH_MAX: Duration = Duration::from_secs(30);
/// Before what the bus did not do is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Sessions that are ended or changed at once: 64 x 1 ms.
const AT_ONCE_MAX: usize = 64;
/// Between so many ends, so that services hear of 2,000 a second: 200,000 sessions of a dead node in 100 s.
const END_PAUSE: Duration = Duration::from_millis(32);
/// How long somebody who wants something of sessions waits for it: less than the 2 s that nodes give those they hold.
const ANSWER_WITHIN: Duration = Duration::from_millis(1800);
/// What the keys of records begin with.
const SESSIONS: &str = "session.";
/// How long a node has to say that it lives.
const HERE_TIMEOUT: Duration = Duration::from_secs(1);

/// What [`look_after`] is made of.
pub struct LeftParts<'a> {
    /// The nodes, this one included.
    pub nodes: Arc<Nodes>,
    /// The sessions of this node.
    pub registry: Arc<Registry>,
    /// The bus.
    pub fabric: Fabric,
    /// The subjects of the bus.
    pub subjects: Subjects,
    /// How long a session waits for its client (`session.resume_window`).
    pub resume_window: Duration,
    /// How long a record is kept (`cluster.record_ttl`).
    pub record_ttl: Duration,
    /// How long the others take to see that a node is gone (`cluster.node_timeout`).
    pub node_timeout: Duration,
    /// Where its metrics are registered.
    pub metrics: &'a mut Metrics,
}

/// Where those who look after sessions hear a [`v1::Control`]; each answers with a [`v1::PushCount`].
#[must_use]
pub fn left_control(subjects: &Subjects) -> Subject {
    Subject::from_trusted(format!("{}.left.control", subjects.prefix()))
}

/// Looks after the sessions of nodes that are gone, as long as the bus lives.
///
/// # Errors
/// [`BusError`] if the bus cannot be listened to.
pub async fn look_after(parts: LeftParts<'_>) -> Result<(), BusError> {
    let LeftParts { nodes, registry, fabric, subjects, resume_window, record_ttl, node_timeout, metrics } = parts;
    let controls = fabric.bus.subscribe(&left_control(&subjects), None).await?;
    let left = Arc::new(Left {
        estate: Estate { fabric, subjects, node: nodes.node().clone(), record_ttl },
        nodes,
        registry,
        resume_window,
        remembered: node_timeout + SEARCH_MAX,
        table: Mutex::default(),
        wake: Notify::new(),
        metrics: LeftMetrics::register(metrics),
    });
    tokio::spawn(Arc::clone(&left).follow());
    tokio::spawn(Arc::clone(&left).finish());
    tokio::spawn(left.hear(controls));
    Ok(())
}

struct Left {
    estate: Estate,
    nodes: Arc<Nodes>,
    registry: Arc<Registry>,
    resume_window: Duration,
    remembered: Duration,
    table: Mutex<Table>,
    /// Wakes who ends sessions: there are others.
    wake: Notify,
    metrics: LeftMetrics,
}

/// Finding them.
impl Left {
    /// Follows the nodes that come and go.
    async fn follow(self: Arc<Self>) {
        let mut changes = self.nodes.changes();
        // At once, for those that were left before this node came.
        let mut search_at = Some(Instant::now());
        loop {
            tokio::select! {
                biased; // what comes seldom, first
                () = self.closed() => return,
                change = changes.recv() => match change {
                    // It looks after its own, and after those whose next it is, by itself.
                    Ok(NodeChange::Up(_)) => {
                        self.change(|table| table.retain(|session, record| self.is_ours(session, record)));
                    }
                    Ok(NodeChange::Down(node)) if !self.is_heir(node.as_str()) => {}
                    Ok(NodeChange::Down(_)) | Err(RecvError::Lagged(_)) => search_at = Some(Instant::now()),
                    Err(RecvError::Closed) => return,
                },
                () = sleep_until(search_at.unwrap_or_else(Instant::now)), if search_at.is_some() => {
                    search_at = match self.search().await {
                        Ok(()) => None,
                        Err(error) => {
                            tracing::debug!(%error, "sessions without a node cannot be looked for; trying again");
                            Some(Instant::now() + RETRY)
                        }
                    };
                }
            }
        }
    }

    /// Looks at all records, and after those that are this node's to look after.
    async fn search(self: &Arc<Self>) -> Result<(), BusError> {
        let before = self.table.lock().len();
        let mut wanted = Vec::new();
        let each = &mut |key: String, entry: Entry| {
            let Some(session) = key.strip_prefix(SESSIONS).and_then(|id| SessionId::parse(id).ok()) else { return };
            let Ok(record) = v1::SessionRecord::decode(entry.value) else { return };
            if record.state() != v1::SessionState::Expired && self.is_ours(&session, &record) {
                let ends_at = self.ends_at(&record);
                let actions = self.change(|table| table.take(&session, &record, ends_at));
                wanted.extend(actions.into_iter().map(|action| (session.clone(), action)));
            }
        };
        self.estate.fabric.kv.each(SESSIONS, each).await?;
        let found = self.table.lock().len().saturating_sub(before);
        if found > 0 {
            tracing::info!(found, "looking after sessions whose node is gone");
        }
        self.wake.notify_one();
        // In their order, as they came.
        for (session, action) in wanted {
            self.act(&session, &action, None).await;
        }
        Ok(())
    }

    /// When the window of a session is over: for one with a connection it begins with the end of its node.
    fn ends_at(&self, record: &v1::SessionRecord) -> Instant {
        let written = record.written.and_then(|written| SystemTime::try_from(written).ok());
        let waited = match record.state() {
            v1::SessionState::Pending => written.and_then(|written| written.elapsed().ok()).unwrap_or_default(),
            _ => Duration::ZERO,
        };
        Instant::now() + self.resume_window.saturating_sub(waited)
    }

    /// Whether this node looks after a session: nobody holds it, and this is the next of who did.
    fn is_ours(&self, session: &SessionId, record: &v1::SessionRecord) -> bool {
        self.is_free(session, record) && (record.node == self.nodes.node().as_str() || self.is_heir(&record.node))
    }

    /// Whether nobody holds a session, as far as is known here.
    fn is_free(&self, session: &SessionId, record: &v1::SessionRecord) -> bool {
        match NodeId::parse(&record.node) {
            // Left by a process of this name that was here before.
            Ok(holder) if holder == *self.nodes.node() => !self.registry.has(session),
            Ok(holder) => !self.nodes.lives(&holder),
            Err(_) => false,
        }
    }

    fn is_heir(&self, gone: &str) -> bool {
        let edges = self.nodes.alive().into_iter().filter(|node| node.is_edge() && node.node != gone);
        heir(gone, &edges.map(|node| node.node).collect::<Vec<_>>()) == Some(self.nodes.node().as_str())
    }
}

/// What becomes of them.
impl Left {
    /// Ends those whose window is over.
    async fn finish(self: Arc<Self>) {
        loop {
            let ends_at = self.table.lock().ends_at();
            tokio::select! {
                biased; // what comes seldom, first
                () = self.closed() => return,
                () = sleep_until(ends_at.unwrap_or_else(Instant::now)), if ends_at.is_some() => {}
                () = self.wake.notified() => continue,
            }
            let over = self.table.lock().over(AT_ONCE_MAX, Instant::now());
            let mut ending = JoinSet::new();
            for session in over {
                let left = Arc::clone(&self);
                ending.spawn(async move { left.finish_one(&session).await });
            }
            ending.join_all().await;
            sleep(END_PAUSE).await;
        }
    }

    async fn finish_one(&self, session: &SessionId) {
        match self.estate.end(session, |record| self.is_free(session, record)).await {
            Ok(ended) => {
                self.metrics.ended.inc_by(u64::from(ended));
                self.change(|table| table.drop(session));
            }
            Err(error) => {
                tracing::debug!(%session, %error, "a session whose window is over could not be ended; trying again");
                self.change(|table| table.put_off(session, Instant::now() + RETRY));
            }
        }
    }

    /// Hears what services and operators want of sessions.
    async fn hear(self: Arc<Self>, mut controls: Subscription) {
        while let Some(heard) = controls.next().await {
            match heard {
                Heard::Message(message) => self.control(message),
                // Whoever asked hears of too few sessions.
                Heard::Lost(count) => {
                    tracing::warn!(count, "the bus lost what was to be done with sessions without a node")
                }
            }
        }
    }

    /// Begins to do it with those that are meant, and says how many have it. What takes longer than is waited for is done too.
    fn control(self: &Arc<Self>, message: Message) {
        let Ok(v1::Control { target: Some(target), action: Some(action) }) = v1::Control::decode(message.payload)
        else {
            return tracing::warn!(subject = %message.subject, "a control without a target or an action");
        };
        let Some(target) = target.target else { return };
        let now = (Instant::now(), SystemTime::now());
        let meant = self.change(|table| table.want(&target, &action, now, self.remembered));
        let left = Arc::clone(self);
        tokio::spawn(async move {
            let done = Arc::new(AtomicU32::new(0));
            let acting = Arc::clone(&left).act_on(target, meant, action, Arc::clone(&done));
            let mut doing = tokio::spawn(acting);
            let _all = timeout(ANSWER_WITHIN, &mut doing).await;
            let Some(reply_to) = message.reply_to else { return };
            let (node, delivered) = (left.nodes.node().to_string(), done.load(Ordering::Relaxed));
            let count = v1::PushCount { node, delivered, ..v1::PushCount::default() };
            if let Err(error) = left.estate.fabric.bus.publish(&reply_to, count.encode_to_vec().into()).await {
                tracing::debug!(%error, "what was done with sessions without a node was not reported");
            }
        });
    }

    async fn act_on(self: Arc<Self>, target: Target, meant: Vec<SessionId>, action: Action, done: Arc<AtomicU32>) {
        if let (true, Target::Session(id)) = (meant.is_empty(), &target)
            && let Ok(session) = SessionId::parse(id)
            && let Some(record) = self.just_left(&session).await
        {
            let acted = self.act(&session, &action, Some(&record)).await;
            done.fetch_add(u32::from(acted), Ordering::Relaxed);
        }
        let mut acting = JoinSet::new();
        for session in meant {
            if acting.len() >= AT_ONCE_MAX {
                acting.join_next().await;
            }
            let (left, action, done) = (Arc::clone(&self), action.clone(), Arc::clone(&done));
            acting.spawn(async move {
                done.fetch_add(u32::from(left.act(&session, &action, None).await), Ordering::Relaxed);
            });
        }
        acting.join_all().await;
    }

    /// The record of a session whose node has died and is not known to be gone yet, if this is the next of it.
    async fn just_left(&self, session: &SessionId) -> Option<v1::SessionRecord> {
        let entry = self.estate.fabric.kv.get(&session_key(session)).await.ok()??;
        let record = v1::SessionRecord::decode(entry.value).ok()?;
        let holder = NodeId::parse(&record.node).ok()?;
        if holder == *self.nodes.node() || !self.is_heir(&record.node) {
            return None;
        }
        let here = here(&self.estate.subjects, &holder);
        let answer = self.estate.fabric.bus.request(&here, Bytes::new(), HERE_TIMEOUT).await;
        answer.is_err().then_some(record)
    }

    /// Does one thing with one session that nobody holds, or whose record is as in `seen`; whether it was done.
    async fn act(&self, session: &SessionId, action: &Action, seen: Option<&v1::SessionRecord>) -> bool {
        let free = |now: &v1::SessionRecord| {
            seen.is_some_and(|seen| (&seen.node, seen.epoch) == (&now.node, now.epoch)) || self.is_free(session, now)
        };
        let acted = match action {
            Action::Update(change) => self.estate.update(session, change, free).await.map(|record| {
                record.is_some_and(|record| {
                    self.change(|table| table.renew(session, &record));
                    true
                })
            }),
            Action::Kick(kick) => self.estate.end(session, free).await.inspect(|done| {
                if *done {
                    tracing::info!(%session, reason = kick.reason, "ended by an operator or a service, without its node");
                    self.change(|table| table.drop(session));
                }
            }),
        };
        acted.unwrap_or_else(|error| {
            tracing::warn!(%session, %error, "what was wanted of a session without a node could not be done");
            false
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table.lock();
        let result = change(&mut table);
        self.metrics.sessions.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        result
    }

    /// Returns when the bus is closed.
    async fn closed(&self) {
        let mut state = self.estate.fabric.bus.state();
        drop(state.wait_for(|state| *state == BusState::Closed).await); // an error is the bus's end
    }
}
