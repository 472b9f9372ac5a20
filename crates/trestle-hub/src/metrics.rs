//! What the hub counts.

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The hub's metrics.
pub(crate) struct Metrics {
    /// Clients with an admitted session on this node.
    pub(crate) connected_users: Gauge,
    /// Subscriptions of clients to channels.
    pub(crate) subscriptions: Gauge,
    /// Subjects this node listens to for its clients.
    pub(crate) rooms: Gauge,
    /// Frames put into outboxes.
    pub(crate) delivered: Counter,
    /// Clients parted from because their outbox was full.
    pub(crate) slow: Counter,
    /// Messages of the bus that are not envelopes.
    pub(crate) malformed: Counter,
    /// Messages missing for the clients of a channel, as told to them in a gap.
    pub(crate) missing: Counter,
    /// Times that pushes to sessions, users or everyone may have been lost.
    pub(crate) lost_pushes: Counter,
    /// From the time the gateway accepted a message to its place in the outboxes.
    pub(crate) message_latency: Histogram,
}

impl Metrics {
    /// Registers them all.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // 50 us to 26 s, each bucket twice the one before.
        let latency = Histogram::new(exponential_buckets(0.000_05, 2.0, 20));
        let metrics = Self {
            connected_users: Gauge::default(),
            subscriptions: Gauge::default(),
            rooms: Gauge::default(),
            delivered: Counter::default(),
            slow: Counter::default(),
            malformed: Counter::default(),
            missing: Counter::default(),
            lost_pushes: Counter::default(),
            message_latency: latency,
        };
        registry.register(
            "connected_users",
            "Clients with an admitted session on this node",
            metrics.connected_users.clone(),
        );
        registry.register_with_unit(
            "message_latency",
            "From the acceptance of a message by the gateway to its place in the outboxes of this node",
            Unit::Seconds,
            metrics.message_latency.clone(),
        );
        let hub = registry.sub_registry_with_prefix("trestle_hub");
        hub.register("subscriptions", "Subscriptions of clients to channels", metrics.subscriptions.clone());
        hub.register("rooms", "Subjects listened to for clients", metrics.rooms.clone());
        hub.register("delivered", "Frames put into outboxes", metrics.delivered.clone());
        hub.register("slow_clients", "Clients parted from because their outbox was full", metrics.slow.clone());
        hub.register("malformed", "Messages of the bus that are not envelopes", metrics.malformed.clone());
        hub.register("missing", "Messages told missing to a channel's clients", metrics.missing.clone());
        hub.register("lost_pushes", "Pushes that the bus may have lost on the way here", metrics.lost_pushes.clone());
        metrics
    }
}
