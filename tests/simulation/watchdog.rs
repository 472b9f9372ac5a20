//! Sees that a seed comes to its end: a task that always has something to do holds virtual time still, for ever.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::judge::Judge;

/// Far more than a seed takes, also on a machine that does something else.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of what happened before time stood still.
const LINES: usize = 60;

/// What is being played: since when, and what happened so far.
type Playing = Arc<Mutex<Option<(u64, Instant, Arc<Mutex<Judge>>)>>>;

/// Looks after one thread that plays seeds.
#[derive(Clone, Default)]
pub(crate) struct Watchdog(Playing);

impl Watchdog {
    /// Begins to look, as long as anybody plays.
    pub(crate) fn new() -> Self {
        let watchdog = Self::default();
        let playing = Arc::downgrade(&watchdog.0);
        thread::spawn(move || {
            while let Some(playing) = playing.upgrade() {
                if let Some((seed, since, judge)) = &*playing.lock()
                    && since.elapsed() > PATIENCE
                {
                    let judge = judge.lock();
                    let last = judge.trace.len().saturating_sub(LINES);
                    eprintln!("{}", judge.trace[last..].join("\n"));
                    eprintln!("seed {seed} does not end: virtual time stands still");
                    std::process::exit(101);
                }
                drop(playing);
                thread::sleep(Duration::from_secs(1));
            }
        });
        watchdog
    }

    /// A seed is played from now on.
    pub(crate) fn begins(&self, seed: u64, judge: Arc<Mutex<Judge>>) {
        *self.0.lock() = Some((seed, Instant::now(), judge));
    }

    /// And now no more.
    pub(crate) fn ends(&self) {
        *self.0.lock() = None;
    }
}
