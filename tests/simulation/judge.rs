//! What really happened, and what was found to be wrong with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use prost::Message as _;
use tokio::time::Instant;
use trestle_bus::{Message, Subject};
use trestle_wire::v1;

/// When the first seed began.
pub(crate) static BEGAN: OnceLock<Instant> = OnceLock::new();

/// The history of one seed.
pub(crate) struct Judge {
    began: Instant,
    /// What happened, with its moment.
    pub(crate) trace: Vec<String>,
    /// Broken invariants.
    pub(crate) faults: Vec<String>,
    /// Stored messages: ids by subject and offset.
    logs: BTreeMap<String, BTreeMap<u64, String>>,
    ids: BTreeSet<(String, String)>,
    /// Messages that were said and not stored: ids by subject, in their order.
    live: BTreeMap<String, Vec<String>>,
    /// Sessions of each client, the latest at the end.
    pub(crate) sessions: BTreeMap<String, Vec<String>>,
    /// By user: up to which offset of the inbox the user is done, as far as anybody asked for it.
    pub(crate) acks_sent: BTreeMap<String, u64>,
    /// And as far as it was agreed.
    pub(crate) acks_agreed: BTreeMap<String, u64>,
}

impl Judge {
    pub(crate) fn new() -> Self {
        let began = Instant::now();
        BEGAN.get_or_init(|| began);
        Self {
            began,
            trace: Vec::new(),
            faults: Vec::new(),
            logs: BTreeMap::new(),
            ids: BTreeSet::new(),
            live: BTreeMap::new(),
            sessions: BTreeMap::new(),
            acks_sent: BTreeMap::new(),
            acks_agreed: BTreeMap::new(),
        }
    }

    /// Something happened.
    pub(crate) fn note(&mut self, what: impl std::fmt::Display) {
        let at = self.began.elapsed().as_millis();
        self.trace.push(format!("{at:>7} {what}"));
    }

    /// An invariant is broken.
    pub(crate) fn fault(&mut self, id: &str, what: impl std::fmt::Display) {
        self.note(format!("*** {id} {what}"));
        self.faults.push(format!("{id} {what}"));
    }

    /// A log has stored a message.
    pub(crate) fn appended(&mut self, subject: &Subject, offset: u64, payload: &[u8]) {
        let Ok(envelope) = v1::Envelope::decode(payload) else { return };
        self.note(format!("{subject} {offset} {}", envelope.id));
        if !self.ids.insert((subject.to_string(), envelope.id.clone())) {
            self.fault("STORED-ONCE", format!("{} is stored twice at {subject}", envelope.id));
        }
        self.logs.entry(subject.to_string()).or_default().insert(offset, envelope.id);
    }

    /// A message is on its way to whoever listens.
    pub(crate) fn said(&mut self, message: &Message) {
        let subject = message.subject.as_str();
        if !["t.ch.", "t.user.", "t.session.", "t.group.", "t.all"].iter().any(|stem| subject.starts_with(stem)) {
            return;
        }
        let Ok(envelope) = v1::Envelope::decode(message.payload.clone()) else { return };
        if envelope.message_type.is_empty() {
            return;
        }
        self.note(format!("{subject} {}", envelope.id));
        self.live.entry(subject.to_owned()).or_default().push(envelope.id);
    }

    /// The id of a stored message.
    pub(crate) fn stored(&self, subject: &str, offset: u64) -> Option<&str> {
        self.logs.get(subject)?.get(&offset).map(String::as_str)
    }

    /// Offsets of the messages between two, both not meant.
    pub(crate) fn between(&self, subject: &str, after: u64, before: u64) -> Vec<u64> {
        let Some(log) = self.logs.get(subject).filter(|_| after + 1 < before) else { return Vec::new() };
        log.range(after + 1..before).map(|(offset, _)| *offset).collect()
    }

    /// How many live messages were said at a subject.
    pub(crate) fn live_count(&self, subject: &str) -> usize {
        self.live.get(subject).map_or(0, Vec::len)
    }

    /// Which of the live messages at a subject that is.
    pub(crate) fn live_place(&self, subject: &str, id: &str) -> Option<usize> {
        self.live.get(subject)?.iter().position(|there| there == id)
    }
}
