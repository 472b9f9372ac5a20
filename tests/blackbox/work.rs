//! Messages to services: what `accepted` says is true, and nothing DURABLE or HANDLED is lost with an instance.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};
use trestle_wire::v1::{self, service_frame::Frame as Say};

use crate::{
    service::{Instance, envelope},
    support::{EXAMPLES, Ws, gateway, quiet},
    two::Two,
};

fn user(id: u32, name: &str) -> Value {
    json!({"id": id, "message": {"id": name, "messageType": "USER_CREATED", "payload": {"userId": name}}})
}

#[tokio::test]
async fn each_level_is_said_when_it_is_reached() {
    let gateway = quiet().await;
    let mut ws = Ws::connect(&gateway).await;
    // DURABLE: stored, although nobody is there to take it.
    let accepted = ws.ask(user(2, "u1")).await;
    assert_eq!(accepted, json!({"replyTo": 2, "accepted": {"level": "DURABLE"}}));
    // RECEIVED.
    let mut stock = Instance::attach(&gateway, "stock", &[], 8).await;
    let update =
        json!({"id": 3, "message": {"messageType": "INVENTORY_UPDATED", "payload": {"sku": "a", "change": -2}}});
    assert_eq!(ws.ask(update).await["accepted"]["level"], "RECEIVED");
    let delivery = stock.delivery().await;
    let payload = &envelope(&delivery).payload;
    assert!(payload.len() == 5 && payload.windows(3).any(|sku| sku == [0x0a, 1, b'a']), "{payload:x?}");
    // HANDLED: not before the service's ack.
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let paid = json!({"id": 4, "message": {"messageType": "ORDER_PAID", "version": "1.0",
        "payload": {"orderId": "o1", "cents": "5"}}});
    ws.send(paid).await;
    let delivery = billing.delivery().await;
    assert_eq!(ws.ask(json!({"id": 5, "ping": {}})).await["replyTo"], 5, "no answer before the ack");
    billing.ack(delivery.delivery_id).await;
    assert_eq!(ws.answer(&json!(4)).await["accepted"]["level"], "HANDLED");
    // And the first one waited for its service.
    let mut users = Instance::attach(&gateway, "users", &[], 8).await;
    assert_eq!(envelope(&users.delivery().await).id, "u1");
}

#[tokio::test]
async fn the_shorthand_is_a_message_and_says_nothing_but_errors() {
    let gateway = quiet().await;
    let mut users = Instance::attach(&gateway, "users", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    ws.send(json!({"messageType": "USER_CREATED", "version": "1.0", "payload": {"userId": "12345"}})).await;
    let delivery = users.delivery().await;
    assert_eq!(envelope(&delivery).message_type, "shop.v1.UserCreated");
    ws.send(json!({"messageType": "USER_CREATED", "version": "1.0", "payload": {"userId": 5}})).await;
    assert_eq!(ws.next().await["error"]["reason"], "malformed_payload");
}

#[tokio::test]
async fn two_versions_of_one_alias_are_served_side_by_side() {
    let gateway = quiet().await;
    let mut first = Instance::attach(&gateway, "billing", &["shop.v1.OrderPaid"], 8).await;
    let mut second = Instance::attach(&gateway, "billing", &["shop.v2.OrderPaid"], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    let paid =
        |version: &str, payload: Value| json!({"messageType": "ORDER_PAID", "version": version, "payload": payload});
    ws.send(paid("2.0", json!({"orderId": "two", "total": {"currency": "EUR", "cents": "5"}}))).await;
    ws.send(paid("1.0", json!({"orderId": "one", "cents": "5"}))).await;
    let (one, two) = (first.delivery().await, second.delivery().await);
    assert_eq!((&*envelope(&one).message_type, &*envelope(&one).version), ("shop.v1.OrderPaid", "1.0"));
    assert_eq!((&*envelope(&two).message_type, &*envelope(&two).version), ("shop.v2.OrderPaid", "2.0"));
}

#[tokio::test]
async fn instances_share_the_work_and_a_killed_ones_goes_to_the_other() {
    let gateway = quiet().await;
    let mut a = Instance::attach(&gateway, "users", &[], 8).await;
    let mut b = Instance::attach(&gateway, "users", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    let names: HashSet<String> = (0..16).map(|number| format!("u{number}")).collect();
    for (id, name) in names.iter().enumerate() {
        ws.send(user(u32::try_from(id).expect("small") + 10, name)).await;
    }
    // Credit for 8 each, nobody acks: each has a half.
    let mut of_a = Vec::new();
    for _ in 0..8 {
        of_a.push(envelope(&a.delivery().await).id.clone());
    }
    let mut seen = HashSet::new();
    for _ in 0..8 {
        let delivery = b.delivery().await;
        assert_eq!(delivery.attempt, 1);
        seen.insert(envelope(&delivery).id.clone());
        b.ack(delivery.delivery_id).await;
    }
    assert!(b.soon(Duration::from_millis(200)).await.is_none(), "the rest is with the other instance");
    drop(a);
    for _ in 0..8 {
        let delivery = b.delivery().await;
        assert!(delivery.attempt > 1, "{delivery:?}");
        assert!(of_a.contains(&envelope(&delivery).id));
        seen.insert(envelope(&delivery).id.clone());
        b.ack(delivery.delivery_id).await;
    }
    assert_eq!(seen, names, "each was done by somebody");
    assert!(b.soon(Duration::from_millis(200)).await.is_none(), "and nothing twice");
}

#[tokio::test]
async fn a_declined_message_comes_again_after_its_delay() {
    let gateway = quiet().await;
    let mut users = Instance::attach(&gateway, "users", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    ws.ask(user(2, "u1")).await;
    let delivery_id = users.delivery().await.delivery_id;
    let delay = Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 });
    users.say(Say::Nack(v1::Nack { delivery_id, delay, error: None })).await;
    assert!(users.soon(Duration::from_millis(100)).await.is_none(), "not before the delay");
    let again = users.delivery().await;
    assert_eq!((again.attempt, &*envelope(&again).id), (2, "u1"));
}

#[tokio::test]
async fn a_repeated_id_is_one_message() {
    let gateway = quiet().await;
    let mut ws = Ws::connect(&gateway).await;
    for id in [2, 3, 4] {
        assert_eq!(ws.ask(user(id, "same")).await["accepted"]["level"], "DURABLE");
    }
    ws.ask(user(5, "other")).await;
    let mut users = Instance::attach(&gateway, "users", &[], 8).await;
    assert_eq!(envelope(&users.delivery().await).id, "same");
    assert_eq!(envelope(&users.delivery().await).id, "other");
}

#[tokio::test]
async fn one_id_of_two_types_is_two_messages() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    assert_eq!(ws.ask(user(2, "same")).await["accepted"]["level"], "DURABLE");
    let payload = json!({"orderId": "o1", "cents": "5"});
    let paid = json!({"id": "same", "messageType": "ORDER_PAID", "version": "1.0", "payload": payload});
    ws.send(json!({"id": 3, "message": paid.clone()})).await;
    let delivery = billing.delivery().await;
    billing.ack(delivery.delivery_id).await;
    assert_eq!(ws.answer(&json!(3)).await["accepted"]["level"], "HANDLED");
    // The same again: it is stored, and nobody will say a second time that it is handled.
    assert_eq!(ws.ask(json!({"id": 4, "message": paid})).await["accepted"]["level"], "DURABLE");
}

#[tokio::test]
async fn a_repeat_after_the_gateways_death_is_told_at_once_that_it_is_stored() {
    let mut nodes = Two::start().await;
    let mut billing = Instance::attach(&nodes.two, "billing", &[], 8).await;
    let ann = json!({"sub": "ann"});
    let mut ws = Ws::of(&nodes.one, &ann).await;
    let paid =
        json!({"id": "o1", "messageType": "ORDER_PAID", "version": "1.0", "payload": {"orderId": "o1", "cents": "5"}});
    ws.send(json!({"id": 2, "message": paid.clone()})).await;
    let delivery = billing.delivery().await;
    nodes.one.kill().await.expect("killed");
    let mut ws = Ws::of(&nodes.two, &ann).await;
    let began = std::time::Instant::now();
    // Whoever acks it tells the node that is gone; nobody here would hear of it before `handled_timeout`, 30 s.
    assert_eq!(ws.ask(json!({"id": 3, "message": paid})).await["accepted"]["level"], "DURABLE");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    billing.ack(delivery.delivery_id).await;
    assert!(billing.soon(Duration::from_millis(200)).await.is_none(), "and it is one message");
}

#[tokio::test]
async fn stored_work_survives_the_gateways_death_when_there_is_a_data_dir() {
    let dir = tempfile::tempdir().expect("a temp folder");
    let data = dir.path().to_str().expect("utf-8");
    let args = ["--schemas", EXAMPLES, "--data-dir", data];
    let mut first = gateway(&args).await;
    let mut ws = Ws::connect(&first).await;
    for id in 2..12 {
        assert_eq!(ws.ask(user(id, &format!("u{id}"))).await["accepted"]["level"], "DURABLE");
    }
    first.kill().await.expect("killed");
    let second = gateway(&args).await;
    let mut users = Instance::attach(&second, "users", &[], 64).await;
    for id in 2..12 {
        assert_eq!(envelope(&users.delivery().await).id, format!("u{id}"));
    }
}

#[tokio::test]
async fn credit_bounds_what_is_in_flight() {
    let gateway = quiet().await;
    let mut users = Instance::attach(&gateway, "users", &[], 2).await;
    let mut ws = Ws::connect(&gateway).await;
    for id in 2..6 {
        ws.ask(user(id, &format!("u{id}"))).await;
    }
    let (first, _second) = (users.delivery().await, users.delivery().await);
    assert!(users.soon(Duration::from_millis(200)).await.is_none());
    users.ack(first.delivery_id).await;
    users.delivery().await;
    assert!(users.soon(Duration::from_millis(200)).await.is_none());
    users.say(Say::Credit(v1::Credit { max_in_flight: 3 })).await;
    users.delivery().await;
}
