//! What [`Kv`](crate::Kv) promises.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::{PATIENCE, payload, soon, text};
use crate::{BusError, Entry, Fabric, KvEvent};

/// The shortest lifetime that every bus takes.
const TTL: Duration = Duration::from_secs(1);

async fn get(fabric: &Fabric, key: &str) -> Option<Entry> {
    fabric.kv.get(key).await.expect("reads")
}

async fn put(fabric: &Fabric, key: &str, value: &str, ttl: Option<Duration>) -> u64 {
    fabric.kv.put(key, payload(value), ttl).await.expect("puts")
}

async fn event(events: &mut mpsc::Receiver<KvEvent>) -> (String, Option<String>) {
    let event = soon(events.recv()).await.expect("the watch goes on");
    (event.key, event.entry.map(|entry| text(&entry.value).to_owned()))
}

/// Put, get, put, delete; revisions grow.
pub async fn a_key_holds_its_value_until_it_is_deleted(fabric: Fabric) {
    assert_eq!(get(&fabric, "a.b").await, None);
    let first = put(&fabric, "a.b", "1", None).await;
    assert_eq!(get(&fabric, "a.b").await, Some(Entry { value: payload("1"), revision: first }));
    let second = put(&fabric, "a.b", "2", None).await;
    assert!(first > 0 && second > first);
    assert_eq!(get(&fabric, "a.b").await, Some(Entry { value: payload("2"), revision: second }));
    assert_eq!(get(&fabric, "a").await, None);
    fabric.kv.delete("a.b").await.expect("deletes");
    assert_eq!(get(&fabric, "a.b").await, None);
    fabric.kv.delete("a.b").await.expect("deletes what is not there");
    assert!(put(&fabric, "a.b", "3", None).await > second);
}

/// Of many that set a key only if there is none, one does: at first, and again after a deletion.
pub async fn only_one_of_many_wins_a_key(fabric: Fabric) {
    for round in 0..3 {
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..16 {
            let kv = fabric.kv.clone();
            tasks.spawn(async move {
                kv.compare_and_set("lock", 0, payload(at), None).await.expect("answers").map(|revision| (at, revision))
            });
        }
        let mut winners = Vec::new();
        while let Some(done) = tasks.join_next().await {
            winners.extend(done.expect("no panic"));
        }
        let [(winner, revision)] = winners[..] else { panic!("round {round}: {winners:?}") };
        assert_eq!(get(&fabric, "lock").await, Some(Entry { value: payload(winner), revision }));
        fabric.kv.delete("lock").await.expect("deletes");
    }
}

/// Counting with compare-and-set from many sides loses no count.
pub async fn no_change_is_lost_to_another(fabric: Fabric) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let fabric = fabric.clone();
        tasks.spawn(async move {
            let mut counted = 0;
            while counted < 10 {
                let (value, revision) = match get(&fabric, "count").await {
                    Some(entry) => (text(&entry.value).parse::<u64>().expect("a number"), entry.revision),
                    None => (0, 0),
                };
                let set = fabric.kv.compare_and_set("count", revision, payload(value + 1), None).await;
                counted += u64::from(set.expect("answers").is_some());
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("counts");
    }
    assert_eq!(text(&get(&fabric, "count").await.expect("is there").value), "40");
    assert_eq!(fabric.kv.compare_and_set("count", 1, payload("x"), None).await.expect("answers"), None);
}

/// A key with a lifetime goes by itself; the watcher hears it as a deletion; the key is free again.
pub async fn a_key_expires_and_its_watcher_hears(fabric: Fabric) {
    let mut events = fabric.kv.watch("node.").await.expect("watches");
    let began = Instant::now();
    put(&fabric, "node.1", "up", Some(TTL)).await;
    let set = fabric.kv.compare_and_set("node.2", 0, payload("up"), Some(TTL)).await.expect("answers");
    assert!(set.is_some());
    assert_eq!(event(&mut events).await, ("node.1".into(), Some("up".into())));
    assert_eq!(event(&mut events).await, ("node.2".into(), Some("up".into())));
    let mut gone = [event(&mut events).await, event(&mut events).await];
    gone.sort();
    assert_eq!(gone, [("node.1".into(), None), ("node.2".into(), None)]);
    assert!(began.elapsed() >= TTL, "not before its time");
    assert_eq!(get(&fabric, "node.1").await, None);
    assert!(fabric.kv.compare_and_set("node.1", 0, payload("again"), None).await.expect("answers").is_some());
}

/// Putting a key again replaces its lifetime too.
pub async fn a_key_put_again_has_the_new_lifetime(fabric: Fabric) {
    let mut events = fabric.kv.watch("").await.expect("watches");
    put(&fabric, "kept", "1", Some(TTL)).await;
    put(&fabric, "kept", "2", None).await;
    put(&fabric, "longer", "1", Some(TTL)).await;
    put(&fabric, "longer", "2", Some(3 * TTL)).await;
    put(&fabric, "timer", "", Some(2 * TTL)).await;
    // The first thing to go is the one with two seconds; what had one second before has not gone.
    let gone = soon(async {
        loop {
            if let (key, None) = event(&mut events).await {
                return key;
            }
        }
    })
    .await;
    assert_eq!(gone, "timer");
    assert_eq!(text(&get(&fabric, "kept").await.expect("is there").value), "2");
    assert_eq!(event(&mut events).await, ("longer".into(), None));
}

/// A watcher hears what happens to the keys of its prefix from now on, in order, with revisions.
pub async fn a_watcher_hears_its_prefix_in_order(fabric: Fabric) {
    put(&fabric, "session.1", "before", None).await;
    let mut sessions = fabric.kv.watch("session.").await.expect("watches");
    let mut ones = fabric.kv.watch("session.1").await.expect("watches");
    let revision = put(&fabric, "session.1", "a", None).await;
    put(&fabric, "sessions", "other", None).await;
    put(&fabric, "session.2", "b", None).await;
    fabric.kv.delete("session.1").await.expect("deletes");
    put(&fabric, "session.11", "c", None).await;
    let first = soon(sessions.recv()).await.expect("the watch goes on");
    let entry = Some(Entry { value: payload("a"), revision });
    assert_eq!(first, KvEvent { key: "session.1".into(), entry });
    assert_eq!(event(&mut sessions).await, ("session.2".into(), Some("b".into())));
    assert_eq!(event(&mut sessions).await, ("session.1".into(), None));
    assert_eq!(event(&mut sessions).await, ("session.11".into(), Some("c".into())));
    assert_eq!(event(&mut ones).await, ("session.1".into(), Some("a".into())));
    assert_eq!(event(&mut ones).await, ("session.1".into(), None));
    assert_eq!(event(&mut ones).await, ("session.11".into(), Some("c".into())));
}

/// All keys of a prefix are shown with what they hold, each once while nobody sets it, and no others.
pub async fn each_key_of_a_prefix_is_shown(fabric: Fabric) {
    // More than a bus asks for in one request.
    const MANY: usize = 2_500;
    put(&fabric, "nodes.1", "other", None).await;
    put(&fabric, "node.gone", "x", None).await;
    fabric.kv.delete("node.gone").await.expect("deletes");
    let mut expected = Vec::new();
    for at in 0..MANY {
        let key = format!("node.{at:04}.x");
        let revision = put(&fabric, &key, &at.to_string(), None).await;
        expected.push((key, Entry { value: payload(at), revision }));
    }
    let mut shown = Vec::new();
    fabric.kv.each("node.", &mut |key, entry| shown.push((key, entry))).await.expect("shows");
    shown.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert_eq!(shown, expected);
    let mut one = 0;
    fabric.kv.each("node.0007.", &mut |_, _| one += 1).await.expect("shows");
    assert_eq!(one, 1);
}

/// All keys of a prefix are found, in order, however many there are; what is gone or has expired is not among them.
pub async fn entries_are_the_keys_of_a_prefix(fabric: Fabric) {
    // More than a bus asks for in one request.
    const MANY: usize = 2_500;
    let entries = async |prefix: &str| fabric.kv.entries(prefix).await.expect("reads");
    assert_eq!(entries("node.").await, []);
    let mut events = fabric.kv.watch("node.").await.expect("watches");
    let brief = put(&fabric, "node.brief", "0", Some(TTL)).await;
    assert!(brief > 0);
    put(&fabric, "node.2", "two", None).await;
    let one = put(&fabric, "node.1", "one", Some(PATIENCE)).await;
    put(&fabric, "node.3", "three", None).await;
    let two = put(&fabric, "node.2", "two again", None).await;
    put(&fabric, "nodes.1", "other", None).await;
    fabric.kv.delete("node.3").await.expect("deletes");
    soon(async { while event(&mut events).await != ("node.brief".into(), None) {} }).await;
    let expected = [("node.1", "one", one), ("node.2", "two again", two)]
        .map(|(key, value, revision)| (key.to_owned(), Entry { value: payload(value), revision }));
    assert_eq!(entries("node.").await, expected);
    assert_eq!(entries("node.2").await, expected[1..]);
    assert_eq!(entries("node.4").await, []);
    assert_eq!(entries("").await.len(), 3);

    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..10 {
        let fabric = fabric.clone();
        tasks.spawn(async move {
            for at in (task..MANY).step_by(10) {
                put(&fabric, &format!("many.{at:05}"), &at.to_string(), None).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("puts");
    }
    let values: Vec<_> = entries("many.").await.into_iter().map(|(_, entry)| text(&entry.value).to_owned()).collect();
    assert_eq!(values, (0..MANY).map(|at| at.to_string()).collect::<Vec<_>>());
}

/// A key that is always there is always among the entries, though it and others are set again and again.
pub async fn a_key_that_is_set_meanwhile_is_among_the_entries(fabric: Fabric) {
    const KEYS: usize = 50;
    for at in 0..KEYS {
        put(&fabric, &format!("k.{at}"), "0", None).await;
    }
    let (fresh, stop) = (fabric.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let setter = tokio::spawn(async move {
        let mut round = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            round += 1;
            for at in 0..KEYS {
                put(&fresh, &format!("k.{at}"), &round.to_string(), None).await;
            }
        }
    });
    for _ in 0..100 {
        assert_eq!(fabric.kv.entries("k.").await.expect("reads").len(), KEYS);
        // What this side has set is read by it at once.
        let revision = put(&fabric, "k.mine", "x", None).await;
        let entries = fabric.kv.entries("k.m").await.expect("reads");
        assert_eq!(entries.iter().map(|(_, entry)| entry.revision).collect::<Vec<_>>(), [revision]);
        fabric.kv.delete("k.mine").await.expect("deletes");
    }
    stop.store(true, Ordering::Relaxed);
    soon(setter).await.expect("sets");
}

/// Keys that a bus cannot hold are refused by every call, at once.
pub async fn what_is_no_key_is_refused(fabric: Fabric) {
    let long = "k".repeat(257);
    for key in ["", "a b", "a*", ">", ".a", "a.", "a\n", "\u{e9}", &*long] {
        let errors = soon(async {
            [
                fabric.kv.get(key).await.err(),
                fabric.kv.put(key, payload("x"), None).await.err(),
                fabric.kv.compare_and_set(key, 0, payload("x"), Some(PATIENCE)).await.err(),
                fabric.kv.delete(key).await.err(),
            ]
        })
        .await;
        for error in errors {
            assert!(matches!(error, Some(BusError::Refused(_))), "{key:?}: {error:?}");
        }
    }
    for prefix in ["a b", "a*", ">", ".a", "\u{e9}", &*long] {
        let errors = [fabric.kv.entries(prefix).await.err(), fabric.kv.watch(prefix).await.err()];
        assert!(errors.iter().all(|error| matches!(error, Some(BusError::Refused(_)))), "{prefix:?}: {errors:?}");
    }
}
