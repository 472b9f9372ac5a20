//! Ten thousand subscribed connections that do nothing: what they hold, what they cost, and what is left when they go.

use std::time::Duration;

use super::thousands;
use crate::{
    bench::{Bench, Side},
    crowd::Crowd,
    turns::{Found, Outcome, in_turns},
};

const CONNECTIONS: usize = 10_000;
/// For buffers of the handshake to go.
const SETTLE: Duration = Duration::from_secs(2);
/// Most servers ping each client once in 25 s.
const IDLE: Duration = Duration::from_secs(25);
const IDLE_QUICK: Duration = Duration::from_secs(3);
/// For memory to be given back after all have left.
const AFTERWARDS: Duration = Duration::from_secs(15);
const AFTERWARDS_QUICK: Duration = Duration::from_secs(5);

/// Measures all servers, in turns.
pub(super) async fn run(bench: &Bench) -> Outcome {
    let connections = bench.scaled(CONNECTIONS, CONNECTIONS / 4);
    let (idle, afterwards) = if bench.quick { (IDLE_QUICK, AFTERWARDS_QUICK) } else { (IDLE, AFTERWARDS) };
    let measure = async |side: &mut Side| {
        let running = side.start().await?;
        let server = &running.server;
        let before = server.rss_bytes()? as f64;
        let mut crowd = Crowd::new();
        crowd.gather_all(&running, connections, |_| vec![0]).await?;
        tokio::time::sleep(SETTLE).await;
        let (full, cpu) = (server.rss_bytes()? as f64, server.cpu_ns()?);
        tokio::time::sleep(idle).await;
        let cpu = (server.cpu_ns()? - cpu) as f64 / 1e3;
        crowd.leave().await?;
        tokio::time::sleep(afterwards).await;
        let after = server.rss_bytes()? as f64;
        running.server.stop().await?;
        let per = connections as f64;
        let figures = vec![
            ("connection_kb", (full - before) / 1e3 / per),
            ("connection_cpu_us_per_second", cpu / idle.as_secs_f64() / per),
            ("left_over_before", after / before),
            ("before_mb", before / 1e6),
            ("left_mb", after / 1e6),
        ];
        Ok(vec![Found { load: format!("{} idle connections", thousands(connections)), lost: 0, figures }])
    };
    in_turns("idle", bench.cold_rounds(), bench.sides(), measure).await
}
