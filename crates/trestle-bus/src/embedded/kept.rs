//! The messages that one log keeps, and where their payloads are.
//!
//! Always: offsets of one subject are in order; in a log on disk the newest payloads are in memory too, up to a limit,
//! and the rest is read when asked for.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use trestle_wire::Subject;

use super::disk::{Place, Segment};
use crate::pattern;

/// Payloads of a log on disk that stay in memory, for readers who follow closely: 32 MiB x 10 logs = 320 MiB.
const CACHED_BYTES_MAX: usize = 32 << 20;

/// What a message takes beside its texts, about: the rest of its record on disk, and its place in the index.
const MESSAGE_BYTES: usize = 64;

/// What a message counts for in a log's `bytes_max`.
pub(super) fn cost(subject: &Subject, payload_bytes: usize) -> u64 {
    (MESSAGE_BYTES + subject.as_str().len() + payload_bytes) as u64
}

/// A stored message's payload, wherever it is.
#[derive(Clone)]
pub(super) enum Body {
    Here(Bytes),
    OnDisk(Place),
}

/// One stored message.
pub(super) struct Message {
    pub(super) subject: Subject,
    pub(super) time_ms: u64,
    pub(super) bytes: usize,
    pub(super) cached: Option<Bytes>,
    pub(super) place: Option<Place>,
}

/// What a log keeps.
#[derive(Default)]
pub(super) struct Kept {
    messages: BTreeMap<u64, Message>,
    by_subject: HashMap<Subject, VecDeque<u64>, RandomState>,
    bytes: u64,
    cached_bytes: usize,
    /// No payload below this offset is cached, if there is a disk.
    cached_from: u64,
}

impl Kept {
    /// Takes what was found on disk.
    pub(super) fn found(messages: BTreeMap<u64, Message>) -> Self {
        let cached_from = messages.last_key_value().map_or(0, |(last, _)| last + 1);
        let mut kept = Self { cached_from, ..Self::default() };
        messages.into_iter().for_each(|(offset, message)| kept.insert(offset, message));
        kept
    }

    /// Keeps a message whose offset is higher than all before.
    pub(super) fn insert(&mut self, offset: u64, message: Message) {
        let on_disk = message.place.is_some();
        self.by_subject.entry(message.subject.clone()).or_default().push_back(offset);
        self.bytes += cost(&message.subject, message.bytes);
        self.cached_bytes += message.cached_bytes();
        self.messages.insert(offset, message);
        while on_disk
            && self.cached_bytes > CACHED_BYTES_MAX
            && let Some((oldest_offset, oldest)) = self.messages.range_mut(self.cached_from..).next()
        {
            self.cached_bytes -= oldest.cached_bytes();
            oldest.cached = None;
            self.cached_from = oldest_offset + 1;
        }
    }

    pub(super) fn remove(&mut self, offset: u64) -> bool {
        let Some(message) = self.messages.remove(&offset) else { return false };
        self.bytes -= cost(&message.subject, message.bytes);
        self.cached_bytes -= message.cached_bytes();
        if let Some(offsets) = self.by_subject.get_mut(&message.subject) {
            if let Ok(at) = offsets.binary_search(&offset) {
                offsets.remove(at);
            }
            if offsets.is_empty() {
                self.by_subject.remove(&message.subject);
            }
        }
        true
    }

    pub(super) fn contains(&self, offset: u64) -> bool {
        self.messages.contains_key(&offset)
    }

    /// Subject and payload of one message.
    pub(super) fn get(&self, offset: u64) -> Option<(Subject, Body)> {
        let message = self.messages.get(&offset)?;
        Some((message.subject.clone(), message.body()?))
    }

    /// What all messages count for.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest message of `subject`, if there are more than `most` of it.
    pub(super) fn above(&self, subject: &Subject, most: u64) -> Option<u64> {
        self.by_subject.get(subject).filter(|offsets| offsets.len() as u64 > most)?.front().copied()
    }

    /// The oldest message, if it was stored at `moment_ms` or before.
    pub(super) fn older_than(&self, moment_ms: u64) -> Option<u64> {
        self.messages.first_key_value().filter(|(_, message)| message.time_ms <= moment_ms).map(|(offset, _)| *offset)
    }

    pub(super) fn subjects(&self) -> Vec<Subject> {
        self.by_subject.keys().cloned().collect()
    }

    /// Offsets of the messages whose subject `filter` matches.
    pub(super) fn matching<'a>(&'a self, filter: &'a str) -> impl Iterator<Item = u64> + 'a {
        let matches = move |message: &Message| pattern::matches(filter, message.subject.as_str());
        self.messages.iter().filter(move |(_, message)| matches(message)).map(|(offset, _)| *offset)
    }

    /// Up to `most` messages of `subject` from offset `from` on.
    pub(super) fn read(&self, subject: &Subject, from: u64, most: usize) -> Vec<(u64, Body)> {
        let Some(offsets) = self.by_subject.get(subject) else { return Vec::new() };
        let start = offsets.partition_point(|offset| *offset < from);
        let body = |offset: &u64| Some((*offset, self.messages.get(offset)?.body()?));
        offsets.iter().skip(start).take(most).filter_map(body).collect()
    }

    /// Offset of the last message of `subject`; 0 if there is none.
    pub(super) fn last(&self, subject: &Subject) -> u64 {
        self.by_subject.get(subject).and_then(|offsets| offsets.back().copied()).unwrap_or(0)
    }

    /// The messages that stand in `segment`.
    pub(super) fn inside(&self, segment: &Arc<Segment>) -> Vec<(u64, Place)> {
        let place = |message: &Message| message.place.clone().filter(|place| place.is_in(segment));
        self.messages.iter().filter_map(|(offset, message)| Some((*offset, place(message)?))).collect()
    }

    /// The message stands at `place` now.
    pub(super) fn moved(&mut self, offset: u64, place: Place) {
        if let Some(message) = self.messages.get_mut(&offset) {
            message.place = Some(place);
        }
    }
}

impl Message {
    fn cached_bytes(&self) -> usize {
        if self.cached.is_some() { self.bytes } else { 0 }
    }

    fn body(&self) -> Option<Body> {
        match (&self.cached, &self.place) {
            (Some(payload), _) => Some(Body::Here(payload.clone())),
            (None, Some(place)) => Some(Body::OnDisk(place.clone())),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::disk::Disk;

    #[test]
    fn the_newest_payloads_stay_in_memory_also_after_a_restart() {
        const BYTES: usize = 1 << 20;
        let folder = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::open(folder.path(), 1 << 20, |_, _| ()).expect("opens");
        let (segment, _) = disk.write(b"any", 1, 0).expect("writes");
        let message = |cached| {
            let place = Some(Place { segment: segment.clone(), record: 0, payload: 0, payload_bytes: BYTES });
            Message { subject: Subject::from_trusted("a"), time_ms: 0, bytes: BYTES, cached, place }
        };
        let found = 1 << 40; // so many offsets cannot be gone through one by one
        let mut kept = Kept::found([(1, message(None)), (found, message(None))].into());
        let payload = Bytes::from(vec![0; BYTES]);
        let newest = found + 100;
        (found + 1..=newest).for_each(|offset| kept.insert(offset, message(Some(payload.clone()))));
        let here = |offset| matches!(kept.get(offset), Some((_, Body::Here(_))));
        assert_eq!((found + 1..=newest).filter(|offset| here(*offset)).count(), CACHED_BYTES_MAX / BYTES);
        assert!(here(newest) && !here(found + 1) && kept.get(1).is_some());
    }
}
