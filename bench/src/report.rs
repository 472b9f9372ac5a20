//! What a run found: a JSON line for programs, a table for people.

use serde::Serialize;

/// One server under one load.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    /// `fanout` or `request`.
    pub(crate) bench: &'static str,
    /// `trestle`, or the floor's name.
    pub(crate) server: &'static str,
    /// Messages or requests on their way at once.
    pub(crate) outstanding: usize,
    /// What is counted below: deliveries or requests, in all measured rounds.
    pub(crate) count: u64,
    /// Rounds measured; the figures are medians of them.
    pub(crate) rounds: usize,
    /// Bytes of the application's payload.
    pub(crate) payload_bytes: usize,
    /// The server's CPU time per delivery or request, in microseconds.
    pub(crate) cpu_us: f64,
    /// `cpu_us` over the floor's in the same round; 1 for the floor.
    pub(crate) cpu_ratio: f64,
    /// From send to arrival, in microseconds.
    pub(crate) p50_us: f64,
    /// As `p50_us`.
    pub(crate) p99_us: f64,
    /// Deliveries or requests in a second of the wall clock.
    pub(crate) per_second: f64,
    /// What did not arrive; must be 0.
    pub(crate) lost: u64,
    /// What only this bench has.
    #[serde(flatten)]
    pub(crate) more: serde_json::Map<String, serde_json::Value>,
}

/// Prints one line per run to stdout and a table to stderr.
pub(crate) fn print(runs: &[Run]) {
    eprintln!(
        "\n{:8} {:12} {:>11} {:>9} {:>9} {:>7} {:>9} {:>9} {:>10} {:>5}",
        "bench", "server", "outstanding", "count", "CPU us", "ratio", "p50 us", "p99 us", "per second", "lost"
    );
    for run in runs {
        eprintln!(
            "{:8} {:12} {:>11} {:>9} {:>9.2} {:>7.2} {:>9.0} {:>9.0} {:>10.0} {:>5}",
            run.bench,
            run.server,
            run.outstanding,
            run.count,
            run.cpu_us,
            run.cpu_ratio,
            run.p50_us,
            run.p99_us,
            run.per_second,
            run.lost
        );
    }
    for run in runs {
        println!("{}", serde_json::to_string(run).expect("a run has only text and numbers"));
    }
}
