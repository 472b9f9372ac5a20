//! Services take their work: shared, under credit, redelivered when an instance goes.

mod support;

use std::{collections::HashSet, time::Duration};

use prost::Message as _;
use support::{House, Instance, TRACEPARENT, shop, soon};
use trestle_bridge::Config;
use trestle_bus::{ConsumerSpec, Heard, logs};
use trestle_schema::SchemaSource;
use trestle_wire::{
    NodeId, ServiceName,
    v1::{self, service_frame::Frame as Say},
};

const USER: &str = "shop.v1.UserCreated";
const ORDER: &str = "shop.v1.OrderPaid";
const STOCK: &str = "shop.v1.InventoryUpdated";

fn user_of(delivery: &v1::Delivery) -> String {
    let envelope = delivery.envelope.as_ref().expect("an envelope");
    shop::UserCreated::decode(envelope.payload.clone()).expect("a user").user_id
}

#[tokio::test]
async fn two_instances_share_the_work_evenly() {
    let house = House::start().await;
    let mut a = house.attach("users", 10).await;
    let mut b = house.attach("users", 10).await;
    for n in 0..20 {
        house.store("users", USER, &shop::user(n)).await;
    }
    let (of_a, of_b) = (a.deliveries(10).await, b.deliveries(10).await);
    let all: HashSet<_> = of_a.iter().chain(&of_b).map(user_of).collect();
    assert_eq!(all.len(), 20);
}

#[tokio::test]
async fn what_a_killed_instance_had_not_acked_goes_to_the_other_in_order() {
    let house = House::start().await;
    let mut a = house.attach("users", 64).await;
    for n in 0..6 {
        house.store("users", USER, &shop::user(n)).await;
    }
    let got = a.deliveries(6).await;
    a.ack(got[..2].iter().map(|delivery| delivery.delivery_id)).await;
    a.settled().await;
    let mut b = house.attach("users", 64).await;
    drop(a);
    let again = b.deliveries(4).await;
    assert_eq!(again.iter().map(user_of).collect::<Vec<_>>(), ["u2", "u3", "u4", "u5"]);
    assert!(again.iter().all(|delivery| delivery.attempt == 2), "{again:?}");
}

#[tokio::test]
async fn acked_work_does_not_come_again() {
    let house = House::with(Config { ack_wait: Duration::from_secs(1), ..Config::default() }).await;
    let mut a = house.attach("users", 8).await;
    house.store("users", USER, &shop::user(1)).await;
    let first = a.delivery().await;
    a.ack([first.delivery_id]).await;
    house.store("users", USER, &shop::user(2)).await;
    let second = a.delivery().await;
    assert_eq!((user_of(&second), second.attempt), ("u2".into(), 1));
    // Its redelivery is the next thing that comes: the first one's would have come before it.
    let again = a.delivery().await;
    assert_eq!((user_of(&again), again.attempt), ("u2".into(), 2));
}

#[tokio::test]
async fn an_instance_never_has_more_in_hand_than_its_credit() {
    let house = House::start().await;
    let mut a = house.attach("users", 3).await;
    assert_eq!(a.attached.max_in_flight, 3);
    for n in 0..10 {
        house.store("users", USER, &shop::user(n)).await;
    }
    let mut in_hand = a.deliveries(3).await;
    for _ in 0..7 {
        a.settled().await;
        assert_eq!(a.unasked(), 0);
        a.ack([in_hand.remove(0).delivery_id]).await;
        in_hand.push(a.delivery().await);
    }
}

#[tokio::test]
async fn credit_can_be_paused_and_raised() {
    let house = House::start().await;
    let mut a = house.attach("users", 1).await;
    a.say(Say::Credit(v1::Credit { max_in_flight: 0 })).await;
    a.settled().await;
    for n in 0..5 {
        house.store("users", USER, &shop::user(n)).await;
    }
    a.settled().await;
    assert_eq!(a.unasked(), 0);
    a.say(Say::Credit(v1::Credit { max_in_flight: 5 })).await;
    assert_eq!(a.deliveries(5).await.len(), 5);
}

#[tokio::test]
async fn an_instance_that_does_not_read_blocks_nobody() {
    let house = House::start().await;
    let stuck = house.attach("users", 4).await;
    let mut busy = house.attach("users", 4).await;
    for n in 0..50 {
        house.store("users", USER, &shop::user(n)).await;
    }
    for _ in 0..46 {
        let delivery = busy.delivery().await;
        busy.ack([delivery.delivery_id]).await;
    }
    drop(stuck);
    assert_eq!(busy.deliveries(4).await.len(), 4);
}

#[tokio::test]
async fn a_nack_brings_it_again_not_before_its_delay() {
    let house = House::start().await;
    let mut a = house.attach("users", 8).await;
    house.store("users", USER, &shop::user(1)).await;
    let first = a.delivery().await;
    let begun = std::time::Instant::now();
    let delay = Duration::from_millis(300);
    a.say(Say::Nack(v1::Nack {
        delivery_id: first.delivery_id,
        delay: prost_types::Duration::try_from(delay).ok(),
        ..v1::Nack::default()
    }))
    .await;
    let second = a.delivery().await;
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    assert_eq!((user_of(&second), second.attempt), ("u1".into(), 2));
}

#[tokio::test]
async fn handled_is_told_to_the_node_that_waits_and_only_after_the_ack() {
    let house = House::start().await;
    let mut heard = house.hear(&house.subjects.handled(&NodeId::parse("node-1").expect("valid"))).await;
    let mut a = house.attach("billing", 8).await;
    let id = house.store("billing", ORDER, &shop::order(1)).await;
    let delivery = a.delivery().await;
    assert!(heard.try_next().is_none());
    a.ack([delivery.delivery_id]).await;
    let Some(Heard::Message(message)) = soon("handled", heard.next()).await else { panic!("the bus is there") };
    let handled = v1::Handled::decode(message.payload).expect("handled");
    assert_eq!(handled.envelope_id, id);
    assert_eq!(handled.session, "node-1.00000000000000000000000000000001");
}

#[tokio::test]
async fn a_delivery_carries_the_envelope_untouched_and_its_trace() {
    let house = House::start().await;
    let mut a = house.attach("users", 8).await;
    let id = house.store("users", USER, &shop::user(1)).await;
    let delivery = a.delivery().await;
    let envelope = delivery.envelope.expect("an envelope");
    assert_eq!((envelope.id, envelope.version.as_str()), (id, "1.0"));
    assert_eq!(envelope.source.expect("a source").session, "node-1.00000000000000000000000000000001");
    assert_eq!(envelope.headers["traceparent"], TRACEPARENT);
    assert_eq!((delivery.attempt, delivery.request), (1, false));
    assert!(delivery.deadline.is_some());
}

#[tokio::test]
async fn live_messages_wait_for_room_in_their_order() {
    let house = House::start().await;
    let mut a = house.attach("stock", 1).await;
    for n in 0..5 {
        house.send("stock", STOCK, &shop::stock(n)).await;
    }
    for n in 0..5 {
        let delivery = a.delivery().await;
        let payload = delivery.envelope.expect("an envelope").payload;
        assert_eq!(shop::InventoryUpdated::decode(payload).expect("stock").change, n);
        a.ack([delivery.delivery_id]).await;
    }
}

#[tokio::test]
async fn live_messages_that_find_no_room_are_counted() {
    let house = House::with(Config { waiting_max: 2, ..Config::default() }).await;
    let mut a = house.attach("stock", 1).await;
    for n in 0..6 {
        house.send("stock", STOCK, &shop::stock(n)).await;
    }
    // One in hand, two wait, three found no room.
    for n in 0..3 {
        let delivery = a.delivery().await;
        let payload = delivery.envelope.expect("an envelope").payload;
        assert_eq!(shop::InventoryUpdated::decode(payload).expect("stock").change, n);
        a.ack([delivery.delivery_id]).await;
    }
    a.settled().await;
    let metrics = house.metrics();
    assert!(metrics.contains(r#"trestle_bridge_dropped_total{service="stock",reason="no_room"} 3"#), "{metrics}");
}

#[tokio::test]
async fn work_that_is_not_an_envelope_is_removed_and_harms_nothing() {
    let house = House::start().await;
    let mut a = house.attach("users", 1).await;
    let subject = house.subjects.work(&trestle_wire::ServiceName::parse("users").expect("valid"), USER);
    house.fabric.log.append(&subject, None, bytes::Bytes::from_static(b"\xff\xff")).await.expect("stored");
    house.store("users", USER, &shop::user(1)).await;
    assert_eq!(user_of(&a.delivery().await), "u1");
    let metrics = house.metrics();
    assert!(metrics.contains(r#"trestle_bridge_dropped_total{service="users",reason="malformed"} 1"#), "{metrics}");
}

#[tokio::test]
async fn each_instance_gets_only_the_types_and_versions_it_takes() {
    let house = House::start().await;
    let only = |versions: &[&str]| v1::Hello {
        service: "billing".into(),
        types: vec![v1::ConsumedType {
            message_type: "ORDER_PAID".into(),
            versions: versions.iter().map(ToString::to_string).collect(),
        }],
        ..v1::Hello::default()
    };
    let mut first = house.attach_as(only(&["1.0"])).await;
    let both = house.attach_as(only(&[])).await;
    let types = |instance: &Instance| {
        let types = instance.attached.types.iter();
        types.map(|taken| (taken.message_type.clone(), taken.versions.join(" "))).collect::<Vec<_>>()
    };
    assert_eq!(types(&first), [("shop.v1.OrderPaid".into(), "1.0".into())]);
    assert_eq!(types(&both), [("shop.v1.OrderPaid".into(), "1.0".into()), ("shop.v2.OrderPaid".into(), "2.0".into())]);
    drop(both);
    house.store("billing", "shop.v2.OrderPaid", &shop::order(2)).await;
    house.store("billing", ORDER, &shop::order(1)).await;
    let delivery = first.delivery().await;
    assert_eq!(delivery.envelope.expect("an envelope").message_type, ORDER);
    first.settled().await;
    assert_eq!(first.unasked(), 0);
}

#[tokio::test]
async fn what_is_in_flight_is_measured() {
    let house = House::start().await;
    let mut a = house.attach("users", 8).await;
    for n in 0..3 {
        house.store("users", USER, &shop::user(n)).await;
    }
    let in_hand = a.deliveries(3).await;
    let metrics = house.metrics();
    assert!(metrics.contains(r#"trestle_bridge_in_flight{service="users"} 3"#), "{metrics}");
    assert!(metrics.contains(r#"trestle_bridge_instances{service="users"} 1"#), "{metrics}");
    a.ack([in_hand[0].delivery_id]).await;
    // The credit of the first is the room for the fourth.
    house.store("users", USER, &shop::user(4)).await;
    a.delivery().await;
    let metrics = house.metrics();
    assert!(metrics.contains(r#"trestle_bridge_deliveries_total{service="users",outcome="ack"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_type_that_becomes_stored_by_a_reload_is_taken_from_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |ack: &str| {
        let text = format!(
            r#"syntax = "proto3";
            package ticks.v1;
            import "trestle/v1/options.proto";
            message Tick {{ option (trestle.v1.route) = {{ service: "ticks" ack: {ack} }}; string user_id = 1; }}"#
        );
        std::fs::write(folder.path().join("ticks.proto"), text).expect("written");
    };
    write("RECEIVED");
    let house = House::of(Config::default(), SchemaSource::Folder(folder.path().into())).await;
    let mut ticks = house.attach("ticks", 8).await;
    write("DURABLE");
    let mut admin = v1::admin_client::AdminClient::new(house.connect().await);
    let reloaded = admin.reload(v1::ReloadRequest {}).await.expect("answered").into_inner();
    assert_eq!((reloaded.applied, reloaded.faults), (true, vec![]));
    house.store("ticks", "ticks.v1.Tick", &shop::user(1)).await;
    assert_eq!(user_of(&ticks.delivery().await), "u1");
}

#[tokio::test]
async fn what_was_stored_before_a_type_became_live_is_still_taken_from_the_log() {
    let house = House::start().await;
    house.store("stock", STOCK, &shop::stock(1)).await;
    let mut a = house.attach("stock", 8).await;
    house.send("stock", STOCK, &shop::stock(2)).await;
    let mut changes = Vec::new();
    for delivery in a.deliveries(2).await {
        let payload = delivery.envelope.expect("an envelope").payload;
        changes.push(shop::InventoryUpdated::decode(payload).expect("stock").change);
    }
    changes.sort_unstable();
    assert_eq!(changes, [1, 2]);
}

#[tokio::test]
async fn an_attempt_that_no_instance_saw_does_not_count() {
    const ORDER_2: &str = "shop.v2.OrderPaid";
    let house = House::with(Config { credit_wait: Duration::from_millis(20), ..Config::default() }).await;
    let mut a = house.attach("billing", 1).await;
    // Two types, two intakes: both take, and only one finds room.
    house.store("billing", ORDER, &shop::order(1)).await;
    let first = a.delivery().await;
    house.store("billing", ORDER_2, &shop::order(2)).await;
    a.settled().await;
    // Another node gets what was given back, and does not do it either.
    let billing = ServiceName::parse("billing").expect("valid");
    let spec = ConsumerSpec {
        log: logs::work(&house.subjects).name,
        name: "billing__shop-v2-OrderPaid".into(),
        filter: house.subjects.work(&billing, ORDER_2),
        ack_wait: Duration::from_secs(30),
    };
    let consumer = house.fabric.log.consumer(&spec).await.expect("the consumer");
    let taken = soon("giving back", consumer.fetch(1, support::SOON)).await.expect("fetched").remove(0);
    assert_eq!(taken.attempt, 2);
    taken.nak(Duration::ZERO).await.expect("given back");
    a.ack([first.delivery_id]).await;
    // The third take; the first was seen by nobody, of the second that is not known here.
    assert_eq!((first.attempt, a.delivery().await.attempt), (1, 2));
}
