//! SIGTERM: intake, what is in flight, resources; in that order.

use serde_json::json;
use trestle_testkit::{Gateway, Process, process::Signal};
use trestle_wire::v1::gateway_frame::Frame as Got;

use crate::{
    service::Instance,
    support::{EXAMPLES, QUOTE, Ws, file, gateway, http},
};

/// Headers of an upgrade that nothing is wrong with.
const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn what_is_in_flight_ends_before_the_gateway_does() {
    let mut gateway = gateway(&["--schemas", EXAMPLES]).await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let idle = Ws::on(&gateway, "room:1").await;
    let mut busy = Ws::connect(&gateway).await;
    let request = json!({"message": {"messageType": "GET_QUOTE", "payload": {"sku": "a1"}}, "timeout": "20s"});
    busy.send(json!({"id": 5, "request": request})).await;
    let delivery = billing.delivery().await;

    gateway.process().signal(Signal::TERM).expect("signalled");
    let (_, end) = idle.end().await;
    assert_eq!(end.map(|(code, _)| code), Some(1012), "an idle client is told to reconnect at once");
    // The busy one's request is still answered.
    billing.reply(delivery.delivery_id, "shop.v1.Quote", QUOTE.to_vec()).await;
    assert_eq!(busy.answer(&json!(5)).await["reply"]["payload"]["cents"], "199");
    let (_, end) = busy.end().await;
    assert_eq!(end.map(|(code, _)| code), Some(1012));
    let told = billing.frame().await;
    assert!(matches!(told, Got::Draining(_)), "{told:?}");
    drop(billing);
    let status = gateway.process().ended().await.expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn an_unacked_delivery_has_time_and_is_given_back_after_it() {
    let data = tempfile::tempdir().expect("a folder");
    let config = file("[bridge]\ndrain_deadline = \"1s\"\n");
    let (data, config) = (data.path().to_str().unwrap(), config.path().to_str().unwrap());
    let args = ["--schemas", EXAMPLES, "--data-dir", data, "--config", config];
    let mut first = gateway(&args).await;
    let mut users = Instance::attach(&first, "users", &[], 8).await;
    let mut ws = Ws::connect(&first).await;
    for id in [2, 3] {
        ws.ask(json!({"id": id, "message": {"id": format!("u{id}"), "messageType": "USER_CREATED",
            "payload": {"userId": "u"}}}))
            .await;
    }
    let (acked, _lost) = (users.delivery().await, users.delivery().await);
    first.process().signal(Signal::TERM).expect("signalled");
    let told = users.frame().await;
    assert!(matches!(told, Got::Draining(_)), "{told:?}");
    users.ack(acked.delivery_id).await;
    // The other is never acked; its time runs out.
    assert!(first.process().ended().await.expect("it ends").success());

    let second = gateway(&args).await;
    let mut users = Instance::attach(&second, "users", &[], 8).await;
    let again = users.delivery().await;
    assert_eq!(again.envelope.expect("an envelope").id, "u3", "only what was not acked comes again");
}

#[tokio::test]
async fn a_ready_node_says_so() {
    let gateway = gateway(&[]).await;
    assert_eq!(http(&gateway, "GET", "/readyz", "", "").await.0, 200);
    assert_eq!(http(&gateway, "GET", "/healthz", "", "").await.0, 200);
}

/// A gateway with a request that its service does not answer yet, and that has been told to stop.
async fn stopping() -> (Gateway, Instance, Ws, u64) {
    let mut gateway = gateway(&["--schemas", EXAMPLES]).await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let mut busy = Ws::connect(&gateway).await;
    let request = json!({"message": {"messageType": "GET_QUOTE", "payload": {"sku": "a1"}}, "timeout": "20s"});
    busy.send(json!({"id": 5, "request": request})).await;
    let delivery = billing.delivery().await;
    gateway.process().signal(Signal::TERM).expect("signalled");
    gateway.process().line("that it drains", |line| line.contains("draining")).await.expect("said");
    (gateway, billing, busy, delivery.delivery_id)
}

#[tokio::test]
async fn a_draining_node_is_red_and_measured_but_upgrades_nobody() {
    let (mut gateway, billing, mut busy, delivery) = stopping().await;
    // The line is said a moment before the node is red.
    let (status, body) = loop {
        let answer = http(&gateway, "GET", "/readyz", "", "").await;
        if answer.0 != 200 {
            break answer;
        }
    };
    assert_eq!((status, body.contains("draining")), (503, true), "{body}");
    let (status, body) = loop {
        let answer = http(&gateway, "GET", "/ws", UPGRADE, "").await;
        if answer.0 != 101 {
            break answer;
        }
    };
    assert_eq!((status, body.contains("draining")), (503, true), "{body}");
    let (status, metrics) = http(&gateway, "GET", "/metrics", "", "").await;
    assert_eq!(status, 200);
    assert!(metrics.contains(r#"reason="draining""#), "{metrics}");
    assert_eq!(http(&gateway, "GET", "/healthz", "", "").await.0, 200, "it is alive: nobody is to kill it");

    billing.reply(delivery, "shop.v1.Quote", QUOTE.to_vec()).await;
    assert_eq!(busy.answer(&json!(5)).await["reply"]["payload"]["cents"], "199");
    drop(billing);
    assert!(gateway.process().ended().await.expect("it ends").success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (mut gateway, _billing, _busy, _delivery) = stopping().await;
    gateway.process().signal(Signal::INT).expect("signalled");
    let status = gateway.process().ended().await.expect("it ends");
    assert_eq!(status.code(), Some(1), "what was in flight is lost, which is no success");
    assert!(gateway.output().contains("told to stop again"), "{}", gateway.output());
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_while_it_starts_does_not_wait() {
    // Nobody listens there: a port of a listener that is gone.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let config = file("[nats]\nconnect_timeout = \"10m\"\n");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_trestle"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--bus", &format!("nats://{free}")]);
    command.arg("--config").arg(config.path());
    let mut process = Process::start("trestle", command).expect("starts");
    process.line("that it tries", |line| line.contains("NATS cannot be reached yet")).await.expect("said");
    assert_eq!(process.terminate().await.expect("it ends").code(), Some(1));
    assert!(process.output().contains("before it was ready"), "{}", process.output());
}
