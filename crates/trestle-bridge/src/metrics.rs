//! What the bridge counts; each function is one fact.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use trestle_wire::ServiceName;

/// The bridge's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    instances: Family<OfService, Gauge>,
    in_flight: Family<OfService, Gauge>,
    deliveries: Family<Settled, Counter>,
    serve: Family<OfService, Histogram>,
    dropped: Family<Dropped, Counter>,
    pushes: Family<Pushed, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfService {
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Settled {
    service: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Dropped {
    service: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Pushed {
    target: &'static str,
    outcome: &'static str,
}

/// 1 ms to 32 s: below is the gateway's own time, above is `ack_wait`.
fn serve_buckets() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0,
    ])
}

impl Metrics {
    /// Adds the metrics to `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            instances: Family::default(),
            in_flight: Family::default(),
            deliveries: Family::default(),
            serve: Family::new_with_constructor(serve_buckets as fn() -> Histogram),
            dropped: Family::default(),
            pushes: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("trestle_bridge");
        registry.register("instances", "Instances of a service attached to this node", metrics.instances.clone());
        registry.register("in_flight", "Deliveries sent to instances and not answered", metrics.in_flight.clone());
        registry.register(
            "deliveries",
            "Deliveries by what became of them: ack, reply, nack, cancelled, late or lost",
            metrics.deliveries.clone(),
        );
        registry.register_with_unit(
            "serve",
            "From taking a message off the bus to the service's answer",
            Unit::Seconds,
            metrics.serve.clone(),
        );
        registry.register(
            "dropped",
            "RECEIVED messages and requests that reached no instance, and what is not an envelope",
            metrics.dropped.clone(),
        );
        registry.register(
            "pushes",
            "Pushes by target and outcome (ok, or the refusal's reason)",
            metrics.pushes.clone(),
        );
        metrics
    }

    /// An instance came (+1) or went (-1).
    pub(crate) fn instances(&self, service: &ServiceName, change: i64) {
        self.instances.get_or_create(&of(service)).inc_by(change);
    }

    /// Deliveries came into flight or left it.
    pub(crate) fn in_flight(&self, service: &ServiceName, change: i64) {
        self.in_flight.get_or_create(&of(service)).inc_by(change);
    }

    /// A delivery was answered, or will not be, `after` it was taken.
    pub(crate) fn settled(&self, service: &ServiceName, outcome: &'static str, after: Duration) {
        self.deliveries.get_or_create(&Settled { service: service.to_string(), outcome }).inc();
        self.serve.get_or_create(&of(service)).observe(after.as_secs_f64());
    }

    /// A message or request reached no instance.
    pub(crate) fn dropped(&self, service: &ServiceName, reason: &'static str) {
        self.dropped.get_or_create(&Dropped { service: service.to_string(), reason }).inc();
    }

    /// A push went out, or did not.
    pub(crate) fn pushed(&self, target: &'static str, outcome: &'static str) {
        self.pushes.get_or_create(&Pushed { target, outcome }).inc();
    }
}

fn of(service: &ServiceName) -> OfService {
    OfService { service: service.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let billing = ServiceName::parse("billing").expect("valid");
        metrics.instances(&billing, 2);
        metrics.settled(&billing, "ack", Duration::from_millis(3));
        metrics.dropped(&billing, "no_room");
        metrics.pushed("channel", "ok");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes everything");
        for line in [
            r#"trestle_bridge_instances{service="billing"} 2"#,
            r#"trestle_bridge_deliveries_total{service="billing",outcome="ack"} 1"#,
            r#"trestle_bridge_serve_seconds_bucket{le="0.004",service="billing"} 1"#,
            r#"trestle_bridge_dropped_total{service="billing",reason="no_room"} 1"#,
            r#"trestle_bridge_pushes_total{target="channel",outcome="ok"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
