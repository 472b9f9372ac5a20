//! What the bridge counts; each function is one fact.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use trestle_wire::{Reason, ServiceName};

use crate::target;

/// The bridge's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    instances: Family<OfService, Gauge>,
    in_flight: Family<OfService, Gauge>,
    deliveries: Family<Settled, Counter>,
    serve: Family<OfService, Histogram>,
    dropped: Family<Dropped, Counter>,
    pushes: Family<Pushed, Counter>,
    /// Those of the pushes that went out, by target, looked up once.
    pushed: [(&'static str, Counter); target::WORDS.len()],
    controls: Family<Controlled, Counter>,
    session_events: Family<TellingOf, Counter>,
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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Controlled {
    action: &'static str,
    target: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TellingOf {
    service: String,
    outcome: &'static str,
}

/// The outcome of a push that went out.
const PUSHED: &str = "ok";

/// 1 ms to 32 s: below is the gateway's own time, above is `ack_wait`.
fn serve_buckets() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0,
    ])
}

impl Metrics {
    /// Adds the metrics to `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let pushes = Family::<Pushed, Counter>::default();
        let metrics = Self {
            instances: Family::default(),
            in_flight: Family::default(),
            deliveries: Family::default(),
            serve: Family::new_with_constructor(serve_buckets as fn() -> Histogram),
            dropped: Family::default(),
            pushed: target::WORDS
                .map(|target| (target, pushes.get_or_create_owned(&Pushed { target, outcome: PUSHED }))),
            pushes,
            controls: Family::default(),
            session_events: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("trestle_bridge");
        registry.register("instances", "Instances of a service attached to this node", metrics.instances.clone());
        registry.register("in_flight", "Deliveries sent to instances and not answered", metrics.in_flight.clone());
        registry.register("deliveries", "Deliveries by what became of them", metrics.deliveries.clone());
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
        registry.register(
            "controls",
            "Updates of sessions and kicks by target and outcome (ok, or the refusal's reason)",
            metrics.controls.clone(),
        );
        registry.register(
            "session_events",
            "Session events for services by what became of them; bus_lost counts times, not events",
            metrics.session_events.clone(),
        );
        metrics
    }

    /// The metrics of one service, looked up once.
    pub(crate) fn of(&self, service: &ServiceName) -> ServiceMetrics {
        let of_service = OfService { service: service.to_string() };
        ServiceMetrics {
            instances: self.instances.get_or_create_owned(&of_service),
            in_flight: self.in_flight.get_or_create_owned(&of_service),
            serve: self.serve.get_or_create_owned(&of_service),
            deliveries: Outcome::ALL.map(|outcome| {
                let labels = Settled { service: service.to_string(), outcome: outcome.word() };
                self.deliveries.get_or_create_owned(&labels)
            }),
            dropped: Drop::ALL.map(|reason| {
                let labels = Dropped { service: service.to_string(), reason: reason.word() };
                self.dropped.get_or_create_owned(&labels)
            }),
            told: Telling::ALL.map(|outcome| {
                let labels = TellingOf { service: service.to_string(), outcome: outcome.word() };
                self.session_events.get_or_create_owned(&labels)
            }),
        }
    }

    /// A push went out.
    pub(crate) fn pushed(&self, target: &'static str) {
        if let Some((_, counter)) = self.pushed.iter().find(|(word, _)| *word == target) {
            counter.inc();
        }
    }

    /// A push did not go out.
    pub(crate) fn not_pushed(&self, target: &'static str, reason: Reason) {
        self.pushes.get_or_create(&Pushed { target, outcome: reason.row().word }).inc();
    }

    /// Sessions were updated or kicked, or were not.
    pub(crate) fn controlled(&self, action: &'static str, target: &'static str, outcome: &'static str) {
        self.controls.get_or_create(&Controlled { action, target, outcome }).inc();
    }
}

/// What is counted of one service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceMetrics {
    instances: Gauge,
    in_flight: Gauge,
    serve: Histogram,
    deliveries: [Counter; Outcome::ALL.len()],
    dropped: [Counter; Drop::ALL.len()],
    told: [Counter; Telling::ALL.len()],
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service has done it.
    Ack,
    /// The service has answered it.
    Reply,
    /// The service has not done it.
    Nack,
    /// Nobody waits for it any more.
    Cancelled,
    /// Its instance is gone.
    Lost,
    /// The service has done it, and the bus could not be told.
    AckFailed,
    /// The service's answer is not a message that can be sent.
    ReplyInvalid,
}

impl Outcome {
    const ALL: [Self; 7] =
        [Self::Ack, Self::Reply, Self::Nack, Self::Cancelled, Self::Lost, Self::AckFailed, Self::ReplyInvalid];

    /// As the label says it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Reply => "reply",
            Self::Nack => "nack",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::AckFailed => "ack_failed",
            Self::ReplyInvalid => "reply_invalid",
        }
    }
}

/// Why a message or request reached no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drop {
    /// It is not an envelope.
    Malformed,
    /// The waiting room is full.
    NoRoom,
    /// No instance had room before its deadline.
    NoCredit,
    /// It came after its deadline.
    Late,
    /// The last instance has gone, or the node drains.
    NoInstance,
    /// The bus lost it on the way here; one for each time, however many.
    BusLost,
}

impl Drop {
    const ALL: [Self; 6] = [Self::Malformed, Self::NoRoom, Self::NoCredit, Self::Late, Self::NoInstance, Self::BusLost];

    /// As the label says it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NoRoom => "no_room",
            Self::NoCredit => "no_credit",
            Self::Late => "late",
            Self::NoInstance => "no_instance",
            Self::BusLost => "bus_lost",
        }
    }
}

/// What became of a session event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// An instance is told.
    Told,
    /// Every instance that wants to know has a full queue.
    NoRoom,
    /// The bus lost some on the way here; one for each time, however many.
    BusLost,
}

impl Telling {
    const ALL: [Self; 3] = [Self::Told, Self::NoRoom, Self::BusLost];

    /// As the label says it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::NoRoom => "no_room",
            Self::BusLost => "bus_lost",
        }
    }
}

impl ServiceMetrics {
    /// An instance came (+1) or went (-1).
    pub(crate) fn instances(&self, change: i64) {
        self.instances.inc_by(change);
    }

    /// Deliveries came into flight or left it.
    pub(crate) fn in_flight(&self, change: i64) {
        self.in_flight.inc_by(change);
    }

    /// A delivery was answered, or will not be, `after` it was taken.
    pub(crate) fn settled(&self, outcome: Outcome, after: Duration) {
        self.deliveries[outcome as usize].inc();
        self.serve.observe(after.as_secs_f64());
    }

    /// A message or request reached no instance.
    pub(crate) fn dropped(&self, reason: Drop) {
        self.dropped[reason as usize].inc();
    }

    /// A session event was told, or was not.
    pub(crate) fn told(&self, outcome: Telling) {
        self.told[outcome as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_rendered() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let billing = metrics.of(&ServiceName::parse("billing").expect("valid"));
        billing.instances(2);
        billing.settled(Outcome::Ack, Duration::from_millis(3));
        billing.dropped(Drop::NoRoom);
        metrics.pushed("channel");
        metrics.not_pushed("group", Reason::BusAway);
        metrics.controlled("kick", "user", "ok");
        billing.told(Telling::NoRoom);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes everything");
        for line in [
            r#"trestle_bridge_instances{service="billing"} 2"#,
            r#"trestle_bridge_deliveries_total{service="billing",outcome="ack"} 1"#,
            r#"trestle_bridge_serve_seconds_bucket{le="0.004",service="billing"} 1"#,
            r#"trestle_bridge_dropped_total{service="billing",reason="no_room"} 1"#,
            r#"trestle_bridge_deliveries_total{service="billing",outcome="reply_invalid"} 0"#,
            r#"trestle_bridge_pushes_total{target="channel",outcome="ok"} 1"#,
            r#"trestle_bridge_pushes_total{target="group",outcome="bus_away"} 1"#,
            r#"trestle_bridge_controls_total{action="kick",target="user",outcome="ok"} 1"#,
            r#"trestle_bridge_session_events_total{service="billing",outcome="no_room"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn each_outcome_and_reason_has_its_own_counter() {
        assert!(Outcome::ALL.iter().enumerate().all(|(place, outcome)| *outcome as usize == place));
        assert!(Drop::ALL.iter().enumerate().all(|(place, reason)| *reason as usize == place));
        assert!(Telling::ALL.iter().enumerate().all(|(place, outcome)| *outcome as usize == place));
    }
}
