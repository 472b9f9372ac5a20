//! What is true while a NATS server is away, and after it has come back.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use trestle_bus::{BusError, BusState, ConsumerSpec, Fabric, Heard, LogSpec, Subject, Subscription, promise::log_spec};
use trestle_bus_nats::{Nats, NatsConfig};
use trestle_testkit::NatsServer;

const PATIENCE: Duration = Duration::from_secs(30);

fn subject(text: &str) -> Subject {
    Subject::from_trusted(text)
}

fn work_log() -> LogSpec {
    LogSpec { work_queue: true, ..log_spec("WORK", &["work.>"]) }
}

async fn connect(server: &NatsServer) -> Fabric {
    let config = NatsConfig { request_timeout: Duration::from_secs(1), ..NatsConfig::new(server.url()) };
    Nats::connect(config).await.expect("connects")
}

async fn state(fabric: &Fabric, is: impl FnMut(&BusState) -> bool) -> BusState {
    let mut state = fabric.bus.state();
    *timeout(PATIENCE, state.wait_for(is)).await.expect("the state changes").expect("the bus lives")
}

async fn away(fabric: &Fabric) {
    state(fabric, |state| *state == BusState::Away).await;
}

async fn heard(subscription: &mut Subscription) -> Heard {
    timeout(PATIENCE, subscription.next()).await.expect("it is heard").expect("the bus is open")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_every_call_is_an_error_at_once() {
    let mut server = NatsServer::start().await.expect("starts");
    let fabric = connect(&server).await;
    fabric.log.ensure(&work_log()).await.expect("makes the log");
    let spec = ConsumerSpec {
        log: "WORK".into(),
        name: "worker".into(),
        filter: subject("work.a"),
        ack_wait: Duration::from_secs(30),
    };
    let consumer = fabric.log.consumer(&spec).await.expect("makes the consumer");
    server.kill().await.expect("is killed");
    away(&fabric).await;
    let (at, nothing) = (subject("work.a"), Bytes::new);
    let began = Instant::now();
    for _ in 0..10_000 {
        let refused = fabric.bus.publish(&at, nothing()).await;
        assert!(matches!(refused, Err(BusError::Away)), "{refused:?}");
    }
    let errors = [
        fabric.bus.publish_with_reply(&at, &at, nothing()).await.err(),
        fabric.bus.subscribe(&at, None).await.err(),
        fabric.bus.request(&at, nothing(), PATIENCE).await.err(),
        fabric.bus.gather(&at, nothing(), 1, PATIENCE).await.err(),
        fabric.log.ensure(&work_log()).await.err(),
        fabric.log.append(&at, Some("id"), nothing()).await.err(),
        fabric.log.read("WORK", &at, 1, 1).await.err(),
        fabric.log.last("WORK", &at).await.err(),
        fabric.log.consumer(&spec).await.err(),
        consumer.fetch(1, PATIENCE).await.err(),
        fabric.kv.get("key").await.err(),
        fabric.kv.entries("key").await.err(),
        fabric.kv.put("key", nothing(), None).await.err(),
        fabric.kv.compare_and_set("key", 0, nothing(), None).await.err(),
        fabric.kv.delete("key").await.err(),
        fabric.kv.watch("key").await.err(),
    ];
    for (which, error) in errors.into_iter().enumerate() {
        assert!(matches!(error, Some(BusError::Away)), "call {which}: {error:?}");
    }
    assert!(began.elapsed() < PATIENCE / 3, "errors at once, after {:?}", began.elapsed());

    // Nothing of what was refused arrives later.
    server.restart().await.expect("starts again");
    assert_eq!(state(&fabric, |state| matches!(state, BusState::Connected(_))).await, BusState::Connected(2));
    assert_eq!(fabric.log.last("WORK", &at).await.expect("reads"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_under_way_end_when_the_server_dies() {
    let mut server = NatsServer::start().await.expect("starts");
    let fabric = connect(&server).await;
    fabric.log.ensure(&work_log()).await.expect("makes the log");
    let spec = ConsumerSpec {
        log: "WORK".into(),
        name: "worker".into(),
        filter: subject("work.a"),
        ack_wait: Duration::from_secs(30),
    };
    let consumer = fabric.log.consumer(&spec).await.expect("makes the consumer");
    let mut asked = fabric.bus.subscribe(&subject("ask"), None).await.expect("subscribes");
    let bus = fabric.bus.clone();
    let question = tokio::spawn(async move { bus.request(&subject("ask"), Bytes::new(), 20 * PATIENCE).await });
    let fetching = tokio::spawn(async move { consumer.fetch(1, 20 * PATIENCE).await });
    assert!(matches!(heard(&mut asked).await, Heard::Message(_)));
    server.kill().await.expect("is killed");
    let question = timeout(PATIENCE, question).await.expect("it ends").expect("no panic");
    assert!(matches!(question, Err(BusError::Away)), "{question:?}");
    let fetched = timeout(PATIENCE, fetching).await.expect("it ends").expect("no panic");
    assert!(matches!(fetched, Err(BusError::Away)), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_loses_nothing_that_was_appended_and_every_listener_is_told() {
    let mut server = NatsServer::start().await.expect("starts");
    let fabric = connect(&server).await;
    fabric.log.ensure(&work_log()).await.expect("makes the log");
    let mut listeners = Vec::new();
    for at in ["live.a", "live.*", "live.>"] {
        listeners.push(fabric.bus.subscribe(&subject(at), None).await.expect("subscribes"));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (fabric, stop) = (fabric.clone(), stop.clone());
        writers.spawn(async move {
            let (mut acked, mut refused) = (Vec::new(), 0);
            for at in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let body = format!("{writer}-{at}");
                let _ = fabric.bus.publish(&subject("live.a"), body.clone().into()).await;
                match fabric.log.append(&subject("work.a"), Some(&body), body.clone().into()).await {
                    Ok(appended) => acked.push((appended.offset, body)),
                    Err(BusError::Away | BusError::Timeout(_)) => {
                        refused += 1;
                        state(&fabric, |state| matches!(state, BusState::Connected(_))).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            (acked, refused)
        });
    }
    for round in 0..3_u64 {
        // In the middle: each time after some have been stored.
        let before = fabric.log.last("WORK", &subject("work.a")).await.expect("reads");
        while fabric.log.last("WORK", &subject("work.a")).await.expect("reads") < before + 100 {}
        server.kill().await.expect("is killed");
        away(&fabric).await;
        server.restart().await.expect("starts again");
        let again = state(&fabric, |state| matches!(state, BusState::Connected(_))).await;
        assert_eq!(again, BusState::Connected(round + 2));
    }
    stop.store(true, Ordering::SeqCst);
    let (mut acked, mut refused) = (BTreeSet::new(), 0);
    while let Some(writer) = timeout(PATIENCE, writers.join_next()).await.expect("writers end") {
        let (some, times) = writer.expect("no panic");
        acked.extend(some);
        refused += times;
    }
    assert!(refused >= 3, "the breaks were felt: {refused}");
    let stored = fabric.log.read("WORK", &subject("work.a"), 1, 1_000_000).await.expect("reads");
    let stored: Vec<_> = stored.iter().map(|s| (s.offset, String::from_utf8_lossy(&s.payload).into_owned())).collect();
    let there: BTreeSet<_> = stored.iter().cloned().collect();
    let missing: Vec<_> = acked.difference(&there).collect();
    assert!(missing.is_empty(), "{} acked, missing {missing:?}", acked.len());
    let bodies: BTreeSet<_> = stored.iter().map(|(_, body)| body).collect();
    assert_eq!(bodies.len(), stored.len(), "nothing is stored twice");

    // Subscriptions go on by themselves and each was told of each break.
    fabric.bus.publish(&subject("live.a"), "end".into()).await.expect("publishes");
    for listener in &mut listeners {
        let mut lost = 0;
        loop {
            match heard(listener).await {
                Heard::Message(message) if message.payload == "end" => break,
                Heard::Message(_) => {}
                Heard::Lost(count) => {
                    assert_eq!(count, 0, "how many is not known");
                    lost += 1;
                }
            }
        }
        assert_eq!(lost, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_and_watches_go_on_after_a_break() {
    let mut server = NatsServer::start().await.expect("starts");
    let fabric = connect(&server).await;
    fabric.log.ensure(&work_log()).await.expect("makes the log");
    let spec = ConsumerSpec {
        log: "WORK".into(),
        name: "worker".into(),
        filter: subject("work.a"),
        ack_wait: Duration::from_secs(2),
    };
    let consumer = fabric.log.consumer(&spec).await.expect("makes the consumer");
    fabric.log.append(&subject("work.a"), None, "x".into()).await.expect("appends");
    let mut events = fabric.kv.watch("node.").await.expect("watches");
    fabric.kv.put("node.1", "before".into(), None).await.expect("puts");
    let taken = consumer.fetch(1, PATIENCE).await.expect("fetches");
    server.kill().await.expect("is killed");
    away(&fabric).await;
    let unsettled = taken[0].ack().await;
    assert!(matches!(unsettled, Err(BusError::Away)), "{unsettled:?}");
    server.restart().await.expect("starts again");
    state(&fabric, |state| matches!(state, BusState::Connected(_))).await;
    fabric.kv.put("node.2", "after".into(), None).await.expect("puts");
    for expected in ["node.1", "node.2"] {
        let event = timeout(PATIENCE, events.recv()).await.expect("it is heard").expect("the watch goes on");
        assert_eq!(event.key, expected);
    }
    let again = consumer.fetch(1, PATIENCE).await.expect("fetches");
    assert_eq!(&again[0].payload[..], b"x");
    // A server that is killed may not yet have written down that it had given the message out.
    assert!((1..=2).contains(&again[0].attempt), "{again:?}");
    again[0].ack().await.expect("acks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_empty_is_given_its_logs_consumers_and_bucket_again() {
    let mut server = NatsServer::start().await.expect("starts");
    let fabric = connect(&server).await;
    fabric.log.ensure(&work_log()).await.expect("makes the log");
    let spec = ConsumerSpec {
        log: "WORK".into(),
        name: "worker".into(),
        filter: subject("work.a"),
        ack_wait: Duration::from_secs(30),
    };
    let consumer = fabric.log.consumer(&spec).await.expect("makes the consumer");
    fabric.kv.put("key", "before".into(), None).await.expect("puts");
    server.stop().await.expect("stops");
    away(&fabric).await;
    std::fs::remove_dir_all(server.folder().join("data")).expect("removes the data");
    server.restart().await.expect("starts again");
    state(&fabric, |state| matches!(state, BusState::Connected(_))).await;
    fabric.log.append(&subject("work.a"), None, "x".into()).await.expect("the log is there again");
    let work = consumer.fetch(1, PATIENCE).await.expect("the consumer is there again");
    assert_eq!(&work[0].payload[..], b"x");
    assert_eq!(fabric.kv.get("key").await.expect("the bucket is there again"), None);
    fabric.kv.put("key", "after".into(), None).await.expect("puts");
}
