//! One message to a thousand subscribers at an even pace: half of what the slower of the gateway and the floor can do.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    bench::{self, Bench, Running},
    crowd::Crowd,
    publisher::{Load, Publisher},
    stats::percentile,
    turns::{Found, Outcome, in_turns},
};

const SUBSCRIBERS: usize = 1_000;
/// One message at a time is as fast as a server can be that does not gather messages.
const LOAD: Load = Load { messages: 0, outstanding: 1, payload_bytes: 128, channels: 1, subscribers: SUBSCRIBERS };

/// Measures all servers, in turns.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let sides = bench::start(bench.sides()).await?;
    let mut most = f64::INFINITY;
    for (_, running) in sides.iter().take(2) {
        most = most.min(saturation(running, bench.scaled(400, 50)).await?);
    }
    let messages = bench.scaled(400, 50);
    let interval = Duration::from_secs_f64(2.0 / most);
    let measure = async |running: &mut Running| {
        let (crowd, publisher) = gather(running).await?;
        publisher.burst(&crowd, &Load { messages: 10, ..LOAD }).await?;
        crowd.latencies();
        let cpu = running.server.cpu_ns()?;
        let arrived = crowd.expect((messages * SUBSCRIBERS) as u64);
        let mut pace = tokio::time::interval(interval);
        for number in 0..messages {
            pace.tick().await;
            publisher.send(&LOAD, number, 1).await?;
        }
        let lost = arrived.await?;
        let cpu_us = (running.server.cpu_ns()? - cpu) as f64 / 1e3 / (messages * SUBSCRIBERS) as f64;
        let mut latencies = crowd.latencies();
        let mut percentile = |share| percentile(&mut latencies, share) as f64 / 1e3;
        let figures = vec![
            ("p99_us", percentile(0.99)),
            ("p50_us", percentile(0.5)),
            ("cpu_us", cpu_us),
            ("messages_per_second", 1.0 / interval.as_secs_f64()),
        ];
        crowd.leave().await?;
        Ok(vec![Found { load: "1,000 subscribers, 128 B, half the saturation rate".into(), lost, figures }])
    };
    Ok(in_turns("pace", bench.rounds(), sides, measure).await)
}

async fn gather(running: &Running) -> anyhow::Result<(Crowd, Publisher<'_>)> {
    let mut crowd = Crowd::new();
    crowd.gather_all(running, SUBSCRIBERS, |_| vec![0]).await?;
    Ok((crowd, Publisher::open(running, 1).await?))
}

/// Messages per second with one at a time.
async fn saturation(running: &Running, messages: usize) -> anyhow::Result<f64> {
    let (crowd, publisher) = gather(running).await.context("saturation")?;
    publisher.burst(&crowd, &Load { messages: 10, ..LOAD }).await?;
    let cost = publisher.burst(&crowd, &Load { messages, ..LOAD }).await?;
    crowd.leave().await?;
    Ok(cost.per_second / SUBSCRIBERS as f64)
}
