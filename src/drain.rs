//! Stopping in order: intake, what is in flight, resources.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::Node;

/// Part of the drain's time that services get after the clients: their acks are all that is left then.
const SERVICES_SHARE: u32 = 3;
/// How long the last spans may take to leave.
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
    pub(crate) async fn until_told(&mut self, node: &Node) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return tracing::info!("SIGTERM: draining"),
                _ = self.interrupt.recv() => return tracing::info!("SIGINT: draining"),
                _ = self.hangup.recv() => reload(node).await,
            }
        }
    }
}

async fn reload(node: &Node) {
    let schemas = node.schemas.clone();
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
    pub(crate) async fn drain(self, deadline: Duration) -> anyhow::Result<()> {
        let started = tokio::time::Instant::now();
        let left = || deadline.saturating_sub(started.elapsed());
        // 1. Intake: load balancers see red, no new connection is taken.
        self.status.drain();
        self.intake.cancel();
        // 2. In flight: clients first, since services answer them.
        if let Some(edge) = &self.edge {
            edge.drain(deadline - deadline / SERVICES_SHARE).await;
        }
        self.demo_stop.cancel();
        self.bridge_stop.cancel();
        if let Some(bridge) = self.bridge {
            match tokio::time::timeout(left(), bridge).await {
                Ok(served) => served.context("the bridge died")??,
                Err(_) => tracing::warn!("services are cut off at the deadline; what they have not acked comes again"),
            }
        }
        if let Some(demo) = self.demo {
            let _ended = tokio::time::timeout(left(), demo).await;
        }
        // 3. Resources.
        if tokio::time::timeout(left(), self.http).await.is_err() {
            tracing::warn!("HTTP requests are cut off at the deadline");
        }
        let _closed = tokio::time::timeout(left().max(FLUSH_TIMEOUT), self.fabric.bus.close()).await;
        tracing::info!(took = ?started.elapsed(), "stopped");
        self.telemetry.shutdown().await;
        Ok(())
    }
}
