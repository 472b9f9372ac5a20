//! The time as a number that is never the same twice in one process.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Gives nanoseconds of Unix time, each more than the one before, also when the clock is set back.
#[derive(Debug, Default)]
pub(crate) struct Stamp(AtomicU64);

impl Stamp {
    /// Gives more than `last`, also when the clock was set back since.
    pub(crate) fn after(last: u64) -> Self {
        Self(AtomicU64::new(last))
    }

    pub(crate) fn next(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let last = self.0.fetch_max(now, Ordering::AcqRel);
        if last < now { now } else { self.0.fetch_add(1, Ordering::AcqRel) + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stamp_comes_twice_however_fast() {
        let stamp = Stamp::default();
        stamp.0.store(u64::MAX / 2, Ordering::Relaxed); // a clock that was set back
        let mut last = stamp.next();
        for _ in 0..1000 {
            let next = stamp.next();
            assert!(next > last);
            last = next;
        }
    }
}
