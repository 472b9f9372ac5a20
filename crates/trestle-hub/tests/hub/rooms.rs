//! Joining and leaving rooms.

use trestle_codec::Encoding;

use crate::house::{House, TTL, heard, member, next_bytes, welcomed};

#[tokio::test]
async fn a_room_is_there_exactly_while_somebody_sits_in_it() {
    let house = House::new().await;
    let (a, b) = (member(1, Encoding::Protobuf), member(2, Encoding::Protobuf));
    assert_eq!(house.hub.rooms(), 0);
    let seats = (house.join(&a, "live:1").await, house.join(&b, "live:1").await);
    assert_eq!(house.hub.rooms(), 1);
    drop(seats.0);
    assert_eq!(house.hub.rooms(), 1);
    drop(seats.1);
    assert_eq!(house.hub.rooms(), 0);
    // And can be opened again.
    let _seat = house.join(&a, "live:1").await;
    house.publish("live:1", "x").await;
    assert_eq!((welcomed(&a).await, welcomed(&a).await), (0, 0));
    assert_eq!(heard(&a).await.0, "x");
}

#[tokio::test]
async fn a_message_reaches_every_member_in_its_own_encoding() {
    let house = House::new().await;
    let (json, protobuf) = (member(1, Encoding::Json), member(2, Encoding::Protobuf));
    let _seats = (house.join(&json, "room:1").await, house.join(&protobuf, "room:1").await);
    house.publish("room:1", "hi").await;
    assert_eq!(welcomed(&protobuf).await, 0);
    assert_eq!(heard(&protobuf).await, ("hi".into(), 1, 0));
    next_bytes(&json).await;
    let frame: serde_json::Value = serde_json::from_slice(&next_bytes(&json).await).unwrap();
    assert_eq!(frame["delivery"]["payload"], serde_json::json!({"text": "hi"}));
    assert_eq!((&frame["delivery"]["offset"], &frame["delivery"]["prevOffset"]), (&"1".into(), &"0".into()));
}

#[tokio::test]
async fn who_joins_is_told_the_offset_that_comes_before_its_first_message() {
    let house = House::new().await;
    let (early, late) = (member(1, Encoding::Protobuf), member(2, Encoding::Protobuf));
    house.publish("room:1", "a").await;
    let _early = house.join(&early, "room:1").await;
    assert_eq!(welcomed(&early).await, 1);
    house.publish("room:1", "b").await;
    assert_eq!(heard(&early).await, ("b".into(), 2, 1));
    let _late = house.join(&late, "room:1").await;
    assert_eq!(welcomed(&late).await, 2);
    house.publish("room:1", "c").await;
    assert_eq!(heard(&late).await, ("c".into(), 3, 2));
}

#[tokio::test]
async fn who_leaves_is_told_how_far_it_has_heard() {
    let house = House::new().await;
    let (a, seat) = house.listener("a").await;
    house.publish("room:1", "b").await;
    assert_eq!(heard(&a).await.1, 2);
    assert_eq!(seat.leave(), 2);
    assert_eq!(house.hub.rooms(), 0);
    let live = house.join(&a, "live:1").await;
    assert_eq!(live.leave(), 0);
}

#[tokio::test]
async fn a_large_room_lets_others_hear_in_between_and_who_leaves_it_then_has_heard_all() {
    let house = House::new().await;
    let mut large = Vec::new();
    for number in 1..=10_000 {
        let member = member(number, Encoding::Protobuf);
        large.push((house.join(&member, "room:1").await, member));
    }
    let small = member(0, Encoding::Protobuf);
    let _seat = house.join(&small, "live:1").await;
    welcomed(&small).await;
    house.publish("room:1", "a").await;
    house.publish("room:1", "b").await;
    house.publish("live:1", "x").await;
    assert_eq!(heard(&small).await.0, "x");
    let (seat, last) = large.pop().unwrap();
    assert_eq!(last.outbox.len(), 1, "only the welcome: it was not its turn yet");
    assert_eq!(seat.leave(), last.outbox.len() as u64 - 1);
    for (seat, member) in large.drain(..).rev() {
        assert_eq!(welcomed(&member).await, 0);
        assert_eq!((heard(&member).await.1, heard(&member).await.1), (1, 2));
        assert_eq!(seat.leave(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_history_that_has_expired_does_not_make_the_next_message_the_first() {
    let house = House::new().await;
    let (a, _seat) = house.listener("a").await;
    tokio::time::advance(2 * TTL).await;
    house.publish("room:1", "b").await;
    assert_eq!(heard(&a).await, ("b".into(), 2, 1));
}
