//! The tests of the promise: what every bus must do, as tests that take a fresh [`Fabric`].
//!
//! An implementation runs them all by one line in a test file, where `maker` is an async function that gives a fresh
//! fabric and whatever must live as long as the test (a server, a folder):
//! ```text
//! trestle_bus::promise_suite!(maker);
//! ```
//! The maker gives subscriptions that hold fewer than [`FLOOD`] messages, so that the suite can overflow one.

pub mod facts;
pub mod live;
pub mod stored;
pub mod work;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use trestle_wire::Subject;

use crate::{Consumer, Fabric, Heard, LogSpec, Message, Subscription, Work};

/// How long the suite waits for what must come. Only a broken promise takes that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// So many messages are more than one subscription of a bus under test holds.
pub const FLOOD: usize = 20_000;

/// One test per promise, each with a fresh fabric from the async function `$maker`.
#[macro_export]
macro_rules! promise_suite {
    ($maker:path) => {
        $crate::promise_tests! { $maker, live:
            everyone_who_listens_hears_a_message
            messages_of_one_publisher_arrive_in_its_order
            a_subscription_is_in_force_when_it_is_returned
            one_member_of_each_group_takes_a_message
            an_answer_is_asked_for_by_its_subject
            every_question_gets_its_own_answer
            a_question_to_nobody_is_an_error_at_once
            a_question_that_nobody_answers_times_out
            gather_takes_the_answers_that_come
            what_is_too_large_is_refused_and_the_largest_passes
            a_dropped_subscription_is_gone
            what_a_slow_listener_missed_is_told
            a_closed_bus_delivers_what_it_took_and_takes_no_more
        }
        $crate::promise_tests! { $maker, stored:
            a_log_gives_back_what_it_took_in_order
            reading_begins_where_it_is_asked_to
            what_was_stored_is_read_at_once
            offsets_are_unique_and_grow_for_each_publisher
            an_append_that_was_polled_first_is_stored_first
            one_dedup_id_is_stored_once
            a_dedup_id_is_forgotten_after_its_window
            what_is_republished_knows_its_place
            every_user_has_an_inbox
            a_log_keeps_the_last_messages_of_each_subject
            a_log_forgets_what_is_too_old
            a_log_knows_how_far_it_has_reached
            a_full_log_refuses_until_there_is_room
            a_log_that_exists_is_changed
            without_a_log_nothing_is_stored
            two_logs_do_not_share_a_subject
        }
        $crate::promise_tests! { $maker, work:
            a_consumer_takes_what_was_stored_and_what_comes
            fetch_waits_for_the_first_and_then_does_not
            work_that_is_done_is_gone
            work_that_is_not_done_comes_again_after_ack_wait
            a_waiting_fetch_gets_what_another_has_dropped
            work_given_back_comes_again_after_its_delay
            work_in_progress_stays_with_its_taker
            work_that_can_never_be_done_is_gone
            consumers_of_one_name_share_the_work
            a_fetch_that_is_dropped_loses_nothing
            consumers_of_one_work_queue_do_not_overlap
            a_log_that_is_no_queue_serves_each_consumer_all
        }
        $crate::promise_tests! { $maker, facts:
            a_key_holds_its_value_until_it_is_deleted
            only_one_of_many_wins_a_key
            no_change_is_lost_to_another
            a_key_expires_and_its_watcher_hears
            a_key_put_again_has_the_new_lifetime
            a_watcher_hears_its_prefix_in_order
            entries_are_the_keys_of_a_prefix
            each_key_of_a_prefix_is_shown
            a_key_that_is_set_meanwhile_is_among_the_entries
            what_is_no_key_is_refused
        }
    };
}

/// One test per name in one part of the suite.
#[doc(hidden)]
#[macro_export]
macro_rules! promise_tests {
    ($maker:path, $part:ident: $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let (fabric, _lives) = $maker().await;
                $crate::promise::$part::$name(fabric).await;
            }
        )*
    };
}

fn subject(text: &str) -> Subject {
    Subject::from_trusted(text)
}

fn payload(text: impl std::fmt::Display) -> Bytes {
    text.to_string().into()
}

fn text(payload: &Bytes) -> &str {
    std::str::from_utf8(payload).expect("the suite sends text")
}

/// What must come, within [`PATIENCE`].
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it must come, and did not")
}

async fn message(subscription: &mut Subscription) -> Message {
    match soon(subscription.next()).await {
        Some(Heard::Message(message)) => message,
        other => panic!("a message was due, not {other:?}"),
    }
}

async fn listen(fabric: &Fabric, pattern: &str, group: Option<&str>) -> Subscription {
    fabric.bus.subscribe(&subject(pattern), group).await.expect("subscribes")
}

async fn publish(fabric: &Fabric, at: &str, what: impl std::fmt::Display) {
    fabric.bus.publish(&subject(at), payload(what)).await.expect("publishes");
}

async fn append(fabric: &Fabric, at: &str, what: impl std::fmt::Display) -> u64 {
    fabric.log.append(&subject(at), None, payload(what)).await.expect("appends").offset
}

async fn fetch(consumer: &dyn Consumer, most: usize) -> Vec<Work> {
    let work = consumer.fetch(most, PATIENCE).await.expect("fetches");
    assert!(!work.is_empty(), "work was due");
    work
}

/// Asserts that nothing more is ready: a fetch gives up empty.
async fn nothing_to_do(consumer: &dyn Consumer) {
    let work = consumer.fetch(1, Duration::from_millis(300)).await.expect("fetches");
    assert!(work.is_empty(), "nothing was due, not {work:?}");
}

/// A log that keeps everything, for tests to change what they are about.
#[must_use]
pub fn log_spec(name: &str, subjects: &[&str]) -> LogSpec {
    LogSpec {
        name: name.into(),
        subjects: subjects.iter().copied().map(subject).collect(),
        per_subject_max: None,
        age_max: None,
        bytes_max: None,
        work_queue: false,
        dedup_window: Duration::from_secs(120),
        republish: None,
    }
}

async fn ensure(fabric: &Fabric, spec: &LogSpec) {
    fabric.log.ensure(spec).await.expect("makes the log");
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_promise_is_left_out_of_the_suite() {
        let suite = include_str!("mod.rs");
        let parts =
            [include_str!("live.rs"), include_str!("stored.rs"), include_str!("work.rs"), include_str!("facts.rs")];
        for name in parts.iter().flat_map(|part| part.split("\npub async fn ").skip(1)) {
            let name = name.split('(').next().expect("a function has a name");
            assert!(suite.contains(&format!("            {name}\n")), "{name} is not run");
        }
    }
}
