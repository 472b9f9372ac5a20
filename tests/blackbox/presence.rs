//! Who is on a channel, over two nodes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    support::{LOOK_EVERY, PATIENCE, Ws, get},
    two::Two,
};

/// How long a node may say nothing before it is gone, in these tests.
const NODE_TIMEOUT: Duration = Duration::from_secs(3);
/// Others know it at most this much later.
const LATER_MAX: Duration = Duration::from_secs(2);

const QUICK: &str = "[cluster]\nnode_timeout = \"3s\"\nheartbeat_interval = \"1s\"\npresence_linger = \"1s\"\n\
                     presence_interval = \"50ms\"\n";

/// Sessions and users.
fn counts(value: &Value) -> (u64, u64) {
    (value["sessions"].as_u64().unwrap_or(0), value["users"].as_u64().unwrap_or(0))
}

/// Users in a list of members, in order.
fn users(members: &Value) -> Vec<String> {
    let member = |member: &Value| member["user"].as_str().unwrap_or_default().to_owned();
    let mut users: Vec<_> = members.as_array().into_iter().flatten().map(member).collect();
    users.sort();
    users
}

async fn ask(ws: &mut Ws) -> Value {
    let mut answer = ws.ask(json!({"id": 4, "presence": {"channel": "room:1"}})).await;
    assert!(answer["presence"].is_object(), "{answer}");
    answer["presence"].take()
}

/// The next event about `room:1`.
async fn event(ws: &mut Ws) -> Value {
    loop {
        let mut frame = ws.next().await;
        if frame["presenceEvent"].is_object() {
            assert_eq!(frame["presenceEvent"]["channel"], "room:1");
            return frame["presenceEvent"].take();
        }
    }
}

/// Asks until so many sessions are there.
async fn until(ws: &mut Ws, sessions: u64) -> Value {
    let look = async {
        loop {
            let state = ask(ws).await;
            if counts(&state).0 == sessions {
                return state;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("in time")
}

async fn here(gateway: &trestle_testkit::Gateway, user: &str) -> Ws {
    let mut ws = Ws::of(gateway, &json!({"sub": user})).await;
    ws.subscribe(json!({"channel": "room:1"})).await;
    ws
}

#[tokio::test]
async fn who_comes_and_goes_is_told_on_all_nodes() {
    let nodes = Two::with(QUICK).await;
    let mut ann = Ws::of(&nodes.one, &json!({"sub": "ann"})).await;
    ann.subscribe(json!({"channel": "room:1", "presence": true})).await;
    until(&mut ann, 1).await;
    let bob = here(&nodes.two, "bob").await;
    let came = loop {
        let came = event(&mut ann).await;
        if users(&came["joined"]).contains(&"bob".to_owned()) {
            break came;
        }
    };
    assert_eq!(counts(&came), (2, 2), "{came}");
    assert_eq!(users(&came["left"]), [""; 0], "{came}");
    let again = here(&nodes.one, "bob").await;
    assert_eq!(counts(&event(&mut ann).await), (3, 2), "a user may have two sessions");

    let state = until(&mut ann, 3).await;
    assert_eq!((counts(&state), users(&state["members"])), ((3, 2), ["ann", "bob", "bob"].map(str::to_owned).to_vec()));
    assert_eq!(state["complete"], true, "{state}");
    let (status, seen) = get(&nodes.two, "/v1/presence/room:1").await;
    assert_eq!((status, counts(&seen["presence"])), (200, (3, 2)), "{seen}");

    // Whoever comes back at once was never away.
    let (back, connected) = Ws::resume(&nodes.one, &bob.cut()).await;
    assert_eq!(connected["resumed"], true, "{connected}");
    back.close().await;
    again.close().await;
    let (mut left, mut last) = (Vec::new(), json!(null));
    while left.len() < 2 {
        last = event(&mut ann).await;
        assert_eq!(users(&last["joined"]), [""; 0], "{last}");
        left.extend(users(&last["left"]));
    }
    assert_eq!((left, counts(&last)), (vec!["bob".to_owned(), "bob".to_owned()], (1, 1)));

    let answer = ann.ask(json!({"id": 5, "presence": {"channel": "live:1"}})).await;
    assert!(answer["error"].is_object(), "a namespace without presence: {answer}");
}

#[tokio::test]
async fn a_node_that_is_killed_takes_its_members_with_it() {
    let mut nodes = Two::with(QUICK).await;
    let mut ann = Ws::of(&nodes.one, &json!({"sub": "ann"})).await;
    ann.subscribe(json!({"channel": "room:1", "presence": true})).await;
    let mut others = Vec::new();
    for user in ["bob", "cid", "dan"] {
        others.push(here(&nodes.two, user).await);
    }
    until(&mut ann, 4).await;
    let killed = Instant::now();
    nodes.two.kill().await.expect("killed");
    let mut left = Vec::new();
    while left.len() < 3 {
        left.extend(users(&event(&mut ann).await["left"]));
    }
    let took = killed.elapsed();
    left.sort();
    assert_eq!(left, ["bob", "cid", "dan"]);
    assert!(took <= NODE_TIMEOUT + LATER_MAX, "ghosts were there for {took:?}");
    assert_eq!(counts(&ask(&mut ann).await), (1, 1));
    println!("presence: ghosts of a killed node were gone after {took:.1?}, node_timeout being {NODE_TIMEOUT:?}");
}

#[tokio::test]
async fn who_comes_back_on_another_node_after_a_kill_is_there_all_the_time() {
    let mut nodes = Two::with(QUICK).await;
    let mut ann = Ws::of(&nodes.one, &json!({"sub": "ann"})).await;
    ann.subscribe(json!({"channel": "room:1", "presence": true})).await;
    let (bob, gone) = (here(&nodes.two, "bob").await, here(&nodes.two, "gone").await);
    until(&mut ann, 3).await;
    nodes.two.kill().await.expect("killed");
    let (mut bob, connected) = Ws::resume(&nodes.one, &bob.cut()).await;
    assert_eq!(connected["resumed"], true, "{connected}");
    let mut left = Vec::new();
    while left.is_empty() {
        left = users(&event(&mut ann).await["left"]);
    }
    assert_eq!(left, ["gone"]);
    let state = ask(&mut bob).await;
    assert_eq!((counts(&state), users(&state["members"])), ((2, 2), ["ann", "bob"].map(str::to_owned).to_vec()));
    drop(gone);
}
