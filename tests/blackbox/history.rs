//! What was said on a channel before, and what waits in an inbox.

use serde_json::{Value, json};
use trestle_testkit::{Gateway, NatsServer};

use crate::{
    support::{EXAMPLES, Ws, comment, gateway, number, push, quiet},
    two::{Two, configured},
};

/// Publishes `count` comments on `room:1`: "1", "2", ...
async fn talk(gateway: &Gateway, count: u64) -> Ws {
    let mut ws = Ws::connect(gateway).await;
    for number in 1..=count {
        ws.publish("room:1", &number.to_string()).await;
    }
    ws
}

/// Asks for a page of `room:1`; its offsets, and whether there is more.
async fn page(ws: &mut Ws, mut ask: Value) -> (Vec<u64>, bool) {
    ask["channel"] = json!("room:1");
    let answer = ws.ask(json!({"id": 3, "history": ask})).await;
    let page = &answer["history"];
    assert_eq!((&page["channel"], number(&page["offset"])), (&json!("room:1"), 10), "{answer}");
    let messages = page["messages"].as_array().cloned().unwrap_or_default();
    for message in &messages {
        assert_eq!(message["payload"]["text"], message["offset"], "{message}");
    }
    (messages.iter().map(|message| number(&message["offset"])).collect(), page["more"] == true)
}

#[tokio::test]
async fn a_history_is_read_in_pages_both_ways() {
    let gateway = quiet().await;
    let mut ws = talk(&gateway, 10).await;
    assert_eq!(page(&mut ws, json!({"limit": 3})).await, (vec![8, 9, 10], true), "the latest, oldest first");
    assert_eq!(page(&mut ws, json!({"before": "8", "limit": 3})).await, (vec![5, 6, 7], true));
    assert_eq!(page(&mut ws, json!({"before": "3", "limit": 3})).await, (vec![1, 2], false));
    assert_eq!(page(&mut ws, json!({"after": "0", "limit": 4})).await, (vec![1, 2, 3, 4], true));
    assert_eq!(page(&mut ws, json!({"after": "8"})).await, (vec![9, 10], false));
    assert_eq!(page(&mut ws, json!({"after": "10"})).await, (vec![], false));
    let answer = ws.ask(json!({"id": 4, "history": {"channel": "live:1"}})).await;
    assert_eq!(answer["error"]["field"], "history.channel", "a channel without a history: {answer}");
}

#[tokio::test]
async fn a_history_whose_server_lost_its_data_is_gone_on_with_after_a_gap() {
    let mut nats = NatsServer::start().await.expect("nats-server starts");
    let gateway = gateway(&["--bus", &nats.url(), "--schemas", EXAMPLES]).await;
    let mut ws = Ws::on(&gateway, "room:1").await;
    for number in 1..=5 {
        ws.publish("room:1", &number.to_string()).await;
    }
    ws.texts(5).await;
    nats.kill().await.expect("is killed");
    tokio::fs::remove_dir_all(nats.folder().join("data")).await.expect("its data is gone");
    nats.restart().await.expect("starts again");
    let gap = loop {
        let frame = ws.next().await;
        if frame["gap"]["channel"] == "room:1" {
            break frame["gap"].clone();
        }
    };
    assert_eq!((number(&gap["from"]), number(&gap["to"]), &gap["reason"]), (6, 0, &json!("FAILOVER")), "{gap}");
    let mut behind = Ws::connect(&gateway).await;
    let subscribed = behind.subscribe(json!({"channel": "room:1", "offset": "5"})).await;
    assert_eq!((&subscribed["recovered"], number(&subscribed["offset"])), (&json!(false), 0), "{subscribed}");
    assert_eq!(behind.next().await["gap"]["reason"], "FAILOVER");
    ws.publish("room:1", "anew").await;
    for ws in [&mut ws, &mut behind] {
        let delivery = ws.delivery().await;
        assert_eq!((number(&delivery["offset"]), number(&delivery["prevOffset"])), (1, 0), "{delivery}");
    }
}

#[tokio::test]
async fn a_listener_begins_where_it_wants() {
    let gateway = quiet().await;
    let mut speaker = talk(&gateway, 5).await;
    let before = std::time::SystemTime::now();
    for number in 6..=10 {
        speaker.publish("room:1", &number.to_string()).await;
    }
    let since = prost_types::Timestamp::from(before).to_string();
    for (from, first) in [
        (json!({"last": 3}), 8),
        (json!({"last": 1000}), 1),
        (json!({"offset": "5"}), 6),
        (json!({"offset": "0"}), 1),
        (json!({"offset": "10"}), 11),
        (json!({"since": since}), 6),
    ] {
        let mut ws = Ws::connect(&gateway).await;
        let mut subscribe = from.clone();
        subscribe["channel"] = json!("room:1");
        let subscribed = ws.subscribe(subscribe).await;
        assert_eq!(
            (&subscribed["recovered"], number(&subscribed["offset"])),
            (&json!(true), 10),
            "{from}: {subscribed}"
        );
        let missed = ws.texts(11_usize.saturating_sub(first)).await;
        let expected: Vec<_> = (first..=10).map(|number| format!("room:1 {number}")).collect();
        assert_eq!(missed, expected, "{from}");
        ws.close().await;
    }
    let mut ws = Ws::connect(&gateway).await;
    ws.subscribe(json!({"channel": "room:1", "last": 1})).await;
    assert_eq!(ws.texts(1).await, ["room:1 10"]);
    speaker.publish("room:1", "new").await;
    assert_eq!(ws.texts(1).await, ["room:1 new"], "and then what is new");
}

#[tokio::test]
async fn what_a_history_no_longer_has_is_told() {
    let gateway = configured("[channels.namespaces.room]\nhistory = { size = 4, ttl = \"5m\" }\n").await;
    talk(&gateway, 10).await;
    let mut ws = Ws::connect(&gateway).await;
    let subscribed = ws.subscribe(json!({"channel": "room:1", "offset": "3"})).await;
    assert_eq!((&subscribed["recovered"], number(&subscribed["offset"])), (&json!(false), 10), "{subscribed}");
    let gap = ws.next().await;
    let expected = json!({"channel": "room:1", "from": "4", "to": "6", "reason": "RETENTION"});
    assert_eq!(gap["gap"], expected, "{gap}");
    assert_eq!(ws.texts(4).await, ["room:1 7", "room:1 8", "room:1 9", "room:1 10"]);
}

/// Pushes a comment into ann's inbox; its offset.
async fn post(gateway: &Gateway, text: &str) -> u64 {
    let (status, answer) = push(gateway, &json!({"target": {"inbox": "ann"}, "message": comment(text)})).await;
    assert_eq!((status, &answer["report"]["queued"]), (200, &json!(1)), "{answer}");
    number(&answer["report"]["offset"])
}

/// A device of ann's, with its inbox open.
async fn device(gateway: &Gateway) -> Ws {
    let mut ws = Ws::of(gateway, &json!({"sub": "ann"})).await;
    let subscribed = ws.subscribe(json!({"channel": "inbox"})).await;
    assert_eq!(subscribed["channel"], "inbox:ann", "{subscribed}");
    ws
}

async fn ack(ws: &mut Ws, offset: u64) {
    let answer = ws.ask(json!({"id": 8, "ack": {"inboxOffset": offset.to_string()}})).await;
    assert!(answer["accepted"].is_object(), "{answer}");
}

/// A user's inbox, her first device being at one node and the others at another.
async fn an_inbox(first: &Gateway, others: &Gateway) {
    for text in ["one", "two", "three"] {
        post(others, text).await;
    }
    let mut phone = device(first).await;
    assert_eq!(
        phone.texts(3).await,
        ["inbox:ann one", "inbox:ann two", "inbox:ann three"],
        "what came while she was away"
    );
    ack(&mut phone, 2).await;
    let mut laptop = device(others).await;
    assert_eq!(laptop.texts(1).await, ["inbox:ann three"], "what is done on one device is done on all");
    assert_eq!(post(first, "four").await, 4);
    for device in [&mut phone, &mut laptop] {
        assert_eq!(device.texts(1).await, ["inbox:ann four"]);
    }
    ack(&mut laptop, 4).await;
    ack(&mut phone, 3).await; // which takes nothing back
    post(first, "five").await;
    let mut tablet = device(first).await;
    assert_eq!(tablet.texts(1).await, ["inbox:ann five"]);
    let mut all = Ws::of(others, &json!({"sub": "ann"})).await;
    all.subscribe(json!({"channel": "inbox", "offset": "0"})).await;
    assert_eq!(all.texts(5).await, ["one", "two", "three", "four", "five"].map(|text| format!("inbox:ann {text}")));
}

#[tokio::test]
async fn an_inbox_keeps_what_no_device_has_acked() {
    let gateway = configured("").await;
    an_inbox(&gateway, &gateway).await;
    // It is the user's own.
    let mut bob = Ws::of(&gateway, &json!({"sub": "bob"})).await;
    bob.subscribe(json!({"channel": "inbox", "offset": "0"})).await;
    assert_eq!(bob.so_far().await, [json!(null); 0]);
    let mut nobody = Ws::connect(&gateway).await;
    let answer = nobody.ask(json!({"id": 2, "subscribe": {"channel": "inbox"}})).await;
    assert!(answer["error"].is_object(), "an anonymous client has none: {answer}");
}

#[tokio::test]
async fn an_inbox_is_the_same_on_all_nodes() {
    let Two { one, two, nats: _nats } = Two::start().await;
    an_inbox(&one, &two).await;
}
