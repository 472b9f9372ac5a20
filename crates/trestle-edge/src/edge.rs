//! The edge of one node: what all its connections share.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::any};
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trestle_auth::{Channels, Gate};
use trestle_bus::{BusError, Fabric};
use trestle_codec::Limits;
use trestle_hub::Hub;
use trestle_schema::Schemas;
use trestle_session::SessionConfig;
use trestle_telemetry::trace::Tracer;
use trestle_wire::{NodeId, Subjects};

use crate::{EdgeConfig, handled::Handled, metrics::Metrics, upgrade};

/// What the edge is made of.
pub struct Parts<'a> {
    /// The node.
    pub node: NodeId,
    /// Its sockets.
    pub config: EdgeConfig,
    /// Its sessions.
    pub session: SessionConfig,
    /// Who may connect.
    pub gate: Gate,
    /// Who may do what on a channel.
    pub channels: Arc<Channels>,
    /// The types in use.
    pub schemas: Schemas,
    /// The bus.
    pub fabric: Fabric,
    /// The subjects on it.
    pub subjects: Subjects,
    /// Who listens to what.
    pub hub: Arc<Hub>,
    /// Spans for messages.
    pub tracer: Tracer,
    /// Where the metrics are registered.
    pub registry: &'a mut Registry,
}

/// The edge of one node.
pub struct Edge {
    pub(crate) node: NodeId,
    pub(crate) config: EdgeConfig,
    pub(crate) session: Arc<SessionConfig>,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    pub(crate) channels: Arc<Channels>,
    pub(crate) schemas: Schemas,
    pub(crate) fabric: Fabric,
    pub(crate) subjects: Subjects,
    pub(crate) hub: Arc<Hub>,
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Metrics,
    pub(crate) handled: Arc<Handled>,
    /// One for each connection there may be.
    pub(crate) places: Arc<Semaphore>,
    /// The connections.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the node is about to stop.
    pub(crate) drain: CancellationToken,
    /// Cancelled when it stops whatever is left.
    pub(crate) stop: CancellationToken,
}

impl Edge {
    /// An edge without sockets yet.
    ///
    /// # Errors
    /// [`BusError`] if services' acknowledgements cannot be listened to.
    pub async fn open(parts: Parts<'_>) -> Result<Arc<Self>, BusError> {
        let handled = Handled::listen(&parts.fabric, &parts.subjects.handled(&parts.node)).await?;
        Ok(Arc::new(Self {
            places: Arc::new(Semaphore::new(parts.config.connections_max)),
            node: parts.node,
            config: parts.config,
            session: Arc::new(parts.session),
            limits: Limits::default(),
            gate: parts.gate,
            channels: parts.channels,
            schemas: parts.schemas,
            fabric: parts.fabric,
            subjects: parts.subjects,
            hub: parts.hub,
            tracer: parts.tracer,
            metrics: Metrics::register(parts.registry),
            handled,
            tasks: TaskTracker::new(),
            drain: CancellationToken::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// The routes of the edge: `/ws`. To be served by [`Accept`](crate::Accept).
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/ws", any(upgrade::upgrade)).with_state(Arc::clone(self))
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.tasks.len()
    }

    /// Lets what is in flight end, tells every client to reconnect, and closes; within `deadline`.
    ///
    /// From here on no upgrade is taken, and connections read no further frames.
    pub async fn drain(&self, deadline: Duration) {
        self.drain.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), ?deadline, "connections left at the deadline are cut");
            self.stop.cancel();
            // Each has its close frame to write, and gives the client time to take it.
            let _all = tokio::time::timeout(self.config.close_timeout, self.tasks.wait()).await;
        }
    }
}
