//! Milliseconds since 1970 that never go back while the process runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A clock that starts at the wall's time and then follows the runtime's, so that it stands still in a paused test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall_ms: u64,
    started: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            wall_ms: millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            started: Instant::now(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.wall_ms + millis(self.started.elapsed())
    }
}

/// Whole milliseconds, as many as fit.
pub(super) fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
