//! What a bus promises, the tests of that promise, and the embedded bus.
//!
//! The bus is the fabric between nodes. Three small traits say what it does: [`Bus`] carries messages to whoever
//! listens now, [`Log`] keeps them, [`Kv`] holds small facts. [`promise`] is the suite that every implementation runs;
//! [`embedded`] is the one that needs nothing but this process.
//!
//! # Promises
//! - A message is delivered to every subscription whose pattern matches, and to one member of each queue group.
//! - Messages of one publisher on one subject arrive in the order of its calls.
//! - When [`Bus::subscribe`] returns, everything published afterwards through the same bus object is heard.
//! - A call that cannot be served is an error at once; nothing is buffered silently while the bus is away.
//! - What a subscription could not take is told to it as [`Heard::Lost`].
//! - [`Log::append`] returns after the message is stored as the bus promises, and appending one dedup id twice within
//!   the log's dedup window stores it once and returns the first offset.
//! - What was stored before a call is seen by the call, on every node: what [`Log::read`], [`Log::last`], [`Kv::get`] and
//!   [`Kv::entries`] do not find had not been stored, or has been removed. This counts also for what was heard live with
//!   its [`Place`]. A bus that cannot be sure says that it is away, or times out.

pub mod embedded;
pub mod logs;
pub mod pattern;
pub mod promise;
mod queue;
mod refuse;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
pub use queue::{Ends, Feed, Subscription};
use tokio::sync::{mpsc, watch};
pub use trestle_wire::Subject;

/// Messages to whoever listens now.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Hands `payload` to the bus for everyone who listens to `subject`. Dropped before it has returned, it has handed
    /// nothing over.
    ///
    /// # Errors
    /// [`BusError::Away`] while the bus is not connected, [`BusError::TooLarge`] above [`Bus::payload_bytes_max`].
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError>;

    /// As [`Bus::publish`], and asks those who hear it to [`Bus::publish`] something to `reply_to`.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    async fn publish_with_reply(&self, subject: &Subject, reply_to: &Subject, payload: Bytes) -> Result<(), BusError>;

    /// Listens to `pattern` (`*` is one token, a last `>` is one or more). With a `group`, each message goes to one of
    /// the group's subscriptions. Returns once the subscription is in force; dropping it ends it. A bare `>` hears the
    /// bus's own traffic too.
    ///
    /// # Errors
    /// [`BusError::Away`] while the bus is not connected.
    async fn subscribe(&self, pattern: &Subject, group: Option<&str>) -> Result<Subscription, BusError>;

    /// Publishes and waits for the first answer.
    ///
    /// # Errors
    /// [`BusError::NoResponders`] at once when nobody listens, [`BusError::Timeout`] after `timeout`, and those of
    /// [`Bus::publish`].
    async fn request(&self, subject: &Subject, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError>;

    /// Publishes and collects answers until `most` have come, or none has come for `quiet`.
    ///
    /// Nobody listening is an empty answer, not an error.
    ///
    /// # Errors
    /// Those of [`Bus::publish`].
    async fn gather(
        &self,
        subject: &Subject,
        payload: Bytes,
        most: usize,
        quiet: Duration,
    ) -> Result<Vec<Bytes>, BusError>;

    /// Whether the bus is connected, now and when it changes.
    fn state(&self) -> watch::Receiver<BusState>;

    /// Largest payload the bus takes, in bytes.
    fn payload_bytes_max(&self) -> usize;

    /// How many gateway processes may answer a [`Bus::gather`]: 1 on the embedded bus, `None` where that is unknown.
    fn nodes_max(&self) -> Option<usize>;

    /// Delivers what was taken, then closes. Later calls are [`BusError::Away`].
    async fn close(&self);
}

/// Durable, ordered streams.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Makes the log, or changes it to `spec` if it exists.
    ///
    /// # Errors
    /// [`BusError::Away`], or [`BusError::Refused`] if the bus does not allow it.
    async fn ensure(&self, spec: &LogSpec) -> Result<(), BusError>;

    /// Stores `payload` at `subject` and says where. Of two appends under way, the one polled first is stored first.
    ///
    /// # Errors
    /// [`BusError::NoLog`] if no log covers `subject`; [`BusError::Full`] above [`LogSpec::bytes_max`] (nothing was
    /// stored; what is done with makes room, soon); [`BusError::Timeout`] if it is not known to be stored (try again
    /// with the same `dedup` id); those of [`Bus::publish`].
    async fn append(&self, subject: &Subject, dedup: Option<&str>, payload: Bytes) -> Result<Appended, BusError>;

    /// Reads stored messages of one `subject` (no wildcards), from `from` on, at most `most`, oldest first.
    ///
    /// Fewer than `most` are all there are: a message that was stored or heard before the call and is not among them has
    /// been removed by the log's limits. While the log has no leader it cannot be read (4-9 s after a server's death).
    ///
    /// # Errors
    /// [`BusError::NoLog`], [`BusError::Away`], [`BusError::Timeout`].
    async fn read(&self, log: &str, subject: &Subject, from: u64, most: usize) -> Result<Vec<Stored>, BusError>;

    /// Offset of the last message of one `subject`, exactly; 0 if there is none.
    ///
    /// # Errors
    /// As [`Log::read`].
    async fn last(&self, log: &str, subject: &Subject) -> Result<u64, BusError>;

    /// The highest offset that `log` has given, exactly, also to a message that is gone by its limits; 0 before the first.
    /// Whoever knows of a higher one knows that the log has lost what it had stored, or was made anew.
    ///
    /// # Errors
    /// As [`Log::read`].
    async fn reached(&self, log: &str) -> Result<u64, BusError>;

    /// A durable consumer, made if it does not exist. All with the same log and name share the work, on all nodes.
    ///
    /// # Errors
    /// [`BusError::NoLog`], [`BusError::Away`], [`BusError::Refused`].
    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Arc<dyn Consumer>, BusError>;
}

/// A durable consumer of a log.
#[async_trait]
pub trait Consumer: Send + Sync + 'static {
    /// Waits up to `wait` for a message, then takes it and what else is ready, at most `most`. Empty after `wait`.
    ///
    /// Safe to drop before it returns: what it took comes again.
    ///
    /// # Errors
    /// [`BusError::Away`] while the bus is not connected.
    async fn fetch(&self, most: usize, wait: Duration) -> Result<Vec<Work>, BusError>;
}

/// Most keys that [`Kv::entries`] gives at once. 64 Ki x about 1 KiB = 64 MiB for as long as the caller keeps them.
pub const ENTRIES_MAX: usize = 64 << 10;

/// Small facts with a version. A key is 1 to 256 letters, digits, `-`, `_`, `=`, `/` and `.`, the dot not at an end;
/// any other is [`BusError::Refused`].
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// The value at `key` with its revision, exactly: nothing older than what any node was told before the call.
    ///
    /// # Errors
    /// [`BusError::Away`], [`BusError::Timeout`].
    async fn get(&self, key: &str) -> Result<Option<Entry>, BusError>;

    /// All keys that start with `prefix`, in their order. One that is there before the call and after it is among them;
    /// one that is set meanwhile may have its old or its new value. To follow from here on, [`Kv::watch`] first.
    ///
    /// For few keys, seldom: a bus may look at all keys that are equal up to the prefix's last dot.
    ///
    /// # Errors
    /// As [`Kv::get`]; [`BusError::Refused`] if there are more than [`ENTRIES_MAX`].
    async fn entries(&self, prefix: &str) -> Result<Vec<(String, Entry)>, BusError>;

    /// Shows `visit` all keys that start with `prefix`, however many, in no order. One that is there before the call and
    /// after it is shown; one that is set meanwhile may be shown twice, the later value last.
    ///
    /// # Errors
    /// As [`Kv::get`]; some may have been shown.
    async fn each(&self, prefix: &str, visit: &mut (dyn FnMut(String, Entry) + Send)) -> Result<(), BusError>;

    /// Sets `key`, for `ttl` if given, and returns the new revision.
    ///
    /// # Errors
    /// As [`Kv::get`].
    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError>;

    /// Sets `key` only if its revision is `expected` (0: only if there is none). `None` if it is not, and then nothing
    /// was set.
    ///
    /// # Errors
    /// As [`Kv::get`]; after [`BusError::Timeout`] it may have been set: read it.
    async fn compare_and_set(
        &self,
        key: &str,
        expected: u64,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Option<u64>, BusError>;

    /// Removes `key`.
    ///
    /// # Errors
    /// As [`Kv::get`].
    async fn delete(&self, key: &str) -> Result<(), BusError>;

    /// What happens to the keys that start with `prefix` from now on; an expired key is a deletion.
    ///
    /// In order of revision; of a key that changes while the bus has a break, only the last change is heard. The channel
    /// ends when the bus is closed or its reader falls too far behind: watch again, and read again.
    ///
    /// # Errors
    /// As [`Kv::get`].
    async fn watch(&self, prefix: &str) -> Result<mpsc::Receiver<KvEvent>, BusError>;
}

/// A whole bus: what a node is given.
#[derive(Clone)]
pub struct Fabric {
    /// Live messages.
    pub bus: Arc<dyn Bus>,
    /// Stored messages.
    pub log: Arc<dyn Log>,
    /// Small facts.
    pub kv: Arc<dyn Kv>,
}

/// Whether the bus can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusState {
    /// Connected. The number counts connections, so that a listener sees a break that was mended at once.
    Connected(u64),
    /// Not connected; trying to be.
    Away,
    /// Closed by [`Bus::close`].
    Closed,
}

/// Why the bus did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BusError {
    /// Not connected.
    #[error("the bus is not connected")]
    Away,
    /// Nobody listens.
    #[error("nobody listens to {0}")]
    NoResponders(Subject),
    /// No answer in time.
    #[error("no answer from the bus within {0:?}")]
    Timeout(Duration),
    /// Larger than the bus takes.
    #[error("payload of {bytes} bytes is larger than the {max} bytes the bus takes")]
    TooLarge {
        /// Size of the payload.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The log stores as much as it may.
    #[error("log {log} is full: it stores at most {max} bytes")]
    Full {
        /// Its name.
        log: String,
        /// The limit, in bytes.
        max: u64,
    },
    /// No log of that name, or none for that subject.
    #[error("no log covers {0}")]
    NoLog(String),
    /// The bus said no.
    #[error("the bus refused: {0}")]
    Refused(String),
}

impl BusError {
    /// For [`Kv::entries`]: more than [`ENTRIES_MAX`] keys begin with `prefix`.
    #[must_use]
    pub fn too_many_keys(prefix: &str) -> Self {
        Self::Refused(format!("more than {ENTRIES_MAX} keys begin with {prefix:?}; ask for a longer prefix"))
    }
}

/// What a subscription hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A message.
    Message(Message),
    /// Messages were lost here: the listener was too slow, or the bus was away. The number is 0 when not known.
    Lost(u64),
}

/// A message of the bus.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it was published.
    pub subject: Subject,
    /// Where an answer is awaited.
    pub reply_to: Option<Subject>,
    /// What it says.
    pub payload: Bytes,
    /// Its place in a log, if it was republished from one.
    pub place: Option<Place>,
}

/// A message's place among those of its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its offset.
    pub offset: u64,
    /// Offset of the one before it on the same subject; 0 for the first.
    pub previous: u64,
}

/// What a log keeps, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSpec {
    /// Its name: upper-case letters, digits, `-` and `_`.
    pub name: String,
    /// Patterns of the subjects it stores.
    pub subjects: Vec<Subject>,
    /// Most messages kept per subject; older ones go. `None`: no such limit.
    pub per_subject_max: Option<u64>,
    /// How long a message is kept. `None`: no such limit.
    pub age_max: Option<Duration>,
    /// Most bytes it stores, with what the bus adds to each message; above, an append is refused. `None`: no such limit.
    pub bytes_max: Option<u64>,
    /// Whether a message goes once a consumer has acked it.
    pub work_queue: bool,
    /// How long a dedup id is remembered.
    pub dedup_window: Duration,
    /// Subject prefixes `(from, to)`: what is stored under `from` is published under `to`, with its [`Place`].
    pub republish: Option<(String, String)>,
}

/// Where a message was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its offset, from 1; offsets of one subject grow, but not by one.
    pub offset: u64,
    /// Whether it was there already, by its dedup id.
    pub duplicate: bool,
}

/// A stored message.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its offset.
    pub offset: u64,
    /// What it says.
    pub payload: Bytes,
}

/// A consumer of a log.
#[derive(Clone, Debug)]
pub struct ConsumerSpec {
    /// Name of the log.
    pub log: String,
    /// Name of the consumer: letters, digits, `-` and `_`.
    pub name: String,
    /// Pattern of the subjects it takes; within one work queue, those of different consumers do not overlap.
    pub filter: Subject,
    /// A message that is not acked within this comes again.
    pub ack_wait: Duration,
}

/// A message taken by a consumer. Dropping it without a word is a [`Work::nak`] after `ack_wait`.
pub struct Work {
    /// Where it was stored.
    pub subject: Subject,
    /// What it says.
    pub payload: Bytes,
    /// From 1; how often it was taken.
    pub attempt: u32,
    settle: Arc<dyn Settle>,
}

/// How an implementation is told what became of [`Work`].
#[async_trait]
pub trait Settle: Send + Sync + 'static {
    /// Settles the message for good or for another try.
    async fn settle(&self, outcome: Outcome) -> Result<(), BusError>;
}

/// What became of [`Work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; it does not come again. Returns after the bus has noted it; a work queue's log forgets it soon.
    Ack,
    /// Not done; it comes again after the delay.
    Nak(Duration),
    /// Never to be done; it does not come again.
    Term,
    /// Still at it: `ack_wait` begins anew.
    InProgress,
}

impl Work {
    /// A message that `settle` is told about.
    #[must_use]
    pub fn new(subject: Subject, payload: Bytes, attempt: u32, settle: Arc<dyn Settle>) -> Self {
        Self { subject, payload, attempt, settle }
    }

    /// Done; returns after the bus has noted it.
    ///
    /// # Errors
    /// [`BusError::Away`] or [`BusError::Timeout`]: it may come again.
    pub async fn ack(&self) -> Result<(), BusError> {
        self.settle.settle(Outcome::Ack).await
    }

    /// Not done; it comes again after `delay`.
    ///
    /// # Errors
    /// [`BusError::Away`]: it comes again after `ack_wait`.
    pub async fn nak(&self, delay: Duration) -> Result<(), BusError> {
        self.settle.settle(Outcome::Nak(delay)).await
    }

    /// Never to be done.
    ///
    /// # Errors
    /// [`BusError::Away`]: it comes again after `ack_wait`.
    pub async fn term(&self) -> Result<(), BusError> {
        self.settle.settle(Outcome::Term).await
    }

    /// Still at it.
    ///
    /// # Errors
    /// [`BusError::Away`].
    pub async fn in_progress(&self) -> Result<(), BusError> {
        self.settle.settle(Outcome::InProgress).await
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("subject", &self.subject).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// A value and its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// Its revision.
    pub revision: u64,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEvent {
    /// The key.
    pub key: String,
    /// The new value; `None` when it was deleted or has expired.
    pub entry: Option<Entry>,
}
