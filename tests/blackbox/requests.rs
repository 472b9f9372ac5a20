//! A client asks a service, and has its answer or a reason.

use std::time::Duration;

use serde_json::{Value, json};
use trestle_wire::v1::{self, gateway_frame::Frame as Got, service_frame::Frame as Say};

use crate::{
    service::{Instance, envelope},
    support::{QUOTE, Ws, quiet},
};

fn quote(id: u32, timeout: &str) -> Value {
    json!({"id": id, "request": {"message": {"messageType": "GET_QUOTE", "payload": {"sku": "a1"}}, "timeout": timeout}})
}

#[tokio::test]
async fn a_request_is_answered_by_the_service() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &["GET_QUOTE"], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    ws.send(quote(5, "5s")).await;
    let delivery = billing.delivery().await;
    assert!(delivery.request);
    assert_eq!(envelope(&delivery).message_type, "shop.v1.GetQuote");
    assert!(delivery.deadline.is_some());
    billing.reply(delivery.delivery_id, "shop.v1.Quote", QUOTE.to_vec()).await;
    let answer = ws.answer(&json!(5)).await;
    assert_eq!(answer["reply"]["messageType"], "shop.v1.Quote");
    assert_eq!(answer["reply"]["payload"], json!({"sku": "a1", "cents": "199"}));
}

#[tokio::test]
async fn answers_find_their_requests_in_any_order() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    for id in [5, 6] {
        ws.send(quote(id, "5s")).await;
    }
    let (first, second) = (billing.delivery().await, billing.delivery().await);
    for delivery in [second, first] {
        billing.reply(delivery.delivery_id, "shop.v1.Quote", QUOTE.to_vec()).await;
    }
    for id in [5, 6] {
        assert!(ws.answer(&json!(id)).await["reply"].is_object());
    }
}

#[tokio::test]
async fn without_an_instance_the_answer_is_there_at_once() {
    let gateway = quiet().await;
    let mut ws = Ws::connect(&gateway).await;
    let answer = ws.ask(quote(5, "60s")).await;
    assert_eq!((&answer["error"]["code"], &answer["error"]["reason"]), (&json!("UNAVAILABLE"), &json!("no_instance")));
    assert_eq!(answer["error"]["retryable"], true);
}

#[tokio::test]
async fn a_request_ends_at_its_deadline_and_the_service_is_told() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    ws.send(quote(5, "0.3s")).await;
    let delivery = billing.delivery().await;
    let answer = ws.answer(&json!(5)).await;
    assert_eq!(answer["error"]["reason"], "timeout", "{answer}");
    let told = billing.frame().await;
    assert!(matches!(&told, Got::Cancel(cancel) if cancel.delivery_id == delivery.delivery_id), "{told:?}");
}

#[tokio::test]
async fn a_request_whose_client_goes_is_cancelled_also_in_the_queue() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 1).await;
    let (mut first, mut second) = (Ws::connect(&gateway).await, Ws::connect(&gateway).await);
    first.send(quote(5, "30s")).await;
    let taken = billing.delivery().await;
    // No credit is left: this one waits at the gateway.
    second.send(quote(6, "30s")).await;
    assert_eq!(second.ask(json!({"id": 7, "ping": {}})).await["replyTo"], 7);
    second.close().await;
    first.close().await;
    let told = billing.frame().await;
    assert!(matches!(&told, Got::Cancel(cancel) if cancel.delivery_id == taken.delivery_id), "{told:?}");
    // The credit is free again, and what waited is gone: the next delivery is a new client's.
    let mut third = Ws::connect(&gateway).await;
    third.send(json!({"id": 8, "request": {"message": {"messageType": "GET_QUOTE", "payload": {"sku": "new"}}}})).await;
    let mut delivery = billing.delivery().await;
    // Of two clients that go the order is not promised: what waited may be taken a moment before it is cancelled.
    if envelope(&delivery).payload.ends_with(b"a1") {
        let told = billing.frame().await;
        assert!(matches!(&told, Got::Cancel(cancel) if cancel.delivery_id == delivery.delivery_id), "{told:?}");
        delivery = billing.delivery().await;
    }
    assert!(envelope(&delivery).payload.ends_with(b"new"), "{delivery:?}");
}

#[tokio::test]
async fn a_services_refusal_reaches_the_client() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    ws.send(quote(5, "5s")).await;
    let delivery_id = billing.delivery().await.delivery_id;
    let error = v1::Error { code: v1::Code::NotFound.into(), reason: "no_such_sku".into(), ..v1::Error::default() };
    billing.say(Say::Nack(v1::Nack { delivery_id, delay: None, error: Some(error) })).await;
    let answer = ws.answer(&json!(5)).await;
    assert_eq!((&answer["error"]["code"], &answer["error"]["reason"]), (&json!("NOT_FOUND"), &json!("no_such_sku")));
}

#[tokio::test]
async fn an_instance_that_dies_with_a_request_is_told_to_the_client() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    ws.send(quote(5, "30s")).await;
    billing.delivery().await;
    drop(billing);
    let answer = ws.answer(&json!(5)).await;
    assert_eq!((&answer["error"]["reason"], &answer["error"]["retryable"]), (&json!("instance_lost"), &json!(true)));
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_not_passed_on() {
    let gateway = quiet().await;
    let mut billing = Instance::attach(&gateway, "billing", &[], 8).await;
    let mut ws = Ws::connect(&gateway).await;
    for (name, payload) in [("shop.v1.Nothing", vec![]), ("shop.v1.Quote", vec![0xff, 0xff])] {
        ws.send(quote(5, "5s")).await;
        let delivery = billing.delivery().await;
        billing.reply(delivery.delivery_id, name, payload).await;
        let answer = ws.answer(&json!(5)).await;
        assert_eq!(answer["error"]["reason"], "reply_invalid", "{name}: {answer}");
        // The service hears of its fault too.
        let told = tokio::time::timeout(Duration::from_secs(5), billing.frame()).await.expect("told");
        assert!(matches!(&told, Got::Error(error) if error.reason == "reply_invalid"), "{told:?}");
    }
}
