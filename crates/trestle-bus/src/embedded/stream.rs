//! One log: the order of its changes, and who must hear of them.
//!
//! In: [`Change`]s. Out: offsets, stored messages, republished messages. Always: changes land in one order, an append is
//! seen by nobody before it has landed, and what has landed is on disk if there is one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use trestle_wire::Subject;

use super::{
    clock::{Clock, millis},
    disk::{self, Segment},
    journal::Journal,
    kept::{self, Body, Kept, Message},
    live::Live,
    record::Record,
    taking::Taking,
};
use crate::{Appended, BusError, ConsumerSpec, LogSpec, Place, pattern};

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
    /// There is no room for it, with so many bytes at most.
    Full(u64),
    Append {
        offset: u64,
        subject: Subject,
        dedup: Option<Box<str>>,
        payload: Bytes,
    },
    Done {
        offset: u64,
        consumer: Arc<str>,
    },
}

pub(super) struct State {
    pub(super) spec: LogSpec,
    next: u64,
    pub(super) kept: Kept,
    /// What has its place in the order and has not landed counts for so much.
    staged_bytes: u64,
    dedup: HashMap<Box<str>, u64, RandomState>,
    /// Each use of an id, oldest first: time, id and offset. An id that was used again is there twice.
    dedup_order: VecDeque<(u64, Box<str>, u64)>,
    pub(super) consumers: HashMap<Arc<str>, Taking>,
    /// What consumers had done before the last stop that are not back yet.
    done_before: HashMap<Arc<str>, BTreeSet<u64>>,
}

/// What is found on disk when a log is opened, record by record.
#[derive(Default)]
pub(super) struct Found {
    next: u64,
    messages: BTreeMap<u64, Message>,
    dedup: Vec<(u64, Box<str>, u64)>,
    done: HashMap<Arc<str>, BTreeSet<u64>>,
}

/// A log of the embedded bus.
pub(super) struct Stream {
    pub(super) name: String,
    state: Mutex<State>,
    pub(super) journal: Option<Journal<Stream>>,
    pub(super) live: Arc<Live>,
    pub(super) clock: Clock,
}

impl Stream {
    pub(super) fn new(state: State, journal: Option<Journal<Stream>>, live: Arc<Live>, clock: Clock) -> Self {
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
        state.land(staged, None, self)
    }
}

impl Found {
    pub(super) fn take(&mut self, record: Record<'_>, place: disk::Place) {
        match record {
            Record::Message { offset, time_ms, subject, dedup, .. } => {
                self.skip_to(offset + 1);
                if !dedup.is_empty() {
                    self.dedup.push((time_ms, dedup.into(), offset));
                }
                let (subject, bytes) = (Subject::from_trusted(subject), place.payload_bytes);
                // One that was moved is found twice: the later one stands where the oldest segment cannot take it along.
                self.messages.insert(offset, Message { subject, time_ms, bytes, cached: None, place: Some(place) });
            }
            Record::Gone { offset } => {
                self.skip_to(offset + 1);
                self.messages.remove(&offset);
            }
            Record::Done { offset, consumer } => drop(self.done.entry(consumer.into()).or_default().insert(offset)),
            // These say nothing of messages.
            Record::Flushed { .. } | Record::Set { .. } | Record::Unset { .. } => {}
        }
    }

    /// No offset below `next` is given from now on.
    pub(super) fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }
}

impl State {
    pub(super) fn new(spec: LogSpec, mut found: Found) -> Self {
        found.done.values_mut().for_each(|done| done.retain(|offset| found.messages.contains_key(offset)));
        found.dedup.sort();
        let mut state = Self {
            spec,
            next: found.next.max(1),
            kept: Kept::found(found.messages),
            staged_bytes: 0,
            dedup: HashMap::default(),
            dedup_order: VecDeque::new(),
            consumers: HashMap::new(),
            done_before: found.done,
        };
        found.dedup.into_iter().for_each(|(time_ms, id, offset)| state.remember(id, offset, time_ms));
        state.trim_all();
        state
    }

    /// Lowest offset that was never given.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Gives the change its place in the order.
    pub(super) fn stage(&mut self, change: Change, now_ms: u64) -> Staged {
        match change {
            Change::Done { offset, consumer } => Staged::Done { offset, consumer },
            Change::Append { subject, dedup, payload } => {
                if let Some(offset) = dedup.as_deref().and_then(|id| self.dedup.get(id)) {
                    return Staged::Duplicate(*offset);
                }
                let bytes = kept::cost(&subject, payload.len());
                let taken = self.kept.bytes() + self.staged_bytes;
                if let Some(max) = self.spec.bytes_max.filter(|max| taken + bytes > *max) {
                    return Staged::Full(max);
                }
                self.staged_bytes += bytes;
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
        let Staged::Append { offset, subject, dedup, payload } = staged else { return };
        self.staged_bytes -= kept::cost(subject, payload.len());
        if let Some(id) = dedup {
            self.forget(id, *offset);
            self.dedup_order.retain(|(_, _, remembered)| remembered != offset);
        }
    }

    /// Lets the change be seen.
    pub(super) fn land(
        &mut self,
        staged: Staged,
        place: Option<disk::Place>,
        stream: &Stream,
    ) -> Result<Appended, BusError> {
        match staged {
            Staged::Duplicate(offset) => Ok(Appended { offset, duplicate: true }),
            Staged::Full(max) => Err(BusError::Full { log: stream.name.clone(), max }),
            Staged::Done { offset, consumer } => {
                self.done(offset, &consumer);
                Ok(Appended { offset, duplicate: false })
            }
            Staged::Append { offset, subject, payload, .. } => {
                self.staged_bytes -= kept::cost(&subject, payload.len());
                let previous = self.kept.last(&subject);
                let (time_ms, bytes, cached) = (stream.clock.now_ms(), payload.len(), Some(payload.clone()));
                self.kept.insert(offset, Message { subject: subject.clone(), time_ms, bytes, cached, place });
                self.trim(&subject);
                for taking in self.consumers.values_mut() {
                    if pattern::matches(taking.filter.as_str(), subject.as_str()) {
                        taking.stored(offset);
                    }
                }
                let republished = self.spec.republish.as_ref().and_then(|(from, to)| renamed(&subject, from, to));
                if let Some(subject) = republished {
                    stream.live.republish(subject, payload, Place { offset, previous });
                }
                Ok(Appended { offset, duplicate: false })
            }
        }
    }

    fn done(&mut self, offset: u64, consumer: &Arc<str>) {
        if self.spec.work_queue {
            self.remove(offset);
        } else if self.kept.contains(offset)
            && let Some(taking) = self.consumers.get_mut(consumer)
        {
            taking.finish(offset);
        }
    }

    fn remember(&mut self, id: Box<str>, offset: u64, time_ms: u64) {
        self.dedup_order.push_back((time_ms, id.clone(), offset));
        self.dedup.insert(id, offset);
    }

    /// Forgets this use of the id, but not a later one.
    fn forget(&mut self, id: &str, offset: u64) {
        if self.dedup.get(id) == Some(&offset) {
            self.dedup.remove(id);
        }
    }

    fn trim(&mut self, subject: &Subject) {
        let Some(most) = self.spec.per_subject_max else { return };
        while let Some(oldest) = self.kept.above(subject, most.max(1)) {
            self.remove(oldest);
        }
    }

    fn trim_all(&mut self) {
        self.kept.subjects().iter().for_each(|subject| self.trim(subject));
    }

    fn expire(&mut self, now_ms: u64) {
        if let Some(moment_ms) = self.spec.age_max.and_then(|age_max| now_ms.checked_sub(millis(age_max))) {
            while let Some(oldest) = self.kept.older_than(moment_ms) {
                self.remove(oldest);
            }
        }
        let window = millis(self.spec.dedup_window);
        while let Some((time_ms, ..)) = self.dedup_order.front()
            && time_ms.saturating_add(window) <= now_ms
            && let Some((_, id, offset)) = self.dedup_order.pop_front()
        {
            self.forget(&id, offset);
        }
    }

    fn remove(&mut self, offset: u64) {
        if self.kept.remove(offset) {
            self.consumers.values_mut().for_each(|taking| taking.forget(offset));
        }
    }

    /// Changes what the log keeps.
    pub(super) fn respec(&mut self, spec: LogSpec) {
        self.spec = spec;
        self.trim_all();
    }

    /// Makes the consumer, or changes it to `spec`.
    pub(super) fn consumer(&mut self, spec: &ConsumerSpec) -> Result<(), BusError> {
        let other = |(name, taking): (&Arc<str>, &Taking)| {
            **name != *spec.name && pattern::overlap(taking.filter.as_str(), spec.filter.as_str())
        };
        if self.spec.work_queue && self.consumers.iter().any(other) {
            return Err(BusError::Refused(format!("another consumer of {} takes some of {}", spec.log, spec.filter)));
        }
        let stored = self.kept.matching(spec.filter.as_str());
        match self.consumers.get_mut(&*spec.name) {
            Some(taking) => {
                if taking.filter != spec.filter {
                    taking.refilter(spec.filter.clone(), stored);
                }
                taking.ack_wait = spec.ack_wait;
            }
            None => {
                let done = self.done_before.remove(&*spec.name).unwrap_or_default();
                let taking = Taking::new(spec.filter.clone(), spec.ack_wait, stored, done);
                self.consumers.insert(spec.name.as_str().into(), taking);
            }
        }
        Ok(())
    }

    /// Takes up to `most` messages for `consumer`: offset, attempt, subject and payload; and says when the next of
    /// those that are with somebody comes again.
    pub(super) fn take(&mut self, consumer: &str, most: usize) -> (Vec<Taken>, Option<Instant>) {
        let Some(taking) = self.consumers.get_mut(consumer) else { return (Vec::new(), None) };
        let now = Instant::now();
        let taken = std::iter::from_fn(|| taking.take(now)).filter_map(|(offset, attempt)| {
            let (subject, body) = self.kept.get(offset)?;
            Some((offset, attempt, subject, body))
        });
        let taken = taken.take(most).collect();
        if taking.has_ready() {
            taking.wake.notify_one(); // somebody else may take the rest
        }
        (taken, taking.next_due())
    }

    /// The messages in `segment`, with the consumers that have done them.
    pub(super) fn kept_in(&self, segment: &Arc<Segment>) -> Vec<(u64, disk::Place, Vec<Arc<str>>)> {
        let done = |offset: u64| {
            let now = self.consumers.iter().filter(move |(_, taking)| taking.has_done(offset)).map(|(name, _)| name);
            let before = self.done_before.iter().filter(move |(_, done)| done.contains(&offset)).map(|(name, _)| name);
            now.chain(before).cloned().collect()
        };
        self.kept.inside(segment).into_iter().map(|(offset, place)| (offset, place, done(offset))).collect()
    }
}

/// Offset, attempt, subject and payload of a message that was taken.
pub(super) type Taken = (u64, u32, Subject, Body);

/// `subject` with `to` in place of the prefix `from`, if it has that.
fn renamed(subject: &Subject, from: &str, to: &str) -> Option<Subject> {
    let rest = subject.as_str().strip_prefix(from)?.strip_prefix('.')?;
    Some(Subject::from_trusted(format!("{to}.{rest}")))
}
