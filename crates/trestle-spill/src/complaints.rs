//! What an operator is told of, once in a while.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::metrics::Refused;

/// How often at most a full or failing disk is told of: it is the same for every frame of every slow client.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Refusals and failures that nobody was told of yet. They are noted under the locks of outboxes, and logged by a thread that
/// may wait for the log.
#[derive(Default)]
pub(crate) struct Complaints {
    refused: [AtomicU64; Refused::ALL.len()],
    more: Mutex<More>,
}

#[derive(Default)]
struct More {
    failure: Option<String>,
    told: Option<Instant>,
}

/// What is to be told now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// What the disk said last.
    pub(crate) failure: Option<String>,
    /// Refusals since the last time, by reason.
    pub(crate) refused: Vec<(Refused, u64)>,
}

impl Complaints {
    /// A frame was refused.
    pub(crate) fn refused(&self, refused: Refused) {
        self.refused[refused as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The disk failed.
    pub(crate) fn failed(&self, failure: String) {
        self.more.lock().failure = Some(failure);
    }

    /// What is to be told at `now`; `None` if there is nothing, or something was told a moment ago.
    pub(crate) fn due(&self, now: Instant) -> Option<Told> {
        let mut more = self.more.lock();
        if more.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_EVERY) {
            return None;
        }
        // What one session may have is its own affair: it is counted, and the edge tells why it parts from a client.
        let reasons = Refused::ALL.into_iter().filter(|refused| *refused != Refused::Session);
        let counted = reasons.map(|refused| (refused, self.refused[refused as usize].swap(0, Ordering::Relaxed)));
        let told = Told { refused: counted.filter(|(_, count)| *count > 0).collect(), failure: more.failure.take() };
        if told.refused.is_empty() && told.failure.is_none() {
            return None;
        }
        more.told = Some(now);
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_in_a_while_with_what_came_meanwhile() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        complaints.refused(Refused::Session);
        assert_eq!(complaints.due(start), None);
        complaints.refused(Refused::Node);
        complaints.failed("no space left".into());
        let told = Told { failure: Some("no space left".into()), refused: vec![(Refused::Node, 1)] };
        assert_eq!(complaints.due(start), Some(told));
        complaints.refused(Refused::Disk);
        complaints.refused(Refused::Disk);
        assert_eq!(complaints.due(start + TOLD_EVERY / 2), None);
        let told = Told { failure: None, refused: vec![(Refused::Disk, 2)] };
        assert_eq!(complaints.due(start + TOLD_EVERY), Some(told));
        assert_eq!(complaints.due(start + TOLD_EVERY * 2), None);
    }
}
