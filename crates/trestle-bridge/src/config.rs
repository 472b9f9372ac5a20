//! What an operator can set, with the reason for each default.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The side of services and operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Deliveries in flight for an instance whose hello does not say. 64: measured round trips per CPU second stop
    /// growing there.
    pub max_in_flight_default: u32,
    /// Most deliveries in flight that an instance can ask for; more is cut to it. 4096 messages of 1 KiB are 4 MiB of
    /// queue for an instance that does not read.
    pub max_in_flight_max: u32,
    /// A DURABLE or HANDLED delivery that is not acknowledged within this comes again, here or elsewhere. 30 s: batch
    /// work's own time limit.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ack_wait: Duration,
    /// How long a stored message that was taken from the bus may wait here for a free instance before it is given back,
    /// so that another node gets it. 1 s: short beside `ack_wait`, long beside a handler.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub credit_wait: Duration,
    /// Live messages and requests of one type that may wait here for a free instance. 1024: a second's worth at the rate
    /// of an instance that takes a millisecond each.
    pub waiting_max: usize,
    /// Bytes that the waiting of one type may hold. 16 MiB x 50 types = 800 MiB worst case per node.
    pub waiting_bytes_max: usize,
    /// Longest time a request may take, whatever its sender allows. 60 s: longer work is a message and a push.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub request_timeout_max: Duration,
    /// Pushes of one stream that may be unanswered; more are not read until answers are out. 256: where acked appends to
    /// a NATS stream stop gaining from a longer window.
    pub push_window: usize,
    /// How long a counted push waits for one more node's count. 50 ms: above a round trip between regions would be too
    /// long for one within a site, where it is under 1 ms.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub count_quiet: Duration,
    /// How long an operator's question, an update of sessions or a kick waits for one more node's answer; it ends as soon as
    /// all have answered. 3 s: above the 2 s that a node gives its sessions for it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ask_wait: Duration,
    /// How long a new stream may take to say hello, and how long its subscriptions may take to be in force. 5 s: the
    /// handshake's time limit everywhere.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub hello_timeout: Duration,
    /// How long a stopping node waits for acks of what is in flight. 20 s: leaves 10 s of the 30 s that orchestrators give.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub drain_deadline: Duration,
    /// How often a quiet connection of a service is asked whether it lives (HTTP/2 PING). 10 s: with the timeout below, a
    /// host that vanished gives its work back within 15 s, half of `ack_wait`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keepalive_interval: Duration,
    /// How long that question may stay unanswered before the connection is dropped. 5 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub keepalive_timeout: Duration,
    /// Largest gRPC message and HTTP body taken from a service, in bytes. 4 MiB: gRPC's usual default; what the bus takes
    /// is less and is checked besides.
    pub message_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_in_flight_default: 64,
            max_in_flight_max: 4096,
            ack_wait: Duration::from_secs(30),
            credit_wait: Duration::from_secs(1),
            waiting_max: 1024,
            waiting_bytes_max: 16 << 20,
            request_timeout_max: Duration::from_secs(60),
            push_window: 256,
            count_quiet: Duration::from_millis(50),
            ask_wait: Duration::from_secs(3),
            hello_timeout: Duration::from_secs(5),
            drain_deadline: Duration::from_secs(20),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            message_bytes_max: 4 << 20,
        }
    }
}

impl Config {
    /// What is wrong with the values, one sentence each, naming the keys; empty if nothing is.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut must = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        let Self { max_in_flight_default, max_in_flight_max, ack_wait, credit_wait, .. } = self;
        let Self { keepalive_interval, keepalive_timeout, ask_wait, .. } = self;
        must(*max_in_flight_default >= 1, "max_in_flight_default (0) must be at least 1".into());
        must(
            max_in_flight_default <= max_in_flight_max,
            format!(
                "max_in_flight_default ({max_in_flight_default}) must not be above max_in_flight_max ({max_in_flight_max})"
            ),
        );
        must(*max_in_flight_max <= 65_536, format!("max_in_flight_max ({max_in_flight_max}) must not be above 65536"));
        must(*ack_wait >= Duration::from_secs(1), format!("ack_wait ({ack_wait:?}) must be at least 1s"));
        must(credit_wait < ack_wait, format!("credit_wait ({credit_wait:?}) must be below ack_wait ({ack_wait:?})"));
        must(self.waiting_max >= 1, "waiting_max (0) must be at least 1".into());
        must(
            (1..=65_536).contains(&self.push_window),
            format!("push_window ({}) must be 1 to 65536", self.push_window),
        );
        must(
            *ask_wait > Duration::from_secs(2),
            format!("ask_wait ({ask_wait:?}) must be above 2s, which a node gives its sessions"),
        );
        for (key, value) in [
            ("request_timeout_max", self.request_timeout_max),
            ("count_quiet", self.count_quiet),
            ("hello_timeout", self.hello_timeout),
            ("keepalive_interval", *keepalive_interval),
            ("keepalive_timeout", *keepalive_timeout),
        ] {
            must(!value.is_zero(), format!("{key} (0s) must be more than 0"));
        }
        must(
            *keepalive_interval + *keepalive_timeout < *ack_wait,
            format!(
                "keepalive_interval ({keepalive_interval:?}) and keepalive_timeout ({keepalive_timeout:?}) together must be \
                 below ack_wait ({ack_wait:?}), or a dead instance is noticed too late"
            ),
        );
        must(
            self.message_bytes_max >= 1024,
            format!("message_bytes_max ({}) must be at least 1024", self.message_bytes_max),
        );
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_fault() {
        assert_eq!(Config::default().faults(), Vec::<String>::new());
    }

    #[test]
    fn values_that_disagree_are_named_together() {
        let config = Config { ack_wait: Duration::from_secs(2), max_in_flight_default: 0, ..Config::default() };
        let faults = config.faults().join("\n");
        assert!(faults.contains("max_in_flight_default (0) must be at least 1"), "{faults}");
        for key in ["keepalive_interval (10s)", "keepalive_timeout (5s)", "ack_wait (2s)"] {
            assert!(faults.contains(key), "{key}: {faults}");
        }
    }

    #[test]
    fn durations_are_written_for_people_and_unknown_keys_are_refused() {
        let config: Config = serde_json::from_str(r#"{"ack_wait": "2m"}"#).expect("valid");
        assert_eq!(config.ack_wait, Duration::from_secs(120));
        let error = serde_json::from_str::<Config>(r#"{"ack_weight": "2m"}"#).expect_err("unknown key").to_string();
        assert!(error.contains("ack_weight"), "{error}");
    }
}
