//! How a client connects, and how long and how much it waits.

use std::time::Duration;

/// What a connection is made with. The default is anonymous and fits most programs.
#[derive(Clone, Debug)]
pub struct Options {
    /// A JWT, sent in the first frame; `None` connects as an anonymous client, where the gateway allows that.
    pub token: Option<String>,
    /// Headers of the upgrade request, such as `Origin` or those of a proxy.
    pub headers: Vec<(String, String)>,
    /// Longest wait for the connection to be made and the session to begin.
    pub connect_timeout: Duration,
    /// Longest wait for an answer; that to a request waits for its own timeout.
    // A type of ack level HANDLED is accepted only after a service's ack, for which the gateway waits 30 s.
    pub answer_timeout: Duration,
    /// Most messages that wait for the program, on each subscription and for pushes. More are counted as a gap.
    // 1,024 x 64 KiB, the largest frame by default, = 64 MiB at worst; 1 MiB of ordinary messages of 1 KiB.
    pub queue_messages_max: usize,
    /// Largest WebSocket message taken from the gateway, in bytes.
    // The gateway joins frames under load: 16 MiB is 256 of the largest by default.
    pub message_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token: None,
            headers: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(40),
            queue_messages_max: 1024,
            message_bytes_max: 16 << 20,
        }
    }
}

impl Options {
    /// The default with a token.
    #[must_use]
    pub fn with_token(token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..Self::default() }
    }
}
