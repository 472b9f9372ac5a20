//! Where a client stands with the gateway.

use std::time::Instant;

use crate::Closed;

/// Where a client stands with the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A connection is being made.
    Connecting,
    /// There is one.
    Connected {
        /// Whether the session goes on that there was before. False for the first one, and where the gateway no longer
        /// had it: what was missed then is told in gaps, and presence is best asked for again.
        resumed: bool,
    },
    /// There is none, and none is tried before `until`.
    Waiting {
        /// When the next one is tried.
        until: Instant,
    },
    /// There is none, and there will not be another.
    Closed(Closed),
}
