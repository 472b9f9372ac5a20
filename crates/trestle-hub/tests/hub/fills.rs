//! What the bus did not bring.

use std::sync::atomic::Ordering;

use trestle_codec::Encoding;
use trestle_wire::v1::GapReason;

use crate::house::{House, TTL, gap, heard, member, texts, welcomed};

#[tokio::test]
async fn what_the_bus_did_not_bring_is_read_from_the_history() {
    let house = House::new().await;
    let (a, _seat) = house.listener("a").await;
    house.publish_unheard("room:1", &["b"]).await;
    house.publish("room:2", "elsewhere").await;
    house.publish_unheard("room:1", &["c"]).await;
    house.publish("room:1", "d").await;
    assert_eq!(heard(&a).await, ("b".into(), 2, 1));
    assert_eq!(heard(&a).await, ("c".into(), 4, 2));
    assert_eq!(heard(&a).await, ("d".into(), 5, 4));
}

#[tokio::test]
async fn a_break_that_nothing_follows_is_filled_too() {
    let house = House::new().await;
    let (a, _seat) = house.listener("a").await;
    house.publish_unheard("room:1", &["b"]).await;
    house.lose("room:1").await;
    assert_eq!(heard(&a).await, ("b".into(), 2, 1));
}

#[tokio::test]
async fn what_the_history_no_longer_has_is_told_in_a_gap() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.publish_unheard("room:1", &["2", "3", "4", "5", "6"]).await;
    house.lose("room:1").await;
    // Three are kept: 4, 5 and 6.
    assert_eq!(heard(&a).await, ("gap".into(), 2, 3));
    for (text, offset) in [("4", 4), ("5", 5), ("6", 6)] {
        let (heard, at, _) = heard(&a).await;
        assert_eq!((heard.as_str(), at), (text, offset));
    }
}

#[tokio::test]
async fn a_channel_without_history_is_told_of_a_break() {
    let house = House::new().await;
    let a = member(1, Encoding::Protobuf);
    let _seat = house.join(&a, "live:1").await;
    welcomed(&a).await;
    house.lose("live:1").await;
    assert_eq!(heard(&a).await, ("gap".into(), 0, 0));
}

#[tokio::test]
async fn a_log_that_is_behind_is_asked_again_before_anything_is_called_lost() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.publish_unheard("room:1", &["2", "3"]).await;
    // The follower that is asked has the first of them alone, twice.
    house.log.hidden_from.store(3, Ordering::SeqCst);
    house.log.behind.store(2, Ordering::SeqCst);
    house.publish("room:1", "4").await;
    for (text, offset) in [("2", 2), ("3", 3), ("4", 4)] {
        assert_eq!(heard(&a).await, (text.into(), offset, offset - 1));
    }
    assert_eq!(house.log.behind.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_log_that_shows_nothing_at_all_is_behind_too() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.publish_unheard("room:1", &["2"]).await;
    house.log.hidden_from.store(0, Ordering::SeqCst);
    house.log.behind.store(1, Ordering::SeqCst);
    house.lose("room:1").await;
    assert_eq!(heard(&a).await, ("2".into(), 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_never_shows_what_it_has_is_a_gap_of_the_bus() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.publish_unheard("room:1", &["2", "3"]).await;
    house.log.hidden_from.store(2, Ordering::SeqCst);
    house.log.behind.store(1000, Ordering::SeqCst);
    house.publish("room:1", "4").await;
    assert_eq!(gap(&a).await, (2, 3, GapReason::Failover));
    assert_eq!(heard(&a).await, ("4".into(), 4, 3));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_away_is_asked_until_it_is_back() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.publish_unheard("room:1", &["2"]).await;
    house.log.failing.store(2, Ordering::SeqCst);
    house.publish("room:1", "3").await;
    assert_eq!((heard(&a).await, heard(&a).await), (("2".into(), 2, 1), ("3".into(), 3, 2)));
}

#[tokio::test(start_paused = true)]
async fn after_a_break_that_outlives_the_history_nobody_knows_what_is_missing() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.publish_unheard("room:1", &["2"]).await;
    tokio::time::advance(2 * TTL).await;
    house.lose("room:1").await;
    assert_eq!(gap(&a).await, (2, 0, GapReason::Retention));
}

#[tokio::test]
async fn a_long_break_is_filled_page_by_page() {
    let house = House::keeping(2000).await;
    let (a, _seat) = house.listener("first").await;
    let many: Vec<String> = (0..700).map(|number| number.to_string()).collect();
    house.publish_unheard("room:1", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    house.publish("room:1", "last").await;
    assert_eq!(texts(&a, 700).await, many);
    assert_eq!(heard(&a).await, ("last".into(), 702, 701));
}

#[tokio::test]
async fn a_room_that_had_heard_nothing_knows_what_a_full_history_has_lost() {
    let house = House::new().await;
    house.publish("room:2", "elsewhere").await;
    let (a, b) = (member(1, Encoding::Protobuf), member(2, Encoding::Protobuf));
    let _seats = (house.join(&a, "room:1").await, house.join(&b, "room:3").await);
    assert_eq!((welcomed(&a).await, welcomed(&b).await), (0, 0));
    house.publish_unheard("room:1", &["2", "3", "4", "5"]).await;
    house.publish("room:1", "6").await;
    assert_eq!(gap(&a).await, (1, 3, GapReason::Retention));
    assert_eq!(texts(&a, 3).await, ["4", "5", "6"]);
    // That the first message here is not at offset 1 does not mean that one is gone.
    house.publish_unheard("room:3", &["7"]).await;
    house.publish("room:3", "8").await;
    assert_eq!((heard(&b).await, heard(&b).await), (("7".into(), 7, 0), ("8".into(), 8, 7)));
}

#[tokio::test]
async fn a_log_that_has_lost_its_data_is_gone_on_with_after_a_gap() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    for text in ["2", "3"] {
        house.publish("room:1", text).await;
        heard(&a).await;
    }
    house.forget().await;
    house.publish_unheard("room:1", &["new 1"]).await;
    house.lose("room:1").await;
    assert_eq!(gap(&a).await, (4, 0, GapReason::Failover));
    house.publish("room:1", "new 2").await;
    house.publish("room:1", "new 3").await;
    assert_eq!(heard(&a).await, ("new 2".into(), 2, 0), "the first of the new log follows on nothing");
    assert_eq!(heard(&a).await, ("new 3".into(), 3, 2));
}

#[tokio::test]
async fn a_log_that_has_lost_its_data_is_known_by_its_first_message_too() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.publish("room:1", "2").await;
    heard(&a).await;
    house.forget().await;
    house.publish("room:1", "new 1").await;
    assert_eq!(gap(&a).await, (3, 0, GapReason::Failover));
    assert_eq!(heard(&a).await, ("new 1".into(), 1, 0));
    house.publish("room:1", "new 2").await;
    assert_eq!(heard(&a).await, ("new 2".into(), 2, 1));
}

#[tokio::test]
async fn an_empty_log_that_has_lost_its_data_is_not_one_whose_messages_have_expired() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.forget().await;
    house.lose("room:1").await;
    assert_eq!(gap(&a).await, (2, 0, GapReason::Failover));
    house.publish("room:1", "new 1").await;
    assert_eq!(heard(&a).await, ("new 1".into(), 1, 0));
}
