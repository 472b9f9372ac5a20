//! The records of this node's sessions: what is to be written, and when. No I/O, no clock of its own.
//!
//! In: what is known of a session, what became of a write, moments. Out: writes, one at a time for each session.
//! Always: a write carries the revision that this node wrote or claimed last, so it never replaces what another node has
//! claimed; a session that has ended here stays ended.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque, hash_map::Entry},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use tokio::{sync::oneshot, time::Instant};
use trestle_bus::BusError;
use trestle_wire::{NodeId, SessionId, v1};

use crate::store::GRACE;

/// The epoch of a session that was never resumed.
pub const FIRST_EPOCH: u64 = 1;

/// How long changes of a session are gathered before they are written: a client that connects and subscribes is one
/// write.
pub(crate) const GATHER: Duration = Duration::from_millis(500);
/// Before a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Records that are written again in one second after a break of the bus: 100,000 sessions in 50 s.
const REWRITES_PER_SECOND: u32 = 2_000;
/// What clocks of nodes may differ by.
const SKEW: Duration = Duration::from_secs(30);

/// How long records are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    /// Of a session with a connection; it is written again after half of it.
    pub(crate) active: Duration,
    /// Of one that waits for its client, which ends by itself.
    pub(crate) pending: Duration,
}

/// One write to the Kv.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) session: SessionId,
    /// Tells it from a write of the same session that was forgotten meanwhile.
    serial: u64,
    /// What must be there before; 0 is nothing.
    pub(crate) expected: u64,
    pub(crate) value: Bytes,
    pub(crate) ttl: Duration,
}

/// What a node that finds its record changed must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The record has expired, or the bus has lost it.
    Nothing,
    /// It is this node's: an earlier write was stored after all, or a claim of this node's came first.
    Ours { revision: u64, epoch: u64, expired: bool },
    /// The session has gone on elsewhere.
    Theirs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Clean,
    Queued,
    Writing,
    /// Changed while it is being written.
    Stale,
}

struct Kept {
    /// The record without `epoch` and `written`, which are added when it is written.
    record: Bytes,
    state: v1::SessionState,
    epoch: u64,
    revision: u64,
    refresh_at: Option<Instant>,
    /// Whether `refreshes` holds it.
    in_refreshes: bool,
    stage: Stage,
    /// The write that is under way, or was last.
    serial: u64,
    /// Those who wait for it to be written.
    waiting: Vec<oneshot::Sender<Result<bool, BusError>>>,
}

/// The records of one node.
pub(crate) struct Records {
    node: NodeId,
    lifetimes: Lifetimes,
    kept: HashMap<SessionId, Kept>,
    /// Written as soon as may be.
    urgent: VecDeque<SessionId>,
    /// Written at a moment; in the order of the moments.
    due: VecDeque<(Instant, SessionId)>,
    /// Tried again at a moment, in the order of the moments, however much somebody wants everything written.
    retries: VecDeque<(Instant, SessionId)>,
    refreshes: BinaryHeap<Reverse<(Instant, SessionId)>>,
    /// Those who want everything written now.
    pub(crate) flushing: usize,
    dirty: usize,
    serial: u64,
}

impl Records {
    pub(crate) fn new(node: NodeId, lifetimes: Lifetimes) -> Self {
        Self {
            node,
            lifetimes,
            kept: HashMap::new(),
            urgent: VecDeque::new(),
            due: VecDeque::new(),
            retries: VecDeque::new(),
            refreshes: BinaryHeap::new(),
            flushing: 0,
            dirty: 0,
            serial: 0,
        }
    }

    /// Records that wait to be written, or are being written.
    pub(crate) fn dirty(&self) -> usize {
        self.dirty
    }

    /// Sessions whose records are kept up.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// What is known of `session` now.
    pub(crate) fn note(&mut self, session: SessionId, record: v1::SessionRecord, now: Instant) {
        let state = record.state();
        let epoch = record.epoch.max(FIRST_EPOCH);
        let kept = self.kept.entry(session.clone()).or_insert_with(|| Kept::new(epoch));
        if kept.state == v1::SessionState::Expired {
            return;
        }
        kept.state = state;
        kept.epoch = kept.epoch.max(epoch);
        kept.record = strip(record, &self.node);
        self.mark(&session, now, false);
    }

    /// As [`Records::note`], to be written at once; `told` hears when it is: whether it was still this node's.
    pub(crate) fn note_now(
        &mut self,
        session: SessionId,
        record: v1::SessionRecord,
        told: oneshot::Sender<Result<bool, BusError>>,
        now: Instant,
    ) {
        self.note(session.clone(), record, now);
        if let Some(kept) = self.kept.get_mut(&session).filter(|kept| kept.state != v1::SessionState::Expired) {
            kept.waiting.push(told);
            self.mark(&session, now, true);
        } else {
            let _nobody_waits = told.send(Ok(false));
        }
    }

    /// `session` is over; `told` hears when that is written: whether it was still this node's.
    pub(crate) fn end(&mut self, session: &SessionId, told: oneshot::Sender<Result<bool, BusError>>, now: Instant) {
        let kept = self.kept.entry(session.clone()).or_insert_with(|| Kept::new(FIRST_EPOCH));
        let record = v1::SessionRecord {
            session_id: session.as_str().into(),
            state: v1::SessionState::Expired.into(),
            ..v1::SessionRecord::default()
        };
        kept.record = strip(record, &self.node);
        kept.state = v1::SessionState::Expired;
        kept.waiting.push(told);
        self.mark(session, now, true);
    }

    /// `session` is this node's now, by a claim, and was before or not. False: it has ended here meanwhile, and that stands.
    pub(crate) fn claimed(
        &mut self,
        session: &SessionId,
        record: v1::SessionRecord,
        revision: u64,
        was_ours: bool,
        now: Instant,
    ) -> bool {
        let there = self.kept.entry(session.clone());
        let new = matches!(there, Entry::Vacant(_));
        let kept = there.or_insert_with(|| Kept::new(record.epoch));
        kept.epoch = kept.epoch.max(record.epoch);
        kept.revision = kept.revision.max(revision);
        if kept.state == v1::SessionState::Expired {
            return false;
        }
        // If it was here all along, what was noted is newer than the record; else it is from an earlier stay.
        if new || !was_ours {
            kept.state = record.state();
            kept.record = strip(record, &self.node);
        }
        if new {
            self.schedule(session, now)
        } else {
            self.mark(session, now, false)
        }
        true
    }

    /// The session is no more this node's business: nothing is written about it.
    pub(crate) fn forget(&mut self, session: &SessionId) {
        let Some(kept) = self.kept.remove(session) else { return };
        self.dirty -= usize::from(kept.stage != Stage::Clean);
        for waiting in kept.waiting {
            let _nobody_waits = waiting.send(Ok(false));
        }
    }

    /// The epoch of a session whose record is kept up, and that has not ended.
    pub(crate) fn epoch(&self, session: &SessionId) -> Option<u64> {
        let kept = self.kept.get(session).filter(|kept| kept.state != v1::SessionState::Expired)?;
        Some(kept.epoch)
    }

    /// Whether `session` has ended here and that is not written yet.
    pub(crate) fn has_ended(&self, session: &SessionId) -> bool {
        self.kept.get(session).is_some_and(|kept| kept.state == v1::SessionState::Expired)
    }

    /// Whether `session` is this node's, or its end is to be written.
    pub(crate) fn has(&self, session: &SessionId) -> bool {
        self.kept.contains_key(session)
    }

    /// Puts `session` among those to be written.
    fn mark(&mut self, session: &SessionId, now: Instant, urgent: bool) {
        let Some(kept) = self.kept.get_mut(session) else { return };
        self.dirty += usize::from(kept.stage == Stage::Clean);
        match kept.stage {
            Stage::Writing | Stage::Stale => kept.stage = Stage::Stale,
            Stage::Clean | Stage::Queued if urgent => {
                kept.stage = Stage::Queued;
                self.urgent.push_back(session.clone());
            }
            Stage::Clean => {
                kept.stage = Stage::Queued;
                self.due.push_back((now + GATHER, session.clone()));
            }
            Stage::Queued => {}
        }
    }

    /// The next write that is due at `now`.
    pub(crate) fn next(&mut self, now: Instant, wall: SystemTime) -> Option<Write> {
        loop {
            let session = self.pop(now)?;
            let Some(kept) = self.kept.get_mut(&session).filter(|kept| kept.stage == Stage::Queued) else { continue };
            self.serial += 1;
            (kept.stage, kept.serial) = (Stage::Writing, self.serial);
            let (expected, ttl) = (kept.revision, kept.ttl(self.lifetimes));
            return Some(Write { value: kept.value(wall), serial: self.serial, expected, ttl, session });
        }
    }

    /// A session may be in several queues; the stage says whether it still wants to be written.
    fn pop(&mut self, now: Instant) -> Option<SessionId> {
        if let Some(session) = self.urgent.pop_front() {
            return Some(session);
        }
        if self.due.front().is_some_and(|(at, _)| self.flushing > 0 || *at <= now) {
            return self.due.pop_front().map(|(_, session)| session);
        }
        if self.retries.front().is_some_and(|(at, _)| *at <= now) {
            return self.retries.pop_front().map(|(_, session)| session);
        }
        while self.refreshes.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Reverse((_, session)) = self.refreshes.pop()?;
            let Some(kept) = self.kept.get_mut(&session) else { continue };
            kept.in_refreshes = false;
            match kept.refresh_at {
                Some(at) if at > now => {
                    kept.in_refreshes = true;
                    self.refreshes.push(Reverse((at, session)));
                }
                Some(_) if kept.stage == Stage::Clean => {
                    kept.stage = Stage::Queued;
                    self.dirty += 1;
                    return Some(session);
                }
                _ => {}
            }
        }
        None
    }

    /// When [`Records::next`] has something, if nothing else happens.
    pub(crate) fn next_at(&self, now: Instant) -> Option<Instant> {
        if !self.urgent.is_empty() || (self.flushing > 0 && !self.due.is_empty()) {
            return Some(now);
        }
        let due = self.due.front().into_iter().chain(self.retries.front()).map(|(at, _)| *at);
        let refresh = self.refreshes.peek().map(|Reverse((at, _))| *at);
        due.chain(refresh).min()
    }

    /// What `write` is about, unless that was forgotten meanwhile.
    fn of(&mut self, write: &Write) -> Option<&mut Kept> {
        self.kept.get_mut(&write.session).filter(|kept| kept.serial == write.serial)
    }

    /// A write was stored.
    pub(crate) fn wrote(&mut self, write: &Write, revision: u64, now: Instant) {
        let (session, Some(kept)) = (&write.session, self.of(write)) else { return };
        kept.revision = kept.revision.max(revision);
        match kept.stage {
            Stage::Stale => self.again(session),
            _ if kept.state == v1::SessionState::Expired => {
                self.dirty -= 1;
                for waiting in self.kept.remove(session).into_iter().flat_map(|kept| kept.waiting) {
                    let _nobody_waits = waiting.send(Ok(true));
                }
            }
            _ => {
                kept.stage = Stage::Clean;
                for waiting in std::mem::take(&mut kept.waiting) {
                    let _nobody_waits = waiting.send(Ok(true));
                }
                self.dirty -= 1;
                self.schedule(session, now);
            }
        }
    }

    /// A write was not stored, as something else was there. True: the session has gone on elsewhere.
    pub(crate) fn found(&mut self, write: &Write, found: Found, now: Instant) -> bool {
        let (session, Some(kept)) = (&write.session, self.of(write)) else { return false };
        if kept.revision != write.expected {
            // It was claimed back meanwhile: what was found is from before.
            self.again(session);
            return false;
        }
        let ended = kept.state == v1::SessionState::Expired;
        match found {
            Found::Nothing => kept.revision = 0,
            Found::Ours { revision, expired: true, .. } if ended => {
                kept.stage = Stage::Writing;
                self.wrote(write, revision, now);
                return false;
            }
            Found::Ours { revision, epoch, expired: false } => {
                kept.revision = kept.revision.max(revision);
                kept.epoch = kept.epoch.max(epoch);
            }
            Found::Ours { expired: true, .. } | Found::Theirs => {
                self.forget(session);
                return true;
            }
        }
        self.again(session);
        false
    }

    /// A write failed; it is tried again.
    pub(crate) fn failed(&mut self, write: &Write, error: &BusError, now: Instant) {
        let (session, Some(kept)) = (&write.session, self.of(write)) else { return };
        for waiting in kept.waiting.drain(..) {
            let _nobody_waits = waiting.send(Err(error.clone()));
        }
        kept.stage = Stage::Queued;
        self.retries.push_back((now + RETRY, session.clone()));
    }

    fn again(&mut self, session: &SessionId) {
        if let Some(kept) = self.kept.get_mut(session) {
            kept.stage = Stage::Queued;
            self.urgent.push_back(session.clone());
        }
    }

    /// Says when a record that was written is written again.
    fn schedule(&mut self, session: &SessionId, now: Instant) {
        let half = self.lifetimes.active / 2;
        let Some(kept) = self.kept.get_mut(session) else { return };
        if kept.state == v1::SessionState::Pending {
            kept.refresh_at = None;
            return;
        }
        // A tenth of it is scattered, so that those who came together are not written together.
        let at = now + half - half.mul_f64(scatter(session) / 10.0);
        kept.refresh_at = Some(at);
        if !kept.in_refreshes {
            kept.in_refreshes = true;
            self.refreshes.push(Reverse((at, session.clone())));
        }
    }

    /// After a break of the bus: all are written again, at a bearable rate, to see whether they are still this node's.
    pub(crate) fn rewrite_all(&mut self, now: Instant) {
        self.refreshes.clear();
        let (mut refreshes, mut number) = (Vec::new(), 0);
        for (session, kept) in &mut self.kept {
            kept.in_refreshes = kept.state != v1::SessionState::Expired;
            if kept.in_refreshes {
                let at = now + Duration::from_secs(1) * number / REWRITES_PER_SECOND;
                kept.refresh_at = Some(at);
                refreshes.push(Reverse((at, session.clone())));
                number += 1;
            }
        }
        self.refreshes = refreshes.into();
    }
}

impl Kept {
    fn new(epoch: u64) -> Self {
        Self {
            record: Bytes::new(),
            state: v1::SessionState::Unspecified,
            epoch,
            revision: 0,
            refresh_at: None,
            in_refreshes: false,
            stage: Stage::Clean,
            serial: 0,
            waiting: Vec::new(),
        }
    }

    /// The record as it is written: of a field that is there twice, the last counts.
    fn value(&self, wall: SystemTime) -> Bytes {
        let last = v1::SessionRecord { epoch: self.epoch, written: Some(wall.into()), ..v1::SessionRecord::default() };
        let mut value = Vec::with_capacity(self.record.len() + last.encoded_len());
        value.extend_from_slice(&self.record);
        last.encode(&mut value).expect("a Vec has room");
        value.into()
    }

    fn ttl(&self, lifetimes: Lifetimes) -> Duration {
        match self.state {
            v1::SessionState::Pending => lifetimes.pending,
            // Without a record, a token of the first epoch works while it is young: the end outlasts that. Older epochs
            // are worth nothing without a record, but a node that was cut off may still want to write one.
            v1::SessionState::Expired if self.epoch == FIRST_EPOCH => GRACE + SKEW,
            _ => lifetimes.active,
        }
    }
}

/// The record as it is kept: encoded, by this node, without what is added when it is written.
fn strip(record: v1::SessionRecord, node: &NodeId) -> Bytes {
    v1::SessionRecord { epoch: 0, written: None, node: node.as_str().into(), ..record }.encode_to_vec().into()
}

/// From 0 to 1, always the same for one session.
fn scatter(session: &SessionId) -> f64 {
    let text = session.as_str();
    let digits = &text[text.len().saturating_sub(4)..];
    f64::from(u16::from_str_radix(digits, 16).unwrap_or(0)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests;
