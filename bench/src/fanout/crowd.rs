//! A thousand subscribers in one thread, and what has reached them.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::wire::Wire;

/// Every so many subscribers one measures latencies: decoding each delivery would cost more than receiving it.
const MEASURES_EVERY: usize = 16;
/// What has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// The subscribers of one server.
pub(super) struct Crowd {
    subscribers: u64,
    begun: Instant,
    delivered: AtomicU64,
    expected: AtomicU64,
    arrived: Notify,
    bytes: AtomicU64,
    latencies: Mutex<Vec<u64>>,
    fault: Mutex<Option<anyhow::Error>>,
}

impl Crowd {
    /// Connects `subscribers` one after the other; each is subscribed when this returns.
    pub(super) async fn gather(subscribers: usize, wire: Wire, address: &str) -> anyhow::Result<Arc<Self>> {
        let crowd = Arc::new(Self {
            subscribers: subscribers as u64,
            begun: Instant::now(),
            delivered: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            arrived: Notify::new(),
            bytes: AtomicU64::new(0),
            latencies: Mutex::default(),
            fault: Mutex::default(),
        });
        for number in 0..subscribers {
            let mut socket = wire.subscriber(address).await?;
            let crowd = Arc::clone(&crowd);
            let measures = number % MEASURES_EVERY == 0;
            tokio::spawn(async move {
                let error = loop {
                    if let Err(error) = socket.read(|message| crowd.take(message, wire, measures)).await {
                        break error;
                    }
                };
                *crowd.fault.lock() = Some(error);
                crowd.arrived.notify_one();
            });
        }
        Ok(crowd)
    }

    fn take(&self, message: &[u8], wire: Wire, measures: bool) -> anyhow::Result<()> {
        let (mut count, mut times) = (0, Vec::new());
        wire.deliveries(message, |delivery| {
            count += 1;
            if measures {
                times.push(wire.sent_at(delivery));
            }
        })?;
        if measures {
            let now = self.now();
            for sent_at in times {
                self.latencies.lock().push(now - sent_at?);
            }
        }
        self.bytes.fetch_add(message.len() as u64, Relaxed);
        if self.delivered.fetch_add(count, Relaxed) + count >= self.expected.load(Relaxed) {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Nanoseconds since the crowd gathered.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).expect("a bench does not take centuries")
    }

    /// Deliveries so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Mean bytes of a delivery, without the WebSocket's own header.
    pub(super) fn message_bytes(&self) -> u64 {
        self.bytes.load(Relaxed) / self.delivered().max(1)
    }

    /// Says that `messages` are about to be published. The future ends when all subscribers have them, with the number
    /// that are missing after [`PATIENCE`].
    pub(super) fn expect(&self, messages: usize) -> impl Future<Output = anyhow::Result<u64>> + '_ {
        let expected = self.delivered() + messages as u64 * self.subscribers;
        self.expected.store(expected, Relaxed);
        async move {
            let all = async {
                while self.delivered() < expected && self.fault.lock().is_none() {
                    self.arrived.notified().await
                }
            };
            let in_time = tokio::time::timeout(PATIENCE, all).await;
            if let Some(fault) = self.fault.lock().take() {
                return Err(fault.context("a subscriber"));
            }
            let delivered = self.delivered();
            if delivered > expected {
                bail!("{} deliveries came twice", delivered - expected);
            }
            Ok(if in_time.is_ok() { 0 } else { expected - delivered })
        }
    }

    /// Forgets the latencies of earlier rounds.
    pub(super) fn forget_latencies(&self) {
        self.latencies.lock().clear();
    }

    /// Latencies since then, in nanoseconds.
    pub(super) fn latencies(&self) -> Vec<u64> {
        std::mem::take(&mut *self.latencies.lock())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::floor;

    #[tokio::test]
    async fn every_message_reaches_every_subscriber_of_the_lean_hub_and_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(floor::hub::serve(listener));
        let publisher = Wire::Bare.publisher(&address).await.expect("connects");
        let crowd = Crowd::gather(32, Wire::Bare, &address).await.expect("connects");
        for outstanding in [1, 16] {
            let message = Wire::Bare.message(crowd.now());
            let arrived = crowd.expect(outstanding);
            publisher.send(&vec![&message[..]; outstanding]).await.expect("sent");
            assert_eq!(arrived.await.expect("nobody fails"), 0);
        }
        assert_eq!(crowd.delivered(), 32 * 17);
        assert_eq!(crowd.latencies().len(), 2 * 17);
    }
}
