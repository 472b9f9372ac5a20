//! A bus that loses what it carries, and a log that is slow, behind or away, as they are told to be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use trestle_bus::{
    Appended, Bus, BusError, BusState, Consumer, ConsumerSpec, Ends, Heard, Log, LogSpec, Message, Place, Stored,
    Subject, Subscription,
};

/// A bus that loses what subscriptions hear while `deaf`, and says so when asked.
pub(crate) struct Lossy {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) deaf: Arc<AtomicBool>,
    /// A permit for each mark that went by.
    pub(crate) marks: Arc<Semaphore>,
    /// See [`Laggard::forgotten`].
    pub(crate) forgotten: Arc<AtomicU64>,
}

/// `place` in a log that has lost its first `forgotten` messages and has begun to count anew.
fn counted_anew(place: Option<Place>, forgotten: u64) -> Option<Place> {
    place.map(|Place { offset, previous }| Place {
        offset: offset.saturating_sub(forgotten),
        previous: previous.saturating_sub(forgotten),
    })
}

#[async_trait]
impl Bus for Lossy {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.bus.publish(subject, payload).await
    }

    async fn publish_with_reply(&self, subject: &Subject, to: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.bus.publish_with_reply(subject, to, payload).await
    }

    async fn subscribe(&self, pattern: &Subject, group: Option<&str>) -> Result<Subscription, BusError> {
        let mut inner = self.bus.subscribe(pattern, group).await?;
        let (deaf, marks) = (Arc::clone(&self.deaf), Arc::clone(&self.marks));
        let forgotten = Arc::clone(&self.forgotten);
        let (feed, subscription) = Subscription::bounded(64 << 10, 64 << 20, Ends::with(|| ()));
        tokio::spawn(async move {
            while let Some(heard) = inner.next().await {
                match heard {
                    Heard::Message(message) if message.payload == "MARK" => marks.add_permits(1),
                    Heard::Message(_) if deaf.load(Ordering::SeqCst) => {}
                    Heard::Message(message) if message.payload == "LOST" => feed.lost(0),
                    Heard::Message(message) if message.payload == "LOST 2" => feed.lost(2),
                    Heard::Message(message) => {
                        let place = counted_anew(message.place, forgotten.load(Ordering::SeqCst));
                        feed.push(Message { place, ..message });
                    }
                    Heard::Lost(count) => feed.lost(count),
                }
            }
        });
        Ok(subscription)
    }

    async fn request(&self, subject: &Subject, payload: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        self.bus.request(subject, payload, wait).await
    }

    async fn gather(
        &self,
        subject: &Subject,
        payload: Bytes,
        most: usize,
        quiet: Duration,
    ) -> Result<Vec<Bytes>, BusError> {
        self.bus.gather(subject, payload, most, quiet).await
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.bus.state()
    }

    fn payload_bytes_max(&self) -> usize {
        self.bus.payload_bytes_max()
    }

    fn nodes_max(&self) -> Option<usize> {
        self.bus.nodes_max()
    }

    async fn close(&self) {
        self.bus.close().await;
    }
}

/// A log whose reads are held up, fail, or do not show the newest messages.
pub(crate) struct Laggard {
    pub(crate) log: Arc<dyn Log>,
    /// How many of the next reads show nothing from `hidden_from` on, as a follower that is behind.
    pub(crate) behind: AtomicU64,
    /// See `behind`.
    pub(crate) hidden_from: AtomicU64,
    /// How many of the next reads fail.
    pub(crate) failing: AtomicU64,
    /// While it is, reads wait for a permit of `gate`, after they have taken one of `waiting` with them.
    pub(crate) gated: AtomicBool,
    pub(crate) gate: Semaphore,
    /// A permit for each read that waits.
    pub(crate) waiting: Semaphore,
    /// So many of its first messages are lost, and the next one was the first of a log that was made anew.
    pub(crate) forgotten: Arc<AtomicU64>,
}

impl Laggard {
    pub(crate) fn of(log: Arc<dyn Log>) -> Arc<Self> {
        Arc::new(Self {
            log,
            behind: AtomicU64::new(0),
            hidden_from: AtomicU64::new(u64::MAX),
            failing: AtomicU64::new(0),
            gated: AtomicBool::new(false),
            gate: Semaphore::new(0),
            waiting: Semaphore::new(0),
            forgotten: Arc::default(),
        })
    }

    fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }

    /// Whether `count` was more than 0, and one less from here on.
    fn one_of(count: &AtomicU64) -> bool {
        count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

#[async_trait]
impl Log for Laggard {
    async fn ensure(&self, spec: &LogSpec) -> Result<(), BusError> {
        self.log.ensure(spec).await
    }

    async fn append(&self, subject: &Subject, dedup: Option<&str>, payload: Bytes) -> Result<Appended, BusError> {
        self.log.append(subject, dedup, payload).await
    }

    async fn read(&self, log: &str, subject: &Subject, from: u64, most: usize) -> Result<Vec<Stored>, BusError> {
        if self.gated.load(Ordering::SeqCst) {
            self.waiting.add_permits(1);
            self.gate.acquire().await.unwrap().forget();
        }
        if Self::one_of(&self.failing) {
            return Err(BusError::Away);
        }
        let forgotten = self.forgotten();
        let mut stored = self.log.read(log, subject, from.max(1) + forgotten, most).await?;
        stored.iter_mut().for_each(|one| one.offset -= forgotten);
        if Self::one_of(&self.behind) {
            let hidden_from = self.hidden_from.load(Ordering::SeqCst);
            stored.retain(|one| one.offset < hidden_from);
        }
        Ok(stored)
    }

    async fn last(&self, log: &str, subject: &Subject) -> Result<u64, BusError> {
        Ok(self.log.last(log, subject).await?.saturating_sub(self.forgotten()))
    }

    async fn reached(&self, log: &str) -> Result<u64, BusError> {
        Ok(self.log.reached(log).await?.saturating_sub(self.forgotten()))
    }

    async fn consumer(&self, spec: &ConsumerSpec) -> Result<Arc<dyn Consumer>, BusError> {
        self.log.consumer(spec).await
    }
}
