//! Measures the release binary beside a minimal program that does the same work. For benches only.
//!
//! ```text
//! cargo run --release -p trestle-bench -- [fanout|request|all] [--quick]
//! ```
//! Each server is a process of its own, and only its CPU time is counted. The gateway and the floor take turns, round by
//! round, in one run on one machine: times differ between machines, ratios hold. One JSON line per run on stdout, a
//! table on stderr; the exit code is 1 if a message was lost.

mod client;
mod fanout;
mod floor;
mod process;
mod report;
mod request;
mod socket;
mod stats;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

/// Types generated from `bench/proto`.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod v1 {
    include!(concat!(env!("OUT_DIR"), "/bench.v1.rs"));
}

/// Bytes of a message that is fanned out or asked.
const PAYLOAD_BYTES: usize = 128;

#[derive(Parser)]
#[command(about = "Measures the release binary beside a minimal program that does the same work")]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_value = "all")]
    bench: Bench,
    /// Fewer rounds and messages: shows that it works, and roughly what it costs.
    #[arg(long)]
    quick: bool,
    /// The gateway's binary. Default: target/release/trestle, built first.
    #[arg(long, value_name = "FILE")]
    path: Option<PathBuf>,
    /// The gateway's bus: `embedded`, or the URL of a NATS server.
    #[arg(long, default_value = "embedded")]
    bus: String,
    /// Subscribers of the fan-out.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Which minimal program to be; the bench starts itself with it.
    #[arg(long, hide = true, value_enum)]
    role: Option<floor::Role>,
    /// Address of the gateway's gRPC, for `--role service`.
    #[arg(long, hide = true)]
    grpc: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    Fanout,
    Request,
    All,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(role) = arguments.role {
        return floor::run(role, arguments.grpc.as_deref()).map(|()| ExitCode::SUCCESS);
    }
    let gateway = match &arguments.path {
        Some(path) => path.clone(),
        None => process::build()?,
    };
    // One thread for all clients: the servers are what is measured, and they need the other core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let runs = runtime.block_on(async {
        let mut runs = Vec::new();
        if arguments.bench != Bench::Request {
            let load = fanout::Load::new(arguments.subscribers, arguments.quick);
            runs.extend(fanout::run(&gateway, &arguments.bus, &load).await.context("fan-out")?);
        }
        if arguments.bench != Bench::Fanout {
            let load = request::Load::new(arguments.quick);
            runs.extend(request::run(&gateway, &arguments.bus, &load).await.context("request")?);
        }
        anyhow::Ok(runs)
    })?;
    report::print(&runs);
    let whole = runs.iter().all(|run| run.lost == 0);
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
