//! What a durable [`Consumer`] promises.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{PATIENCE, append, ensure, fetch, log_spec, nothing_to_do, soon, subject, text};
use crate::{BusError, Consumer, ConsumerSpec, Fabric, LogSpec};

/// Long enough never to end while a test runs that is not about it.
const LONG: Duration = Duration::from_secs(300);

async fn queue(fabric: &Fabric) {
    ensure(fabric, &LogSpec { work_queue: true, ..log_spec("WORK", &["work.>"]) }).await;
}

fn consumer_spec(log: &str, name: &str, filter: &str, ack_wait: Duration) -> ConsumerSpec {
    ConsumerSpec { log: log.into(), name: name.into(), filter: subject(filter), ack_wait }
}

async fn consumer(fabric: &Fabric, filter: &str, ack_wait: Duration) -> Arc<dyn Consumer> {
    let name = filter.replace(['.', '>', '*'], "_");
    fabric.log.consumer(&consumer_spec("WORK", &name, filter, ack_wait)).await.expect("makes the consumer")
}

async fn left(fabric: &Fabric, at: &str) -> usize {
    fabric.log.read("WORK", &subject(at), 1, 1_000).await.expect("reads").len()
}

/// Waits until nothing is left: a bus of several servers removes what was acked when they have agreed.
async fn all_done(fabric: &Fabric, at: &str) {
    soon(async {
        while left(fabric, at).await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Messages stored before the consumer was made are taken first, in order, and only those of its filter.
pub async fn a_consumer_takes_what_was_stored_and_what_comes(fabric: Fabric) {
    queue(&fabric).await;
    for at in 0..3 {
        append(&fabric, "work.a.x", at).await;
        append(&fabric, "work.b.x", "other").await;
    }
    let consumer = consumer(&fabric, "work.a.>", LONG).await;
    append(&fabric, "work.a.y", 3).await;
    let mut taken = Vec::new();
    while taken.len() < 4 {
        for work in fetch(&*consumer, 10).await {
            assert_eq!(work.attempt, 1);
            taken.push((work.subject.to_string(), text(&work.payload).to_owned()));
            work.ack().await.expect("acks");
        }
    }
    let expected = [("work.a.x", "0"), ("work.a.x", "1"), ("work.a.x", "2"), ("work.a.y", "3")];
    assert!(taken.iter().map(|(at, what)| (&**at, &**what)).eq(expected), "{taken:?}");
    nothing_to_do(&*consumer).await;
}

/// A fetch sleeps until the first message and returns with what is ready; without one it ends after its wait.
pub async fn fetch_waits_for_the_first_and_then_does_not(fabric: Fabric) {
    queue(&fabric).await;
    let consumer = consumer(&fabric, "work.a", LONG).await;
    let (began, wait) = (Instant::now(), Duration::from_millis(200));
    assert!(consumer.fetch(10, wait).await.expect("fetches").is_empty());
    assert!(began.elapsed() >= wait / 2);
    let waiting = tokio::spawn({
        let consumer = consumer.clone();
        async move { consumer.fetch(10, 10 * PATIENCE).await }
    });
    tokio::task::yield_now().await;
    append(&fabric, "work.a", "first").await;
    let work = soon(waiting).await.expect("no panic").expect("fetches");
    assert_eq!(text(&work[0].payload), "first");
    for at in 0..5 {
        append(&fabric, "work.a", at).await;
    }
    // Fewer than asked for are there: it does not wait for more.
    let mut taken = 0;
    while taken < 5 {
        taken += soon(consumer.fetch(100, 10 * PATIENCE)).await.expect("fetches").len();
    }
    assert_eq!(taken, 5);
    for _ in 0..3 {
        append(&fabric, "work.a", "more").await;
    }
    assert_eq!(fetch(&*consumer, 2).await.len(), 2, "no more than asked for");
}

/// Acked work does not come again and is not kept.
pub async fn work_that_is_done_is_gone(fabric: Fabric) {
    queue(&fabric).await;
    let ack_wait = Duration::from_secs(1);
    let consumer = consumer(&fabric, "work.a", ack_wait).await;
    append(&fabric, "work.a", "x").await;
    let work = fetch(&*consumer, 1).await;
    assert_eq!(left(&fabric, "work.a").await, 1, "taken is not done");
    work[0].ack().await.expect("acks");
    all_done(&fabric, "work.a").await;
    assert!(consumer.fetch(1, 2 * ack_wait).await.expect("fetches").is_empty());
}

/// Work that is dropped without a word comes again after `ack_wait`, its attempt counted; late acks still count.
pub async fn work_that_is_not_done_comes_again_after_ack_wait(fabric: Fabric) {
    queue(&fabric).await;
    let ack_wait = Duration::from_secs(1);
    let consumer = consumer(&fabric, "work.a", ack_wait).await;
    append(&fabric, "work.a", "x").await;
    let began = Instant::now();
    let first = fetch(&*consumer, 1).await;
    let second = fetch(&*consumer, 1).await;
    assert!(began.elapsed() >= ack_wait, "not before ack_wait");
    assert_eq!((first[0].attempt, second[0].attempt, text(&second[0].payload)), (1, 2, "x"));
    first[0].ack().await.expect("acks");
    all_done(&fabric, "work.a").await; // whoever has done it
}

/// Who waits already when another one takes work and drops it gets it, after `ack_wait`, not at the end of its own wait.
pub async fn a_waiting_fetch_gets_what_another_has_dropped(fabric: Fabric) {
    queue(&fabric).await;
    let ack_wait = Duration::from_secs(1);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let consumer = consumer(&fabric, "work.a", ack_wait).await;
        waiting.spawn(async move { consumer.fetch(1, 10 * PATIENCE).await });
    }
    tokio::task::yield_now().await;
    append(&fabric, "work.a", "x").await;
    for attempt in 1..=2 {
        let work = soon(waiting.join_next()).await.expect("two wait").expect("no panic").expect("fetches");
        assert_eq!((work.len(), work[0].attempt), (1, attempt));
    }
}

/// Nak makes it come again: at once, or after the delay, not before.
pub async fn work_given_back_comes_again_after_its_delay(fabric: Fabric) {
    queue(&fabric).await;
    let consumer = consumer(&fabric, "work.a", LONG).await;
    append(&fabric, "work.a", "x").await;
    let first = fetch(&*consumer, 1).await;
    first[0].nak(Duration::ZERO).await.expect("naks");
    let second = fetch(&*consumer, 1).await;
    assert_eq!(second[0].attempt, 2);
    let (began, delay) = (Instant::now(), Duration::from_millis(700));
    second[0].nak(delay).await.expect("naks");
    let third = fetch(&*consumer, 1).await;
    assert!(began.elapsed() >= delay, "not before its delay");
    assert_eq!(third[0].attempt, 3);
    third[0].ack().await.expect("acks");
    nothing_to_do(&*consumer).await;
}

/// As long as the taker says that it is still at it, nobody else gets it.
pub async fn work_in_progress_stays_with_its_taker(fabric: Fabric) {
    queue(&fabric).await;
    let ack_wait = Duration::from_secs(2);
    let consumer = consumer(&fabric, "work.a", ack_wait).await;
    append(&fabric, "work.a", "x").await;
    let work = fetch(&*consumer, 1).await;
    let began = Instant::now();
    while began.elapsed() < ack_wait * 3 / 2 {
        work[0].in_progress().await.expect("is told");
        let stolen = consumer.fetch(1, ack_wait / 10).await.expect("fetches");
        assert!(stolen.is_empty(), "{stolen:?}");
    }
    assert_eq!(fetch(&*consumer, 1).await[0].attempt, 2, "the wait has only begun anew");
}

/// Terminated work does not come again.
pub async fn work_that_can_never_be_done_is_gone(fabric: Fabric) {
    queue(&fabric).await;
    let ack_wait = Duration::from_secs(1);
    let consumer = consumer(&fabric, "work.a", ack_wait).await;
    append(&fabric, "work.a", "poison").await;
    append(&fabric, "work.a", "good").await;
    let mut seen = 0;
    while seen < 2 {
        for work in fetch(&*consumer, 2).await {
            if text(&work.payload) == "poison" { work.term().await } else { work.ack().await }.expect("settles");
            seen += 1;
        }
    }
    assert!(consumer.fetch(1, 2 * ack_wait).await.expect("fetches").is_empty());
}

/// Two handles of one consumer, two fetchers each: every message once.
pub async fn consumers_of_one_name_share_the_work(fabric: Fabric) {
    const ALL: usize = 200;
    queue(&fabric).await;
    let (taken, mut all) = tokio::sync::mpsc::channel(ALL * 2);
    for fetcher in 0..4 {
        let consumer = if fetcher % 2 == 0 {
            consumer(&fabric, "work.a", LONG).await
        } else {
            fabric.log.consumer(&consumer_spec("WORK", "work_a", "work.a", LONG)).await.expect("is the same one")
        };
        let taken = taken.clone();
        tokio::spawn(async move {
            while let Ok(work) = consumer.fetch(5, PATIENCE).await {
                for work in work {
                    work.ack().await.expect("acks");
                    taken.send((fetcher, text(&work.payload).to_owned())).await.expect("the test listens");
                }
            }
        });
    }
    for at in 0..ALL {
        append(&fabric, "work.a", at).await;
    }
    let mut by_message = BTreeMap::new();
    while by_message.len() < ALL {
        let (fetcher, message) = soon(all.recv()).await.expect("fetchers run");
        assert_eq!(by_message.insert(message, fetcher), None, "taken twice");
    }
    all_done(&fabric, "work.a").await;
}

/// Fetches that are given up in every state take nothing with them.
pub async fn a_fetch_that_is_dropped_loses_nothing(fabric: Fabric) {
    const ALL: usize = 40;
    queue(&fabric).await;
    let ack_wait = Duration::from_secs(1);
    let consumer = consumer(&fabric, "work.a", ack_wait).await;
    for at in 0..ALL {
        let given_up = tokio::time::timeout(Duration::from_millis(at as u64 % 8), consumer.fetch(1, PATIENCE));
        let (_, _) = tokio::join!(given_up, append(&fabric, "work.a", at));
    }
    let mut seen = BTreeMap::new();
    while seen.len() < ALL {
        for work in fetch(&*consumer, ALL).await {
            work.ack().await.expect("acks");
            *seen.entry(text(&work.payload).to_owned()).or_insert(0) += 1;
        }
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    all_done(&fabric, "work.a").await;
}

/// Two consumers of one work queue that would both take a subject are refused.
pub async fn consumers_of_one_work_queue_do_not_overlap(fabric: Fabric) {
    queue(&fabric).await;
    consumer(&fabric, "work.a.>", LONG).await;
    let error = fabric.log.consumer(&consumer_spec("WORK", "other", "work.a.b", LONG)).await.err();
    assert!(matches!(error, Some(BusError::Refused(_))), "{error:?}");
    consumer(&fabric, "work.b.>", LONG).await;
}

/// Without a work queue every consumer takes every message, and done ones stay in the log.
pub async fn a_log_that_is_no_queue_serves_each_consumer_all(fabric: Fabric) {
    ensure(&fabric, &log_spec("WORK", &["work.>"])).await;
    for at in 0..3 {
        append(&fabric, "work.a", at).await;
    }
    for name in ["one", "two"] {
        let spec = consumer_spec("WORK", name, "work.>", LONG);
        let consumer = fabric.log.consumer(&spec).await.expect("makes the consumer");
        let mut taken = 0;
        while taken < 3 {
            for work in fetch(&*consumer, 3).await {
                work.ack().await.expect("acks");
                taken += 1;
            }
        }
        let again = fabric.log.consumer(&spec).await.expect("is the same one");
        nothing_to_do(&*again).await;
    }
    assert_eq!(left(&fabric, "work.a").await, 3);
}
