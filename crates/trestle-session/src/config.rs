//! What bounds one session.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::Rules;

/// Longest time that a session may wait for its client: what it holds is held that long after a client is gone for good.
const RESUME_WINDOW_MAX: Duration = Duration::from_secs(24 * 3600);

/// The limits of one session.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// How long a socket may stay open after the upgrade without a first frame.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// How often the gateway sends a WebSocket ping. Below the 30 s after which many proxies drop an idle connection.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub ping_interval: Duration,
    /// How long it waits for any sign of life after a ping before it closes with 4001.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub pong_timeout: Duration,
    /// Channels that one session may listen to.
    pub subscriptions_max: usize,
    /// Requests, and messages that wait for a service's acknowledgement, that one session may have outstanding.
    pub outstanding_max: usize,
    /// Timeout of a request that names none.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub request_timeout: Duration,
    /// Longest timeout of a request; a longer one is shortened to it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub request_timeout_max: Duration,
    /// Faulty frames in a row after which the connection is closed with 4501: a broken client is not worth the CPU.
    pub faults_max: u32,
    /// Bytes that may wait for one client. 256 KiB x 100,000 sessions = 24 GiB if every one of them stalls at once.
    pub outbox_bytes_max: usize,
    /// Frames that may wait for one client: 4,096 of them cost 64 KiB beside their bytes, which are shared.
    pub outbox_frames_max: usize,
    /// How long a session waits for its client after the connection was lost; 0 s ends it at once. What it listens to goes
    /// on filling its outbox meanwhile. Less than the `ttl` of histories that are to be recovered.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub resume_window: Duration,
    /// Bytes of written frames that are kept until the client is known to have them, for a resume. 64 KiB x 100,000
    /// sessions = 6.4 GB if every client is sent that much between two pongs; messages are shared by all who got them.
    pub replay_bytes_max: usize,
    /// Written frames that are kept: 1,024 of them cost 32 KiB beside their bytes.
    pub replay_frames_max: usize,
    /// Groups that services may put one session into, beside those of its token and of rules. 64 x 128 bytes are 8 KiB.
    pub groups_max: usize,
    /// Groups by rule: sessions whose tags match the selector are in the group of that name, such as
    /// `eu-pros = "plan=pro AND region IN (eu, uk)"`.
    pub groups: BTreeMap<String, String>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            subscriptions_max: 256,
            outstanding_max: 64,
            request_timeout: Duration::from_secs(10),
            request_timeout_max: Duration::from_secs(60),
            faults_max: 64,
            outbox_bytes_max: 256 * 1024,
            outbox_frames_max: 4096,
            resume_window: Duration::from_secs(60),
            replay_bytes_max: 64 * 1024,
            replay_frames_max: 1024,
            groups_max: 64,
            groups: BTreeMap::new(),
        }
    }
}

impl SessionConfig {
    /// Everything that is wrong with it, a sentence per key.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.pong_timeout >= self.ping_interval {
            faults.push(format!(
                "session.pong_timeout ({:?}) must be less than session.ping_interval ({:?})",
                self.pong_timeout, self.ping_interval
            ));
        }
        if self.request_timeout > self.request_timeout_max {
            faults.push(format!(
                "session.request_timeout ({:?}) must not be more than session.request_timeout_max ({:?})",
                self.request_timeout, self.request_timeout_max
            ));
        }
        for (key, zero) in [
            ("connect_timeout", self.connect_timeout.is_zero()),
            ("pong_timeout", self.pong_timeout.is_zero()),
            ("request_timeout", self.request_timeout.is_zero()),
            ("subscriptions_max", self.subscriptions_max == 0),
            ("outstanding_max", self.outstanding_max == 0),
            ("faults_max", self.faults_max == 0),
            ("outbox_frames_max", self.outbox_frames_max == 0),
        ] {
            if zero {
                faults.push(format!("session.{key} must be more than 0"));
            }
        }
        if self.outbox_bytes_max < 16 * 1024 {
            faults.push(format!("session.outbox_bytes_max ({}) must be at least 16384", self.outbox_bytes_max));
        }
        if self.resume_window > RESUME_WINDOW_MAX {
            faults.push(format!("session.resume_window ({:?}) must be at most 24h", self.resume_window));
        }
        faults.extend(Rules::parse(self).err().into_iter().flatten());
        faults
    }
}
