//! What is counted of nodes, records and presence.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

const PREFIX: &str = "trestle_cluster";

/// Metrics of [`Nodes`](crate::Nodes).
pub(crate) struct NodeMetrics {
    /// Nodes that live, as this one sees it.
    pub(crate) alive: Gauge,
}

impl NodeMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { alive: Gauge::default() };
        let cluster = registry.sub_registry_with_prefix(PREFIX);
        cluster.register("nodes", "Nodes that live as this node sees it, itself included", metrics.alive.clone());
        metrics
    }
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Outcome {
    /// The session goes on here.
    Claimed,
    /// The token had served before.
    Spent,
    /// It had, but nothing was heard of its client since.
    Unheard,
    /// The session is over.
    Expired,
    /// The bus did not answer.
    Away,
}

/// Label of the counter of claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ClaimLabel {
    pub(crate) outcome: Outcome,
}

/// Metrics of [`Registry`](crate::Registry).
pub(crate) struct RecordMetrics {
    /// Sessions whose records this node keeps up.
    pub(crate) records: Gauge,
    /// Records that wait to be written.
    pub(crate) dirty: Gauge,
    /// Records written.
    pub(crate) written: Counter,
    /// Writes that the bus did not take and that are tried again.
    pub(crate) failed: Counter,
    /// Sessions found to have gone on elsewhere.
    pub(crate) lost: Counter,
    /// Claims of sessions, by outcome.
    pub(crate) claims: Family<ClaimLabel, Counter>,
}

impl RecordMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            records: Gauge::default(),
            dirty: Gauge::default(),
            written: Counter::default(),
            failed: Counter::default(),
            lost: Counter::default(),
            claims: Family::default(),
        };
        let cluster = registry.sub_registry_with_prefix(PREFIX);
        cluster.register("records", "Sessions whose records this node keeps up", metrics.records.clone());
        cluster.register("records_dirty", "Records of sessions that wait to be written", metrics.dirty.clone());
        cluster.register("records_written", "Records of sessions written by this node", metrics.written.clone());
        cluster.register(
            "record_writes_failed",
            "Writes of records that the bus did not take and that are tried again",
            metrics.failed.clone(),
        );
        cluster.register(
            "records_lost",
            "Sessions of this node whose records turned out to belong to another node",
            metrics.lost.clone(),
        );
        cluster.register("claims", "Claims of sessions by resume tokens, by outcome", metrics.claims.clone());
        metrics
    }

    pub(crate) fn claim(&self, outcome: Outcome) {
        self.claims.get_or_create(&ClaimLabel { outcome }).inc();
    }
}

/// Metrics of sessions whose node is gone.
pub(crate) struct LeftMetrics {
    /// Those that this node looks after.
    pub(crate) sessions: Gauge,
    /// Those that it has ended, as nobody has come back to them.
    pub(crate) ended: Counter,
}

impl LeftMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { sessions: Gauge::default(), ended: Counter::default() };
        let cluster = registry.sub_registry_with_prefix(PREFIX);
        cluster.register(
            "left_sessions",
            "Sessions whose node is gone and that this node looks after until somebody comes back to them",
            metrics.sessions.clone(),
        );
        cluster.register(
            "left_ended",
            "Sessions whose node is gone that this node has ended, as nobody came back to them in time",
            metrics.ended.clone(),
        );
        metrics
    }
}

/// Metrics of [`Presence`](crate::Presence).
pub(crate) struct PresenceMetrics {
    /// Channels with presence that somebody on this node listens to.
    pub(crate) channels: Gauge,
    /// Sessions on those channels, on all nodes.
    pub(crate) members: Gauge,
    /// Times that other nodes' members were asked for.
    pub(crate) resyncs: Counter,
    /// Messages between nodes that were not sent because the bus did not take them.
    pub(crate) unsent: Counter,
    /// Messages about presence that cannot be read.
    pub(crate) malformed: Counter,
}

impl PresenceMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            channels: Gauge::default(),
            members: Gauge::default(),
            resyncs: Counter::default(),
            unsent: Counter::default(),
            malformed: Counter::default(),
        };
        let cluster = registry.sub_registry_with_prefix(PREFIX);
        let name = "presence_channels";
        cluster.register(name, "Channels with presence that this node keeps a replica of", metrics.channels.clone());
        let name = "presence_members";
        cluster.register(name, "Sessions in the replicas of this node, on all nodes", metrics.members.clone());
        cluster.register(
            "presence_resyncs",
            "Times that this node asked who is on a channel: when it came to it, and when something was lost",
            metrics.resyncs.clone(),
        );
        cluster.register(
            "presence_unsent",
            "Changes that the bus did not take; they are told whole once it does",
            metrics.unsent.clone(),
        );
        cluster.register(
            "presence_malformed",
            "Messages about presence that cannot be read",
            metrics.malformed.clone(),
        );
        metrics
    }
}
