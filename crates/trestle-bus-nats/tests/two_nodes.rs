//! Two nodes on one nats-server: what one does counts for the other.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::timeout;
use trestle_bus::{BusState, ConsumerSpec, Fabric, Heard, LogSpec, Subject, promise::log_spec};
use trestle_bus_nats::{Nats, NatsConfig};
use trestle_testkit::NatsServer;

const PATIENCE: Duration = Duration::from_secs(30);

fn subject(text: impl Into<String>) -> Subject {
    Subject::from_trusted(text.into())
}

async fn two_nodes() -> (NatsServer, Fabric, Fabric) {
    let server = NatsServer::start().await.expect("starts");
    let connect = || Nats::connect(NatsConfig::new(server.url()));
    let (one, other) = (connect().await.expect("connects"), connect().await.expect("connects"));
    (server, one, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_publishes_after_subscribe_has_returned_is_heard() {
    let (_server, one, other) = two_nodes().await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let (one, other) = (one.clone(), other.clone());
        tasks.spawn(async move {
            for at in 0..150 {
                let at = subject(format!("force.{task}.{at}"));
                let mut subscription = one.bus.subscribe(&at, None).await.expect("subscribes");
                other.bus.publish(&at, "first".into()).await.expect("publishes");
                let heard = timeout(PATIENCE, subscription.next()).await;
                assert!(matches!(heard, Ok(Some(Heard::Message(_)))), "{at}: {heard:?}");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the first message is heard");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_closes_leaves_its_work_to_the_other() {
    let (_server, one, other) = two_nodes().await;
    let spec = LogSpec { work_queue: true, ..log_spec("WORK", &["work.>"]) };
    let consumer = ConsumerSpec {
        log: "WORK".into(),
        name: "worker".into(),
        filter: subject("work.>"),
        ack_wait: Duration::from_secs(1),
    };
    one.log.ensure(&spec).await.expect("makes the log");
    other.log.ensure(&spec).await.expect("finds the log");
    let ours = one.log.consumer(&consumer).await.expect("makes the consumer");
    let theirs = other.log.consumer(&consumer).await.expect("finds the consumer");
    for at in 0..10 {
        one.log.append(&subject("work.a"), None, at.to_string().into()).await.expect("appends");
    }
    let taken = ours.fetch(5, PATIENCE).await.expect("fetches");
    taken[0].ack().await.expect("acks");
    one.bus.close().await;
    assert_eq!(*one.bus.state().borrow(), BusState::Closed);
    let mut done = BTreeSet::from([taken[0].payload.clone()]);
    while done.len() < 10 {
        for work in theirs.fetch(10, PATIENCE).await.expect("fetches") {
            work.ack().await.expect("acks");
            assert!(done.insert(work.payload.clone()), "what was acked does not come again");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_one_truth_for_both() {
    let (_server, one, other) = two_nodes().await;
    let mut events = other.kv.watch("node.").await.expect("watches");
    let revision = one.kv.put("node.1", "up".into(), Some(Duration::from_secs(60))).await.expect("puts");
    let event = timeout(PATIENCE, events.recv()).await.expect("it is heard").expect("the watch goes on");
    assert_eq!((event.key.as_str(), event.entry.map(|entry| entry.revision)), ("node.1", Some(revision)));
    assert_eq!(other.kv.compare_and_set("node.1", 0, "mine".into(), None).await.expect("answers"), None);
    let set = other.kv.compare_and_set("node.1", revision, "mine".into(), None).await.expect("answers");
    let there = one.kv.get("node.1").await.expect("reads").expect("is there");
    assert_eq!((&there.value[..], Some(there.revision)), (&b"mine"[..], set));
}
