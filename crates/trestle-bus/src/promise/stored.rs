//! What [`Log`](crate::Log) promises of stored messages.

use std::{collections::BTreeSet, future::Future as _, task::Poll, time::Duration};

use trestle_wire::{ChannelName, Subjects, UserId};

use super::{append, ensure, fetch, listen, log_spec, message, payload, soon, subject, text};
use crate::{Appended, BusError, ConsumerSpec, Fabric, LogSpec, Place, Stored, logs};

fn texts(stored: &[Stored]) -> Vec<&str> {
    stored.iter().map(|stored| text(&stored.payload)).collect()
}

async fn read(fabric: &Fabric, at: &str, from: u64, most: usize) -> Vec<Stored> {
    fabric.log.read("LOG", &subject(at), from, most).await.expect("reads")
}

async fn last(fabric: &Fabric, at: &str) -> u64 {
    fabric.log.last("LOG", &subject(at)).await.expect("knows the last")
}

/// Offsets grow from 1, and each subject is read back on its own, whole and in order.
pub async fn a_log_gives_back_what_it_took_in_order(fabric: Fabric) {
    ensure(&fabric, &log_spec("LOG", &["log.*"])).await;
    let mut offsets = Vec::new();
    for at in 0..250 {
        offsets.push(append(&fabric, &format!("log.{}", at % 2), at).await);
    }
    assert!(offsets[0] >= 1 && offsets.is_sorted_by(|a, b| a < b), "{offsets:?}");
    let even = read(&fabric, "log.0", 1, 1_000).await;
    assert_eq!(texts(&even), (0..250).step_by(2).map(|at| at.to_string()).collect::<Vec<_>>());
    let of_even: Vec<u64> = offsets.iter().copied().step_by(2).collect();
    assert_eq!(even.iter().map(|stored| stored.offset).collect::<Vec<_>>(), of_even);
    assert_eq!(last(&fabric, "log.0").await, offsets[248]);
    assert_eq!(last(&fabric, "log.1").await, offsets[249]);
    assert_eq!(last(&fabric, "log.none").await, 0);
}

/// `from` and `most` are kept to; beyond the end there is nothing.
pub async fn reading_begins_where_it_is_asked_to(fabric: Fabric) {
    ensure(&fabric, &log_spec("LOG", &["log.*"])).await;
    let mut offsets = Vec::new();
    for at in 0..10 {
        offsets.push(append(&fabric, "log.a", at).await);
        append(&fabric, "log.b", "other").await;
    }
    assert_eq!(texts(&read(&fabric, "log.a", offsets[4], 3).await), ["4", "5", "6"]);
    assert_eq!(texts(&read(&fabric, "log.a", offsets[4] + 1, 1).await), ["5"]);
    assert_eq!(texts(&read(&fabric, "log.a", 0, 2).await), ["0", "1"]);
    assert!(read(&fabric, "log.a", offsets[9] + 1, 5).await.is_empty());
    assert!(read(&fabric, "log.none", 1, 5).await.is_empty());
    assert!(read(&fabric, "log.a", 1, 0).await.is_empty());
}

/// What was stored is read by the next call, in the log and among the keys; so is what was heard live.
pub async fn what_was_stored_is_read_at_once(fabric: Fabric) {
    const ROUNDS: usize = 200;
    let republish = Some(("p.log".into(), "p.ch".into()));
    ensure(&fabric, &LogSpec { republish, ..log_spec("LOG", &["p.log.*"]) }).await;
    let mut live = listen(&fabric, "p.ch.*", None).await;
    let publisher = fabric.clone();
    let publishing = tokio::spawn(async move {
        for at in 0..ROUNDS {
            append(&publisher, "p.log.other", at).await;
        }
    });
    let mut heard = 0;
    for at in 0..ROUNDS {
        let offset = append(&fabric, "p.log.a", at).await;
        let stored = read(&fabric, "p.log.a", offset, 10).await;
        assert_eq!(stored.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [offset]);
        assert_eq!(last(&fabric, "p.log.a").await, offset);
        let revision = fabric.kv.put("key", payload(at), None).await.expect("puts");
        let entry = fabric.kv.get("key").await.expect("reads");
        assert_eq!(entry.map(|entry| entry.revision), Some(revision));
        while heard < offset {
            let message = message(&mut live).await;
            heard = message.place.expect("from the log").offset;
            let at = message.subject.as_str().replace("p.ch", "p.log");
            let stored = fabric.log.read("LOG", &subject(&at), heard, 1).await.expect("reads");
            assert_eq!(stored.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [heard]);
        }
    }
    soon(publishing).await.expect("publishes");
}

/// Many append at once: no offset is given twice, each publisher's grow, nothing is missing.
pub async fn offsets_are_unique_and_grow_for_each_publisher(fabric: Fabric) {
    ensure(&fabric, &log_spec("LOG", &["log.*"])).await;
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..8 {
        let fabric = fabric.clone();
        tasks.spawn(async move {
            let mut offsets = Vec::new();
            for at in 0..25 {
                offsets.push(append(&fabric, "log.all", format!("{publisher} {at}")).await);
            }
            offsets
        });
    }
    let mut all = BTreeSet::new();
    while let Some(offsets) = tasks.join_next().await {
        let offsets = offsets.expect("appends");
        assert!(offsets.is_sorted_by(|a, b| a < b));
        all.extend(offsets);
    }
    let stored = read(&fabric, "log.all", 1, 1_000).await;
    assert_eq!(stored.iter().map(|stored| stored.offset).collect::<BTreeSet<_>>(), all);
    assert_eq!((all.len(), texts(&stored).into_iter().collect::<BTreeSet<_>>().len()), (200, 200));
}

/// Once polled is called: of two appends under way the one polled first is stored first, however busy its task is.
pub async fn an_append_that_was_polled_first_is_stored_first(fabric: Fabric) {
    ensure(&fabric, &log_spec("LOG", &["log.*"])).await;
    let at = subject("log.a");
    let mut first = std::pin::pin!(fabric.log.append(&at, None, payload(1)));
    let early = std::future::poll_fn(|context| {
        // A task that has done much in one turn is told to wait by whatever it asks next.
        while tokio::task::coop::has_budget_remaining() {
            let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(context);
        }
        match first.as_mut().poll(context) {
            Poll::Ready(appended) => Poll::Ready(Some(appended)),
            Poll::Pending => Poll::Ready(None),
        }
    })
    .await;
    tokio::task::yield_now().await;
    let second = append(&fabric, "log.a", 2).await;
    let first = match early {
        Some(appended) => appended,
        None => soon(first).await,
    };
    let first = first.expect("appends").offset;
    assert!(first < second, "the first has offset {first}, the second {second}");
}

/// One dedup id, tried again and from many sides at once, is one message, and everybody is told its offset.
pub async fn one_dedup_id_is_stored_once(fabric: Fabric) {
    ensure(&fabric, &log_spec("LOG", &["log.*"])).await;
    append(&fabric, "log.a", "before").await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let log = fabric.log.clone();
        tasks.spawn(async move { log.append(&subject("log.a"), Some("user/1"), payload("once")).await });
    }
    let mut answers = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        answers.push(answer.expect("no panic").expect("appends"));
    }
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.offset == answers[0].offset), "{answers:?}");
    let again = fabric.log.append(&subject("log.a"), Some("user/1"), payload("again")).await.expect("appends");
    assert_eq!((again.offset, again.duplicate), (answers[0].offset, true));
    let other = fabric.log.append(&subject("log.a"), Some("user/2"), payload("other")).await.expect("appends");
    assert!(!other.duplicate);
    assert_eq!(texts(&read(&fabric, "log.a", 1, 10).await), ["before", "once", "other"]);
}

/// After the window the same id is a new message.
pub async fn a_dedup_id_is_forgotten_after_its_window(fabric: Fabric) {
    let window = Duration::from_millis(500);
    ensure(&fabric, &LogSpec { dedup_window: window, ..log_spec("LOG", &["log.*"]) }).await;
    let append = async || fabric.log.append(&subject("log.a"), Some("id"), payload("x")).await.expect("appends");
    let first = append().await;
    let again = soon(async {
        loop {
            let again = append().await;
            if !again.duplicate {
                return again;
            }
            assert_eq!(again.offset, first.offset);
            tokio::time::sleep(window / 10).await;
        }
    })
    .await;
    assert!(again.offset > first.offset);
}

/// What is stored is heard live under the other prefix, with its offset and that of the one before it.
pub async fn what_is_republished_knows_its_place(fabric: Fabric) {
    let republish = Some(("p.log".into(), "p.ch".into()));
    ensure(&fabric, &LogSpec { republish, ..log_spec("LOG", &["p.log.room", "p.log.room.*"]) }).await;
    let mut live = listen(&fabric, "p.ch.>", None).await;
    let mut previous = std::collections::HashMap::new();
    for at in 0..30 {
        let room = ["room", "room.a", "room.b"][at % 3];
        let offset = append(&fabric, &format!("p.log.{room}"), at).await;
        let heard = message(&mut live).await;
        assert_eq!((heard.subject.as_str(), text(&heard.payload)), (&*format!("p.ch.{room}"), &*at.to_string()));
        let previous = previous.insert(room, offset).unwrap_or(0);
        assert_eq!(heard.place, Some(Place { offset, previous }));
        assert_eq!(heard.reply_to, None);
    }
}

/// Whatever users are called, each has an inbox of their own: stored, read back, and heard live.
pub async fn every_user_has_an_inbox(fabric: Fabric) {
    let subjects = Subjects::new("p");
    let spec = logs::inbox(&subjects, 2, Duration::from_secs(600));
    ensure(&fabric, &spec).await;
    let mut all = listen(&fabric, "p.ch.>", None).await;
    let long = "\u{1F600}".repeat(32); // 128 bytes, each of which is escaped twice
    for user in ["alice", "a.b", "a%2Eb", "a b", "a:b", "*", ">", "%", "%25", "\u{e9}", &*long] {
        let inbox = ChannelName::inbox(&UserId::parse(user).expect("a user"));
        let (at, live) = (subjects.log(&inbox), subjects.channel(&inbox));
        assert_eq!(fabric.log.last(&spec.name, &at).await.expect("knows the last"), 0, "{user:?} shares an inbox");
        let mut own = listen(&fabric, live.as_str(), None).await;
        for at_most_two in 0..3 {
            let what = format!("{user} {at_most_two}");
            let offset = fabric.log.append(&at, None, payload(&what)).await.expect("appends").offset;
            for heard in [message(&mut all).await, message(&mut own).await] {
                assert_eq!((heard.subject.as_str(), text(&heard.payload)), (live.as_str(), &*what));
                assert_eq!(heard.place.map(|place| place.offset), Some(offset));
            }
        }
        let stored = fabric.log.read(&spec.name, &at, 1, 10).await.expect("reads");
        assert_eq!(texts(&stored), [format!("{user} 1"), format!("{user} 2")]);
    }
}

/// Each subject keeps its own last messages; older ones are not read any more.
pub async fn a_log_keeps_the_last_messages_of_each_subject(fabric: Fabric) {
    ensure(&fabric, &LogSpec { per_subject_max: Some(3), ..log_spec("LOG", &["log.*"]) }).await;
    append(&fabric, "log.quiet", "q").await;
    for at in 0..10 {
        append(&fabric, "log.busy", at).await;
    }
    assert_eq!(texts(&read(&fabric, "log.busy", 1, 10).await), ["7", "8", "9"]);
    assert_eq!(texts(&read(&fabric, "log.quiet", 1, 10).await), ["q"]);
}

/// What is older than the limit is gone, and later offsets do not begin anew.
pub async fn a_log_forgets_what_is_too_old(fabric: Fabric) {
    let age_max = Duration::from_secs(1);
    let spec = LogSpec { age_max: Some(age_max), dedup_window: age_max, ..log_spec("LOG", &["log.*"]) };
    ensure(&fabric, &spec).await;
    let first = append(&fabric, "log.a", "old").await;
    soon(async {
        while last(&fabric, "log.a").await != 0 {
            tokio::time::sleep(age_max / 20).await;
        }
    })
    .await;
    assert!(read(&fabric, "log.a", 1, 10).await.is_empty());
    assert!(append(&fabric, "log.a", "new").await > first);
}

/// How far a log has come is known for all its subjects together, and stays known when the messages are gone.
pub async fn a_log_knows_how_far_it_has_reached(fabric: Fabric) {
    let reached = async || fabric.log.reached("LOG").await.expect("knows how far");
    assert!(matches!(fabric.log.reached("LOG").await, Err(BusError::NoLog(_))));
    let spec = LogSpec { per_subject_max: Some(1), ..log_spec("LOG", &["log.*"]) };
    ensure(&fabric, &spec).await;
    assert_eq!(reached().await, 0);
    for at in 0..5 {
        assert_eq!(append(&fabric, "log.a", at).await, reached().await);
    }
    let newest = append(&fabric, "log.b", "b").await;
    assert_eq!(reached().await, newest);
    let age_max = Duration::from_secs(1);
    ensure(&fabric, &LogSpec { age_max: Some(age_max), dedup_window: age_max, ..spec }).await;
    soon(async {
        while last(&fabric, "log.b").await != 0 {
            tokio::time::sleep(age_max / 20).await;
        }
    })
    .await;
    assert_eq!(reached().await, newest, "what is too old was there once");
}

/// Above its bytes a log refuses, also empty messages, and says so; what it has stays; what is done makes room.
pub async fn a_full_log_refuses_until_there_is_room(fabric: Fabric) {
    const MAX: u64 = 100_000;
    let spec = LogSpec { bytes_max: Some(MAX), work_queue: true, ..log_spec("LOG", &["log.*"]) };
    ensure(&fabric, &spec).await;
    let append = async |dedup: Option<&str>, bytes: usize| {
        fabric.log.append(&subject("log.a"), dedup, vec![b'x'; bytes].into()).await
    };
    let known = append(Some("id"), 10_000).await.expect("fits");
    let mut stored = 1;
    let refused = loop {
        match append(None, 10_000).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored <= 10, "more than its bytes");
    };
    assert!(matches!(&refused, BusError::Full { log, max: MAX } if log == "LOG"), "{refused:?}");
    assert!(stored > 5, "{stored}");
    let empty = soon(async {
        loop {
            if let Err(error) = append(None, 0).await {
                return error;
            }
        }
    })
    .await;
    assert!(matches!(empty, BusError::Full { .. }), "{empty:?}");
    assert_eq!(append(Some("id"), 10_000).await.expect("is there"), Appended { duplicate: true, ..known });

    let all = ConsumerSpec {
        log: "LOG".into(),
        name: "worker".into(),
        filter: subject("log.a"),
        ack_wait: Duration::from_secs(300),
    };
    let consumer = fabric.log.consumer(&all).await.expect("makes the consumer");
    fetch(&*consumer, 1).await[0].ack().await.expect("acks");
    soon(async {
        loop {
            match append(None, 5_000).await {
                Ok(_) => return,
                // A bus of several servers makes the room when they have agreed.
                Err(BusError::Full { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    ensure(&fabric, &LogSpec { bytes_max: None, ..spec }).await;
    append(None, 100_000).await.expect("it was changed");
}

/// `ensure` may be called again with the same spec, and changes the log to another one, keeping what fits.
pub async fn a_log_that_exists_is_changed(fabric: Fabric) {
    let spec = log_spec("LOG", &["log.a"]);
    ensure(&fabric, &spec).await;
    for at in 0..5 {
        append(&fabric, "log.a", at).await;
    }
    ensure(&fabric, &spec).await;
    assert_eq!(read(&fabric, "log.a", 1, 10).await.len(), 5);
    let changed = LogSpec { per_subject_max: Some(2), ..log_spec("LOG", &["log.a", "log.b"]) };
    ensure(&fabric, &changed).await;
    append(&fabric, "log.b", "b").await;
    assert_eq!(texts(&read(&fabric, "log.a", 1, 10).await), ["3", "4"]);
    assert_eq!(texts(&read(&fabric, "log.b", 1, 10).await), ["b"]);
}

/// Where there is no log every call says so.
pub async fn without_a_log_nothing_is_stored(fabric: Fabric) {
    ensure(&fabric, &log_spec("LOG", &["log.*"])).await;
    let consumer = ConsumerSpec {
        log: "OTHER".into(),
        name: "worker".into(),
        filter: subject("other.>"),
        ack_wait: Duration::from_secs(30),
    };
    let errors = [
        fabric.log.append(&subject("other.a"), None, payload("x")).await.err(),
        fabric.log.append(&subject("log.a.b"), None, payload("x")).await.err(),
        fabric.log.read("OTHER", &subject("other.a"), 1, 1).await.err(),
        fabric.log.last("OTHER", &subject("other.a")).await.err(),
        fabric.log.consumer(&consumer).await.err(),
    ];
    for (which, error) in errors.into_iter().enumerate() {
        assert!(matches!(error, Some(BusError::NoLog(_))), "call {which}: {error:?}");
    }
}

/// A log that would store what another one stores is refused.
pub async fn two_logs_do_not_share_a_subject(fabric: Fabric) {
    ensure(&fabric, &log_spec("LOG", &["log.*"])).await;
    let error = fabric.log.ensure(&log_spec("OTHER", &["other", "log.a"])).await;
    assert!(matches!(error, Err(BusError::Refused(_))), "{error:?}");
    ensure(&fabric, &log_spec("OTHER", &["other", "log.a.b"])).await;
}
