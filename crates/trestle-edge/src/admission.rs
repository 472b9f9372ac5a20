//! How many clients a node takes in at once: the rest are told when to come.
//!
//! In: one more client. Out: welcome, or how long to wait. What always holds: those who are told to wait are told times
//! that are as far apart as the node takes clients in, so that they do not come back all together.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Longest wait that is told: whoever floods the node does not put off for hours those who come then.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A queue that exists only as a time: the generic cell rate algorithm (ITU-T I.371), with places for those who wait.
pub(crate) struct Admission {
    /// Between two clients.
    interval: Duration,
    /// How much may come at once after a quiet time.
    burst: Duration,
    /// When the clients that were taken in are paid for, and when the last of those who were told to wait has its turn.
    state: Mutex<Turns>,
}

struct Turns {
    taken: Instant,
    told: Instant,
}

impl Admission {
    /// Takes in `rate` clients a second, and `burst` at once.
    pub(crate) fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, burst: interval * burst.max(1), state: Mutex::new(Turns { taken: now, told: now }) }
    }

    /// One more client at `now`.
    ///
    /// # Errors
    /// How long it has to wait.
    pub(crate) fn enter(&self, now: Instant) -> Result<(), Duration> {
        let mut turns = self.state.lock();
        let taken = turns.taken.max(now) + self.interval;
        if taken <= now + self.burst {
            turns.taken = taken;
            return Ok(());
        }
        // Behind everybody who waits already, and not before there is room.
        turns.told = (turns.told.max(taken - self.burst) + self.interval).min(now + WAIT_MAX);
        match turns.told - now {
            // More than the queue has places for: anywhere in its later half.
            WAIT_MAX => Err(WAIT_MAX.mul_f64(0.5 + fastrand::f64() / 2.0)),
            wait => Err(wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_comes_in_and_the_rest_is_told_times_apart() {
        let now = Instant::now();
        let admission = Admission::new(100, 10, now);
        let told: Vec<_> = (0..30).map(|_| admission.enter(now)).collect();
        assert!(told[..10].iter().all(Result::is_ok));
        let waits: Vec<_> = told[10..].iter().map(|told| told.expect_err("no room")).collect();
        assert!(waits.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_millis(10)), "{waits:?}");
        assert!(waits[0] <= Duration::from_millis(20), "{waits:?}");
    }

    #[test]
    fn whoever_comes_when_told_is_taken_in() {
        let begin = Instant::now();
        let admission = Admission::new(100, 1, begin);
        assert!(admission.enter(begin).is_ok());
        let mut waiting: Vec<_> = (0..50).map(|_| begin + admission.enter(begin).expect_err("no room")).collect();
        waiting.sort();
        assert!(waiting.into_iter().all(|at| admission.enter(at).is_ok()));
    }

    #[test]
    fn a_flood_puts_nobody_off_for_longer_than_a_minute() {
        let begin = Instant::now();
        let admission = Admission::new(100, 1, begin);
        let waits: Vec<_> = (0..100_000).filter_map(|_| admission.enter(begin).err()).collect();
        assert!(waits.iter().all(|wait| *wait <= WAIT_MAX));
        let late = &waits[99_000..];
        assert!(late.iter().max().unwrap().abs_diff(*late.iter().min().unwrap()) > WAIT_MAX / 4, "not all at once");
    }

    #[test]
    fn a_quiet_time_gives_no_more_than_the_burst() {
        let begin = Instant::now();
        let admission = Admission::new(100, 5, begin);
        let later = begin + Duration::from_secs(60);
        assert_eq!((0..20).filter(|_| admission.enter(later).is_ok()).count(), 5);
    }
}
