//! Requests: answered, declined, given up, lost.

mod support;

use std::time::Duration;

use prost::Message as _;
use support::{House, SOON, TRACEPARENT, shop, soon};
use trestle_bridge::Config;
use trestle_bus::BusError;
use trestle_wire::v1::{self, bus_reply::Outcome, gateway_frame::Frame, service_frame::Frame as Say};

const GET_QUOTE: &str = "shop.v1.GetQuote";
const QUOTE: &str = "shop.v1.Quote";

fn refused(outcome: Outcome) -> v1::Error {
    match outcome {
        Outcome::Error(error) => error,
        Outcome::Reply(reply) => panic!("not refused but answered: {reply:?}"),
    }
}

#[tokio::test]
async fn a_reply_finds_its_request_with_the_gateways_word_on_who_sent_it() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 8).await;
    let (correlation_id, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
    let delivery = billing.delivery().await;
    assert!(delivery.request);
    assert!(delivery.deadline.is_some());
    billing.reply(delivery.delivery_id, QUOTE, &shop::Quote { sku: "a1".into(), cents: 398 }).await;

    let Outcome::Reply(reply) = soon("the answer", asked).await.expect("asked") else { panic!("refused") };
    assert_eq!((reply.message_type.as_str(), reply.correlation_id), (QUOTE, correlation_id));
    assert_eq!(shop::Quote::decode(reply.payload).expect("a quote").cents, 398);
    let source = reply.source.expect("a source");
    assert_eq!((source.node.as_str(), source.service.as_str()), ("node-1", "billing"));
    assert!(reply.time.is_some());
}

#[tokio::test]
async fn a_hundred_requests_at_once_are_each_answered_by_their_own() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 16).await;
    let asked: Vec<_> = (0..100)
        .map(|n| house.request("billing", GET_QUOTE, &shop::GetQuote { sku: format!("s{n}"), quantity: 1 }, SOON).1)
        .collect();
    for _ in 0..100 {
        let delivery = billing.delivery().await;
        let payload = delivery.envelope.expect("an envelope").payload;
        let sku = shop::GetQuote::decode(payload).expect("a question").sku;
        billing.reply(delivery.delivery_id, QUOTE, &shop::Quote { sku, cents: 1 }).await;
    }
    for (n, asked) in asked.into_iter().enumerate() {
        let Outcome::Reply(reply) = soon("the answer", asked).await.expect("asked") else { panic!("refused") };
        assert_eq!(shop::Quote::decode(reply.payload).expect("a quote").sku, format!("s{n}"));
    }
}

#[tokio::test]
async fn a_nack_tells_the_client_what_the_service_says() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 8).await;
    for (said, code, reason) in [
        (None, v1::Code::Unavailable, "declined"),
        (
            Some(v1::Error { code: v1::Code::NotFound.into(), reason: "no_such_sku".into(), ..v1::Error::default() }),
            v1::Code::NotFound,
            "no_such_sku",
        ),
    ] {
        let (_, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
        let delivery_id = billing.delivery().await.delivery_id;
        billing.say(Say::Nack(v1::Nack { delivery_id, delay: None, error: said })).await;
        let error = refused(soon("the answer", asked).await.expect("asked"));
        assert_eq!((error.code(), error.reason.as_str()), (code, reason));
    }
}

#[tokio::test]
async fn a_reply_that_does_not_fit_its_type_is_told_to_both_sides() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 8).await;
    for (message, field) in [
        (None, "reply.message"),
        (
            Some(v1::Envelope { message_type: "shop.v1.Nothing".into(), ..v1::Envelope::default() }),
            "reply.message.message_type",
        ),
        (
            Some(v1::Envelope { message_type: QUOTE.into(), payload: vec![0xff].into(), ..v1::Envelope::default() }),
            "reply.message.payload",
        ),
    ] {
        let (_, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
        let delivery_id = billing.delivery().await.delivery_id;
        billing.say(Say::Reply(v1::Reply { delivery_id, message })).await;
        let (client, service) = (refused(soon("the answer", asked).await.expect("asked")), billing.error().await);
        assert_eq!((client.reason.as_str(), service.reason.as_str()), ("reply_invalid", "reply_invalid"));
        assert_eq!(service.field, field);
    }
}

#[tokio::test]
async fn a_request_is_not_done_by_an_ack() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 8).await;
    let (_, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
    let delivery = billing.delivery().await;
    billing.ack([delivery.delivery_id]).await;
    assert_eq!(billing.error().await.reason, "reply_invalid");
    assert_eq!(refused(soon("the answer", asked).await.expect("asked")).reason, "reply_invalid");
}

#[tokio::test]
async fn when_its_deadline_passes_the_service_is_told_and_has_its_credit_back() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 1).await;
    let (_, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), Duration::from_millis(150));
    let late = billing.delivery().await;
    match billing.frame().await {
        Frame::Cancel(cancel) => assert_eq!(cancel.delivery_id, late.delivery_id),
        other => panic!("not cancelled but {other:?}"),
    }
    asked.abort();
    // The answer crossed the cancel: nobody minds.
    billing.reply(late.delivery_id, QUOTE, &shop::Quote::default()).await;
    let (_, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
    let next = billing.delivery().await;
    billing.reply(next.delivery_id, QUOTE, &shop::Quote::default()).await;
    assert!(matches!(soon("the answer", asked).await.expect("asked"), Outcome::Reply(_)));
}

#[tokio::test]
async fn a_cancel_reaches_the_instance_that_has_the_request() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 8).await;
    let (correlation_id, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
    let delivery = billing.delivery().await;
    house.cancel(&correlation_id).await;
    match billing.frame().await {
        Frame::Cancel(cancel) => assert_eq!(cancel.delivery_id, delivery.delivery_id),
        other => panic!("not cancelled but {other:?}"),
    }
    asked.abort();
}

#[tokio::test]
async fn a_cancelled_request_that_waits_never_reaches_the_service() {
    let house = House::with(Config { waiting_max: 1, ..Config::default() }).await;
    let mut billing = house.attach("billing", 2).await;
    let ask = |sku: &str| house.request("billing", GET_QUOTE, &shop::GetQuote { sku: sku.into(), quantity: 1 }, SOON);
    let (in_hand, _) = ask("1");
    ask("2");
    billing.deliveries(2).await;
    let (waits, _) = house.ask_in_order("billing", GET_QUOTE, &shop::get_quote()).await;
    // That there is no more room says that the one before has taken it.
    assert_eq!(refused(soon("the answer", ask("4").1).await.expect("asked")).reason, "no_credit");

    // Cancels are heard in their order: when the second is told, the first has been heard.
    house.cancel(&waits).await;
    house.cancel(&in_hand).await;
    assert!(matches!(billing.frame().await, Frame::Cancel(_)));
    let (_, last) = ask("5");
    let next = billing.delivery().await;
    let payload = next.envelope.expect("an envelope").payload;
    assert_eq!(shop::GetQuote::decode(payload).expect("a question").sku, "5");
    billing.reply(next.delivery_id, QUOTE, &shop::Quote::default()).await;
    assert!(matches!(soon("the answer", last).await.expect("asked"), Outcome::Reply(_)));
}

#[tokio::test]
async fn a_request_that_finds_no_room_until_its_deadline_is_told_why() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 1).await;
    let (_, first) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
    let in_hand = billing.delivery().await;
    let (_, second) = house.request("billing", GET_QUOTE, &shop::get_quote(), Duration::from_millis(200));
    let error = refused(soon("the answer", second).await.expect("asked"));
    assert_eq!(
        (error.reason.as_str(), error.code(), error.retryable),
        ("no_credit", v1::Code::ResourceExhausted, true)
    );
    billing.reply(in_hand.delivery_id, QUOTE, &shop::Quote::default()).await;
    assert!(matches!(soon("the answer", first).await.expect("asked"), Outcome::Reply(_)));
}

#[tokio::test]
async fn requests_beyond_the_waiting_room_are_refused_at_once() {
    let house = House::with(Config { waiting_max: 1, ..Config::default() }).await;
    let mut billing = house.attach("billing", 1).await;
    let asked: Vec<_> = (0..3).map(|_| house.request("billing", GET_QUOTE, &shop::get_quote(), SOON).1).collect();
    let first = billing.delivery().await;
    let (refused_one, rest) = first_done(asked).await;
    assert_eq!(refused(refused_one).reason, "no_credit");
    billing.reply(first.delivery_id, QUOTE, &shop::Quote::default()).await;
    let second = billing.delivery().await;
    billing.reply(second.delivery_id, QUOTE, &shop::Quote::default()).await;
    for asked in rest {
        assert!(matches!(soon("the answer", asked).await.expect("asked"), Outcome::Reply(_)));
    }
}

type Asked = tokio::task::JoinHandle<Outcome>;

async fn first_done(asked: Vec<Asked>) -> (Outcome, Vec<Asked>) {
    let (outcome, _, rest) = soon("one answer", futures_util::future::select_all(asked)).await;
    (outcome.expect("asked"), rest)
}

#[tokio::test]
async fn a_request_of_a_killed_instance_is_told_that_it_may_have_been_done() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 8).await;
    let (_, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
    billing.delivery().await;
    drop(billing);
    let error = refused(soon("the answer", asked).await.expect("asked"));
    assert_eq!((error.reason.as_str(), error.retryable), ("instance_lost", true));
}

#[tokio::test]
async fn without_an_instance_a_request_fails_at_once() {
    let house = House::start().await;
    let body = house.envelope(GET_QUOTE, &shop::get_quote()).encode_to_vec().into();
    let error = house.fabric.bus.request(&house.up("billing", GET_QUOTE), body, SOON).await.expect_err("nobody");
    assert!(matches!(error, BusError::NoResponders(_)), "{error}");
}

#[tokio::test]
async fn a_request_that_is_not_an_envelope_is_answered() {
    let house = House::start().await;
    let _billing = house.attach("billing", 8).await;
    let body = bytes::Bytes::from_static(b"\xff\xff");
    let answer = house.fabric.bus.request(&house.up("billing", GET_QUOTE), body, SOON).await.expect("answered");
    let outcome = v1::BusReply::decode(answer).expect("a BusReply").outcome.expect("an outcome");
    assert_eq!(refused(outcome).reason, "malformed_frame");
}

#[tokio::test]
async fn a_trace_goes_on_from_the_request_into_the_delivery() {
    let house = House::start().await;
    let mut billing = house.attach("billing", 8).await;
    let (_, asked) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
    let delivery = billing.delivery().await;
    assert_eq!(delivery.envelope.expect("an envelope").headers["traceparent"], TRACEPARENT);
    asked.abort();
}
