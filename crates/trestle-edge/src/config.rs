//! What an operator can say about the edge.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Client sockets.
#[derive(Clone, Debug, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Origins of the pages that may connect, such as `https://app.example`; empty allows every origin. Programs that are
    /// no browser send none and are not asked.
    pub origins: Vec<String>,
    /// Sockets that one node holds. Beyond them an upgrade is answered with 429: 200,000 reconnects are what the other
    /// nodes must bear when this one dies.
    pub connections_max: usize,
    /// How long a client may take for the header of a request, the upgrade's too, from the connection or from the last
    /// answer: who sends nothing, or half a header, is closed. Whatever stays plain HTTP is closed after a minute.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub handshake_timeout: Duration,
    /// Largest WebSocket message taken from a client, in bytes; a larger one closes the connection with 1009.
    pub frame_bytes_max: usize,
    /// How long one write may make no progress before the client is taken for stalled and closed with 4000.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub write_timeout: Duration,
    /// How long a closing socket waits for the client to read what was written and to close its side.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub close_timeout: Duration,
    /// How long a message of ack level HANDLED waits for its service before it is reported as DURABLE, which it then is.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub handled_timeout: Duration,
    /// Where clients reach this node and no other, such as `wss://edge-1.example/ws`: given to clients that are asked to
    /// leave another node. Not set: they connect where they did before, through whatever balances the load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Clients taken in a second; those beyond are told when to come again (`too_busy`). 5,000: about half of a core at
    /// 100 us each.
    pub admission_rate: u32,
    /// Clients taken in at once after a quiet time, such as all those of a node that has died.
    pub admission_burst: u32,
    /// Clients asked to leave in a second, when this node is drained or has more than its share: the nodes that they go to
    /// take them in beside their own work.
    pub leave_rate: u32,
    /// How long a client that was asked to connect again may take before its connection is closed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub drain_grace: Duration,
    /// Age at which a client is asked to connect again, give or take a tenth, so that new nodes get their share. Not set:
    /// connections last as long as they can.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub connection_age_max: Option<Duration>,
    /// How long after `connected` a session can be resumed, even if its connection lasts until then. 24 h: the token that
    /// a client of a page left open overnight holds.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub resume_token_ttl: Duration,
    /// Sessions without a connection for which messages are kept; those beyond can be resumed too, from the histories of
    /// their channels. 50,000 x up to 320 KiB (`session.outbox_bytes_max` and `session.replay_bytes_max`).
    pub pending_max: usize,
    /// Bytes of the kernel's send buffer of each socket, which it doubles for its own needs: what is written and not yet
    /// read by a client that stalls. With `session.outbox_bytes_max` this bounds what a slow client costs.
    pub send_buffer_bytes: usize,
    /// Bytes not yet sent above which a socket counts as full (TCP_NOTSENT_LOWAT): more waits in the outbox, where its
    /// policy is.
    pub unsent_bytes_max: usize,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            connections_max: 200_000,
            handshake_timeout: Duration::from_secs(5),
            frame_bytes_max: 64 * 1024,
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
            handled_timeout: Duration::from_secs(30),
            endpoint: None,
            admission_rate: 5_000,
            admission_burst: 10_000,
            leave_rate: 1_000,
            drain_grace: Duration::from_secs(5),
            connection_age_max: None,
            resume_token_ttl: Duration::from_secs(24 * 60 * 60),
            pending_max: 50_000,
            send_buffer_bytes: 128 * 1024,
            unsent_bytes_max: 16 * 1024,
        }
    }
}

impl EdgeConfig {
    /// Everything that is wrong with it, a sentence per key.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.connections_max == 0 {
            faults.push("edge.connections_max must be more than 0".into());
        }
        if !(1024..=16 * 1024 * 1024).contains(&self.frame_bytes_max) {
            faults.push(format!("edge.frame_bytes_max ({}) must be from 1024 to 16777216", self.frame_bytes_max));
        }
        for (key, value) in [
            ("handshake_timeout", self.handshake_timeout),
            ("write_timeout", self.write_timeout),
            ("close_timeout", self.close_timeout),
            ("handled_timeout", self.handled_timeout),
            ("drain_grace", self.drain_grace),
            ("resume_token_ttl", self.resume_token_ttl),
        ] {
            if value.is_zero() {
                faults.push(format!("edge.{key} must be more than 0"));
            }
        }
        for (key, zero) in [
            ("admission_rate", self.admission_rate == 0),
            ("admission_burst", self.admission_burst == 0),
            ("leave_rate", self.leave_rate == 0),
        ] {
            if zero {
                faults.push(format!("edge.{key} must be more than 0"));
            }
        }
        for (key, bytes) in [("send_buffer_bytes", self.send_buffer_bytes), ("unsent_bytes_max", self.unsent_bytes_max)]
        {
            if !(4096..=16 * 1024 * 1024).contains(&bytes) {
                faults.push(format!("edge.{key} ({bytes}) must be from 4096 to 16777216"));
            }
        }
        if let Some(age) = self.connection_age_max.filter(|age| *age <= self.drain_grace) {
            faults.push(format!(
                "edge.connection_age_max ({age:?}) must be more than edge.drain_grace ({:?}), in which a client leaves",
                self.drain_grace
            ));
        }
        if let Some(endpoint) = &self.endpoint
            && !endpoint.starts_with("ws://")
            && !endpoint.starts_with("wss://")
        {
            faults.push(format!("edge.endpoint: {endpoint:?} is not an address such as wss://edge-1.example/ws"));
        }
        for origin in &self.origins {
            if !origin.starts_with("http://") && !origin.starts_with("https://") || origin.ends_with('/') {
                faults.push(format!("edge.origins: {origin:?} is not an origin such as https://app.example"));
            }
        }
        faults
    }
}
