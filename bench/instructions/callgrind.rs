//! Counts the instructions of a work: this very program, run under valgrind.

use std::{
    process::{Command, ExitStatus},
    thread,
};

use anyhow::{Context as _, ensure};

use crate::work::Work;

/// Instructions of the work done once: of as many times again, so that neither the start nor the first rounds count.
///
/// # Errors
/// If there is no valgrind, or the work fails.
pub(crate) fn count(work: &Work) -> anyhow::Result<u64> {
    let (once, twice) = thread::scope(|scope| {
        let twice = scope.spawn(|| run(work, 2 * work.times));
        (run(work, work.times), twice.join().expect("it does not panic"))
    });
    Ok(twice?.saturating_sub(once?) / work.times)
}

/// Instructions of a whole run.
fn run(work: &Work, times: u64) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["--times", &times.to_string(), work.name])
        .output()
        .context("valgrind does not start; install it (Debian: apt-get install valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let status: ExitStatus = output.status;
    ensure!(status.success(), "{} ended with {status} under valgrind:\n{said}", work.name);
    collected(&said).with_context(|| format!("valgrind says no number of instructions:\n{said}"))
}

/// The number in `==7== Collected : 1234`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_among_what_valgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 1234567\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!((collected(said), collected("==7== Command: x")), (Some(1_234_567), None));
    }
}
