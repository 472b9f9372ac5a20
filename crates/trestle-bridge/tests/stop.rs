//! A node that stops: health first, nothing new, what is in flight finishes or is given back.

mod support;

use std::time::{Duration, Instant};

use prost::Message as _;
use support::{House, SOON, reason, shop, soon};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use trestle_bridge::Config;
use trestle_bus::{ConsumerSpec, logs};
use trestle_wire::v1::{self, bus_reply::Outcome, gateway_frame::Frame, service_frame::Frame as Say};

const USER: &str = "shop.v1.UserCreated";
const GET_QUOTE: &str = "shop.v1.GetQuote";
const STOCK: &str = "shop.v1.InventoryUpdated";

#[tokio::test]
async fn services_are_told_and_what_is_in_flight_is_waited_for() {
    let mut house = House::start().await;
    let mut users = house.attach("users", 8).await;
    house.store("users", USER, &shop::user(1)).await;
    let delivery = users.delivery().await;
    house.begin_to_stop();
    match users.frame().await {
        Frame::Draining(draining) => assert_eq!(draining.deadline.map(|deadline| deadline.seconds), Some(20)),
        other => panic!("not draining but {other:?}"),
    }
    // Stored after intake has stopped: it stays on the bus.
    house.store("users", USER, &shop::user(2)).await;
    users.ack([delivery.delivery_id]).await;
    users.end().await.expect("ends well once nothing is in flight");
    assert_eq!(users.unasked(), 0);

    let fabric = house.fabric.clone();
    let subjects = house.subjects.clone();
    house.stopped().await;
    let left = left_in_log(&fabric, &subjects).await;
    assert_eq!(left, [("u2".to_owned(), 1)]);
}

#[tokio::test]
async fn a_service_with_nothing_in_flight_is_told_too_and_a_stream_without_hello_holds_up_nothing() {
    let mut house = House::start().await;
    let mut users = house.attach("users", 8).await;
    let mut silent = house.open(vec![]).await;
    let begun = Instant::now();
    house.begin_to_stop();
    assert!(matches!(users.frame().await, Frame::Draining(_)));
    users.end().await.expect("ends well");
    assert_eq!(reason(&silent.end().await.expect_err("refused")), "draining");
    house.stopped().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_not_acked_by_the_deadline_is_given_back_at_once() {
    let mut house = House::with(Config { drain_deadline: Duration::from_millis(200), ..Config::default() }).await;
    let mut users = house.attach("users", 8).await;
    house.store("users", USER, &shop::user(1)).await;
    users.delivery().await;
    let (fabric, subjects) = (house.fabric.clone(), house.subjects.clone());
    let begun = Instant::now();
    house.begin_to_stop();
    house.stopped().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Long before ack_wait.
    let left = left_in_log(&fabric, &subjects).await;
    assert_eq!(left, [("u1".to_owned(), 2)]);
}

#[tokio::test]
async fn what_was_sent_before_the_node_stops_reaches_an_instance_that_had_nothing_in_flight() {
    let mut house = House::start().await;
    let mut stock = house.attach("stock", 64).await;
    for n in 0..64 {
        house.send("stock", STOCK, &shop::stock(n)).await;
    }
    house.begin_to_stop();
    let mut left = 64;
    while left > 0 {
        match soon("a frame", stock.frames.message()).await.expect("the stream lives").expect("not its end").frame {
            Some(Frame::Deliveries(deliveries)) => {
                left -= deliveries.deliveries.len();
                stock.ack(deliveries.deliveries.iter().map(|delivery| delivery.delivery_id)).await;
            }
            Some(Frame::Draining(_)) => {}
            other => panic!("not a delivery but {other:?}"),
        }
    }
    stock.end().await.expect("ends well");
    house.stopped().await;
}

#[tokio::test]
async fn live_messages_that_wait_when_the_node_stops_get_the_room_that_is_freed_then() {
    let mut house = House::start().await;
    let mut stock = house.attach("stock", 1).await;
    for n in 0..3 {
        house.send("stock", STOCK, &shop::stock(n)).await;
    }
    let mut delivery = stock.delivery().await;
    house.begin_to_stop();
    assert!(matches!(stock.frame().await, Frame::Draining(_)));
    for n in 0..3 {
        let payload = delivery.envelope.expect("an envelope").payload;
        assert_eq!(shop::InventoryUpdated::decode(payload).expect("stock").change, n);
        stock.ack([delivery.delivery_id]).await;
        if n == 2 {
            break;
        }
        delivery = stock.delivery().await;
    }
    stock.end().await.expect("ends well");
    house.stopped().await;
}

#[tokio::test]
async fn a_node_that_has_less_time_left_says_so_and_keeps_to_it() {
    let mut house = House::start().await;
    house.bridge.set_drain_deadline(Duration::from_millis(200));
    let mut users = house.attach("users", 8).await;
    house.store("users", USER, &shop::user(1)).await;
    users.delivery().await;
    let begun = Instant::now();
    house.begin_to_stop();
    match users.frame().await {
        Frame::Draining(draining) => {
            assert_eq!(draining.deadline, Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 }));
        }
        other => panic!("not draining but {other:?}"),
    }
    house.stopped().await;
    assert!(
        begun.elapsed() < Duration::from_millis(200) + trestle_bridge::Bridge::AFTER_DRAIN,
        "{:?}",
        begun.elapsed()
    );
}

/// What another node gets: user ids and attempts.
async fn left_in_log(fabric: &trestle_bus::Fabric, subjects: &trestle_wire::Subjects) -> Vec<(String, u32)> {
    let spec = ConsumerSpec {
        log: logs::work(subjects).name,
        name: "users__shop-v1-UserCreated".into(),
        filter: subjects.work(&trestle_wire::ServiceName::parse("users").expect("valid"), USER),
        ack_wait: Duration::from_secs(30),
    };
    let consumer = fabric.log.consumer(&spec).await.expect("the consumer");
    let works = soon("the rest", consumer.fetch(10, SOON)).await.expect("fetched");
    let user = |work: &trestle_bus::Work| {
        let envelope = v1::Envelope::decode(work.payload.clone()).expect("an envelope");
        shop::UserCreated::decode(envelope.payload).expect("a user").user_id
    };
    works.iter().map(|work| (user(work), work.attempt)).collect()
}

#[tokio::test]
async fn requests_that_wait_are_told_that_the_node_stops() {
    let mut house = House::start().await;
    let mut billing = house.attach("billing", 1).await;
    let (_, in_hand) = house.request("billing", GET_QUOTE, &shop::get_quote(), SOON);
    let delivery = billing.delivery().await;
    let (_, mut waits) = house.ask_in_order("billing", GET_QUOTE, &shop::get_quote()).await;
    house.begin_to_stop();
    let Some(trestle_bus::Heard::Message(answer)) = soon("the answer", waits.next()).await else { panic!("answered") };
    match v1::BusReply::decode(answer.payload).expect("a BusReply").outcome {
        Some(Outcome::Error(error)) => assert_eq!((error.reason.as_str(), error.retryable), ("draining", true)),
        other => panic!("not refused but {other:?}"),
    }
    billing.reply(delivery.delivery_id, "shop.v1.Quote", &shop::Quote::default()).await;
    assert!(matches!(soon("the answer", in_hand).await.expect("asked"), Outcome::Reply(_)));
    house.stopped().await;
}

#[tokio::test]
async fn a_stopping_node_takes_no_hello_and_says_so_to_health() {
    let mut house = House::start().await;
    let channel = house.connect().await;
    let mut health = HealthClient::new(channel);
    for service in ["", "trestle.v1.Bridge"] {
        let request = HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.expect("known").into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let watch = HealthCheckRequest { service: "trestle.v1.Bridge".into() };
    let mut watched = health.watch(watch).await.expect("known").into_inner();
    let first = soon("the state", watched.message()).await.expect("alive").expect("one").status();
    assert_eq!(first, ServingStatus::Serving);

    // Something in flight keeps the node from being gone already.
    let mut users = house.attach("users", 8).await;
    house.store("users", USER, &shop::user(1)).await;
    let delivery = users.delivery().await;
    let mut late = house.open(vec![]).await;
    house.begin_to_stop();
    let next = soon("the change", watched.message()).await.expect("alive").expect("one").status();
    assert_eq!(next, ServingStatus::NotServing);
    let status = late.end().await.expect_err("refused");
    assert_eq!((reason(&status), status.code()), ("draining", tonic::Code::Unavailable));
    users.ack([delivery.delivery_id]).await;
    users.end().await.expect("ends well");
    house.stopped().await;
}

#[tokio::test]
async fn while_the_bus_is_away_health_says_so_and_pushes_are_refused() {
    let house = House::start().await;
    let channel = house.connect().await;
    let mut health = HealthClient::new(channel.clone());
    let watch = HealthCheckRequest { service: String::new() };
    let mut watched = health.watch(watch).await.expect("known").into_inner();
    let state = soon("the state", watched.message()).await.expect("alive").expect("one").status();
    assert_eq!(state, ServingStatus::Serving);
    house.fabric.bus.close().await;
    let state = soon("the change", watched.message()).await.expect("alive").expect("one").status();
    assert_eq!(state, ServingStatus::NotServing);
    let push = v1::PushRequest {
        target: Some(v1::Target { target: Some(v1::target::Target::Everyone(v1::Everyone::default())) }),
        message: Some(v1::Envelope {
            message_type: "chat.v1.Comment".into(),
            payload: shop::comment("hi").encode_to_vec().into(),
            ..v1::Envelope::default()
        }),
    };
    let mut client = v1::bridge_client::BridgeClient::new(channel);
    let status = client.push(push).await.expect_err("refused");
    assert_eq!((reason(&status), status.code()), ("bus_away", tonic::Code::Unavailable));
}

#[tokio::test]
async fn an_attach_while_the_bus_is_away_is_refused_as_retryable() {
    let house = House::with(Config { hello_timeout: Duration::from_millis(300), ..Config::default() }).await;
    house.fabric.bus.close().await;
    let hello = v1::Hello { service: "users".into(), ..v1::Hello::default() };
    let mut stream = house.open(vec![Say::Hello(hello)]).await;
    let status = stream.end().await.expect_err("refused");
    assert_eq!(reason(&status), "bus_away");
    assert_eq!(status.metadata().get("trestle-retryable").and_then(|retry| retry.to_str().ok()), Some("true"));
}

#[tokio::test]
async fn the_contract_can_be_asked_by_reflection() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let house = House::start().await;
    let mut client = ServerReflectionClient::new(house.connect().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.expect("begins").into_inner();
    let answer = soon("the list", answers.message()).await.expect("alive").expect("one");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("not a list") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["trestle.v1.Bridge", "trestle.v1.Admin", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}
