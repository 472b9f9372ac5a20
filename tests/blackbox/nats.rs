//! Two gateways on one nats-server.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokio::time::timeout;
use trestle_testkit::{Gateway, NatsServer};

use crate::{
    service::{Instance, envelope},
    support::{EXAMPLES, PATIENCE, QUOTE, Ws, comment, file, gateway, http, push},
};

async fn node(nats: &NatsServer, more: &[&str]) -> Gateway {
    let url = nats.url();
    gateway(&[&["--bus", &url, "--schemas", EXAMPLES], more].concat()).await
}

async fn publish(ws: &mut Ws, id: u32, channel: &str, text: &str) -> Value {
    ws.ask(json!({"id": id, "publish": {"channel": channel, "message": comment(text)}})).await
}

#[tokio::test]
async fn a_channel_spans_two_nodes_and_keeps_its_order() {
    let nats = NatsServer::start().await.expect("nats-server starts");
    let (one, two) = (node(&nats, &["--node", "one"]).await, node(&nats, &["--node", "two"]).await);
    for channel in ["room:1", "live:1"] {
        let (mut a, mut b) = (Ws::on(&one, channel).await, Ws::on(&two, channel).await);
        for number in 0..20 {
            let accepted = publish(&mut a, 100 + number, channel, &number.to_string()).await;
            assert_eq!(accepted["accepted"]["level"], "RECEIVED", "{accepted}");
        }
        let mut previous = "0".to_owned();
        for number in 0..20 {
            for ws in [&mut a, &mut b] {
                let delivery = ws.delivery().await;
                assert_eq!(delivery["payload"]["text"], number.to_string(), "{channel}");
                assert_eq!(delivery["source"]["node"], "one");
                if channel == "room:1" {
                    assert_eq!(delivery["prevOffset"], previous, "{delivery}");
                }
            }
            previous = (number + 1).to_string();
        }
        let (status, report) = push(&two, &json!({"target": {"channel": channel}, "message": comment("pushed")})).await;
        assert_eq!(status, 200, "{report}");
        if channel == "live:1" {
            assert_eq!(report["report"]["delivered"], 2, "counted on both nodes: {report}");
        }
        for ws in [&mut a, &mut b] {
            assert_eq!(ws.delivery().await["payload"]["text"], "pushed");
        }
    }
}

#[tokio::test]
async fn a_client_on_one_node_reaches_a_service_on_the_other() {
    let nats = NatsServer::start().await.expect("nats-server starts");
    let edge = node(&nats, &["--node", "edge-1", "--role", "edge"]).await;
    let bridge = node(&nats, &["--node", "bridge-1", "--role", "bridge"]).await;
    let mut billing = Instance::attach(&bridge, "billing", &[], 8).await;
    let mut ws = Ws::connect(&edge).await;

    let request = json!({"message": {"messageType": "GET_QUOTE", "payload": {"sku": "a1"}}});
    ws.send(json!({"id": 5, "request": request})).await;
    let delivery = billing.delivery().await;
    billing.reply(delivery.delivery_id, "shop.v1.Quote", QUOTE.to_vec()).await;
    assert_eq!(ws.answer(&json!(5)).await["reply"]["payload"]["cents"], "199");

    let paid = json!({"messageType": "ORDER_PAID", "version": "1.0", "payload": {"orderId": "o1", "cents": "5"}});
    ws.send(json!({"id": 6, "message": paid})).await;
    let delivery = billing.delivery().await;
    let session = envelope(&delivery).source.as_ref().expect("a source").session.clone();
    billing.ack(delivery.delivery_id).await;
    assert_eq!(ws.answer(&json!(6)).await["accepted"]["level"], "HANDLED");

    let (status, report) = push(&bridge, &json!({"target": {"session": session}, "message": comment("thanks")})).await;
    assert_eq!((status, &report["report"]["delivered"]), (200, &json!(1)), "{report}");
    assert_eq!(ws.delivery().await["payload"]["text"], "thanks");
    // A role that is not there is no address.
    assert_eq!(http(&bridge, "GET", "/ws", "", "").await.0, 404);
    assert!(edge.ready()["grpc"].is_null());
}

#[tokio::test]
async fn a_bridge_that_is_killed_leaves_its_work_to_the_other() {
    let nats = NatsServer::start().await.expect("nats-server starts");
    let quick = file("[bridge]\nack_wait = \"2s\"\nkeepalive_interval = \"1s\"\nkeepalive_timeout = \"500ms\"\n");
    let path = quick.path().to_str().unwrap();
    let mut one = node(&nats, &["--node", "one", "--config", path]).await;
    let two = node(&nats, &["--node", "two", "--config", path]).await;
    let mut a = Instance::attach(&one, "users", &[], 4).await;
    let mut b = Instance::attach(&two, "users", &[], 64).await;
    let mut ws = Ws::connect(&two).await;
    let mut names = HashSet::new();
    for id in 2..22 {
        let name = format!("u{id}");
        let message = json!({"id": name, "messageType": "USER_CREATED", "payload": {"userId": name}});
        assert_eq!(ws.ask(json!({"id": id, "message": message})).await["accepted"]["level"], "DURABLE");
        names.insert(name);
    }
    // Some are at the first node's instance, unacked.
    let held = a.delivery().await;
    one.kill().await.expect("killed");
    let mut done = HashSet::new();
    while done.len() < names.len() {
        let delivery = b.delivery().await;
        done.insert(envelope(&delivery).id.clone());
        b.ack(delivery.delivery_id).await;
    }
    assert_eq!(done, names);
    assert!(done.contains(&envelope(&held).id));
}

#[tokio::test]
async fn while_nats_is_away_nothing_is_accepted_and_the_break_is_told() {
    let mut nats = NatsServer::start().await.expect("nats-server starts");
    let gateway = node(&nats, &[]).await;
    let (mut live, mut room) = (Ws::on(&gateway, "live:1").await, Ws::on(&gateway, "room:1").await);
    assert!(publish(&mut room, 3, "room:1", "before").await["accepted"].is_object());
    assert_eq!(room.delivery().await["payload"]["text"], "before");

    nats.kill().await.expect("killed");
    // Until the break is seen, then for as long as it lasts.
    let seen = async {
        let mut refused = 0;
        while refused < 3 {
            let answer = publish(&mut live, 10, "live:1", "lost").await;
            if answer["error"]["reason"] == "bus_away" {
                assert_eq!(answer["error"]["retryable"], true);
                refused += 1;
            }
        }
    };
    timeout(PATIENCE, seen).await.expect("the break is seen");
    let user = json!({"id": 4, "message": {"messageType": "USER_CREATED", "payload": {"userId": "u"}}});
    assert_eq!(room.ask(user).await["error"]["reason"], "bus_away");
    assert_eq!(http(&gateway, "GET", "/readyz", "", "").await.0, 503);

    nats.restart().await.expect("nats-server starts again");
    // The channel without history is told of the gap once the bus is there again.
    let gap = loop {
        let frame = live.next().await;
        // Pushes may be missing too; those have no channel.
        if frame["gap"]["channel"] == "live:1" {
            break frame;
        }
    };
    assert_eq!(gap["gap"]["reason"], "FAILOVER");
    // And everything works as before, with the history's offsets going on.
    let again = async {
        loop {
            let answer = publish(&mut room, 20, "room:1", "after").await;
            if answer["accepted"].is_object() {
                return answer["accepted"]["offset"].clone();
            }
            assert_eq!(answer["error"]["retryable"], true, "{answer}");
        }
    };
    assert_eq!(timeout(PATIENCE, again).await.expect("the bus is there again"), "2");
    let delivery = room.delivery().await;
    assert_eq!((&delivery["payload"]["text"], &delivery["prevOffset"]), (&json!("after"), &json!("1")), "{delivery}");
}

#[tokio::test]
async fn a_gateway_without_its_nats_does_not_start_and_says_why() {
    let config = file("[nats]\nconnect_timeout = \"500ms\"\n");
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_trestle"))
        .args(["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--bus", "nats://127.0.0.1:1"])
        .args(["--config", config.path().to_str().unwrap()])
        .output()
        .await
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains("nats://127.0.0.1:1"), "{said}");
}
