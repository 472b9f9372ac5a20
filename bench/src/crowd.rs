//! Thousands of subscribers in one thread, and what has reached them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};

use crate::{
    bench::Running,
    peer::Heard,
    socket::{Socket, Writer},
    stamp,
};

/// Every so many subscribers one measures latencies: looking at each delivery would cost more than receiving it.
const MEASURES_EVERY: usize = 16;
/// What has not come by then is lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a storm may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How many connect at once where that is not what is measured.
pub(crate) const CALM: usize = 16;

/// The subscribers of one server.
pub(crate) struct Crowd {
    news: Arc<News>,
    writers: Vec<Writer>,
    readers: JoinSet<()>,
}

/// What has reached all of them.
#[derive(Default)]
struct News {
    delivered: AtomicU64,
    expected: AtomicU64,
    arrived: Notify,
    bytes: AtomicU64,
    latencies: Mutex<Vec<u64>>,
    /// Set when they leave: a connection that ends then is no fault.
    leaving: AtomicBool,
    fault: Mutex<Option<anyhow::Error>>,
}

impl Crowd {
    /// Nobody yet.
    pub(crate) fn new() -> Self {
        Self { news: Arc::default(), writers: Vec::new(), readers: JoinSet::new() }
    }

    /// Connects `count` more, `width` at once, each subscribed to what `channels` says of its number. All who could
    /// are subscribed when this returns.
    ///
    /// # Returns
    /// Why the others could not.
    pub(crate) async fn gather(
        &mut self,
        running: &Running,
        count: usize,
        width: usize,
        channels: impl Fn(usize) -> Vec<usize>,
    ) -> Vec<anyhow::Error> {
        let peer = running.peer;
        let places = Arc::new(Semaphore::new(width));
        let mut comers = JoinSet::new();
        for number in 0..count {
            let (channels, address, places) = (channels(number), running.address.clone(), Arc::clone(&places));
            comers.spawn(async move {
                let _place = places.acquire().await.context("never closed")?;
                let opened = Socket::open(peer, &address, &channels);
                tokio::time::timeout(CONNECT_TIMEOUT, opened).await.context("not subscribed in time")?
            });
        }
        let mut errors = Vec::new();
        while let Some(come) = comers.join_next().await {
            match come.context("a task").flatten() {
                Ok(socket) => self.seat(socket),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// As [`Self::gather`], where everybody has to come.
    ///
    /// # Errors
    /// Why somebody could not.
    pub(crate) async fn gather_all(
        &mut self,
        running: &Running,
        count: usize,
        channels: impl Fn(usize) -> Vec<usize>,
    ) -> anyhow::Result<()> {
        match self.gather(running, count, CALM, channels).await.pop() {
            None => Ok(()),
            Some(error) => Err(error.context("a subscriber")),
        }
    }

    fn seat(&mut self, mut socket: Socket) {
        let news = Arc::clone(&self.news);
        let measures = self.writers.len().is_multiple_of(MEASURES_EVERY);
        self.writers.push(socket.writer());
        self.readers.spawn(async move {
            loop {
                if let Err(error) = news.listen(&mut socket, measures).await {
                    if !news.leaving.load(Relaxed) {
                        *news.fault.lock() = Some(error);
                        news.arrived.notify_one();
                    }
                    break;
                }
            }
        });
    }

    /// Deliveries so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.news.delivered.load(Relaxed)
    }

    /// Bytes of those, without the WebSocket's own header.
    pub(crate) fn bytes(&self) -> u64 {
        self.news.bytes.load(Relaxed)
    }

    /// Says that `deliveries` more are about to come. The future ends when they have, with the number that are missing
    /// after [`PATIENCE`] without any.
    pub(crate) fn expect(&self, deliveries: u64) -> impl Future<Output = anyhow::Result<u64>> + '_ {
        let news = &self.news;
        let expected = self.delivered() + deliveries;
        news.expected.store(expected, Relaxed);
        async move {
            let mut lost = 0;
            while self.delivered() < expected && news.fault.lock().is_none() {
                let before = self.delivered();
                if tokio::time::timeout(PATIENCE, news.arrived.notified()).await.is_err() && self.delivered() == before
                {
                    lost = expected - before;
                    break;
                }
            }
            if let Some(fault) = news.fault.lock().take() {
                return Err(fault.context("a subscriber"));
            }
            if self.delivered() > expected {
                bail!("{} deliveries came twice", self.delivered() - expected);
            }
            Ok(lost)
        }
    }

    /// Latencies since the last call, in nanoseconds.
    pub(crate) fn latencies(&self) -> Vec<u64> {
        std::mem::take(&mut *self.news.latencies.lock())
    }

    /// Everybody says goodbye and waits until the server has closed, or at most [`PATIENCE`].
    pub(crate) async fn leave(mut self) -> anyhow::Result<()> {
        self.news.leaving.store(true, Relaxed);
        for writer in &self.writers {
            writer.close().await?;
        }
        self.writers.clear();
        let all = async { while self.readers.join_next().await.is_some() {} };
        // A server that does not close sees connections that end without a word: they are dropped here.
        let _ = tokio::time::timeout(PATIENCE, all).await;
        Ok(())
    }
}

impl News {
    async fn listen(&self, socket: &mut Socket, measures: bool) -> anyhow::Result<()> {
        let (mut count, mut bytes, mut ages) = (0, 0, Vec::new());
        let each = &mut |heard: Heard<'_>| {
            if let Heard::Delivery(delivery) = heard {
                count += 1;
                bytes += delivery.len() as u64;
                if measures {
                    ages.push(stamp::age(delivery));
                }
            }
        };
        socket.read(each).await?;
        for age in ages {
            self.latencies.lock().push(age?);
        }
        self.bytes.fetch_add(bytes, Relaxed);
        if self.delivered.fetch_add(count, Relaxed) + count >= self.expected.load(Relaxed) {
            self.arrived.notify_one();
        }
        Ok(())
    }
}
