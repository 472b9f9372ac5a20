//! Stored messages in this process: [`Log`].

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::{sync::Notify, time::Instant};
use trestle_wire::Subject;

use super::{
    clock::Clock,
    disk::{DataDir, Disk},
    journal::Journal,
    kept::Body,
    live::Live,
    record::Record,
    stream::{Change, Found, State, Stream, Taken},
};
use crate::{
    Appended, BusError, BusState, Consumer, ConsumerSpec, Log, LogSpec, Outcome, Settle, Stored as StoredMessage, Work,
    pattern,
};

/// Longest subject and longest dedup id, in bytes: their lengths stand in 16 bits on disk.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// All logs of an embedded bus.
pub(super) struct Stored {
    live: Arc<Live>,
    clock: Clock,
    segment_bytes_max: u64,
    /// Held so that no other process uses it; given back when the bus is closed.
    data: tokio::sync::Mutex<Option<Arc<DataDir>>>,
    on_disk: bool,
    logs: RwLock<Vec<Arc<Covered>>>,
}

/// A log and the subjects it stores.
struct Covered {
    subjects: Vec<Subject>,
    stream: Arc<Stream>,
}

impl Stored {
    pub(super) fn new(live: Arc<Live>, clock: Clock, data: Option<DataDir>, segment_bytes_max: u64) -> Arc<Self> {
        let (on_disk, data) = (data.is_some(), tokio::sync::Mutex::new(data.map(Arc::new)));
        Arc::new(Self { live, clock, segment_bytes_max, data, on_disk, logs: RwLock::default() })
    }

    fn named(&self, name: &str) -> Result<Arc<Stream>, BusError> {
        let logs = self.logs.read();
        let found = logs.iter().find(|log| log.stream.name == name);
        found.map(|log| log.stream.clone()).ok_or_else(|| BusError::NoLog(name.into()))
    }

    fn covering(&self, subject: &Subject) -> Result<Arc<Stream>, BusError> {
        let logs = self.logs.read();
        let covers =
            |log: &&Arc<Covered>| log.subjects.iter().any(|at| pattern::matches(at.as_str(), subject.as_str()));
        logs.iter().find(covers).map(|log| log.stream.clone()).ok_or_else(|| BusError::NoLog(subject.to_string()))
    }

    /// Drops what is too old, also from logs that nobody touches, and then the files that nothing needs.
    pub(super) fn sweep(&self) {
        for log in &*self.logs.read() {
            drop(log.stream.state());
            if let Some(journal) = &log.stream.journal {
                journal.tidy();
            }
        }
    }

    /// Lets what was begun reach the disk, and gives the data directory back.
    pub(super) async fn close(&self) {
        let mut data = self.data.lock().await;
        let logs = std::mem::take(&mut *self.logs.write());
        let closed = tokio::task::spawn_blocking(move || {
            logs.iter().filter_map(|log| log.stream.journal.as_ref()).for_each(Journal::close);
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "could not close the logs");
        }
        data.take();
    }

    fn check(&self, spec: &LogSpec) -> Result<Option<Arc<Stream>>, BusError> {
        let named = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        if spec.name.is_empty() || !spec.name.bytes().all(named) {
            return Err(BusError::Refused(format!("{:?} is not a log's name", spec.name)));
        }
        if let Some(bad) = spec.subjects.iter().find(|at| !pattern::is_valid(at.as_str(), true)) {
            return Err(BusError::Refused(format!("{bad:?} is not a pattern")));
        }
        let logs = self.logs.read();
        let overlaps = |log: &&Arc<Covered>| {
            let mut pairs = log.subjects.iter().flat_map(|one| spec.subjects.iter().map(move |other| (one, other)));
            log.stream.name != spec.name && pairs.any(|(one, other)| pattern::overlap(one.as_str(), other.as_str()))
        };
        if let Some(other) = logs.iter().find(overlaps) {
            return Err(BusError::Refused(format!("log {} stores some of {:?}", other.stream.name, spec.subjects)));
        }
        let there = logs.iter().find(|log| log.stream.name == spec.name).map(|log| log.stream.clone());
        if there.as_ref().is_some_and(|stream| stream.state().spec.work_queue != spec.work_queue) {
            return Err(BusError::Refused(format!("log {} cannot become or stop being a work queue", spec.name)));
        }
        Ok(there)
    }

    async fn open(&self, spec: &LogSpec, data: Option<&Arc<DataDir>>) -> Result<Arc<Stream>, BusError> {
        let (live, clock, spec) = (self.live.clone(), self.clock, spec.clone());
        let Some(data) = data.cloned() else {
            let state = State::new(spec, Found::default());
            return Ok(Arc::new(Stream::new(state, None, live, clock)));
        };
        let name = spec.name.clone();
        let segment_bytes_max = self.segment_bytes_max;
        let opened = tokio::task::spawn_blocking(move || -> std::io::Result<Arc<Stream>> {
            let mut found = Found::default();
            let found_one = |record: Record<'_>, place| found.take(record, place);
            let disk = Disk::open(&data.log(&spec.name), segment_bytes_max, found_one)?;
            found.skip_to(disk.first_of_newest());
            let state = State::new(spec, found);
            let (journal, writer) = Journal::new(disk);
            let stream = Arc::new(Stream::new(state, Some(journal), live, clock));
            if let Some(journal) = &stream.journal {
                journal.run(&stream, writer)?;
            }
            Ok(stream)
        });
        let refused = |error: &dyn std::fmt::Display| BusError::Refused(format!("log {name}: {error}"));
        opened.await.map_err(|error| refused(&error))?.map_err(|error| refused(&error))
    }
}

/// [`Log`] in this process.
pub(super) struct StoredLog(pub(super) Arc<Stored>);

#[async_trait]
impl Log for StoredLog {
    async fn ensure(&self, spec: &LogSpec) -> Result<(), BusError> {
        let data = self.0.data.lock().await; // one at a time
        self.0.live.is_open()?;
        let stream = match self.0.check(spec)? {
            Some(stream) => {
                stream.state().respec(spec.clone());
                stream
            }
            None if self.0.on_disk && data.is_none() => return Err(BusError::Away),
            None => self.0.open(spec, data.as_ref()).await?,
        };
        let mut logs = self.0.logs.write();
        logs.retain(|log| log.stream.name != spec.name);
        logs.push(Arc::new(Covered { subjects: spec.subjects.clone(), stream }));
        Ok(())
    }

    async fn append(&self, subject: &Subject, dedup: Option<&str>, payload: Bytes) -> Result<Appended, BusError> {
        self.0.live.is_open()?;
        self.0.live.fits(&payload)?;
        let dedup = dedup.filter(|id| !id.is_empty());
        if dedup.map_or(0, str::len).max(subject.as_str().len()) > TEXT_BYTES_MAX {
            return Err(BusError::Refused(format!("subject or dedup id longer than {TEXT_BYTES_MAX} bytes")));
        }
        let stream = self.0.covering(subject)?;
        stream.change(Change::Append { subject: subject.clone(), dedup: dedup.map(Into::into), payload }).await
    }

    async fn read(&self, log: &str, subject: &Subject, from: u64, most: usize) -> Result<Vec<StoredMessage>, BusError> {
        self.0.live.is_open()?;
        let found = self.0.named(log)?.state().kept.read(subject, from, most);
        let messages = load(found).await?.into_iter();
        let readable = messages.map(|(offset, payload)| Ok(StoredMessage { offset, payload: payload? }));
        readable.collect::<std::io::Result<_>>().map_err(|error| unreadable(&error))
    }

    async fn last(&self, log: &str, subject: &Subject) -> Result<u64, BusError> {
        self.0.live.is_open()?;
        Ok(self.0.named(log)?.state().kept.last(subject))
    }

    async fn reached(&self, log: &str) -> Result<u64, BusError> {
        self.0.live.is_open()?;
        Ok(self.0.named(log)?.state().next() - 1)
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Arc<dyn Consumer>, BusError> {
        self.0.live.is_open()?;
        let stream = self.0.named(&spec.log)?;
        stream.state().consumer(spec)?;
        Ok(Arc::new(Taker { stream, name: spec.name.as_str().into() }))
    }
}

/// Gets the payloads; those on disk from a thread that may block.
async fn load<T: Send + 'static>(found: Vec<(T, Body)>) -> Result<Vec<(T, std::io::Result<Bytes>)>, BusError> {
    let read = |(what, body): (T, Body)| match body {
        Body::Here(payload) => (what, Ok(payload)),
        Body::OnDisk(place) => (what, place.read()),
    };
    if found.iter().any(|(_, body)| matches!(body, Body::OnDisk(_))) {
        let all = tokio::task::spawn_blocking(move || found.into_iter().map(read).collect());
        all.await.map_err(|error| unreadable(&error))
    } else {
        Ok(found.into_iter().map(read).collect())
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> BusError {
    BusError::Refused(format!("cannot read the log: {error}"))
}

/// [`Consumer`] in this process.
struct Taker {
    stream: Arc<Stream>,
    name: Arc<str>,
}

#[async_trait]
impl Consumer for Taker {
    async fn fetch(&self, most: usize, wait: Duration) -> Result<Vec<Work>, BusError> {
        let until = Instant::now() + wait;
        let mut bus = self.stream.live.state();
        let wake = self.stream.state().consumers.get(&self.name).map(|taking| taking.wake.clone());
        let wake = wake.ok_or_else(|| BusError::NoLog(self.stream.name.clone()))?;
        let _next = WakesNext(wake.clone());
        loop {
            let mut woken = std::pin::pin!(wake.notified());
            woken.as_mut().enable(); // before looking, so that nothing that comes between is missed
            self.stream.live.is_open()?;
            let (taken, due) = self.stream.state().take(&self.name, most);
            if !taken.is_empty() {
                let work = self.work(taken).await?;
                if work.is_empty() {
                    continue;
                }
                return Ok(work);
            }
            let sleep = tokio::time::sleep_until(due.map_or(until, |due| due.min(until)));
            tokio::select! {
                () = woken => {}
                () = sleep => if Instant::now() >= until { return Ok(Vec::new()) },
                _ = bus.wait_for(|state| *state == BusState::Closed) => return Err(BusError::Away),
            }
        }
    }
}

/// Wakes another waiting fetch when this one ends, whichever way: there may be more to take, and the moment at which
/// hidden messages come again may be one that only this one knew.
struct WakesNext(Arc<Notify>);

impl Drop for WakesNext {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Taker {
    /// Work in the taker's hands. What cannot be read holds up nothing else; it comes again after `ack_wait`.
    async fn work(&self, taken: Vec<Taken>) -> Result<Vec<Work>, BusError> {
        let taken =
            taken.into_iter().map(|(offset, attempt, subject, body)| ((offset, attempt, subject), body)).collect();
        let work = load(taken).await?.into_iter().filter_map(|((offset, attempt, subject), payload)| {
            let log = &self.stream.name;
            let said = |error| tracing::error!(log, offset, attempt, %error, "stored work cannot be read");
            let payload = payload.map_err(said).ok()?;
            let settle = Hold { stream: self.stream.clone(), consumer: self.name.clone(), offset, attempt };
            Some(Work::new(subject, payload, attempt, Arc::new(settle)))
        });
        Ok(work.collect())
    }
}

/// One message in one taker's hands.
struct Hold {
    stream: Arc<Stream>,
    consumer: Arc<str>,
    offset: u64,
    attempt: u32,
}

#[async_trait]
impl Settle for Hold {
    async fn settle(&self, outcome: Outcome) -> Result<(), BusError> {
        self.stream.live.is_open()?;
        let delay = match outcome {
            Outcome::Ack | Outcome::Term => {
                let change = Change::Done { offset: self.offset, consumer: self.consumer.clone() };
                return self.stream.change(change).await.map(|_| ());
            }
            Outcome::Nak(delay) => Some(delay),
            Outcome::InProgress => None,
        };
        if let Some(taking) = self.stream.state().consumers.get_mut(&self.consumer) {
            let moment = Instant::now() + delay.unwrap_or(taking.ack_wait);
            taking.hide(self.offset, self.attempt, moment);
        }
        Ok(())
    }
}
