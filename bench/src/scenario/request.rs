//! A request and its reply: through the gateway to a service and back, beside the same question asked directly.

mod asker;

use std::time::Instant;

use anyhow::Context as _;

use crate::{
    bench::Bench,
    floor::Role,
    process::{self, Server},
    stats::percentile,
    turns::{Found, Outcome, in_turns},
};
use asker::Asker;

/// Requests on their way at once; with 64, four times as many are asked, as each costs less.
const OUTSTANDING: [usize; 2] = [1, 64];

/// One way to ask. The service goes before the gateway, of which it would complain, and that before its bus.
struct Way {
    asker: Asker,
    /// The process that answers, where it is not the server.
    service: Option<Server>,
    server: Server,
    _bus: Option<Server>,
}

/// Measures the gateway on both buses, and the direct call, in turns.
pub(super) async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let nats = process::provide("crates/trestle-testkit/provide.sh", "nats").context("nats-server")?;
    let nats = Server::nats(&nats).await.context("nats-server")?;
    let url = format!("nats://{}", nats.address("listen")?);
    let ways = vec![
        ("trestle", Way::through(bench, "embedded", None).await.context("trestle")?),
        ("trestle-nats", Way::through(bench, &url, Some(nats)).await.context("trestle on NATS")?),
        ("floor", Way::straight().await.context("direct")?),
    ];
    let requests = bench.scaled(10_000, 2_000);
    let measure = async |way: &mut Way| {
        let mut found = Vec::new();
        for outstanding in OUTSTANDING {
            found.push(way.measure(requests * if outstanding == 1 { 1 } else { 4 }, outstanding).await?);
        }
        Ok(found)
    };
    Ok(in_turns("request", bench.rounds(), ways, measure).await)
}

impl Way {
    async fn through(bench: &Bench, bus: &str, nats: Option<Server>) -> anyhow::Result<Self> {
        let server = Server::gateway(&bench.gateway, bus).await?;
        let service = Server::floor(Role::Service, &["--grpc", &server.address("grpc")?]).await?;
        let asker = Asker::through(&server.address("listen")?).await?;
        Ok(Self { asker, service: Some(service), server, _bus: nats })
    }

    async fn straight() -> anyhow::Result<Self> {
        let server = Server::floor(Role::Direct, &[]).await?;
        let asker = Asker::straight(&server.address("listen")?).await?;
        Ok(Self { asker, service: None, server, _bus: None })
    }

    async fn measure(&mut self, requests: usize, outstanding: usize) -> anyhow::Result<Found> {
        let (begun, cpu, service_cpu) = (Instant::now(), self.server.cpu_ns()?, self.service_cpu_ns()?);
        let mut latencies = self.asker.ask(requests, outstanding).await?;
        let (wall, cpu, service_cpu) =
            (begun.elapsed(), self.server.cpu_ns()? - cpu, self.service_cpu_ns()? - service_cpu);
        let count = latencies.len() as f64;
        let each = |ns: u64| ns as f64 / 1e3 / count;
        let figures = vec![
            ("cpu_us", each(cpu)),
            ("cpu_with_service_us", each(cpu + service_cpu)),
            ("p50_us", percentile(&mut latencies, 0.5) as f64 / 1e3),
            ("p99_us", percentile(&mut latencies, 0.99) as f64 / 1e3),
            ("per_second", count / wall.as_secs_f64()),
        ];
        let load = format!("128 B, {outstanding} at once");
        Ok(Found { load, lost: (requests - latencies.len()) as u64, figures })
    }

    fn service_cpu_ns(&self) -> anyhow::Result<u64> {
        self.service.as_ref().map_or(Ok(0), Server::cpu_ns)
    }
}
