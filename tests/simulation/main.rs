//! A cluster of real nodes on a simulated bus, in virtual time, by seeds: what must hold holds, whatever happens.
//!
//! `SEED=7 cargo test --test simulation` plays one seed and prints what happened, with `RUST_LOG` as the nodes tell it;
//! `SEEDS=10000` plays so many, from `SEED` on, and prints what happened in a bad one.
//!
//! | invariant | sentence |
//! | --- | --- |
//! | ONCE | A session gets a message at most once, and none that it was told is missing. |
//! | ORDER | What one publisher said to a subject comes in its order; what a history keeps, in the order of its offsets. |
//! | MEANT | What comes was said or stored there, and for this session. |
//! | NO-SILENT-HOLE | What a channel's log has stored comes to everyone who listens, or is told in a gap before the next. |
//! | NO-SILENT-LOSS | What was said without being stored comes to everyone who listens, or is told in a gap soon after. |
//! | PREVIOUS | `prev_offset` never says that something is missing that the client had or was told of. |
//! | ANSWER-ONCE | Every frame with an id is answered exactly once, also across resumes; nothing else is answered. |
//! | COUNT | `connected.received` is the client's count, or 0 where each channel is recovered by itself. |
//! | ACCEPTED-IS-STORED | What was accepted with an offset is in the log, there. |
//! | STORED-ONCE | A message that is repeated with its id is stored once. |
//! | PRESENCE | When all is quiet, everybody is told exactly who is on a channel. |
//! | ONE-HOLDER | When all is quiet, a session is held by exactly one node, and one that is over by none or one. |
//! | BOUNDED | No outbox ever holds more than its limits. |
//! | NOTHING-LEFT | When all clients are gone and the window is over, no node holds a session, a room or a stay. |
//! | NO-PANIC | No task panics, and virtual time never stands still. |

mod account;
mod client;
mod cluster;
mod fabric;
mod judge;
mod moves;
mod panics;
mod scenario;
mod stream;
mod tokens;
mod watchdog;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use parking_lot::Mutex;
use scenario::{Outcome, play};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};
use trestle_hub::planted::{Fault, plant};
use trestle_wire::Subjects;
use watchdog::Watchdog;

/// Seeds of an ordinary run: half a minute on two cores. CI plays 10,000, built to be quick.
const SEEDS: u64 = 500;
/// Seeds within which a planted fault must be found.
const FOUND_WITHIN: u64 = 1000;

/// The subjects of the simulated bus.
fn subjects() -> Subjects {
    Subjects::new("t")
}

/// The time of a log, as in the trace.
struct Virtual;

impl FormatTime for Virtual {
    fn format_time(&self, into: &mut Writer<'_>) -> std::fmt::Result {
        let since = judge::BEGAN.get().map_or(0, |began| began.elapsed().as_millis());
        write!(into, "{since:>7}")
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays `seeds` on all cores with `fault` planted, until one is bad, which it gives.
fn first_bad(seeds: std::ops::Range<u64>, fault: Option<Fault>) -> Option<(u64, Outcome)> {
    let (next, bad) = (AtomicU64::new(seeds.start), Mutex::new(None::<(u64, Outcome)>));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                plant(fault);
                let watchdog = Watchdog::new();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || bad.lock().is_some() {
                        return;
                    }
                    let outcome = play(seed, &watchdog);
                    if !outcome.faults.is_empty() {
                        bad.lock().get_or_insert((seed, outcome));
                    }
                }
            });
        }
    });
    bad.into_inner()
}

#[test]
fn what_must_hold_holds_whatever_happens() {
    let first = number("SEED").unwrap_or(0);
    let one = number("SEED").filter(|_| number("SEEDS").is_none());
    let count = number("SEEDS").unwrap_or(if one.is_some() { 1 } else { SEEDS });
    if one.is_some() && std::env::var("RUST_LOG").is_ok() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(Virtual).init();
    }
    let played = one.map(|seed| (seed, play(seed, &Watchdog::new())));
    if let Some((seed, outcome)) = played.or_else(|| first_bad(first..first + count, None)) {
        println!("{}", outcome.trace.join("\n"));
        let faults = outcome.faults.join("\n  ");
        assert!(faults.is_empty(), "seed {seed} (SEED={seed} cargo test --test simulation):\n  {faults}");
    }
}

fn is_found(fault: Fault, by: &[&str]) {
    let found = first_bad(0..FOUND_WITHIN, Some(fault));
    let (seed, outcome) = found.unwrap_or_else(|| panic!("{fault:?} is not found within {FOUND_WITHIN} seeds"));
    let right = outcome.faults.iter().any(|fault| by.iter().any(|id| fault.starts_with(id)));
    assert!(right, "seed {seed} finds {fault:?} by {:?}", outcome.faults);
}

#[test]
fn a_room_that_does_not_look_for_gaps_is_found() {
    is_found(Fault::NoGapCheck, &["NO-SILENT-HOLE"]);
}

#[test]
fn a_resume_that_writes_a_frame_too_few_is_found() {
    is_found(Fault::ShortReplay, &["ANSWER-ONCE", "NO-SILENT-HOLE", "NO-SILENT-LOSS", "ONCE", "COUNT"]);
}

#[test]
fn a_parked_session_that_forgets_its_answers_is_found() {
    is_found(Fault::ParkedAnswers, &["ANSWER-ONCE"]);
}
