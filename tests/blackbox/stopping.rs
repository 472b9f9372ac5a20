//! SIGTERM: intake, what is in flight, resources; in that order.

use serde_json::json;
use trestle_testkit::process::Signal;
use trestle_wire::v1::gateway_frame::Frame as Got;

use crate::{
    service::Instance,
    support::{Ws, file, gateway, http},
};

/// shop.v1.Quote { sku: "a1", cents: 199 }
const QUOTE: &[u8] = &[0x0a, 2, b'a', b'1', 0x10, 0xc7, 0x01];

#[tokio::test]
async fn what_is_in_flight_ends_before_the_gateway_does() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/examples");
    let mut gateway = gateway(&["--schemas", examples]).await;
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
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/examples");
    let data = tempfile::tempdir().expect("a folder");
    let config = file("[bridge]\ndrain_deadline = \"1s\"\n");
    let (data, config) = (data.path().to_str().unwrap(), config.path().to_str().unwrap());
    let args = ["--schemas", examples, "--data-dir", data, "--config", config];
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
