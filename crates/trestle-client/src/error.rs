//! What a program that talks to the gateway must be ready for.

use std::{fmt, time::Duration};

use trestle_wire::v1;

/// Why something did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no WebSocket address, a header is no header, or there was no connection at all.
    #[error("cannot connect to {url}: {cause}")]
    Connect {
        /// The address as given.
        url: String,
        /// What the network or the address said.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The gateway answered the upgrade request with something else than an upgrade.
    #[error("the gateway refused the connection with HTTP {status}: {body}")]
    Upgrade {
        /// Its HTTP status.
        status: u16,
        /// The beginning of its body, which says why.
        body: String,
    },
    /// The gateway refused this frame, and said why. The connection lives, unless its close code follows.
    #[error("{}: {}", .0.reason, .0.message)]
    Refused(v1::Error),
    /// No answer in time. What was asked for may have been done.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The frame is larger than the gateway takes; it was not sent.
    #[error("the frame has {bytes} bytes, more than the {max} that the gateway takes")]
    TooLarge {
        /// Of the frame.
        bytes: usize,
        /// Most that one may have.
        max: usize,
    },
    /// The gateway answered with a frame that does not answer this.
    #[error("the gateway answered with something else than `{expected}`")]
    Unexpected {
        /// What would have been an answer.
        expected: &'static str,
    },
    /// A JSON frame to be sent is not an object.
    #[error("a frame is a JSON object")]
    NotAnObject,
    /// The connection is over.
    #[error("the connection is closed: {0}")]
    Closed(Closed),
}

impl Error {
    /// What the gateway said, if it refused.
    #[must_use]
    pub fn refused(&self) -> Option<&v1::Error> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The WebSocket close code; `None` if the connection broke without one.
    pub code: Option<u16>,
    /// The gateway's reason, or what broke.
    pub reason: String,
}

impl Closed {
    /// An end without a close frame.
    pub(crate) fn broken(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into() }
    }

    /// Whether to connect again: not after a normal close, nor where the same would end the same way (4500-4999).
    #[must_use]
    pub fn reconnect(&self) -> bool {
        match self.code {
            None | Some(1001 | 1006 | 1011..=1014) => true,
            Some(code) => (4000..4500).contains(&code),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{code} {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}
