//! What the hub counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};
use trestle_wire::v1;

/// By which policy something was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Policy {
    policy: &'static str,
}

/// The hub's metrics.
pub(crate) struct Metrics {
    /// Clients with a connection and an admitted session on this node.
    pub(crate) connected_users: Gauge,
    /// Subscriptions of clients to channels.
    pub(crate) subscriptions: Gauge,
    /// Subjects this node listens to for its clients.
    pub(crate) rooms: Gauge,
    /// Frames put into outboxes.
    pub(crate) delivered: Counter,
    /// Clients parted from because their outbox was full.
    pub(crate) slow: Counter,
    /// Messages that found no room in an outbox.
    dropped: Family<Policy, Counter>,
    /// Messages of the bus that are not what its subject carries.
    pub(crate) malformed: Counter,
    /// Messages missing for the clients of a channel, as told to them in a gap.
    pub(crate) missing: Counter,
    /// Times that pushes to sessions, users or everyone may have been lost.
    pub(crate) lost_pushes: Counter,
    /// Questions to the log.
    pub(crate) log_reads: Counter,
    /// Messages put into outboxes that came before their member did.
    pub(crate) recalled: Counter,
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
            dropped: Family::default(),
            malformed: Counter::default(),
            missing: Counter::default(),
            lost_pushes: Counter::default(),
            log_reads: Counter::default(),
            recalled: Counter::default(),
            message_latency: latency,
        };
        registry.register(
            "connected_users",
            "Clients with a connection and an admitted session on this node",
            metrics.connected_users.clone(),
        );
        registry.register_with_unit(
            "message_latency",
            "From the acceptance of a message by the gateway to its place in the outboxes of this node",
            Unit::Seconds,
            metrics.message_latency.clone(),
        );
        metrics.register_rooms(registry.sub_registry_with_prefix("trestle_hub"));
        metrics
    }

    fn register_rooms(&self, hub: &mut Registry) {
        hub.register("subscriptions", "Subscriptions of clients to channels", self.subscriptions.clone());
        hub.register("rooms", "Subjects listened to for clients", self.rooms.clone());
        hub.register("delivered", "Frames put into outboxes", self.delivered.clone());
        hub.register("slow_clients", "Clients parted from because their outbox was full", self.slow.clone());
        hub.register("dropped", "Messages dropped for want of room in an outbox, by policy", self.dropped.clone());
        hub.register("malformed", "Messages of the bus that cannot be read", self.malformed.clone());
        hub.register("missing", "Messages told missing to a channel's clients", self.missing.clone());
        hub.register("lost_pushes", "Pushes that the bus may have lost on the way here", self.lost_pushes.clone());
        hub.register("log_reads", "Times that a channel's log was read for clients", self.log_reads.clone());
        hub.register("recalled_messages", "Missed messages given to clients that came back", self.recalled.clone());
    }

    /// `count` messages were dropped by `policy`.
    pub(crate) fn dropped(&self, policy: v1::Overflow, count: u32) {
        if count > 0 {
            let policy = Policy { policy: word(policy) };
            self.dropped.get_or_create(&policy).inc_by(u64::from(count));
        }
    }
}

/// The policy as the config writes it.
fn word(policy: v1::Overflow) -> &'static str {
    match policy {
        v1::Overflow::Unspecified | v1::Overflow::Disconnect => "disconnect",
        v1::Overflow::DropOldest => "drop_oldest",
        v1::Overflow::DropNewest => "drop_newest",
        v1::Overflow::Conflate => "conflate",
        v1::Overflow::Sample => "sample",
        v1::Overflow::Spill => "spill",
    }
}
