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
    /// Bytes of the read buffer of each socket. 4 KiB x 100,000 sockets are 400 MiB; larger messages still fit, in more
    /// reads.
    pub read_buffer_bytes: usize,
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
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            connections_max: 200_000,
            handshake_timeout: Duration::from_secs(5),
            frame_bytes_max: 64 * 1024,
            read_buffer_bytes: 4 * 1024,
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
            handled_timeout: Duration::from_secs(30),
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
        if !(512..=1024 * 1024).contains(&self.read_buffer_bytes) {
            faults.push(format!("edge.read_buffer_bytes ({}) must be from 512 to 1048576", self.read_buffer_bytes));
        }
        for (key, value) in [
            ("handshake_timeout", self.handshake_timeout),
            ("write_timeout", self.write_timeout),
            ("close_timeout", self.close_timeout),
            ("handled_timeout", self.handled_timeout),
        ] {
            if value.is_zero() {
                faults.push(format!("edge.{key} must be more than 0"));
            }
        }
        for origin in &self.origins {
            if !origin.starts_with("http://") && !origin.starts_with("https://") || origin.ends_with('/') {
                faults.push(format!("edge.origins: {origin:?} is not an origin such as https://app.example"));
            }
        }
        faults
    }
}
