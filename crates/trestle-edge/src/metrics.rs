//! What the edge counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use trestle_telemetry::Counter;
use trestle_wire::{CloseCode, Reason, v1};

/// Why something was refused or dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Closed {
    code: u16,
}

/// How a client that wanted to resume got on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resumed {
    outcome: &'static str,
}

/// Counts one stay without a connection for as long as it lives.
pub(crate) struct Pending(Gauge);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.dec();
    }
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
    refusals: Family<Why, Counter>,
    closes: Family<Closed, Counter>,
    pub(crate) pending: Gauge,
    pub(crate) handed_over: Counter,
    pub(crate) parked: Counter,
    pub(crate) events_dropped: Counter,
    pub(crate) turned_away: Counter,
    resumes: Family<Resumed, Counter>,
    dropped: Family<Why, Counter>,
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
        edge.register("pending", "Sessions that wait for their clients to come back", metrics.pending.clone());
        edge.register(
            "resumes",
            "Clients that wanted to resume: here, handed_over by another node, parked by one that stopped, recovered from the \
             channels' logs, or refused",
            metrics.resumes.clone(),
        );
        edge.register("handed_over", "Sessions given to another node", metrics.handed_over.clone());
        edge.register("parked", "Sessions left for another node when this one stopped", metrics.parked.clone());
        edge.register("turned_away", "Clients told to come again later", metrics.turned_away.clone());
        edge.register(
            "events_dropped",
            "Session events that the bus did not take in time",
            metrics.events_dropped.clone(),
        );
        edge.register(
            "dropped",
            "Messages that clients' outboxes had no room for, told to them in gaps, by reason",
            metrics.dropped.clone(),
        );
        metrics
    }

    /// A client is told of messages that its outbox had no room for.
    pub(crate) fn dropped(&self, gap: &v1::Gap) {
        self.dropped.get_or_create(&Why { reason: gap.reason().as_str_name() }).inc_by(gap.count);
    }

    /// Counts a stay without a connection.
    pub(crate) fn pend(&self) -> Pending {
        self.pending.inc();
        Pending(self.pending.clone())
    }

    /// A client wanted to resume.
    pub(crate) fn resumed(&self, outcome: &'static str) {
        self.resumes.get_or_create(&Resumed { outcome }).inc();
    }

    /// A client is told an error; `word` is one of the table's, or a service's own.
    pub(crate) fn refused(&self, word: &str) {
        let reason = Reason::of_word(word).map_or("service", |reason| reason.row().word);
        self.refusals.get_or_create(&Why { reason }).inc();
    }

    /// The gateway closes a connection.
    pub(crate) fn closed(&self, code: CloseCode) {
        self.closes.get_or_create(&Closed { code: code.number() }).inc();
    }
}
