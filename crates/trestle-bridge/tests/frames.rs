//! What a service says wrong: each gets its word from the one table, and the stream lives where that is safe.

mod support;

use support::{House, reason, shop};
use trestle_bridge::Config;
use trestle_schema::SchemaSource;
use trestle_wire::v1::{self, service_frame::Frame as Say};

const USER: &str = "shop.v1.UserCreated";

fn hello(service: &str) -> v1::Hello {
    v1::Hello { service: service.into(), ..v1::Hello::default() }
}

fn consumed(message_type: &str, versions: &[&str]) -> v1::ConsumedType {
    let versions = versions.iter().map(ToString::to_string).collect();
    v1::ConsumedType { message_type: message_type.into(), versions }
}

#[tokio::test]
async fn a_hello_that_does_not_fit_is_refused_and_says_why() {
    let house = House::start().await;
    let of = |types: Vec<v1::ConsumedType>| v1::Hello { types, ..hello("billing") };
    let rows = [
        (hello("kitchen"), "unknown_service", "hello.service", "billing, stock, users"),
        (hello(""), "invalid_name", "hello.service", "1 to 64"),
        (hello("bil*ing"), "invalid_name", "hello.service", "bil*ing"),
        (v1::Hello { instance: "a\nb".into(), ..hello("billing") }, "invalid_name", "hello.instance", "control"),
        (v1::Hello { instance: "x".repeat(129), ..hello("billing") }, "invalid_name", "hello.instance", "128"),
        (of(vec![consumed("shop.v1.OrderPayed", &[])]), "unknown_type", "hello.types[0].message_type", "OrderPaid"),
        (
            of(vec![consumed("ORDER_PAID", &["1.0"]), consumed("ORDER_PAID", &["3.0"])]),
            "unknown_version",
            "hello.types[1].versions",
            "2.0",
        ),
        (of(vec![consumed(USER, &[])]), "no_route", "hello.types[0].message_type", "users"),
        (of(vec![consumed("shop.v1.Quote", &[])]), "no_route", "hello.types[0].message_type", "no route"),
    ];
    for (hello, word, field, said) in rows {
        let mut stream = house.open(vec![Say::Hello(hello.clone())]).await;
        let status = stream.end().await.expect_err("refused");
        assert_eq!(reason(&status), word, "{hello:?}: {status}");
        assert_eq!(status.metadata().get("trestle-field").and_then(|f| f.to_str().ok()), Some(field), "{hello:?}");
        assert!(status.message().contains(said), "{hello:?}: {status}");
    }
}

#[tokio::test]
async fn before_hello_nothing_else_is_taken() {
    let house = House::start().await;
    let first = [
        Say::Ack(v1::Ack { delivery_ids: vec![1] }),
        Say::Credit(v1::Credit { max_in_flight: 3 }),
        Say::Push(v1::PushStreamRequest::default()),
    ];
    for frame in first {
        let mut stream = house.open(vec![frame.clone()]).await;
        let status = stream.end().await.expect_err("refused");
        assert_eq!(reason(&status), "hello_expected", "{frame:?}");
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn a_stream_that_says_nothing_is_closed_in_time() {
    let quick = Config { hello_timeout: std::time::Duration::from_millis(100), ..Config::default() };
    let house = House::with(quick).await;
    let mut stream = house.open(vec![]).await;
    assert_eq!(reason(&stream.end().await.expect_err("refused")), "hello_expected");
}

#[tokio::test]
async fn a_wrong_frame_is_answered_and_the_stream_goes_on() {
    let house = House::start().await;
    let mut users = house.attach("users", 8).await;
    house.store("users", USER, &shop::user(1)).await;
    let delivery_id = users.delivery().await.delivery_id;

    let reply = |delivery_id| Say::Reply(v1::Reply { delivery_id, message: None });
    let nack = |delivery_id| Say::Nack(v1::Nack { delivery_id, ..v1::Nack::default() });
    let rows = [
        (Say::Hello(hello("users")), "hello_expected", ""),
        (Say::Ack(v1::Ack { delivery_ids: vec![delivery_id + 1] }), "unknown_delivery", "ack.delivery_ids"),
        (Say::Ack(v1::Ack { delivery_ids: vec![0, 7, u64::MAX] }), "unknown_delivery", "ack.delivery_ids"),
        (nack(0), "unknown_delivery", "nack.delivery_id"),
        (reply(99), "unknown_delivery", "reply.delivery_id"),
        (reply(delivery_id), "not_a_request", "reply.delivery_id"),
    ];
    for (frame, word, field) in rows {
        users.say(frame.clone()).await;
        let error = users.error().await;
        assert_eq!((error.reason.as_str(), error.field.as_str()), (word, field), "{frame:?}");
    }
    // A frame that carries nothing this gateway knows, as a newer SDK's would be.
    users.say_nothing().await;
    assert_eq!(users.error().await.reason, "empty_frame");

    users.ack([delivery_id]).await;
    users.ack([delivery_id]).await;
    assert_eq!(users.error().await.reason, "unknown_delivery");
    house.store("users", USER, &shop::user(2)).await;
    assert_eq!(users.delivery().await.attempt, 1);
}

#[tokio::test]
async fn more_credit_than_allowed_is_cut_to_the_limit() {
    let house = House::with(Config { max_in_flight_max: 100, ..Config::default() }).await;
    assert_eq!(house.attach("users", 5000).await.attached.max_in_flight, 100);
    assert_eq!(house.attach("users", 0).await.attached.max_in_flight, 64);
}

#[tokio::test]
async fn an_instance_without_a_name_is_given_one() {
    let house = House::start().await;
    let (a, b) = (house.attach("users", 1).await, house.attach("users", 1).await);
    assert!(a.attached.instance.starts_with("users-"), "{}", a.attached.instance);
    assert_ne!(a.attached.instance, b.attached.instance);
    assert_eq!(a.attached.node, "node-1");
}

#[tokio::test]
async fn a_type_that_goes_over_the_bus_itself_is_not_the_bridges() {
    let proto = r#"
        syntax = "proto3";
        package ticks.v1;
        import "trestle/v1/options.proto";
        message Tick { option (trestle.v1.route) = { service: "ticks" transport: NATS }; int64 at = 1; }
        message Tock { option (trestle.v1.route) = { service: "tocks" }; int64 at = 1; }
    "#;
    let source = SchemaSource::Files(vec![("ticks/v1/ticks.proto".into(), proto.into())]);
    let house = House::of(Config::default(), source).await;
    for types in [vec![], vec![consumed("ticks.v1.Tick", &[])]] {
        let mut stream = house.open(vec![Say::Hello(v1::Hello { types, ..hello("ticks") })]).await;
        let status = stream.end().await.expect_err("refused");
        assert_eq!(reason(&status), "no_route", "{status}");
    }
    assert_eq!(house.attach("tocks", 1).await.attached.types.len(), 1);
}
