//! A log of the simulated bus.

use std::{collections::HashMap, collections::VecDeque};

use bytes::Bytes;
use tokio::time::Instant;
use trestle_bus::{Appended, LogSpec, Place, Stored, Subject, pattern};

/// A stored message.
struct Kept {
    offset: u64,
    subject: Subject,
    payload: Bytes,
    at: Instant,
}

/// A log.
pub(crate) struct Stream {
    pub(crate) spec: LogSpec,
    last: u64,
    kept: VecDeque<Kept>,
    dedup: HashMap<String, (u64, Instant)>,
}

impl Stream {
    pub(crate) fn new(spec: LogSpec) -> Self {
        Self { spec, last: 0, kept: VecDeque::new(), dedup: HashMap::new() }
    }

    pub(crate) fn covers(&self, subject: &Subject) -> bool {
        self.spec.subjects.iter().any(|mine| pattern::matches(mine.as_str(), subject.as_str()))
    }

    /// Stores a message, and where and as what it is published; nothing of that for one that was there.
    pub(crate) fn append(
        &mut self,
        subject: &Subject,
        dedup: Option<&str>,
        payload: Bytes,
    ) -> (Appended, Option<(Subject, Place)>) {
        let now = Instant::now();
        self.expire(now);
        if let Some((offset, _)) = dedup.and_then(|id| self.dedup.get(id)) {
            return (Appended { offset: *offset, duplicate: true }, None);
        }
        let previous = self.last_of(subject);
        self.last += 1;
        let offset = self.last;
        if let Some(id) = dedup {
            self.dedup.insert(id.to_owned(), (offset, now));
        }
        self.kept.push_back(Kept { offset, subject: subject.clone(), payload, at: now });
        self.trim(subject);
        let live = self.spec.republish.as_ref().and_then(|(from, to)| {
            let rest = subject.as_str().strip_prefix(from.as_str())?;
            Some((Subject::from_trusted(format!("{to}{rest}")), Place { offset, previous }))
        });
        (Appended { offset, duplicate: false }, live)
    }

    /// Messages of one subject from an offset on; only those that were there at `until`.
    pub(crate) fn read(&mut self, subject: &Subject, from: u64, most: usize, until: Instant) -> Vec<Stored> {
        self.expire(Instant::now());
        let mine = self.kept.iter().filter(|one| one.offset >= from && one.subject == *subject && one.at <= until);
        mine.take(most).map(|one| Stored { offset: one.offset, payload: one.payload.clone() }).collect()
    }

    pub(crate) fn last(&mut self, subject: &Subject) -> u64 {
        self.expire(Instant::now());
        self.last_of(subject)
    }

    /// The highest offset that was given.
    pub(crate) fn reached(&self) -> u64 {
        self.last
    }

    fn last_of(&self, subject: &Subject) -> u64 {
        self.kept.iter().rev().find(|one| one.subject == *subject).map_or(0, |one| one.offset)
    }

    fn expire(&mut self, now: Instant) {
        if let Some(age) = self.spec.age_max {
            while self.kept.front().is_some_and(|one| one.at + age <= now) {
                self.kept.pop_front();
            }
        }
        let window = self.spec.dedup_window;
        self.dedup.retain(|_, (_, at)| *at + window > now);
    }

    fn trim(&mut self, subject: &Subject) {
        let Some(most) = self.spec.per_subject_max else { return };
        let count = self.kept.iter().filter(|one| one.subject == *subject).count();
        if count as u64 > most
            && let Some(oldest) = self.kept.iter().position(|one| one.subject == *subject)
        {
            self.kept.remove(oldest);
        }
    }
}
