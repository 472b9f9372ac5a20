//! The logs that every node makes sure of, with the same spec everywhere.

use std::time::Duration;

use trestle_wire::{Subjects, name::INBOX};

use crate::LogSpec;

/// How long a repeated message is known as such: well above a client's retries and a bus's fail-over (4-10 s measured).
pub const DEDUP_WINDOW: Duration = Duration::from_secs(120);

/// Most bytes of work that is not done. 1 GiB = a million messages of 1 KiB, which is 17 minutes without any instance
/// of a service at 1,000/s. On the embedded bus the index takes about 200 B of memory for each: 200 MB when full, and
/// all of it without a data directory. A NATS server sets this much of its store aside.
pub const WORK_BYTES_MAX: u64 = 1 << 30;

/// What clients sent to services with ack DURABLE or HANDLED, kept until it is done.
#[must_use]
pub fn work(subjects: &Subjects) -> LogSpec {
    LogSpec {
        name: format!("{}_WORK", stem(subjects)),
        subjects: vec![subjects.work_all()],
        per_subject_max: None,
        age_max: None,
        bytes_max: Some(WORK_BYTES_MAX),
        work_queue: true,
        dedup_window: DEDUP_WINDOW,
        republish: None,
    }
}

/// The last `size` messages of each channel of `namespace`, kept for `ttl` and heard live on the channel's subject.
#[must_use]
pub fn history(subjects: &Subjects, namespace: &str, size: u64, ttl: Duration) -> LogSpec {
    LogSpec {
        name: history_name(subjects, namespace),
        subjects: subjects.log_namespace(namespace).to_vec(),
        per_subject_max: Some(size),
        age_max: Some(ttl),
        bytes_max: None, // bounded by messages per channel and age
        work_queue: false,
        // A bus refuses a window that is longer than it keeps messages.
        dedup_window: DEDUP_WINDOW.min(ttl),
        republish: Some((format!("{}.log", subjects.prefix()), format!("{}.ch", subjects.prefix()))),
    }
}

/// The last `size` pushes to each user's inbox, kept for `ttl`: the history of the namespace
/// [`INBOX`].
#[must_use]
pub fn inbox(subjects: &Subjects, size: u64, ttl: Duration) -> LogSpec {
    history(subjects, INBOX, size, ttl)
}

/// Name of the log that [`history`] specifies.
#[must_use]
pub fn history_name(subjects: &Subjects, namespace: &str) -> String {
    format!("{}_CH_{}", stem(subjects), namespace.to_ascii_uppercase())
}

fn stem(subjects: &Subjects) -> String {
    subjects.prefix().replace('.', "_").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_named_after_the_prefix_and_the_namespace() {
        let subjects = Subjects::new("trestle");
        assert_eq!(work(&subjects).name, "TRESTLE_WORK");
        let history = history(&subjects, "live-chat", 100, Duration::from_secs(60));
        assert_eq!(history.name, "TRESTLE_CH_LIVE-CHAT");
        assert_eq!(history.dedup_window, Duration::from_secs(60));
        let patterns: Vec<_> = history.subjects.iter().map(|s| s.as_str()).collect();
        assert_eq!(patterns, ["trestle.log.live-chat", "trestle.log.live-chat.*"]);
    }
}
