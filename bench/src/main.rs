//! Measures the release binary beside a minimal program that does the same work. For benches only.
//!
//! ```text
//! cargo run --release -p trestle-bench -- [SCENARIO...] [--quick] [--peers a,b] [--report]
//! ```
//! What others built takes part too. Each server is a process of its own, and only its CPU time is counted. They take
//! turns, round by round, in one run on one machine: times differ between machines, ratios hold. One JSON line per server
//! and load on stdout, tables on stderr; the exit code is 1 if anything was lost or could not be measured.

mod bench;
mod crowd;
mod floor;
mod peer;
mod process;
mod publisher;
mod report;
mod scenario;
mod socket;
mod stamp;
mod stats;
mod turns;

use std::{io::BufRead as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;

use bench::Bench;
use report::Report;
use scenario::Scenario;

/// Types generated from `bench/proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod v1 {
    include!(concat!(env!("OUT_DIR"), "/bench.v1.rs"));
}

#[derive(Parser)]
#[command(about = "Measures the release binary beside a minimal program, and beside what others built")]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_value = "all")]
    scenarios: Vec<Scenario>,
    /// Fewer rounds and messages: shows that it works, and roughly what it costs.
    #[arg(long)]
    quick: bool,
    /// Measured rounds.
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Peers beside the floor, separated by commas. Default: all; `--peers ""`: none.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    peers: Option<Vec<String>>,
    /// Writes docs/benchmarks.md with its plots too.
    #[arg(long)]
    report: bool,
    /// Measures nothing: takes the JSON lines of earlier runs from stdin.
    #[arg(long)]
    replay: bool,
    /// The gateway's binary. Default: target/release/trestle, built first.
    #[arg(long, value_name = "FILE")]
    path: Option<PathBuf>,
    /// Which minimal program to be; the bench starts itself with it.
    #[arg(long, hide = true, value_enum)]
    role: Option<floor::Role>,
    /// Address of the gateway's gRPC, for `--role service`.
    #[arg(long, hide = true)]
    grpc: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(role) = arguments.role {
        return floor::run(role, arguments.grpc.as_deref()).map(|()| ExitCode::SUCCESS);
    }
    let report = if arguments.replay { replay()? } else { measure(&arguments)? };
    report.table();
    if arguments.report {
        report.write()?;
    }
    Ok(if report.whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(arguments: &Arguments) -> anyhow::Result<Report> {
    let gateway = match &arguments.path {
        Some(path) => path.clone(),
        None => process::build()?,
    };
    let wanted: Option<Vec<_>> =
        arguments.peers.as_ref().map(|names| names.iter().filter(|name| !name.is_empty()).cloned().collect());
    let bench = Bench::prepare(gateway, arguments.quick, arguments.rounds, wanted.as_deref())?;
    // One thread for all clients: the servers are what is measured, and they need the other core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut report = Report::new(&bench)?;
        for scenario in arguments.scenarios.iter().flat_map(|scenario| scenario.each()) {
            let outcome = scenario.run(&bench).await.with_context(|| scenario.name())?;
            report.add(outcome)?;
        }
        Ok(report)
    })
}

/// What earlier runs printed.
fn replay() -> anyhow::Result<Report> {
    let mut report = Report::default();
    for line in std::io::stdin().lock().lines() {
        report.read(&line?)?;
    }
    Ok(report)
}
