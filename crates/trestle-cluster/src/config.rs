//! How nodes find each other, and how long what they tell is believed.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// A connection that is lost is noticed this much later at most: `session.ping_interval` and `pong_timeout` by default.
const NOTICED_AFTER: Duration = Duration::from_secs(35);

/// How nodes find each other, and how long what they tell is believed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// How often a node says that it lives.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub heartbeat_interval: Duration,
    /// A node that has said nothing for so long is gone: its clients leave their channels, its sessions go on elsewhere.
    /// At least three heartbeats; whole seconds, since NATS counts those. Others know it at most 2 s later.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub node_timeout: Duration,
    /// File with the secret that signs resume tokens, at least 32 bytes, the same on all nodes; white space at its end is
    /// ignored. Not set: the first node makes one and keeps it in the bus's key-value store, where whoever may read
    /// that store can read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_secret_file: Option<PathBuf>,
    /// How long the record of a session is kept without being written again, which its node does after half of it. More
    /// than twice `session.resume_window` and a minute, so that a session outlives its node. 100,000 sessions / 5 min
    /// are 333 writes a second.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub record_ttl: Duration,
    /// How long somebody who has left a channel is still shown there, so that a quick reconnect to any node makes no
    /// noise.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub presence_linger: Duration,
    /// Who comes to a channel and who leaves it is told at most this often.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub presence_interval: Duration,
    /// Most sessions on a channel that are told by name; of more, only the counts. 1,000 x about 100 B = 100 KB a frame.
    pub presence_members_max: usize,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(3),
            node_timeout: Duration::from_secs(10),
            resume_secret_file: None,
            record_ttl: Duration::from_secs(600),
            presence_linger: Duration::from_secs(3),
            presence_interval: Duration::from_millis(200),
            presence_members_max: 1000,
        }
    }
}

impl ClusterConfig {
    /// Everything that is wrong with it beside `session.resume_window`, a sentence per key.
    #[must_use]
    pub fn faults(&self, resume_window: Duration) -> Vec<String> {
        let mut faults = Vec::new();
        if self.heartbeat_interval.is_zero() {
            faults.push("cluster.heartbeat_interval must be more than 0".into());
        }
        if self.node_timeout < self.heartbeat_interval * 3 {
            faults.push(format!(
                "cluster.node_timeout ({:?}) must be at least three times cluster.heartbeat_interval ({:?})",
                self.node_timeout, self.heartbeat_interval
            ));
        }
        if self.node_timeout.subsec_nanos() != 0 {
            faults.push(format!("cluster.node_timeout ({:?}) must be whole seconds", self.node_timeout));
        }
        let least = self.record_ttl_min(resume_window);
        if self.record_ttl < least {
            faults.push(format!(
                "cluster.record_ttl ({:?}) must be at least {least:?}, for session.resume_window ({resume_window:?})",
                self.record_ttl
            ));
        }
        if self.presence_interval.is_zero() {
            faults.push("cluster.presence_interval must be more than 0".into());
        }
        faults
    }

    /// A record was written up to half its life before its node died; the rest must hold until the loss is noticed and
    /// for the window.
    fn record_ttl_min(&self, resume_window: Duration) -> Duration {
        (resume_window + NOTICED_AFTER) * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_sound() {
        assert_eq!(ClusterConfig::default().faults(Duration::from_secs(60)), Vec::<String>::new());
    }

    #[test]
    fn two_keys_that_disagree_are_both_named() {
        let config = ClusterConfig {
            node_timeout: Duration::from_millis(5500),
            record_ttl: Duration::from_secs(100),
            ..ClusterConfig::default()
        };
        let faults = config.faults(Duration::from_secs(60)).join("\n");
        for key in ["cluster.node_timeout", "cluster.heartbeat_interval", "cluster.record_ttl", "session.resume_window"]
        {
            assert!(faults.contains(key), "{key}: {faults}");
        }
        assert!(faults.contains("190s"), "{faults}");
    }
}
