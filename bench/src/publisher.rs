//! Who publishes to a crowd, and what that costs the server.

use std::time::Instant;

use anyhow::ensure;
use tokio::task::JoinSet;

use crate::{
    bench::Running,
    crowd::Crowd,
    socket::{Socket, Writer},
    stamp,
    stats::percentile,
};

/// A connection that publishes and hears nothing.
pub(crate) struct Publisher<'a> {
    running: &'a Running,
    writer: Writer,
    /// Reads what the server answers, and answers its pings.
    _reader: JoinSet<()>,
}

/// What is published in one go.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    /// Messages on their way at once: the next come when all subscribers have these.
    pub(crate) outstanding: usize,
    pub(crate) payload_bytes: usize,
    /// Channels taken in turn, from 0.
    pub(crate) channels: usize,
    /// Subscribers of each.
    pub(crate) subscribers: usize,
}

/// What it came to.
pub(crate) struct Cost {
    pub(crate) lost: u64,
    pub(crate) cpu_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) per_second: f64,
    /// Mean bytes of a delivery, with what the protocol puts around it.
    pub(crate) delivery_bytes: f64,
}

impl<'a> Publisher<'a> {
    /// Connects to the server, to publish on so many channels.
    pub(crate) async fn open(running: &'a Running, channels: usize) -> anyhow::Result<Self> {
        let channels: Vec<_> = if running.peer.is_for_members() { (0..channels).collect() } else { Vec::new() };
        let mut socket = Socket::open(running.peer, &running.address, &channels).await?;
        let writer = socket.writer();
        let mut reader = JoinSet::new();
        reader.spawn(async move { while socket.read(&mut |_| {}).await.is_ok() {} });
        Ok(Self { running, writer, _reader: reader })
    }

    /// Sends `count` messages in one write.
    pub(crate) async fn send(&self, load: &Load, first: usize, count: usize) -> anyhow::Result<()> {
        let message = |number| self.running.peer.publish(number % load.channels, &stamp::payload(load.payload_bytes));
        let messages: Vec<_> = (first..first + count).map(message).collect();
        self.writer.send(&messages).await
    }

    /// Publishes `load` to `crowd`, each time waiting until everybody has what is outstanding.
    pub(crate) async fn burst(&self, crowd: &Crowd, load: &Load) -> anyhow::Result<Cost> {
        let server = &self.running.server;
        crowd.latencies();
        let (before, bytes) = (crowd.delivered(), crowd.bytes());
        let (begun, cpu) = (Instant::now(), server.cpu_ns()?);
        let mut lost = 0;
        for first in (0..load.messages).step_by(load.outstanding) {
            let arrived = crowd.expect((load.outstanding * load.subscribers) as u64);
            self.send(load, first, load.outstanding).await?;
            lost += arrived.await?;
        }
        let (cpu, wall) = (server.cpu_ns()? - cpu, begun.elapsed());
        let count = crowd.delivered() - before;
        ensure!(count > 0, "nothing was delivered");
        let mut latencies = crowd.latencies();
        Ok(Cost {
            lost,
            cpu_us: cpu as f64 / 1e3 / count as f64,
            p50_us: percentile(&mut latencies, 0.5) as f64 / 1e3,
            p99_us: percentile(&mut latencies, 0.99) as f64 / 1e3,
            per_second: count as f64 / wall.as_secs_f64(),
            delivery_bytes: (crowd.bytes() - bytes) as f64 / count as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_published_reaches_everybody_of_its_channel_and_is_counted() {
        let running = Running::minimal().await;
        let mut crowd = Crowd::new();
        crowd.gather_all(&running, 32, |number| vec![number % 2]).await.expect("connects");
        let publisher = Publisher::open(&running, 2).await.expect("connects");
        for (outstanding, messages) in [(1, 3), (4, 8)] {
            let load = Load { messages, outstanding, payload_bytes: 1024, channels: 2, subscribers: 16 };
            let before = crowd.delivered();
            assert_eq!(publisher.burst(&crowd, &load).await.expect("nobody fails").lost, 0);
            assert_eq!(crowd.delivered() - before, messages as u64 * 16);
        }
        crowd.leave().await.expect("says goodbye");
    }
}
