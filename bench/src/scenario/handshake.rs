//! Connect and subscribe, a few at once.

use std::time::Instant;

use crate::{
    bench::{self, Bench, Running},
    crowd::Crowd,
    turns::{Found, Outcome, in_turns},
};

/// Measures all servers, in turns.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let count = bench.scaled(2_000, 500);
    let measure = async |running: &mut Running| {
        let (cpu, begun) = (running.server.cpu_ns()?, Instant::now());
        let mut crowd = Crowd::new();
        crowd.gather_all(running, count, |_| vec![0]).await?;
        let (cpu, wall) = (running.server.cpu_ns()? - cpu, begun.elapsed());
        crowd.leave().await?;
        let figures =
            vec![("cpu_us", cpu as f64 / 1e3 / count as f64), ("per_second", count as f64 / wall.as_secs_f64())];
        Ok(vec![Found { load: "connect and subscribe, 16 at once".into(), lost: 0, figures }])
    };
    Ok(in_turns("handshake", bench.rounds(), bench::start(bench.sides()).await?, measure).await)
}
