//! Small facts in a JetStream bucket: [`Kv`].
//!
//! The stream is an ordinary key-value bucket, so that NATS's own tools show it. A lifetime is a whole number of seconds
//! there and is rounded up.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{
    HeaderMap, header,
    jetstream::{self, kv, message::StreamMessage, stream},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    sync::{OnceCell, mpsc},
    time::{sleep, timeout},
};
use trestle_bus::{BusError, BusState, ENTRIES_MAX, Entry, Kv, KvEvent, pattern};

use crate::{
    jetstream::{Ack, Fault, code},
    link::{Link, jittered},
};

/// How long the bucket remembers that a key is gone: a watcher that was away for less than this still hears of it.
const GONE_KEPT: Duration = Duration::from_secs(600);

/// Events that wait for one watcher; the rest waits on the server.
const EVENTS_MAX: usize = 4 << 10;

/// Messages read before those that are not asked for are let go. 16 Ki x about 1 KiB = 16 MiB.
const READ_AT_ONCE_MAX: usize = 16 << 10;

/// How long a change may be on its way to a watch; how often a silent one asks the leader, and how long it waits for that.
/// With the pause, a watch goes on about 2.5 s after the server that served it died.
const OWED_MAX: Duration = Duration::from_secs(1);

/// Before a watch that broke or ended is taken up again.
const PAUSE: Duration = Duration::from_millis(200);

/// [`Kv`] in a JetStream bucket, which is made when it is first used.
pub(crate) struct BucketKv {
    link: Arc<Link>,
    made: OnceCell<()>,
}

impl BucketKv {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link, made: OnceCell::new() }
    }

    fn stream(&self) -> String {
        bucket_stream(&self.link)
    }

    fn subject(&self, key: &str) -> String {
        bucket_subject(&self.link, key)
    }

    async fn open(&self) -> Result<(), BusError> {
        self.link.check()?;
        self.made.get_or_try_init(|| self.make()).await.copied()
    }

    async fn make(&self) -> Result<(), BusError> {
        let config = stream::Config {
            name: self.stream(),
            subjects: vec![self.subject(">")],
            storage: stream::StorageType::File,
            num_replicas: self.link.config.replicas,
            max_messages: -1,
            max_bytes: -1,
            max_consumers: -1,
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            allow_message_ttl: true,
            subject_delete_marker_ttl: Some(GONE_KEPT),
            ..stream::Config::default()
        };
        self.link.make_stream(&config).await.map_err(|fault| self.error(fault.without_jetstream()))
    }

    fn error(&self, fault: Fault) -> BusError {
        let stream = self.stream();
        self.link.unanswered(fault, &stream, |config| config.name == stream)
    }

    /// The last message of `key`, a marker of its end included.
    async fn last(&self, key: &str) -> Result<Option<StreamMessage>, Fault> {
        self.link.last_of(&self.stream(), &self.subject(key)).await
    }

    /// Messages of the bucket from a sequence on, and where to read on; `None` at the end.
    async fn page(&self, filter: &str, from: u64) -> Result<(Vec<StreamMessage>, Option<u64>), BusError> {
        let read = self.link.read(&self.stream(), filter, from, READ_AT_ONCE_MAX).await;
        let read = read.map_err(|fault| self.error(fault))?;
        let more = read.len() == READ_AT_ONCE_MAX;
        let next = read.last().map(|last| last.sequence + 1).filter(|_| more);
        Ok((read, next))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>, last: Option<u64>) -> Result<Ack, Fault> {
        self.link.fits(&value)?;
        let mut headers = HeaderMap::new();
        if let Some(ttl) = ttl {
            headers.insert(header::NATS_MESSAGE_TTL, header::HeaderValue::from(seconds(ttl)));
        }
        if let Some(last) = last {
            headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, header::HeaderValue::from(last));
        }
        self.link.store(self.subject(key), headers, value).await
    }
}

/// The stream that is the bucket.
fn bucket_stream(link: &Link) -> String {
    format!("KV_{}", link.config.bucket)
}

/// Where the bucket stores a key.
fn bucket_subject(link: &Link, key: &str) -> String {
    format!("$KV.{}.{key}", link.config.bucket)
}

/// Whole seconds, at least one.
fn seconds(ttl: Duration) -> u64 {
    (ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).max(1)
}

/// Whether a message of the bucket says that its key is gone.
fn is_gone(message: &StreamMessage) -> bool {
    let operation = message.headers.get("KV-Operation").map(header::HeaderValue::as_str);
    matches!(operation, Some("DEL" | "PURGE")) || message.headers.get("Nats-Marker-Reason").is_some()
}

/// The key that a message of the bucket is about, if it starts with `prefix`. `stem` is what stands before every key.
fn key(message: &StreamMessage, stem: &str, prefix: &str) -> Option<String> {
    message.subject.strip_prefix(stem).filter(|key| key.starts_with(prefix)).map(str::to_owned)
}

fn entry(message: StreamMessage) -> Entry {
    Entry { value: message.payload, revision: message.sequence }
}

fn check(key: &str) -> Result<(), BusError> {
    if pattern::is_valid_key(key) { Ok(()) } else { Err(BusError::Refused(format!("{key:?} is not a key"))) }
}

#[async_trait]
impl Kv for BucketKv {
    async fn get(&self, key: &str) -> Result<Option<Entry>, BusError> {
        check(key)?;
        self.open().await?;
        let last = self.last(key).await.map_err(|fault| self.error(fault))?;
        Ok(last.filter(|message| !is_gone(message)).map(entry))
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<(String, Entry)>, BusError> {
        check(&format!("{prefix}x"))?;
        self.open().await?;
        let (stem, filter) = (self.subject(""), self.subject(&filter(prefix)));
        // One that is set meanwhile may be read twice, the later one last.
        let (mut entries, mut from) = (BTreeMap::new(), Some(1));
        while let Some(next) = from {
            let read;
            (read, from) = self.page(&filter, next).await?;
            for message in read {
                match key(&message, &stem, prefix) {
                    Some(key) if is_gone(&message) => drop(entries.remove(&key)),
                    Some(key) => drop(entries.insert(key, entry(message))),
                    None => {}
                }
            }
            if entries.len() > ENTRIES_MAX {
                return Err(BusError::too_many_keys(prefix));
            }
        }
        Ok(entries.into_iter().collect())
    }

    async fn each(&self, prefix: &str, visit: &mut (dyn FnMut(String, Entry) + Send)) -> Result<(), BusError> {
        check(&format!("{prefix}x"))?;
        self.open().await?;
        let (stem, filter) = (self.subject(""), self.subject(&filter(prefix)));
        let mut from = Some(1);
        while let Some(next) = from {
            let read;
            (read, from) = self.page(&filter, next).await?;
            for message in read.into_iter().filter(|message| !is_gone(message)) {
                if let Some(key) = key(&message, &stem, prefix) {
                    visit(key, entry(message));
                }
            }
        }
        Ok(())
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<u64, BusError> {
        check(key)?;
        self.open().await?;
        let ack = self.set(key, value, ttl, None).await.map_err(|fault| self.error(fault))?;
        Ok(ack.sequence)
    }

    async fn compare_and_set(
        &self,
        key: &str,
        expected: u64,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Option<u64>, BusError> {
        check(key)?;
        self.open().await?;
        let mut last = expected;
        loop {
            match self.set(key, value.clone(), ttl, Some(last)).await {
                Ok(ack) => return Ok(Some(ack.sequence)),
                Err(Fault::Refused { code, .. }) if code::WRONG_LAST_SEQUENCE.contains(&code) => {}
                Err(fault) => return Err(self.error(fault)),
            }
            // "There is none" may still have a marker behind it, which is then what the bucket must find last.
            match self.last(key).await.map_err(|fault| self.error(fault))? {
                Some(gone) if expected == 0 && is_gone(&gone) && gone.sequence != last => last = gone.sequence,
                None if expected == 0 && last != 0 => last = 0,
                _ => return Ok(None),
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<(), BusError> {
        check(key)?;
        self.open().await?;
        let last = self.last(key).await.map_err(|fault| self.error(fault))?;
        if last.is_none_or(|message| is_gone(&message)) {
            return Ok(());
        }
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "PURGE");
        headers.insert(header::NATS_ROLLUP, "sub");
        headers.insert(header::NATS_MESSAGE_TTL, header::HeaderValue::from(seconds(GONE_KEPT)));
        let stored = self.link.store(self.subject(key), headers, Bytes::new()).await;
        stored.map(|_| ()).map_err(|fault| self.error(fault))
    }

    async fn watch(&self, prefix: &str) -> Result<mpsc::Receiver<KvEvent>, BusError> {
        check(&format!("{prefix}x"))?;
        self.open().await?;
        let next = self.link.reached(&self.stream()).await.map_err(|fault| self.error(fault))? + 1;
        let context = jetstream::new(self.link.client.clone());
        let refused = |error: &dyn std::fmt::Display| BusError::Refused(format!("watch: {error}"));
        let bucket = context.get_key_value(&self.link.config.bucket).await.map_err(|error| refused(&error))?;
        let first = bucket.watch_from_revision(filter(prefix), next).await.map_err(|error| refused(&error))?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let watching = Watching { link: self.link.clone(), bucket, prefix: prefix.into(), next, sender };
        tokio::spawn(watching.run(first));
        Ok(events)
    }
}

/// The keys that the server is asked for: those below the prefix's last dot.
fn filter(prefix: &str) -> String {
    prefix.rsplit_once('.').map_or_else(|| ">".to_owned(), |(below, _)| format!("{below}.>"))
}

/// One watch, taken up again after every break from where it was.
struct Watching {
    link: Arc<Link>,
    bucket: kv::Store,
    prefix: String,
    next: u64,
    sender: mpsc::Sender<KvEvent>,
}

impl Watching {
    async fn run(mut self, first: kv::Watch) {
        let mut watch = Some(first);
        let mut state = self.link.signals.state.subscribe();
        loop {
            if let Some(watch) = watch.take() {
                self.follow(watch).await;
                sleep(jittered(PAUSE)).await; // one that ends at once is not made again at once
            }
            let usable = state.wait_for(|state| *state != BusState::Away).await.map(|state| *state);
            if self.sender.is_closed() || !matches!(usable, Ok(BusState::Connected(_))) {
                return;
            }
            match timeout(OWED_MAX, self.bucket.watch_from_revision(filter(&self.prefix), self.next)).await {
                Ok(Ok(again)) => watch = Some(again),
                failed => {
                    tracing::debug!(failed = ?failed.map(|made| made.err()), "cannot watch yet");
                    self.catch_up().await;
                    sleep(jittered(PAUSE)).await;
                }
            }
        }
    }

    /// Returns when the leader has had something for the watch for [`OWED_MAX`]: the server that served it has died, which
    /// the client would notice only after several heartbeats.
    async fn owed(&self) {
        let (stream, filter) = (bucket_stream(&self.link), bucket_subject(&self.link, &filter(&self.prefix)));
        loop {
            sleep(OWED_MAX).await;
            // What is asked while there is no leader is never answered, also when there is one again.
            let reaches = timeout(OWED_MAX, self.link.reaches(&stream, &filter)).await;
            if matches!(reaches, Ok(Ok(reaches)) if reaches >= self.next) {
                return sleep(OWED_MAX).await;
            }
        }
    }

    /// Passes on what the leader of the bucket has, while no watch can be made: that takes another leader.
    async fn catch_up(&mut self) {
        let (stream, stem) = (bucket_stream(&self.link), bucket_subject(&self.link, ""));
        let filter = format!("{stem}{}", filter(&self.prefix));
        let read = timeout(OWED_MAX, self.link.read(&stream, &filter, self.next, READ_AT_ONCE_MAX)).await;
        let Ok(Ok(read)) = read else { return };
        for message in read {
            self.next = message.sequence + 1;
            let Some(key) = key(&message, &stem, &self.prefix) else { continue };
            let entry = if is_gone(&message) { None } else { Some(entry(message)) };
            if self.sender.send(KvEvent { key, entry }).await.is_err() {
                return;
            }
        }
    }

    /// Passes events on until the watch, the connection, the bus or the reader ends.
    async fn follow(&mut self, mut watch: kv::Watch) {
        let mut breaks = self.link.breaks();
        let mut state = self.link.signals.state.subscribe();
        loop {
            let entry = tokio::select! {
                entry = watch.next() => entry,
                () = self.owed() => return,
                () = self.sender.closed() => return,
                _ = breaks.changed() => return,
                _ = state.wait_for(|state| *state == BusState::Closed) => return,
            };
            let Some(Ok(entry)) = entry else { return };
            self.next = entry.revision + 1;
            if !entry.key.starts_with(&self.prefix) {
                continue;
            }
            let there = entry.operation == kv::Operation::Put;
            let value = there.then_some(Entry { value: entry.value, revision: entry.revision });
            if self.sender.send(KvEvent { key: entry.key, entry: value }).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_rounded_up_to_seconds() {
        for (ttl, is) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_500, 3)] {
            assert_eq!(seconds(Duration::from_millis(ttl)), is);
        }
    }

    #[test]
    fn a_prefix_is_asked_for_by_its_last_dot() {
        for (prefix, is) in [("", ">"), ("ses", ">"), ("session.", "session.>"), ("a.b.c", "a.b.>")] {
            assert_eq!(filter(prefix), is);
        }
    }
}
