//! Who lives.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    sync::broadcast::{Receiver, error::TryRecvError},
    time::{Instant, sleep},
};
use trestle_bus::BusState;
use trestle_cluster::{ClusterConfig, NodeChange, Nodes, NodesError};
use trestle_wire::v1;

use crate::{PATIENCE, Two, config, connect, node, on_both, open, soon, until};

on_both! {
    nodes_see_each_other_come_and_leave
    what_a_node_says_of_itself_is_known
    a_node_that_dies_is_gone_after_the_timeout
    a_name_belongs_to_one_process
    a_node_that_crashed_starts_again_at_once
    a_node_whose_name_was_taken_says_so_and_is_silent
}

async fn change(changes: &mut Receiver<NodeChange>) -> NodeChange {
    soon(changes.recv()).await.expect("a change")
}

fn names(nodes: &Nodes) -> Vec<String> {
    nodes.alive().into_iter().map(|info| info.node).collect()
}

async fn nodes_see_each_other_come_and_leave(two: Two) {
    let a = open(&two.a, "a", config()).await.expect("starts");
    let mut changes = a.changes();
    assert_eq!(names(&a), ["a"]);
    let b = open(&two.b, "b", config()).await.expect("starts");
    assert_eq!(names(&b), ["a", "b"], "known at once");
    assert_eq!(change(&mut changes).await, NodeChange::Up(node("b")));
    assert!(a.lives(&node("b")) && a.lives(&node("a")) && !a.lives(&node("c")));
    let began = Instant::now();
    b.leave().await.expect("leaves");
    assert_eq!(change(&mut changes).await, NodeChange::Down(node("b")));
    assert!(began.elapsed() < config().node_timeout, "a leave is not waited out");
    assert_eq!(names(&a), ["a"]);
}

async fn what_a_node_says_of_itself_is_known(two: Two) {
    let a = open(&two.a, "a", config()).await.expect("starts");
    let b = open(&two.b, "b", config()).await.expect("starts");
    b.set_load(7, 3);
    b.set_draining();
    let info = until(async || a.alive().into_iter().find(|info| info.node == "b" && info.draining)).await;
    assert_eq!((info.active, info.pending, &*info.version, &*info.endpoint), (7, 3, "1.2.3", "ws://b.example/ws"));
    assert_eq!(info.roles, ["edge"]);
    assert!(info.started.is_some() && info.heartbeat.is_some());
}

async fn a_node_that_dies_is_gone_after_the_timeout(two: Two) {
    let a = open(&two.a, "a", config()).await.expect("starts");
    let b = open(&two.b, "b", config()).await.expect("starts");
    let mut changes = a.changes();
    until(async || a.lives(&node("b")).then_some(())).await;
    while changes.try_recv().is_ok() {}
    drop(b);
    let died = Instant::now();
    assert_eq!(change(&mut changes).await, NodeChange::Down(node("b")));
    let bound = config().node_timeout + Duration::from_secs(2);
    assert!(died.elapsed() <= bound, "{:?}", died.elapsed());
}

async fn a_name_belongs_to_one_process(two: Two) {
    let first = open(&two.a, "a", config()).await.expect("starts");
    let error = open(&two.b, "a", config()).await.err().expect("the name is taken");
    assert!(matches!(error, NodesError::Taken { .. }));
    let said = error.to_string();
    assert!(
        said.starts_with("node: ") && said.contains("ws://a.example/ws") && said.contains("another name"),
        "{said}"
    );
    assert!(!*first.displaced().borrow());
    first.leave().await.expect("leaves");
    drop(first);
    open(&two.b, "a", config()).await.expect("the name is free");
}

async fn a_node_that_crashed_starts_again_at_once(two: Two) {
    // Far longer than the answer of a living one is waited for.
    let slow = || ClusterConfig { node_timeout: Duration::from_secs(8), ..config() };
    let a = open(&two.a, "a", slow()).await.expect("starts");
    let crashed = open(&two.b, "b", slow()).await.expect("starts");
    let mut changes = a.changes();
    until(async || a.lives(&node("b")).then_some(())).await;
    while changes.try_recv().is_ok() {}
    drop(crashed); // its key stays
    let began = Instant::now();
    let again = open(&two.b, "b", slow()).await.expect("starts");
    assert!(began.elapsed() < slow().node_timeout, "{:?}", began.elapsed());
    assert_eq!(change(&mut changes).await, NodeChange::Down(node("b")), "whoever it was is gone");
    assert_eq!(change(&mut changes).await, NodeChange::Up(node("b")));
    assert!(!*again.displaced().borrow());
}

async fn a_node_whose_name_was_taken_says_so_and_is_silent(two: Two) {
    let a = open(&two.a, "a", config()).await.expect("starts");
    // As a process of that name does when it starts while this one is cut off.
    let other = v1::NodeInfo {
        node: "a".into(),
        started: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        ..v1::NodeInfo::default()
    };
    let value = Bytes::from(prost::Message::encode_to_vec(&other));
    two.b.kv.put("node.a", value.clone(), None).await.expect("is stored");
    soon(a.displaced().wait_for(|displaced| *displaced)).await.expect("is told");
    let entry = two.b.kv.get("node.a").await.expect("reads").expect("is there");
    assert_eq!(entry.value, value, "the other's word stands");
    a.leave().await.expect("nothing to leave");
    assert!(two.b.kv.get("node.a").await.expect("reads").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_dead_because_the_bus_was_away() {
    let mut server = trestle_testkit::NatsServer::start().await.expect("starts");
    let (one, other) = (connect(&server).await, connect(&server).await);
    let a = open(&one, "a", config()).await.expect("starts");
    let _b = open(&other, "b", config()).await.expect("starts");
    until(async || a.lives(&node("b")).then_some(())).await;
    let mut changes = a.changes();
    while changes.try_recv().is_ok() {}
    server.kill().await.expect("is killed");
    soon(one.bus.state().wait_for(|state| *state == BusState::Away)).await.expect("the bus lives");
    sleep(config().node_timeout + Duration::from_secs(3)).await; // longer than a silent node lives
    assert!(a.lives(&node("b")));
    server.restart().await.expect("starts again");
    soon(one.bus.state().wait_for(|state| *state != BusState::Away)).await.expect("the bus lives");
    let back = std::time::SystemTime::now();
    // Heard anew, after the key has expired or not.
    until(async || {
        let info = a.alive().into_iter().find(|info| info.node == "b")?;
        (std::time::SystemTime::try_from(info.heartbeat?).ok()? > back).then_some(())
    })
    .await;
    assert_eq!(changes.try_recv(), Err(TryRecvError::Empty), "and was never gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_died_while_the_bus_was_away_is_found_out() {
    let mut server = trestle_testkit::NatsServer::start().await.expect("starts");
    let (one, other) = (connect(&server).await, connect(&server).await);
    let a = open(&one, "a", config()).await.expect("starts");
    let b = open(&other, "b", config()).await.expect("starts");
    until(async || a.lives(&node("b")).then_some(())).await;
    server.kill().await.expect("is killed");
    soon(one.bus.state().wait_for(|state| *state == BusState::Away)).await.expect("the bus lives");
    drop(b);
    server.restart().await.expect("starts again");
    soon(one.bus.state().wait_for(|state| *state != BusState::Away)).await.expect("the bus lives");
    let back = Instant::now();
    until(async || (!a.lives(&node("b"))).then_some(())).await;
    assert!(back.elapsed() < config().node_timeout + Duration::from_secs(2) && back.elapsed() < PATIENCE);
}
