//! What is true on three nats-servers while one of them dies or stands behind.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use trestle_bus::{BusError, ConsumerSpec, Fabric, KvEvent, LogSpec, Subject, promise};
use trestle_bus_nats::{Nats, NatsConfig};
use trestle_testkit::NatsCluster;

const PATIENCE: Duration = Duration::from_secs(60);

/// Before a call that was refused is tried again.
const PAUSE: Duration = Duration::from_millis(20);

fn subject(text: &str) -> Subject {
    Subject::from_trusted(text)
}

fn log_spec() -> LogSpec {
    promise::log_spec("LOG", &["log.>"])
}

async fn connect(url: String) -> Fabric {
    Nats::connect(NatsConfig { replicas: 3, ..NatsConfig::new(url) }).await.expect("connects")
}

/// What several tasks do until they are told to stop, and how often it has worked.
#[derive(Default)]
struct Course {
    stop: AtomicBool,
    done: AtomicU64,
}

impl Course {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    fn count(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until it has worked `more` times again, and says how long that took.
    async fn more(&self, more: u64) -> Duration {
        let (began, before) = (Instant::now(), self.done.load(Ordering::SeqCst));
        let enough = async {
            while self.done.load(Ordering::SeqCst) < before + more {
                sleep(PAUSE).await;
            }
        };
        timeout(PATIENCE, enough).await.expect("it goes on");
        began.elapsed()
    }
}

/// Appends one message after the other, each again with its id until it is acked.
async fn append(fabric: Fabric, writer: usize, course: Arc<Course>) -> BTreeMap<String, u64> {
    let mut acked = BTreeMap::new();
    for at in 0.. {
        if !course.goes_on() {
            break;
        }
        let id = format!("{writer}-{at}");
        loop {
            match fabric.log.append(&subject("log.a"), Some(&id), id.clone().into()).await {
                Ok(appended) => {
                    acked.insert(id, appended.offset);
                    course.count();
                    break;
                }
                Err(BusError::Away | BusError::Timeout(_)) => sleep(PAUSE).await,
                Err(error) => panic!("{error}"),
            }
        }
    }
    acked
}

/// What became of the words that a task has tried to add.
#[derive(Default)]
struct Words {
    added: BTreeSet<String>,
    refused: BTreeSet<String>,
    unknown: BTreeSet<String>,
}

/// Adds one word after the other to what stands at a key, by compare-and-set.
async fn add_words(fabric: Fabric, task: usize, course: Arc<Course>) -> Words {
    let mut words = Words::default();
    for at in 0.. {
        if !course.goes_on() {
            break;
        }
        let Ok(entry) = fabric.kv.get("words").await else {
            sleep(PAUSE).await;
            continue;
        };
        let (text, revision) = entry.map_or_else(Default::default, |entry| {
            (String::from_utf8_lossy(&entry.value).into_owned(), entry.revision)
        });
        let word = format!("{task}-{at}");
        match fabric.kv.compare_and_set("words", revision, format!("{text} {word}").into(), None).await {
            Ok(Some(_)) => {
                words.added.insert(word);
                course.count();
            }
            Ok(None) => drop(words.refused.insert(word)),
            Err(BusError::Away | BusError::Timeout(_)) => {
                words.unknown.insert(word);
                sleep(PAUSE).await;
            }
            Err(error) => panic!("{error}"),
        }
        sleep(PAUSE).await; // the words stay few enough for one message
    }
    words
}

fn text(event: &KvEvent) -> String {
    event.entry.iter().map(|entry| String::from_utf8_lossy(&entry.value).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_leader_is_killed_what_was_acked_is_there_once_and_keys_stay_exact() {
    let mut cluster = NatsCluster::start().await.expect("starts");
    let (one, other) = (connect(cluster.url()).await, connect(cluster.url()).await);
    for node in [&one, &other] {
        node.log.ensure(&log_spec()).await.expect("makes the log");
    }
    let mut events = other.kv.watch("words").await.expect("watches");
    let (appends, sets) = (Arc::new(Course::default()), Arc::new(Course::default()));
    let (mut writers, mut adders) = (JoinSet::new(), JoinSet::new());
    for task in 0..4 {
        let fabric = if task % 2 == 0 { &one } else { &other };
        writers.spawn(append(fabric.clone(), task, appends.clone()));
        adders.spawn(add_words(fabric.clone(), task, sets.clone()));
    }
    let heard = tokio::spawn(async move {
        let mut heard: Vec<(Instant, KvEvent)> = Vec::new();
        while let Some(event) = events.recv().await {
            let last = text(&event).ends_with(" end");
            heard.push((Instant::now(), event));
            if last {
                break;
            }
        }
        heard
    });
    for stream in ["LOG", "KV_TRESTLE"] {
        appends.more(100).await;
        sets.more(20).await;
        let leader = cluster.leader_of(stream).await.expect("has a leader");
        cluster.kill(leader).await.expect("is killed");
        let (appends_again, sets_again) = tokio::join!(appends.more(100), sets.more(20));
        println!("leader of {stream} killed: appends again after {appends_again:?}, keys after {sets_again:?}");
        cluster.restart(leader).await.expect("starts again");
    }
    for course in [&appends, &sets] {
        course.stop.store(true, Ordering::SeqCst);
    }

    let mut acked = BTreeMap::new();
    while let Some(writer) = timeout(PATIENCE, writers.join_next()).await.expect("writers end") {
        acked.extend(writer.expect("no panic"));
    }
    let stored = one.log.read("LOG", &subject("log.a"), 1, 1_000_000).await.expect("reads");
    let stored: Vec<_> = stored.iter().map(|s| (String::from_utf8_lossy(&s.payload).into_owned(), s.offset)).collect();
    let there: BTreeMap<_, _> = stored.iter().cloned().collect();
    assert_eq!(there.len(), stored.len(), "nothing is stored twice");
    assert!(there == acked, "{} are stored, {} were acked", there.len(), acked.len());

    let mut words = Words::default();
    while let Some(adder) = timeout(PATIENCE, adders.join_next()).await.expect("adders end") {
        let adder = adder.expect("no panic");
        words.added.extend(adder.added);
        words.refused.extend(adder.refused);
        words.unknown.extend(adder.unknown);
    }
    let entry = one.kv.get("words").await.expect("reads").expect("is there");
    let all = String::from_utf8_lossy(&entry.value).into_owned();
    let listed: Vec<_> = all.split_whitespace().map(str::to_owned).collect();
    let there: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(there.len(), listed.len(), "no word twice");
    assert!(there.is_superset(&words.added), "lost: {:?}", words.added.difference(&there));
    assert!(there.is_disjoint(&words.refused), "refused and there: {:?}", there.intersection(&words.refused));
    let odd: Vec<_> = there.difference(&words.added).filter(|word| !words.unknown.contains(*word)).collect();
    assert!(odd.is_empty(), "{odd:?}");
    println!("{} appends, {} words, {} unknown; all are there", acked.len(), words.added.len(), words.unknown.len());

    one.kv.put("words", format!("{all} end").into(), None).await.expect("puts");
    let heard = timeout(PATIENCE, heard).await.expect("the end is heard").expect("no panic");
    let revisions: Vec<_> = heard.iter().filter_map(|(_, event)| Some(event.entry.as_ref()?.revision)).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "in order, each once: {revisions:?}");
    let silence = heard.windows(2).map(|pair| pair[1].0 - pair[0].0).max().expect("several");
    println!("{} changes were heard; the longest silence was {silence:?}", revisions.len());
}

/// Calls until the bus is not away.
async fn again<T, F: Future<Output = Result<T, BusError>>>(call: impl Fn() -> F) -> T {
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(BusError::Away | BusError::Timeout(_)) => sleep(PAUSE).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_behind_makes_nothing_look_gone() {
    const MESSAGES: u64 = 300;
    let log_a = subject("log.a");
    let mut cluster = NatsCluster::start().await.expect("starts");
    let writer = connect(cluster.url()).await;
    writer.log.ensure(&log_spec()).await.expect("makes the log");
    writer.kv.put("key", "0".into(), None).await.expect("puts");
    for round in 1..=12_u64 {
        let (log_leader, kv_leader) =
            (cluster.leader_of("LOG").await.expect("leads"), cluster.leader_of("KV_TRESTLE").await.expect("leads"));
        let behind = (0..NatsCluster::SERVERS).find(|at| *at != log_leader && *at != kv_leader).expect("three");
        // Whoever reads is connected to the one that will stand behind; it answers direct gets itself.
        let reader = connect(cluster.server(behind).url()).await;
        let writer = connect(cluster.server(log_leader).url()).await;
        cluster.pause(behind).expect("is paused");
        let mut last = 0;
        for at in 0..MESSAGES {
            // On a busy machine a leader may be elected in the middle.
            let dedup = format!("{round}.{at}");
            last = again(|| writer.log.append(&log_a, Some(&dedup), at.to_string().into())).await.offset;
        }
        let revision = again(|| writer.kv.put("key", round.to_string().into(), None)).await;
        let from = last + 1 - MESSAGES;
        cluster.resume(behind).expect("goes on");
        let (read, known, entry, entries) = timeout(PATIENCE, async {
            tokio::join!(
                again(|| reader.log.read("LOG", &log_a, from, 10_000)),
                again(|| reader.log.last("LOG", &log_a)),
                again(|| reader.kv.get("key")),
                again(|| reader.kv.entries("k")),
            )
        })
        .await
        .expect("answers");
        let offsets: Vec<_> = read.iter().map(|stored| stored.offset).collect();
        assert_eq!(offsets, (from..=last).collect::<Vec<_>>(), "round {round}");
        assert_eq!(known, last, "round {round}");
        assert_eq!(entry.map(|entry| entry.revision), Some(revision), "round {round}");
        assert_eq!(entries.iter().map(|(_, entry)| entry.revision).collect::<Vec<_>>(), [revision], "round {round}");
        cluster.settled().await.expect("is whole again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_whichever_server_dies() {
    let mut cluster = NatsCluster::start().await.expect("starts");
    let (setter, watcher) = (connect(cluster.url()).await, connect(cluster.url()).await);
    let mut events = watcher.kv.watch("beat").await.expect("watches");
    let course = Arc::new(Course::default());
    let sets = course.clone();
    let set = tokio::spawn(async move {
        while sets.goes_on() {
            if setter.kv.put("beat", "x".into(), None).await.is_ok() {
                sets.count();
            }
            sleep(PAUSE).await;
        }
        again(|| setter.kv.put("beat", "end".into(), None)).await
    });
    let hears = Arc::new(Course::default());
    let heard = hears.clone();
    let follow = tokio::spawn(async move {
        let mut last = 0;
        while let Some(event) = events.recv().await {
            let entry = event.entry.expect("nobody deletes it");
            assert!(entry.revision > last, "in order, each once: {} after {last}", entry.revision);
            last = entry.revision;
            heard.count();
            if entry.value == "end" {
                return last;
            }
        }
        panic!("the watch has ended");
    });
    for at in 0..NatsCluster::SERVERS {
        hears.more(20).await;
        let leader = cluster.leader_of("KV_TRESTLE").await.expect("leads");
        cluster.kill(at).await.expect("is killed");
        // Two, as one may have been on its way; a watch that is behind hears only the last change of a key.
        let (set, heard) = tokio::join!(course.more(20), hears.more(2));
        println!("server {at} killed, {leader} led the keys: set again after {set:?}, heard again after {heard:?}");
        cluster.restart(at).await.expect("starts again");
    }
    course.stop.store(true, Ordering::SeqCst);
    let (set, heard) = timeout(PATIENCE, async { tokio::join!(set, follow) }).await.expect("the end is heard");
    assert_eq!(set.expect("no panic"), heard.expect("no panic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_leader_is_killed_work_goes_on_and_what_was_acked_does_not_come_again() {
    let mut cluster = NatsCluster::start().await.expect("starts");
    let node = connect(cluster.url()).await;
    node.log.ensure(&LogSpec { work_queue: true, ..log_spec() }).await.expect("makes the log");
    let spec = ConsumerSpec {
        log: "LOG".into(),
        name: "worker".into(),
        filter: subject("log.>"),
        ack_wait: Duration::from_secs(2),
    };
    let (appends, acks) = (Arc::new(Course::default()), Arc::new(Course::default()));
    let appending = tokio::spawn(append(node.clone(), 0, appends.clone()));
    let (fabric, acked) = (node.clone(), acks.clone());
    let working = tokio::spawn(async move {
        let consumer = again(|| fabric.log.consumer(&spec)).await;
        let (mut done, mut unsure) = (BTreeSet::new(), 0_u64);
        // Until it is told to stop and nothing is left for longer than ack_wait.
        loop {
            let work = again(|| consumer.fetch(10, 3 * spec.ack_wait)).await;
            if work.is_empty() && !acked.goes_on() {
                return (done, unsure);
            }
            for work in work {
                let word = String::from_utf8_lossy(&work.payload).into_owned();
                assert!(!done.contains(&word), "{word} was acked, and came again");
                match work.ack().await {
                    Ok(()) => {
                        done.insert(word);
                        acked.count();
                    }
                    Err(BusError::Away | BusError::Timeout(_)) => unsure += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    for _ in 0..2 {
        acks.more(100).await;
        let leader = cluster.leader_of("LOG").await.expect("leads");
        cluster.kill(leader).await.expect("is killed");
        println!("leader killed: work is done again after {:?}", acks.more(50).await);
        cluster.restart(leader).await.expect("starts again");
    }
    appends.stop.store(true, Ordering::SeqCst);
    let appended = timeout(PATIENCE, appending).await.expect("ends").expect("no panic");
    acks.stop.store(true, Ordering::SeqCst);
    let (done, unsure) = timeout(2 * PATIENCE, working).await.expect("ends").expect("no panic");
    println!("{} appended, {} acked, {unsure} acks of which nothing is known", appended.len(), done.len());
    let missing = appended.keys().filter(|word| !done.contains(*word)).count() as u64;
    assert!(missing <= unsure, "{missing} were never done");
    assert_eq!(node.log.last("LOG", &subject("log.a")).await.expect("reads"), 0, "nothing is left");
}
