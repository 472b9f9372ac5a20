//! Stopping in order: intake, what is in flight, resources.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use trestle_bridge::Bridge;
use trestle_edge::Edge;
use trestle_schema::Schemas;

use crate::app::Node;

/// Part of the drain's time that services get after the clients: their acks are all that is left then.
const SERVICES_SHARE: u32 = 3;
/// How long HTTP, the bus and the exporters each may take to close at the end, also past the deadline.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The signals that the node obeys.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from here on: to be called before the node says that it is ready, or a signal that comes right after
    /// that would still end the process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be listened to");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Returns on SIGTERM or SIGINT; reloads the schemas on SIGHUP.
    ///
    /// # Errors
    /// A server of the node has died; to be said at the end, after the drain.
    pub(crate) async fn until_told(&mut self, node: &mut Node) -> anyhow::Result<()> {
        let mut displaced = node.nodes.displaced();
        let (edge, told) = (node.edge.clone(), node.told_to_drain.clone());
        loop {
            let died = tokio::select! {
                () = either(&mut self.terminate, &mut self.interrupt) => return Ok(()),
                () = told_by_operator(edge.as_deref(), &told) => {
                    tracing::info!("drained by an operator");
                    return Ok(());
                }
                _ = displaced.wait_for(|displaced| *displaced) => {
                    let name = &node.id;
                    return Err(anyhow::anyhow!("node: the name {name} is another process's now; give each its own"));
                }
                _ = self.hangup.recv() => {
                    reload(&node.schemas).await;
                    continue;
                }
                died = node.http.died() => died,
                died = node.bridge_server.died() => died,
            };
            tracing::error!(error = format!("{died:#}"), "the node cannot go on: draining");
            return Err(died);
        }
    }

    /// Returns on SIGTERM or SIGINT.
    pub(crate) async fn stop(&mut self) {
        either(&mut self.terminate, &mut self.interrupt).await;
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM"),
        _ = interrupt.recv() => tracing::info!("SIGINT"),
    }
}

/// Ready once an operator has asked for the node to be drained; an edge hears of that by itself.
async fn told_by_operator(edge: Option<&Edge>, told: &CancellationToken) {
    match edge {
        Some(edge) => edge.told_to_drain().await,
        None => told.cancelled().await,
    }
}

async fn reload(schemas: &Schemas) {
    let schemas = schemas.clone();
    // Compiling takes CPU, not waiting; it must not hold up the node's tasks.
    match tokio::task::spawn_blocking(move || schemas.reload()).await {
        Ok(Ok(catalogue)) => tracing::info!(types = catalogue.types().count(), "SIGHUP: schemas reloaded"),
        Ok(Err(faults)) => {
            tracing::error!("SIGHUP: the new schemas are refused, the old ones stay in use:\n{faults}");
        }
        Err(error) => tracing::error!(%error, "SIGHUP: the reload died; the old schemas stay in use"),
    }
}

impl Node {
    /// Stops in order, within `deadline`.
    ///
    /// # Errors
    /// The first fault of a server; the rest is stopped all the same.
    pub(crate) async fn drain(self, deadline: Duration) -> anyhow::Result<()> {
        let started = tokio::time::Instant::now();
        let left = || deadline.saturating_sub(started.elapsed());
        tracing::info!(?deadline, "draining");
        // 1. Intake: load balancers see red on HTTP, which still answers; the edge upgrades no more.
        self.status.drain();
        self.nodes.set_draining();
        // 2. In flight: clients first, since services answer them.
        if let Some(edge) = &self.edge {
            edge.drain(deadline - deadline / SERVICES_SHARE).await;
        }
        self.demo_stop.cancel();
        if let Some(bridge) = &self.bridge {
            // What is not acked by then has to be given back while the bus is still there.
            bridge.set_drain_deadline(self.bridge_drain.min(left().saturating_sub(Bridge::AFTER_DRAIN)));
        }
        self.bridge_stop.cancel();
        let bridge = self.bridge_server.ended(left()).await;
        if let Some(demo) = self.demo {
            let _ended = tokio::time::timeout(left(), demo).await;
        }
        // 3. Resources. HTTP goes last, so that the drain could be watched.
        self.intake.cancel();
        let http = self.http.ended(left().max(FLUSH_TIMEOUT)).await;
        let _gone = tokio::time::timeout(FLUSH_TIMEOUT, self.nodes.leave()).await;
        let _closed = tokio::time::timeout(left().max(FLUSH_TIMEOUT), self.fabric.bus.close()).await;
        tracing::info!(took = ?started.elapsed(), "stopped");
        self.telemetry.shutdown().await;
        bridge.and(http)
    }
}
