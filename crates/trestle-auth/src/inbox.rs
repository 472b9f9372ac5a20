//! Users' inboxes: how much of each is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{History, Namespace, OverflowPolicy, Who};

/// Users' inboxes: pushes that wait until a device of the user acks them, for users who are offline too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InboxConfig {
    /// Messages per user, the latest, at least 1.
    // 1000 x 1 KiB, an ordinary message, are 1 MiB of a user who never comes; those who come ack.
    pub size: u64,
    /// For how long, at least 1 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ttl: Duration,
}

impl Default for InboxConfig {
    fn default() -> Self {
        Self { size: 1000, ttl: Duration::from_secs(7 * 24 * 60 * 60) }
    }
}

impl InboxConfig {
    /// The same as a channel's history, which it is.
    pub(crate) fn history(&self) -> History {
        History { size: self.size, ttl: self.ttl }
    }

    /// The policy of all inboxes. Nothing is dropped: a slow client is parted from and goes on after what it has acked.
    pub(crate) fn namespace(&self) -> Namespace {
        Namespace {
            subscribe: Who::Users,
            publish: Who::Nobody,
            presence: false,
            overflow: OverflowPolicy::Disconnect,
            history: Some(self.history()),
        }
    }
}
