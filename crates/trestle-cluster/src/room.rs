//! One channel on this node: its replica, its own members, and the task that tends them.
//!
//! In: what other nodes say and ask, comings and goings here, who lives. Out: changes for the others, answers, events.
//! Always: one task says what this node says of a channel, so that it arrives in the order of its count.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    sync::{Notify, OnceCell, watch},
    time::{Instant, sleep_until},
};
use trestle_bus::{BusError, BusState, Heard, Message, Subject, Subscription};
use trestle_wire::{ChannelName, NodeId, SessionId, UserId, v1};

use crate::{local::Local, presence::Inner, roll::Lives, table::Table};

/// How long the others have to say who is there before the replica is believed.
const SETTLE: Duration = Duration::from_secs(1);
/// Over how much time the channels of a node are told and asked anew after a break: 10,000 of them do not come at once.
const SPREAD: Duration = Duration::from_secs(1);
/// Messages that are taken before what is due is looked at.
const AT_ONCE_MAX: usize = 256;

/// One channel on this node.
pub(crate) struct Room {
    pub(crate) channel: ChannelName,
    /// Set once the task tends it.
    pub(crate) opened: OnceCell<()>,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Seats, and those who wait for one.
    holders: usize,
    table: Table,
    local: Local,
    /// When everybody is to be asked.
    ask_all_at: Option<Instant>,
    /// From when on the replica is believed.
    settled_at: Instant,
    event_at: Option<Instant>,
}

/// What is to be sent now.
#[derive(Default)]
struct Due {
    changes: Vec<v1::PresenceChange>,
    asks: Vec<v1::PresenceAsk>,
    event: Option<v1::PresenceEvent>,
    digest: Option<v1::PresenceChange>,
    ended: bool,
}

impl Room {
    /// A room of `node`, which is `alone` on its bus or not.
    pub(crate) fn new(channel: ChannelName, node: NodeId, started: u64, alone: bool, now: Instant) -> Self {
        let state = State {
            holders: 0,
            table: Table::default(),
            local: Local::new(node, started, now),
            ask_all_at: (!alone).then_some(now),
            settled_at: if alone { now } else { now + SETTLE },
            event_at: None,
        };
        Self { channel, opened: OnceCell::new(), state: Mutex::new(state), changed: Notify::new() }
    }

    pub(crate) fn hold(&self) {
        self.state.lock().holders += 1;
    }

    pub(crate) fn enter(&self, session: &SessionId, user: Option<&UserId>) {
        let mut state = self.state.lock();
        if state.local.enter(session, user) {
            state.table.add(session, user);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Gives a place back, of a session that entered or one that only waited.
    pub(crate) fn release(&self, entered: Option<&SessionId>, gone_at: Instant) {
        let mut state = self.state.lock();
        state.holders -= 1;
        if let Some(session) = entered {
            state.local.leave(session, gone_at);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().holders == 0
    }

    /// Who is here, if nothing is known to be missing.
    pub(crate) fn state_in_sync(&self, most: usize, now: Instant) -> Option<v1::PresenceState> {
        let state = self.state.lock();
        let believed = self.opened.initialized() && state.settled_at <= now && state.table.in_sync();
        believed.then(|| state.table.state(&self.channel, most))
    }
}

/// The task of one room.
pub(crate) struct Tending {
    inner: Arc<Inner>,
    room: Arc<Room>,
    subject: Subject,
    ask_subject: Subject,
    changes: Subscription,
    asks: Subscription,
    lives: watch::Receiver<Arc<Lives>>,
    bus: watch::Receiver<BusState>,
    /// Members that the metric counts.
    counted: usize,
}

impl Tending {
    /// Listens to what others say of the channel, and to their questions.
    pub(crate) async fn begin(inner: Arc<Inner>, room: Arc<Room>) -> Result<Self, BusError> {
        let (subject, ask_subject) =
            (inner.subjects.presence(&room.channel), inner.subjects.presence_ask(&room.channel));
        let mut bus = inner.fabric.bus.state();
        bus.borrow_and_update();
        let changes = inner.fabric.bus.subscribe(&subject, None).await?;
        let asks = inner.fabric.bus.subscribe(&ask_subject, None).await?;
        let lives = inner.lives.clone();
        Ok(Self { inner, room, subject, ask_subject, changes, asks, lives, bus, counted: 0 })
    }

    /// Tends the room until nobody was here for a while, or the bus is closed.
    pub(crate) async fn run(mut self) {
        self.tend().await;
        self.count(0);
    }

    async fn tend(&mut self) {
        loop {
            let connected = self.inner.is_connected();
            let (due, wake) = self.due(connected, Instant::now());
            if due.ended && self.inner.close(&self.room) {
                return;
            }
            if self.send(due).await {
                continue; // that took time, and something else may be due
            }
            tokio::select! {
                biased; // what comes seldom, first; the last two only wake it, and what is due is done whatever has
                changed = self.lives.changed() => if changed.is_err() { return },
                changed = self.bus.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.bus_changed();
                }
                heard = self.changes.next() => match heard {
                    Some(heard) => self.hear(heard),
                    None => return,
                },
                heard = self.asks.next() => match heard {
                    Some(Heard::Message(ask)) => self.answer(ask).await,
                    Some(Heard::Lost(_)) => {} // whoever asked asks again
                    None => return,
                },
                () = self.room.changed.notified() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// What is to be sent at `now`, and when there may be more.
    fn due(&mut self, connected: bool, now: Instant) -> (Due, Option<Instant>) {
        let config = &self.inner.config;
        let mut due = Due::default();
        let mut guard = self.room.state.lock();
        let state = &mut *guard;
        state.table.lives(&self.lives.borrow_and_update(), now);
        for session in state.local.gone(now) {
            state.table.remove(&session);
        }
        if connected {
            if state.ask_all_at.is_some_and(|at| at <= now) {
                state.ask_all_at = None;
                due.asks.push(v1::PresenceAsk::default());
            }
            let silent = state.table.unanswered(config.node_timeout, now);
            due.asks.extend(silent.iter().map(|node| v1::PresenceAsk { node: node.as_str().into() }));
            if state.local.tells_at(config.presence_interval, now).is_some_and(|at| at <= now) {
                due.changes = state.local.tell(self.inner.members_max(), now);
            }
            due.digest = state.local.take_digest(now);
        }
        if state.table.has_news() && state.event_at.is_none_or(|at| at <= now) {
            state.event_at = Some(now + config.presence_interval);
            due.event = state.table.event(&self.room.channel, config.presence_members_max);
        }
        let ends_at = (state.holders == 0).then(|| state.local.ends_at()).flatten();
        due.ended = ends_at.is_some_and(|at| at <= now);
        let told = [
            state.ask_all_at,
            state.table.asks_at(config.node_timeout),
            state.local.tells_at(config.presence_interval, now),
        ];
        let told = told.into_iter().flatten().filter(|_| connected);
        let event = state.event_at.filter(|_| state.table.has_news());
        let own = state.local.wakes_at(connected);
        let wake = told.chain(event).chain(own).chain(ends_at).min();
        let members = state.table.len();
        drop(guard);
        self.count(members);
        (due, wake)
    }

    /// Keeps the metric up to date.
    fn count(&mut self, members: usize) {
        let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.inner.metrics.members.inc_by(signed(members) - signed(self.counted));
        self.counted = members;
    }

    /// Whether anything was sent.
    async fn send(&mut self, due: Due) -> bool {
        let any = !due.changes.is_empty() || !due.asks.is_empty() || due.event.is_some() || due.digest.is_some();
        if let Some(event) = due.event {
            (self.inner.sink)(self.room.channel.clone(), event);
        }
        for change in due.changes.iter().chain(&due.digest) {
            if let Err(error) = self.publish(&self.subject, change.encode_to_vec()).await {
                tracing::debug!(channel = %self.room.channel, %error, "who came and went was not told; the whole will be");
                self.inner.metrics.unsent.inc();
                self.room.state.lock().local.tell_whole_at(Instant::now() + SPREAD);
                break;
            }
        }
        for ask in &due.asks {
            self.inner.metrics.resyncs.inc();
            if let Err(error) = self.publish(&self.ask_subject, ask.encode_to_vec()).await {
                tracing::debug!(channel = %self.room.channel, %error, "cannot ask who is there yet");
            }
        }
        any
    }

    async fn publish(&self, subject: &Subject, payload: Vec<u8>) -> Result<(), BusError> {
        self.inner.fabric.bus.publish(subject, Bytes::from(payload)).await
    }

    /// Takes in what others say, as much as is there.
    fn hear(&mut self, first: Heard) {
        let now = Instant::now();
        let lives = Arc::clone(&self.lives.borrow());
        let mut state = self.room.state.lock();
        let mut next = Some(first);
        for _ in 0..AT_ONCE_MAX {
            match next {
                Some(Heard::Message(message)) => match v1::PresenceChange::decode(message.payload) {
                    Ok(change) if change.node == self.inner.node.as_str() => {}
                    Ok(change) => match NodeId::parse(&change.node) {
                        Ok(node) => state.table.apply(&node, &change, lives.get(&node).copied(), now),
                        Err(_) => drop(self.inner.metrics.malformed.inc()),
                    },
                    Err(_) => drop(self.inner.metrics.malformed.inc()),
                },
                Some(Heard::Lost(_)) => state.doubt(now),
                None => return,
            }
            next = self.changes.try_next();
        }
    }

    /// Answers a question: to the asker if it waits for an answer, else to all.
    async fn answer(&self, ask: Message) {
        let Ok(asked) = v1::PresenceAsk::decode(ask.payload) else {
            self.inner.metrics.malformed.inc();
            return;
        };
        if !asked.node.is_empty() && asked.node != self.inner.node.as_str() {
            return;
        }
        let Some(reply_to) = ask.reply_to else {
            self.room.state.lock().local.tell_whole_at(Instant::now());
            return;
        };
        let answers = self.room.state.lock().local.answer(self.inner.members_max());
        for answer in answers {
            if let Err(error) = self.publish(&reply_to, answer.encode_to_vec()).await {
                tracing::debug!(channel = %self.room.channel, %error, "cannot answer who is here");
                return;
            }
        }
    }

    /// After a break others may have missed what was told, and this node what they told.
    fn bus_changed(&mut self) {
        if matches!(*self.bus.borrow_and_update(), BusState::Connected(_)) {
            let at = Instant::now() + SPREAD.mul_f64(fastrand::f64());
            let mut state = self.room.state.lock();
            state.doubt(at);
            state.local.tell_whole_at(at);
        }
    }
}

impl State {
    /// Something of what others told is lost: they are asked at `at`.
    fn doubt(&mut self, at: Instant) {
        self.table.doubt_all(at);
        self.ask_all_at = Some(self.ask_all_at.map_or(at, |other| other.min(at)));
        self.settled_at = self.settled_at.max(at + SETTLE);
    }
}
