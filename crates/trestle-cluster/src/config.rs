//! How nodes find each other, and how long what they tell is believed.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// Most bytes of a member where it is told by name, to a client or another node: a session id of 97, a user of 128, and
/// what frames them, also in JSON.
pub(crate) const MEMBER_BYTES_MAX: usize = 256;

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
    /// How long the record of a session is kept without being written again, which its node does after half of it. At
    /// least twice `session.resume_window`, `session.ping_interval` and `session.pong_timeout` together, so that a
    /// session outlives its node. 100,000 sessions / 5 min are 333 writes a second.
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
    /// Most sessions on a channel that are told by name; of more, only the counts. 1,000 x about 100 B = 100 KB a frame, at
    /// 256 B at worst it must fit into `session.outbox_bytes_max`.
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
    /// Everything that is wrong with it beside sessions as they are set, a sentence per key.
    #[must_use]
    pub fn faults(&self, sessions: &Beside) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, value) in
            [("heartbeat_interval", self.heartbeat_interval), ("presence_interval", self.presence_interval)]
        {
            if value.is_zero() {
                faults.push(format!("cluster.{key} must be more than 0"));
            }
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
        let Beside { resume_window, noticed_after, outbox_bytes_max } = *sessions;
        // A record was written up to half its life before its node died; the rest must hold until the loss is noticed and
        // for the window.
        let least = (resume_window + noticed_after) * 2;
        if self.record_ttl < least {
            faults.push(format!(
                "cluster.record_ttl ({:?}) must be at least {least:?}: twice session.resume_window ({resume_window:?}) and \
                 session.ping_interval and session.pong_timeout ({noticed_after:?} together)",
                self.record_ttl
            ));
        }
        let bytes = self.presence_members_max.saturating_mul(MEMBER_BYTES_MAX);
        if bytes > outbox_bytes_max {
            faults.push(format!(
                "cluster.presence_members_max ({}) must be at most {}: at {MEMBER_BYTES_MAX} bytes each they must fit into \
                 session.outbox_bytes_max ({outbox_bytes_max})",
                self.presence_members_max,
                outbox_bytes_max / MEMBER_BYTES_MAX
            ));
        }
        faults
    }
}

/// What the config says of sessions, of what must fit to it.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// How long a session waits for its client (`session.resume_window`).
    pub resume_window: Duration,
    /// How much later at most a lost connection is noticed (`session.ping_interval` and `session.pong_timeout`).
    pub noticed_after: Duration,
    /// What waits for one client (`session.outbox_bytes_max`).
    pub outbox_bytes_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BESIDE: Beside = Beside {
        resume_window: Duration::from_secs(60),
        noticed_after: Duration::from_secs(35),
        outbox_bytes_max: 256 * 1024,
    };

    #[test]
    fn the_default_is_sound() {
        assert_eq!(ClusterConfig::default().faults(&BESIDE), Vec::<String>::new());
    }

    #[test]
    fn a_record_outlives_its_node_however_late_a_loss_is_noticed() {
        let late = Beside { noticed_after: Duration::from_secs(241), ..BESIDE };
        let faults = ClusterConfig::default().faults(&late).join("\n");
        assert!(faults.contains("cluster.record_ttl (600s) must be at least 602s"), "{faults}");
        assert!(faults.contains("session.ping_interval"), "{faults}");
    }

    #[test]
    fn who_is_on_a_channel_fits_into_an_outbox() {
        let many = ClusterConfig { presence_members_max: 1025, ..ClusterConfig::default() };
        let faults = many.faults(&BESIDE).join("\n");
        assert!(faults.contains("cluster.presence_members_max (1025) must be at most 1024"), "{faults}");
        assert!(faults.contains("session.outbox_bytes_max (262144)"), "{faults}");
    }

    #[test]
    fn two_keys_that_disagree_are_both_named() {
        let config = ClusterConfig {
            node_timeout: Duration::from_millis(5500),
            record_ttl: Duration::from_secs(100),
            ..ClusterConfig::default()
        };
        let faults = config.faults(&BESIDE).join("\n");
        for key in ["cluster.node_timeout", "cluster.heartbeat_interval", "cluster.record_ttl", "session.resume_window"]
        {
            assert!(faults.contains(key), "{key}: {faults}");
        }
        assert!(faults.contains("190s"), "{faults}");
    }
}
