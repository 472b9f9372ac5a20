//! What a program that talks to the gateway must be ready for.

use std::{fmt, sync::Arc, time::Duration};

use trestle_wire::v1;

/// What lies behind an error that is not the gateway's own.
pub(crate) type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Close code of a token that is missing, wrong or expired.
pub(crate) const UNAUTHENTICATED: u16 = 4500;
/// Close code of a connection whose session goes on on another.
pub(crate) const REPLACED: u16 = 4502;

/// Why something did not work.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The address is no WebSocket address, a header is no header, or there was no connection at all.
    #[error("cannot connect to {url}: {cause}")]
    Connect {
        /// The address as given.
        url: String,
        /// What the network or the address said.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// There was no token to connect with.
    #[error("no token to connect with: {0}")]
    Token(Arc<dyn std::error::Error + Send + Sync>),
    /// The gateway answered the upgrade request with something else than an upgrade.
    #[error("the gateway refused the connection with HTTP {status}: {body}")]
    Upgrade {
        /// Its HTTP status.
        status: u16,
        /// The beginning of its body, which says why.
        body: String,
        /// When to come again, if it said so.
        retry_after: Option<Duration>,
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
    /// The client listens to the channel already, from another place or without presence.
    #[error("the client listens to {channel} already; read what was missed with `history`, or leave the channel first")]
    AlreadySubscribed {
        /// The channel.
        channel: String,
    },
    /// The gateway answered with a frame that does not answer this.
    #[error("the gateway answered with something else than `{expected}`")]
    Unexpected {
        /// What would have been an answer.
        expected: &'static str,
    },
    /// The reply is of another type than was asked for, or does not fit it.
    #[error("the reply is no {expected}: {fault}")]
    Reply {
        /// Full name of the type that was asked for.
        expected: String,
        /// What is wrong.
        fault: String,
    },
    /// A JSON frame to be sent is not an object.
    #[error("a frame is a JSON object")]
    NotAnObject,
    /// The connection is over, and with it what had no answer yet. That may have been done.
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
            None | Some(1001 | 1005 | 1006 | 1011..=1014) => true,
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

/// What can be done about a connection that could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Try again, after the time that the gateway named if it did.
    Wait(Option<Duration>),
    /// Try again with another token.
    Token,
    /// The same would end the same way.
    None,
}

impl Error {
    /// What can be done, if this came of connecting.
    pub(crate) fn remedy(&self) -> Remedy {
        match self {
            Self::Upgrade { status: 401, .. } => Remedy::Token,
            Self::Upgrade { status: 403, .. } | Self::TooLarge { .. } | Self::NotAnObject => Remedy::None,
            Self::Upgrade { retry_after, .. } => Remedy::Wait(*retry_after),
            Self::Refused(error) if error.code() == v1::Code::Unauthenticated => Remedy::Token,
            Self::Refused(error) if error.retryable => Remedy::Wait(retry_after(error)),
            Self::Refused(_) => Remedy::None,
            Self::Closed(closed) if closed.code == Some(UNAUTHENTICATED) => Remedy::Token,
            Self::Closed(closed) if !closed.reconnect() => Remedy::None,
            _ => Remedy::Wait(None),
        }
    }

    /// The end that this is when there is no remedy.
    pub(crate) fn into_closed(self) -> Closed {
        let code = (self.remedy() == Remedy::Token).then_some(UNAUTHENTICATED);
        match self {
            Self::Closed(closed) => closed,
            other => Closed { code, reason: other.to_string() },
        }
    }
}

/// When to come again, as an error of the gateway says.
pub(crate) fn retry_after(error: &v1::Error) -> Option<Duration> {
    error.retry_after.and_then(|wait| wait.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_code_says_whether_to_come_again() {
        for (codes, reconnect) in [
            (vec![None, Some(1001), Some(1005), Some(1006), Some(1011), Some(1012), Some(1013)], true),
            (vec![Some(4000), Some(4003), Some(4499)], true),
            (vec![Some(1000), Some(1002), Some(1009), Some(4500), Some(4502), Some(4503), Some(4999)], false),
        ] {
            for code in codes {
                assert_eq!(Closed { code, reason: String::new() }.reconnect(), reconnect, "{code:?}");
            }
        }
    }

    #[test]
    fn every_failure_to_connect_has_its_remedy() {
        let upgrade = |status, seconds: Option<u64>| Error::Upgrade {
            status,
            body: String::new(),
            retry_after: seconds.map(Duration::from_secs),
        };
        let refused = |code: v1::Code, retryable: bool| {
            let retry_after = retryable.then_some(prost_types::Duration { seconds: 3, nanos: 0 });
            Error::Refused(v1::Error { code: code.into(), retryable, retry_after, ..Default::default() })
        };
        let closed = |code| Error::Closed(Closed { code: Some(code), reason: String::new() });
        let three = Remedy::Wait(Some(Duration::from_secs(3)));
        for (error, remedy) in [
            (upgrade(401, None), Remedy::Token),
            (upgrade(403, None), Remedy::None),
            (upgrade(503, Some(3)), three),
            (upgrade(429, Some(3)), three),
            (upgrade(502, None), Remedy::Wait(None)),
            (refused(v1::Code::Unauthenticated, false), Remedy::Token),
            (refused(v1::Code::Unavailable, true), three),
            (refused(v1::Code::PermissionDenied, false), Remedy::None),
            (closed(4500), Remedy::Token),
            (closed(4503), Remedy::None),
            (closed(1012), Remedy::Wait(None)),
            (Error::Timeout(Duration::ZERO), Remedy::Wait(None)),
            (Error::Token(Cause::from(Box::<dyn std::error::Error + Send + Sync>::from("away"))), Remedy::Wait(None)),
        ] {
            assert_eq!(error.remedy(), remedy, "{error}");
        }
    }
}
