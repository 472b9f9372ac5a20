//! One log: what it holds, in which order, and for how long.
//!
//! In: [`Change`]s. Out: offsets, stored messages, republished messages. Always: changes land in one order, an append is
//! seen by nobody before it has landed, and what has landed is on disk if there is one.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use trestle_wire::Subject;

use super::{
    clock::{Clock, millis},
    disk,
    journal::Journal,
    live::Live,
    taking::Taking,
};
use crate::{Appended, BusError, ConsumerSpec, LogSpec, Place, pattern};

/// Payloads of a log on disk that stay in memory too, for readers who follow closely. The rest is read when asked for.
const CACHED_BYTES_MAX: usize = 32 << 20;

/// What happens to a log.
#[derive(Debug)]
pub(super) enum Change {
    Append {
        subject: Subject,
        dedup: Option<Box<str>>,
        payload: Bytes,
    },
    /// A consumer has done with the message.
    Done {
        offset: u64,
        consumer: Arc<str>,
    },
}

/// A change that has its place in the order and is about to land.
pub(super) enum Staged {
    Duplicate(u64),
    Append { offset: u64, subject: Subject, dedup: Option<Box<str>>, payload: Bytes },
    Done { offset: u64, consumer: Arc<str> },
}

/// A stored message's payload, wherever it is.
#[derive(Clone)]
pub(super) enum Body {
    Here(Bytes),
    OnDisk(disk::Place),
}

struct Kept {
    subject: Subject,
    time_ms: u64,
    bytes: usize,
    cached: Option<Bytes>,
    place: Option<disk::Place>,
}

pub(super) struct State {
    pub(super) spec: LogSpec,
    next: u64,
    kept: BTreeMap<u64, Kept>,
    by_subject: HashMap<Subject, VecDeque<u64>, FixedState>,
    dedup: HashMap<Box<str>, u64, FixedState>,
    dedup_order: VecDeque<(u64, Box<str>)>,
    pub(super) consumers: HashMap<Arc<str>, Taking>,
    /// Consumers that had done something before the last stop, and are not back yet.
    pub(super) done_before: HashMap<Arc<str>, std::collections::BTreeSet<u64>>,
    kept_bytes: u64,
    cached_bytes: usize,
    /// No payload below this offset is cached, if there is a disk.
    cached_from: u64,
}

/// A log of the embedded bus.
pub(super) struct Stream {
    pub(super) name: String,
    state: Mutex<State>,
    pub(super) journal: Option<Journal>,
    pub(super) live: Arc<Live>,
    pub(super) clock: Clock,
}

impl Stream {
    pub(super) fn new(state: State, journal: Option<Journal>, live: Arc<Live>, clock: Clock) -> Self {
        Self { name: state.spec.name.clone(), state: Mutex::new(state), journal, live, clock }
    }

    /// The state, with what is too old gone from it.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        state.expire(self.clock.now_ms());
        state
    }

    /// Makes the change and returns once it is stored.
    pub(super) async fn change(&self, change: Change) -> Result<Appended, BusError> {
        if let Some(journal) = &self.journal {
            return journal.change(change).await;
        }
        let mut state = self.state();
        let staged = state.stage(change, self.clock.now_ms());
        Ok(state.land(staged, None, self))
    }
}

impl State {
    pub(super) fn new(spec: LogSpec) -> Self {
        Self {
            spec,
            next: 1,
            kept: BTreeMap::new(),
            by_subject: HashMap::default(),
            dedup: HashMap::default(),
            dedup_order: VecDeque::new(),
            consumers: HashMap::new(),
            done_before: HashMap::new(),
            kept_bytes: 0,
            cached_bytes: 0,
            cached_from: 1,
        }
    }

    /// Lowest offset that was never given.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// No offset below `next` is given from now on.
    pub(super) fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }

    /// Gives the change its place in the order.
    pub(super) fn stage(&mut self, change: Change, now_ms: u64) -> Staged {
        match change {
            Change::Done { offset, consumer } => Staged::Done { offset, consumer },
            Change::Append { subject, dedup, payload } => {
                if let Some(offset) = dedup.as_deref().and_then(|id| self.dedup.get(id)) {
                    return Staged::Duplicate(*offset);
                }
                let offset = self.next;
                self.next += 1;
                if let Some(id) = &dedup {
                    self.remember(id.clone(), offset, now_ms);
                }
                Staged::Append { offset, subject, dedup, payload }
            }
        }
    }

    /// Takes back what [`State::stage`] promised and could not be stored.
    pub(super) fn unstage(&mut self, staged: &Staged) {
        if let Staged::Append { dedup: Some(id), .. } = staged {
            self.dedup.remove(id);
            self.dedup_order.retain(|(_, remembered)| remembered != id);
        }
    }

    /// Lets the change be seen.
    pub(super) fn land(&mut self, staged: Staged, place: Option<disk::Place>, stream: &Stream) -> Appended {
        match staged {
            Staged::Duplicate(offset) => Appended { offset, duplicate: true },
            Staged::Append { offset, subject, payload, .. } => {
                let previous = self.by_subject.get(&subject).and_then(|offsets| offsets.back().copied()).unwrap_or(0);
                let republished = self.spec.republish.as_ref().and_then(|(from, to)| renamed(&subject, from, to));
                let time_ms = stream.clock.now_ms();
                self.keep(offset, subject.clone(), time_ms, payload.len(), Some(payload.clone()), place);
                self.trim(&subject);
                for taking in self.consumers.values_mut() {
                    if pattern::matches(taking.filter.as_str(), subject.as_str()) {
                        taking.stored(offset);
                    }
                }
                if let Some(subject) = republished {
                    stream.live.republish(subject, payload, Place { offset, previous });
                }
                Appended { offset, duplicate: false }
            }
            Staged::Done { offset, consumer } => {
                self.done(offset, &consumer);
                Appended { offset, duplicate: false }
            }
        }
    }

    pub(super) fn done(&mut self, offset: u64, consumer: &Arc<str>) {
        if self.spec.work_queue {
            self.remove(offset);
        } else if self.kept.contains_key(&offset) {
            match self.consumers.get_mut(consumer) {
                Some(taking) => taking.finish(offset),
                None => drop(self.done_before.entry(consumer.clone()).or_default().insert(offset)),
            }
        }
    }

    fn keep(
        &mut self,
        offset: u64,
        subject: Subject,
        time_ms: u64,
        bytes: usize,
        cached: Option<Bytes>,
        place: Option<disk::Place>,
    ) {
        self.by_subject.entry(subject.clone()).or_default().push_back(offset);
        self.kept_bytes += bytes as u64;
        self.cached_bytes += if cached.is_some() { bytes } else { 0 };
        let on_disk = place.is_some();
        self.kept.insert(offset, Kept { subject, time_ms, bytes, cached, place });
        while on_disk && self.cached_bytes > CACHED_BYTES_MAX && self.cached_from <= offset {
            if let Some(kept) = self.kept.get_mut(&self.cached_from)
                && kept.cached.take().is_some()
            {
                self.cached_bytes -= kept.bytes;
            }
            self.cached_from += 1;
        }
    }

    /// A message found on disk when the log is opened. Call [`State::recovered`] after the last one.
    pub(super) fn found(&mut self, offset: u64, subject: &str, time_ms: u64, dedup: &str, place: disk::Place) {
        self.skip_to(offset + 1);
        if !dedup.is_empty() {
            self.remember(dedup.into(), offset, time_ms);
        }
        let subject = Subject::from_trusted(subject);
        let bytes = place.payload_bytes;
        self.kept.insert(offset, Kept { subject, time_ms, bytes, cached: None, place: Some(place) });
    }

    /// A message was said to be gone when the log is opened.
    pub(super) fn found_gone(&mut self, offset: u64) {
        self.skip_to(offset + 1);
        self.kept.remove(&offset);
    }

    /// Puts in order what was found, and applies the limits to it.
    pub(super) fn recovered(&mut self) {
        self.cached_from = self.next;
        let found = std::mem::take(&mut self.kept);
        for (offset, kept) in found {
            self.keep(offset, kept.subject, kept.time_ms, kept.bytes, None, kept.place);
        }
        let subjects: Vec<Subject> = self.by_subject.keys().cloned().collect();
        subjects.iter().for_each(|subject| self.trim(subject));
        let kept = &self.kept;
        self.done_before.values_mut().for_each(|done| done.retain(|offset| kept.contains_key(offset)));
    }

    fn remember(&mut self, id: Box<str>, offset: u64, time_ms: u64) {
        self.dedup_order.push_back((time_ms, id.clone()));
        self.dedup.insert(id, offset);
    }

    fn trim(&mut self, subject: &Subject) {
        let Some(most) = self.spec.per_subject_max else { return };
        while let Some(offsets) = self.by_subject.get(subject)
            && offsets.len() as u64 > most.max(1)
            && let Some(&oldest) = offsets.front()
        {
            self.remove(oldest);
        }
    }

    fn expire(&mut self, now_ms: u64) {
        if let Some(age_max) = self.spec.age_max.map(millis) {
            while let Some((&offset, kept)) = self.kept.first_key_value()
                && kept.time_ms.saturating_add(age_max) <= now_ms
            {
                self.remove(offset);
            }
        }
        let window = millis(self.spec.dedup_window);
        while let Some((time_ms, _)) = self.dedup_order.front()
            && time_ms.saturating_add(window) <= now_ms
            && let Some((_, id)) = self.dedup_order.pop_front()
        {
            self.dedup.remove(&id);
        }
    }

    fn remove(&mut self, offset: u64) {
        let Some(kept) = self.kept.remove(&offset) else { return };
        self.kept_bytes -= kept.bytes as u64;
        self.cached_bytes -= if kept.cached.is_some() { kept.bytes } else { 0 };
        if let Some(offsets) = self.by_subject.get_mut(&kept.subject) {
            if offsets.front() == Some(&offset) {
                offsets.pop_front();
            } else if let Ok(at) = offsets.binary_search(&offset) {
                offsets.remove(at);
            }
            if offsets.is_empty() {
                self.by_subject.remove(&kept.subject);
            }
        }
        self.consumers.values_mut().for_each(|taking| taking.forget(offset));
    }

    /// Changes what the log keeps.
    pub(super) fn respec(&mut self, spec: LogSpec) {
        self.spec = spec;
        let subjects: Vec<Subject> = self.by_subject.keys().cloned().collect();
        subjects.iter().for_each(|subject| self.trim(subject));
    }

    /// Up to `most` messages of `subject` from offset `from` on.
    pub(super) fn read(&self, subject: &Subject, from: u64, most: usize) -> Vec<(u64, Body)> {
        let Some(offsets) = self.by_subject.get(subject) else { return Vec::new() };
        let start = offsets.partition_point(|offset| *offset < from);
        offsets
            .iter()
            .skip(start)
            .take(most)
            .filter_map(|offset| Some((*offset, self.kept.get(offset)?.body()?)))
            .collect()
    }

    pub(super) fn last(&self, subject: &Subject) -> u64 {
        self.by_subject.get(subject).and_then(|offsets| offsets.back().copied()).unwrap_or(0)
    }

    /// Makes the consumer, or changes it to `spec`.
    pub(super) fn consumer(&mut self, spec: &ConsumerSpec) -> Result<(), BusError> {
        let other = |(name, taking): (&Arc<str>, &Taking)| {
            **name != *spec.name && pattern::overlap(taking.filter.as_str(), spec.filter.as_str())
        };
        if self.spec.work_queue && self.consumers.iter().any(other) {
            return Err(BusError::Refused(format!("another consumer of {} takes some of {}", spec.log, spec.filter)));
        }
        let matching =
            self.kept.iter().filter(|(_, kept)| pattern::matches(spec.filter.as_str(), kept.subject.as_str()));
        let stored = matching.map(|(offset, _)| *offset);
        match self.consumers.get_mut(&*spec.name) {
            Some(taking) if taking.filter != spec.filter => taking.refilter(spec.filter.clone(), stored),
            Some(_) => {}
            None => {
                let done = self.done_before.remove(&*spec.name).unwrap_or_default();
                let taking = Taking::new(spec.filter.clone(), spec.ack_wait, stored, done);
                self.consumers.insert(spec.name.as_str().into(), taking);
            }
        }
        if let Some(taking) = self.consumers.get_mut(&*spec.name) {
            taking.ack_wait = spec.ack_wait;
        }
        Ok(())
    }

    /// Takes up to `most` messages for `consumer`: offset, attempt, subject and payload.
    pub(super) fn take(&mut self, consumer: &str, most: usize) -> Vec<(u64, u32, Subject, Body)> {
        let Some(taking) = self.consumers.get_mut(consumer) else { return Vec::new() };
        let now = Instant::now();
        let taken = std::iter::from_fn(|| taking.take(now)).filter_map(|(offset, attempt)| {
            let kept = self.kept.get(&offset)?;
            Some((offset, attempt, kept.subject.clone(), kept.body()?))
        });
        let taken = taken.take(most).collect();
        if taking.has_ready() {
            taking.wake.notify_one(); // somebody else may take the rest
        }
        taken
    }

    /// The messages in `segment`, with the consumers that have done them.
    pub(super) fn kept_in(&self, segment: &Arc<disk::Segment>) -> Vec<(u64, disk::Place, Vec<Arc<str>>)> {
        let inside = |kept: &Kept| kept.place.clone().filter(|place| place.is_in(segment));
        let done = |offset: u64| {
            let now = self.consumers.iter().filter(move |(_, taking)| taking.has_done(offset)).map(|(name, _)| name);
            let before = self.done_before.iter().filter(move |(_, done)| done.contains(&offset)).map(|(name, _)| name);
            now.chain(before).cloned().collect()
        };
        self.kept.iter().filter_map(|(offset, kept)| Some((*offset, inside(kept)?, done(*offset)))).collect()
    }

    /// The message stands at `place` now.
    pub(super) fn moved(&mut self, offset: u64, place: disk::Place) {
        if let Some(kept) = self.kept.get_mut(&offset) {
            kept.place = Some(place);
        }
    }
}

impl Kept {
    fn body(&self) -> Option<Body> {
        match (&self.cached, &self.place) {
            (Some(payload), _) => Some(Body::Here(payload.clone())),
            (None, Some(place)) => Some(Body::OnDisk(place.clone())),
            (None, None) => None,
        }
    }
}

/// `subject` with `to` in place of the prefix `from`, if it has that.
fn renamed(subject: &Subject, from: &str, to: &str) -> Option<Subject> {
    let rest = subject.as_str().strip_prefix(from)?.strip_prefix('.')?;
    Some(Subject::from_trusted(format!("{to}.{rest}")))
}
