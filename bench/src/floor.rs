//! The minimal programs: what the same work costs when nothing but the work is done.

pub(crate) mod direct;
pub(crate) mod hub;
mod service;
pub(crate) mod streams;

use anyhow::Context as _;
use clap::ValueEnum;
use tokio::net::TcpListener;

/// Which program to be.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// A WebSocket hub: what anyone publishes goes to all subscribers of the channel.
    Hub,
    /// A gRPC server with one unary call.
    Direct,
    /// A gRPC server that answers every push of a stream.
    Streams,
    /// A service behind the gateway; not a floor, but it must be a process of its own all the same.
    Service,
}

impl Role {
    /// The role as the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Direct => "direct",
            Self::Streams => "streams",
            Self::Service => "service",
        }
    }
}

/// Serves in `role` until killed. Prints one JSON line when it is ready.
///
/// # Errors
/// If it cannot listen, or cannot reach the gateway at `grpc`.
pub(crate) fn run(role: Role, grpc: Option<&str>) -> anyhow::Result<()> {
    // As many threads as the gateway has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        match role {
            Role::Hub => hub::serve(listener()?).await,
            Role::Direct => direct::serve(listener()?).await,
            Role::Streams => streams::serve(listener()?).await,
            Role::Service => service::serve(grpc.context("--role service needs --grpc")?).await,
        }
    })
}

/// A free port, which is told to the bench.
fn listener() -> anyhow::Result<TcpListener> {
    let listener = hub::listen().context("no port")?;
    ready(&listener.local_addr()?.to_string());
    Ok(listener)
}

/// Says where it listens, in the words of the gateway.
fn ready(address: &str) {
    println!("{}", serde_json::json!({ "listen": address }));
}
