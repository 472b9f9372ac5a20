//! A request and its reply: through the gateway to a service and back, beside the same question asked directly.

mod asker;

use std::{path::Path, time::Instant};

use anyhow::Context as _;

use crate::{
    PAYLOAD_BYTES,
    floor::Role,
    process::Server,
    report::Run,
    stats::{median, percentile},
};
use asker::Asker;

/// How much is asked.
pub(crate) struct Load {
    rounds: usize,
    requests: usize,
}

impl Load {
    /// The load that figures are taken with, or a fifth of it.
    pub(crate) fn new(quick: bool) -> Self {
        let (rounds, requests) = if quick { (3, 2_000) } else { (7, 10_000) };
        Self { rounds, requests }
    }
}

/// Requests on their way at once; with 64, four times as many are asked, as each costs less.
const OUTSTANDING: [usize; 2] = [1, 64];

/// One way to ask.
struct Side {
    name: &'static str,
    server: Server,
    /// The process that answers, where it is not the server.
    service: Option<Server>,
    asker: Asker,
}

/// What one round of one side found.
struct Round {
    count: u64,
    cpu_us: f64,
    service_cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
    per_second: f64,
    lost: u64,
}

/// Measures both, in turns.
///
/// # Errors
/// If a process does not start, or a request is answered with an error.
pub(crate) async fn run(gateway: &Path, bus: &str, load: &Load) -> anyhow::Result<Vec<Run>> {
    let gateway = Server::gateway(gateway, bus).await?;
    let service = Server::floor(Role::Service, &["--grpc", &gateway.address("grpc")?]).await?;
    let direct = Server::floor(Role::Direct, &[]).await?;
    let through = Asker::through(&gateway.address("listen")?).await.context("trestle")?;
    let straight = Asker::straight(&direct.address("listen")?).await.context("direct")?;
    let mut sides = [
        Side { name: "trestle", server: gateway, service: Some(service), asker: through },
        Side { name: "direct-grpc", server: direct, service: None, asker: straight },
    ];
    let mut runs = Vec::new();
    for outstanding in OUTSTANDING {
        let requests = load.requests * if outstanding == 1 { 1 } else { 4 };
        let mut rounds = [Vec::new(), Vec::new()];
        // The first round warms up, and is not counted.
        for round in 0..=load.rounds {
            for (side, rounds) in sides.iter_mut().zip(&mut rounds) {
                let found = side.round(requests, outstanding).await.with_context(|| side.name)?;
                if round > 0 || found.lost > 0 {
                    rounds.push(found);
                }
            }
        }
        let ratio = |cost: fn(&Round) -> f64| median(rounds[0].iter().zip(&rounds[1]).map(|(a, b)| cost(a) / cost(b)));
        let cpu = [ratio(|round| round.cpu_us), 1.0];
        let whole = [ratio(|round| round.cpu_us + round.service_cpu_us), 1.0];
        let p50 = [ratio(|round| round.p50_us), 1.0];
        for (index, (side, rounds)) in sides.iter().zip(&rounds).enumerate() {
            let mut run = side.report(rounds, outstanding, cpu[index]);
            run.more.insert("cpu_ratio_with_service".into(), whole[index].into());
            run.more.insert("p50_ratio".into(), p50[index].into());
            runs.push(run);
        }
    }
    for side in sides {
        // The service first: it would complain of a gateway that is gone.
        if let Some(service) = side.service {
            service.stop().await?;
        }
        side.server.stop().await?;
    }
    Ok(runs)
}

impl Side {
    async fn round(&mut self, requests: usize, outstanding: usize) -> anyhow::Result<Round> {
        let (begun, cpu, service_cpu) = (Instant::now(), self.server.cpu_ns()?, self.service_cpu_ns()?);
        let mut latencies = self.asker.ask(requests, outstanding).await?;
        let (wall, cpu, service_cpu) =
            (begun.elapsed(), self.server.cpu_ns()? - cpu, self.service_cpu_ns()? - service_cpu);
        let count = latencies.len();
        let each = |ns: u64| ns as f64 / 1e3 / count as f64;
        Ok(Round {
            count: count as u64,
            cpu_us: each(cpu),
            service_cpu_us: each(service_cpu),
            p50_us: percentile(&mut latencies, 0.5) as f64 / 1e3,
            p99_us: percentile(&mut latencies, 0.99) as f64 / 1e3,
            per_second: count as f64 / wall.as_secs_f64(),
            lost: (requests - count) as u64,
        })
    }

    fn service_cpu_ns(&self) -> anyhow::Result<u64> {
        self.service.as_ref().map_or(Ok(0), Server::cpu_ns)
    }

    fn report(&self, rounds: &[Round], outstanding: usize, cpu_ratio: f64) -> Run {
        let middle = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
        let more = serde_json::json!({ "service_cpu_us": middle(|round| round.service_cpu_us) });
        Run {
            bench: "request",
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
