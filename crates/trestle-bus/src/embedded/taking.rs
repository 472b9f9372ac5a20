//! One durable consumer as a state machine: which messages are ready, which are with somebody, until when.
//!
//! In: what was stored, fetched, settled and removed, and the time. Out: offsets and their attempts. Always: a message is
//! either ready or hidden until a moment, and each time it is taken its attempt is one higher.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use trestle_wire::Subject;

/// A durable consumer of one log.
pub(super) struct Taking {
    pub(super) filter: Subject,
    pub(super) ack_wait: Duration,
    /// Wakes those who wait for a message.
    pub(super) wake: Arc<Notify>,
    ready: BTreeSet<u64>,
    seen: HashMap<u64, Seen>,
    due: BTreeSet<(Instant, u64)>,
    done: BTreeSet<u64>,
}

#[derive(Clone, Copy)]
struct Seen {
    attempt: u32,
    hidden_until: Option<Instant>,
}

impl Taking {
    /// A consumer that has all of `stored` before it, but what it has `done` already.
    pub(super) fn new(
        filter: Subject,
        ack_wait: Duration,
        stored: impl Iterator<Item = u64>,
        done: BTreeSet<u64>,
    ) -> Self {
        let ready = stored.filter(|offset| !done.contains(offset)).collect();
        Self { filter, ack_wait, wake: Arc::default(), ready, seen: HashMap::new(), due: BTreeSet::new(), done }
    }

    pub(super) fn stored(&mut self, offset: u64) {
        self.ready.insert(offset);
        self.wake.notify_one();
    }

    /// Takes the next ready message and hides it for `ack_wait`.
    pub(super) fn take(&mut self, now: Instant) -> Option<(u64, u32)> {
        while let Some(&(moment, offset)) = self.due.first()
            && moment <= now
        {
            self.due.pop_first();
            self.show(offset);
        }
        let offset = self.ready.pop_first()?;
        let attempt = self.seen.get(&offset).map_or(0, |seen| seen.attempt).saturating_add(1);
        let until = now + self.ack_wait;
        self.seen.insert(offset, Seen { attempt, hidden_until: Some(until) });
        self.due.insert((until, offset));
        Some((offset, attempt))
    }

    /// Whether something is ready now.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next hidden message comes again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(moment, _)| *moment)
    }

    /// Hides the message until `moment`, if `attempt` is still the one that has it.
    pub(super) fn hide(&mut self, offset: u64, attempt: u32, moment: Instant) {
        let Some(seen) = self.seen.get_mut(&offset) else { return };
        let Some(until) = seen.hidden_until else { return };
        if seen.attempt == attempt {
            seen.hidden_until = Some(moment);
            self.due.remove(&(until, offset));
            self.due.insert((moment, offset));
            // Whoever sleeps until the next due moment may have to wake earlier now.
            self.wake.notify_one();
        }
    }

    fn show(&mut self, offset: u64) {
        if let Some(seen) = self.seen.get_mut(&offset) {
            seen.hidden_until = None;
        }
        self.ready.insert(offset);
    }

    /// The message is done, and is remembered as such while the log keeps it.
    pub(super) fn finish(&mut self, offset: u64) {
        self.forget(offset);
        self.done.insert(offset);
    }

    pub(super) fn has_done(&self, offset: u64) -> bool {
        self.done.contains(&offset)
    }

    /// The log does not keep the message any more.
    pub(super) fn forget(&mut self, offset: u64) {
        self.ready.remove(&offset);
        self.done.remove(&offset);
        if let Some(Seen { hidden_until: Some(until), .. }) = self.seen.remove(&offset) {
            self.due.remove(&(until, offset));
        }
    }

    /// Takes a new filter: what is done stays done, what is with somebody may come again.
    pub(super) fn refilter(&mut self, filter: Subject, stored: impl Iterator<Item = u64>) {
        let done = std::mem::take(&mut self.done);
        let wake = self.wake.clone();
        *self = Self { wake, ..Self::new(filter, self.ack_wait, stored, done) };
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn taking(stored: std::ops::Range<u64>) -> (Taking, Instant) {
        (Taking::new(Subject::from_trusted(">"), WAIT, stored, BTreeSet::new()), Instant::now())
    }

    #[test]
    fn what_is_not_acked_comes_again_after_ack_wait_with_the_next_attempt() {
        let (mut taking, now) = taking(1..3);
        assert_eq!(taking.take(now), Some((1, 1)));
        assert_eq!(taking.take(now), Some((2, 1)));
        assert_eq!(taking.take(now), None);
        taking.finish(2);
        assert_eq!(taking.take(now + WAIT), Some((1, 2)));
        assert_eq!(taking.take(now + WAIT), None);
    }

    #[test]
    fn progress_and_nak_move_the_moment_but_only_for_who_has_it() {
        let (mut taking, now) = taking(1..2);
        let (offset, first) = taking.take(now).expect("ready");
        taking.hide(offset, first, now + 2 * WAIT);
        assert_eq!(taking.take(now + WAIT), None);
        let (_, second) = taking.take(now + 2 * WAIT).expect("due");
        taking.hide(offset, first, now);
        assert_eq!(taking.take(now + 2 * WAIT), None, "the first attempt has no say any more");
        taking.hide(offset, second, now + 2 * WAIT);
        assert_eq!(taking.take(now + 2 * WAIT), Some((1, 3)));
    }

    #[test]
    fn nothing_is_kept_of_what_the_log_has_forgotten() {
        let (mut taking, now) = taking(1..4);
        taking.take(now);
        taking.finish(2);
        (1..4).for_each(|offset| taking.forget(offset));
        assert_eq!(taking.take(now + WAIT), None);
        assert!(taking.seen.is_empty() && taking.due.is_empty() && taking.done.is_empty() && !taking.has_ready());
    }
}
