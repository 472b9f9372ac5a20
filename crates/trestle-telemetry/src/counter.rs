//! Counters of what happens often, on all threads at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prometheus_client::metrics::counter::Atomic;

/// Counts of one counter, so that threads seldom share one: as many as most nodes have cores. 16 x 128 B are 2 KiB a
/// counter, of which there are a few dozen.
const SHARDS: usize = 16;

/// A counter whose threads do not wait for each other's cache lines.
pub type Counter = prometheus_client::metrics::counter::Counter<u64, Sharded>;

/// The number behind a [`Counter`].
#[derive(Debug, Default)]
pub struct Sharded([Shard; SHARDS]);

/// A count alone on its cache line, and on the one that processors fetch along with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(AtomicU64);

thread_local! {
    /// Which count is this thread's.
    static MINE: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

impl Atomic<u64> for Sharded {
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    /// What is given back is what this thread has counted before, with those that it shares its count with.
    fn inc_by(&self, more: u64) -> u64 {
        self.0[MINE.with(|mine| *mine)].0.fetch_add(more, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_all_threads_count_adds_up() {
        let counter = Counter::default();
        thread::scope(|scope| {
            for _ in 0..SHARDS + 3 {
                scope.spawn(|| (0..1000).for_each(|_| _ = counter.inc_by(2)));
            }
        });
        assert_eq!(counter.get(), (SHARDS as u64 + 3) * 2000);
    }
}
