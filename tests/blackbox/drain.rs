//! A node leaves in order: its clients go on elsewhere, and nothing is lost.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, timeout};
use trestle_client::{Client, Event, Options, Outgoing, State, Subscription};
use trestle_testkit::Gateway;

use crate::{
    sessions::trestle,
    support::{LOOK_EVERY, PATIENCE, Ws, get, http, metric, post, until},
    two::Two,
};

/// Clients that the node has which is to leave.
const CLIENTS: usize = 6;

fn url(gateway: &Gateway) -> String {
    format!("ws://{}/ws", gateway.listen())
}

/// A client that knows both nodes and begins at `one`.
async fn at_one(nodes: &Two) -> (Client, Subscription) {
    let options = Options { endpoints: vec![url(&nodes.two)], ..Options::default() };
    loop {
        let client = Client::connect(&url(&nodes.one), options.clone()).await.expect("connected");
        if client.session().node == "one" {
            let room = client.subscribe("room:1").await.expect("subscribed");
            return (client, room);
        }
        client.close().await;
    }
}

/// Reads until the comment `last`; each number comes once, in order, and no gap.
async fn count(room: &mut Subscription, last: u64) {
    for number in 1..=last {
        match timeout(PATIENCE, room.next()).await.expect("in time") {
            Some(Event::Message(envelope)) => assert_eq!(&envelope.payload[2..], number.to_string().as_bytes()),
            other => panic!("not comment {number}: {other:?}"),
        }
    }
}

/// chat.v1.Comment { text: number }
fn comment(number: u64) -> Outgoing {
    let text = number.to_string();
    Outgoing::new("chat.v1.Comment", [&[0x0a, text.len() as u8], text.as_bytes()].concat())
}

#[tokio::test]
async fn the_clients_of_a_drained_node_go_on_elsewhere_and_miss_nothing() {
    let mut nodes = Two::start().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(at_one(&nodes).await);
    }
    let speaker = Client::connect(&url(&nodes.two), Options::default()).await.expect("connected");
    let (stop, mut stopped) = tokio::sync::watch::channel(false);
    let talk = tokio::spawn(async move {
        let mut last = 0;
        while !*stopped.borrow_and_update() {
            last += 1;
            speaker.publish("room:1", comment(last)).await.expect("published");
        }
        last
    });
    let (done, said) = trestle(&nodes.two, &["drain", "one"]).await;
    assert!(done && said.contains("one drains"), "{said}");
    assert!(nodes.one.process().ended().await.expect("it ends").success());
    stop.send_replace(true);
    let last = timeout(PATIENCE, talk).await.expect("in time").expect("no panic");
    for (client, room) in &mut clients {
        count(room, last).await;
        assert_eq!(*client.state().borrow(), State::Connected { resumed: true });
        assert_eq!(client.session().node, "two");
    }
    assert_eq!(metric(&nodes.two, "trestle_edge_resumes_total{outcome=\"handed_over\"}").await, CLIENTS as f64);
    println!("drain: {CLIENTS} clients moved under {last} messages each, none lost, none twice");
}

#[tokio::test]
async fn notices_are_paced_and_say_where_to_go() {
    const MANY: usize = 30;
    let mut nodes = Two::with("[edge]\nendpoint = \"wss://edge.example/ws\"\nleave_rate = 20\n").await;
    let mut clients = Vec::new();
    for _ in 0..MANY {
        clients.push(Ws::connect(&nodes.one).await);
    }
    let (status, answer) = post(&nodes.two, "/v1/drain", &json!({"node": "one"})).await;
    assert_eq!((status, &answer["node"]["node"]), (200, &json!("one")), "{answer}");
    let wait = |mut ws: Ws| async move {
        let frame = ws.next().await;
        assert_eq!(frame["draining"]["endpoint"], "wss://edge.example/ws", "{frame}");
        (Instant::now(), ws)
    };
    let told = futures_util::future::join_all(clients.into_iter().map(wait)).await;
    let times = || told.iter().map(|(at, _)| *at);
    let spread = times().max().expect("some") - times().min().expect("some");
    // 30 clients at 20 a second.
    assert!(spread >= Duration::from_secs(1), "all were told within {spread:?}");

    assert_eq!(http(&nodes.one, "GET", "/readyz", "", "").await.0, 503);
    let seen = async {
        loop {
            let (_, list) = get(&nodes.two, "/v1/nodes").await;
            let one = list["nodes"].as_array().into_iter().flatten().find(|node| node["node"] == "one").cloned();
            if one.is_none_or(|one| one["draining"] == true) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, seen).await.expect("others know that it drains");
    // They do not go, and are closed at the end.
    for (_, ws) in told {
        let (_, end) = ws.end().await;
        assert_eq!(end.map(|(code, _)| code), Some(1012));
    }
    assert!(nodes.one.process().ended().await.expect("it ends").success());
}

#[tokio::test]
async fn a_node_with_more_than_its_share_sends_some_away() {
    const MANY: usize = 30;
    let nodes = Two::start().await;
    let mut clients = Vec::new();
    for _ in 0..MANY {
        clients.push(Ws::connect(&nodes.one).await);
    }
    // What a node has is told with its heartbeat.
    let known = async {
        loop {
            let (_, list) = get(&nodes.two, "/v1/nodes").await;
            let nodes = list["nodes"].as_array().expect("a list");
            if nodes.iter().any(|node| node["node"] == "one" && node["active"] == MANY) {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, known).await.expect("two hears of one's clients");
    let (done, said) = trestle(&nodes.two, &["rebalance", "--json"]).await;
    assert!(done, "{said}");
    let answer: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let asked: Vec<_> = answer["nodes"].as_array().expect("a list").iter().map(|node| &node["asked"]).collect();
    assert!(asked.contains(&&json!(MANY / 2)), "{answer}");

    // Half of them are told, and go.
    let go = |mut ws: Ws| {
        let two = &nodes.two;
        async move {
            if !ws.next().await["draining"].is_object() {
                return ws;
            }
            let (new, connected) = Ws::resume(two, &ws.stay()).await;
            assert_eq!(connected["resumed"], true, "{connected}");
            new
        }
    };
    let mut going = clients.into_iter().map(|ws| Box::pin(go(ws))).collect::<Vec<_>>();
    let mut gone = Vec::new();
    while gone.len() < MANY / 2 {
        let (ws, _, rest) = timeout(PATIENCE, futures_util::future::select_all(going)).await.expect("in time");
        gone.push(ws);
        going = rest;
    }
    assert_eq!(metric(&nodes.two, "trestle_edge_connections").await, (MANY / 2) as f64);
    until(&nodes.one, "trestle_edge_connections", |connections| connections == (MANY / 2) as f64).await;
}
