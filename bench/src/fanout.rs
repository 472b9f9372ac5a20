//! One message to every subscriber of a channel: the gateway beside the lean hub.

mod crowd;
mod wire;

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};

use crate::{
    PAYLOAD_BYTES,
    floor::Role,
    process::{self, Server},
    report::Run,
    socket::Socket,
    stats::{median, percentile},
};
use crowd::Crowd;
use wire::Wire;

/// How much is sent.
pub(crate) struct Load {
    subscribers: usize,
    rounds: usize,
    /// Deliveries of one round with one message at a time; with more outstanding they are four times as many, as each
    /// costs less.
    deliveries: usize,
}

impl Load {
    /// The load that figures are taken with, or a fifth of it.
    pub(crate) fn new(subscribers: usize, quick: bool) -> Self {
        let (rounds, deliveries) = if quick { (3, 50_000) } else { (7, 200_000) };
        Self { subscribers, rounds, deliveries }
    }
}

/// Messages on their way at once.
const OUTSTANDING: [usize; 2] = [1, 16];

/// One server with its subscribers and its publisher.
struct Side {
    name: &'static str,
    server: Server,
    wire: Wire,
    crowd: Arc<Crowd>,
    publisher: Socket,
    rss_per_connection: f64,
    connect_cpu_us: f64,
}

/// What one round of one side found.
struct Round {
    count: u64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
    lost: u64,
}

/// Measures both, in turns.
///
/// # Errors
/// If a server does not start, refuses a connection or closes one.
pub(crate) async fn run(gateway: &Path, bus: &str, load: &Load) -> anyhow::Result<Vec<Run>> {
    process::need_descriptors(2 * load.subscribers + 64)?;
    let gateway = Server::gateway(gateway, bus).await?;
    let floor = Server::floor(Role::Hub, &[]).await?;
    let mut sides = [
        Side::new("trestle", gateway, Wire::Trestle, load.subscribers).await.context("trestle")?,
        Side::new("lean-hub", floor, Wire::Bare, load.subscribers).await.context("lean hub")?,
    ];
    let mut runs = Vec::new();
    for outstanding in OUTSTANDING {
        let factor = if outstanding == 1 { 1 } else { 4 };
        let messages = (load.deliveries * factor / load.subscribers).next_multiple_of(outstanding);
        let mut rounds = [Vec::new(), Vec::new()];
        // The first round warms caches, allocators and the kernel's buffers; it is not counted.
        for round in 0..=load.rounds {
            for (side, rounds) in sides.iter_mut().zip(&mut rounds) {
                let found = side.round(messages, outstanding).await.with_context(|| side.name)?;
                if round > 0 || found.lost > 0 {
                    rounds.push(found);
                }
            }
        }
        let ratio = median(rounds[0].iter().zip(&rounds[1]).map(|(ours, floor)| ours.cpu_us / floor.cpu_us));
        for ((side, rounds), ratio) in sides.iter().zip(&rounds).zip([ratio, 1.0]) {
            runs.push(side.report(rounds, outstanding, ratio, load.subscribers));
        }
    }
    for side in sides {
        side.server.stop().await?;
    }
    Ok(runs)
}

impl Side {
    async fn new(name: &'static str, server: Server, wire: Wire, subscribers: usize) -> anyhow::Result<Self> {
        let address = server.address("listen")?;
        let publisher = wire.publisher(&address).await?;
        let (rss, cpu) = (server.rss_bytes()?, server.cpu_ns()?);
        let crowd = Crowd::gather(subscribers, wire, &address).await?;
        let per = subscribers as f64;
        let rss_per_connection = (server.rss_bytes()?.saturating_sub(rss)) as f64 / per;
        let connect_cpu_us = (server.cpu_ns()? - cpu) as f64 / 1e3 / per;
        Ok(Self { name, server, wire, crowd, publisher, rss_per_connection, connect_cpu_us })
    }

    /// Sends `messages`, so many at once, each time waiting until every subscriber has them.
    async fn round(&mut self, messages: usize, outstanding: usize) -> anyhow::Result<Round> {
        let (before, begun, cpu) = (self.crowd.delivered(), Instant::now(), self.server.cpu_ns()?);
        self.crowd.forget_latencies();
        let mut lost = 0;
        for _ in 0..messages / outstanding {
            let frames: Vec<_> = (0..outstanding).map(|_| self.wire.message(self.crowd.now())).collect();
            let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
            let arrived = self.crowd.expect(outstanding);
            self.publisher.send(&frames).await?;
            lost += arrived.await?;
        }
        let (cpu, wall) = (self.server.cpu_ns()? - cpu, begun.elapsed());
        let count = self.crowd.delivered() - before;
        ensure!(count > 0, "nothing was delivered");
        let mut latencies = self.crowd.latencies();
        Ok(Round {
            count,
            cpu_us: cpu as f64 / 1e3 / count as f64,
            p50_us: percentile(&mut latencies, 0.5) as f64 / 1e3,
            p99_us: percentile(&mut latencies, 0.99) as f64 / 1e3,
            per_second: count as f64 / wall.as_secs_f64(),
            lost,
        })
    }

    fn report(&self, rounds: &[Round], outstanding: usize, cpu_ratio: f64, subscribers: usize) -> Run {
        let middle = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
        let more = serde_json::json!({
            "subscribers": subscribers,
            "connection_rss_bytes": self.rss_per_connection.round(),
            "connect_cpu_us": self.connect_cpu_us,
            "wire_bytes": self.crowd.message_bytes(),
        });
        Run {
            bench: "fanout",
            server: self.name,
            outstanding,
            count: rounds.iter().map(|round| round.count).sum(),
            rounds: rounds.len(),
            payload_bytes: PAYLOAD_BYTES,
            cpu_us: middle(|round| round.cpu_us),
            cpu_ratio,
            p50_us: middle(|round| round.p50_us),
            p99_us: middle(|round| round.p99_us),
            per_second: middle(|round| round.per_second),
            lost: rounds.iter().map(|round| round.lost).sum(),
            more: more.as_object().cloned().unwrap_or_default(),
        }
    }
}
