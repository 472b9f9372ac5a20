//! What the edge counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use trestle_wire::{CloseCode, Reason};

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    reason: &'static str,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    code: u16,
}

/// The edge's metrics.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) upgrades: Counter,
    pub(crate) messages_in: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) messages_out: Counter,
    pub(crate) frames_out: Counter,
    pub(crate) bytes_out: Counter,
    refusals: Family<Refused, Counter>,
    closes: Family<Closed, Counter>,
}

impl Metrics {
    /// Registers them all.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let edge = registry.sub_registry_with_prefix("trestle_edge");
        edge.register("connections", "Open WebSockets", metrics.connections.clone());
        edge.register("upgrades", "HTTP requests that became WebSockets", metrics.upgrades.clone());
        edge.register("messages_received", "WebSocket messages from clients", metrics.messages_in.clone());
        edge.register("received_bytes", "Bytes in WebSocket messages from clients", metrics.bytes_in.clone());
        edge.register("messages_sent", "WebSocket messages to clients", metrics.messages_out.clone());
        edge.register(
            "frames_sent",
            "Frames to clients; several share a message under load",
            metrics.frames_out.clone(),
        );
        edge.register("sent_bytes", "Bytes in WebSocket messages to clients", metrics.bytes_out.clone());
        edge.register("refusals", "Errors told to clients, by reason", metrics.refusals.clone());
        edge.register("closes", "Connections closed by the gateway, by close code", metrics.closes.clone());
        metrics
    }

    /// A client is told an error; `word` is one of the table's, or a service's own.
    pub(crate) fn refused(&self, word: &str) {
        let known = Reason::ALL.iter().map(|reason| reason.row().word).find(|known| *known == word);
        self.refusals.get_or_create(&Refused { reason: known.unwrap_or("service") }).inc();
    }

    /// The gateway closes a connection.
    pub(crate) fn closed(&self, code: CloseCode) {
        self.closes.get_or_create(&Closed { code: code.number() }).inc();
    }
}
