//! Where a member begins in a channel, and what it is told of what it does not get.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use trestle_codec::{Encoding, Since};
use trestle_hub::Member;
use trestle_wire::{Reason, v1::GapReason};

use crate::house::{HISTORY, House, TTL, gap, heard, member, texts, until, welcome, welcomed};

fn fresh() -> Arc<Member> {
    member(7, Encoding::Protobuf)
}

async fn with(texts: &[&str]) -> House {
    let house = House::new().await;
    for text in texts {
        house.publish("room:1", text).await;
    }
    house
}

#[tokio::test]
async fn what_was_missed_comes_between_the_welcome_and_what_is_new() {
    let house = with(&["1", "2", "3"]).await;
    let a = fresh();
    let _seat = house.join_since(&a, "room:1", Since::Offset(1)).await;
    house.publish("room:1", "4").await;
    assert_eq!(welcome(&a).await, (3, true));
    for (text, offset) in [("2", 2), ("3", 3), ("4", 4)] {
        assert_eq!(heard(&a).await, (text.into(), offset, offset - 1));
    }
    assert_eq!((house.counter("trestle_hub_log_reads"), house.counter("trestle_hub_recalled_messages")), (1, 2));
}

#[tokio::test]
async fn who_has_everything_gets_nothing_and_costs_no_read() {
    let house = with(&["1", "2"]).await;
    let a = fresh();
    let _seat = house.join_since(&a, "room:1", Since::Offset(2)).await;
    house.publish("room:1", "3").await;
    assert_eq!(welcome(&a).await, (2, true));
    assert_eq!(heard(&a).await, ("3".into(), 3, 2));
    assert_eq!(house.counter("trestle_hub_log_reads"), 0);
}

#[tokio::test]
async fn what_the_history_has_lost_is_told_exactly() {
    // 4, 5 and 6 are kept. Whoever has had 3 misses nothing; who has had 1 misses 2 and 3.
    for (had, lost) in [(1, Some((2, 3))), (2, Some((3, 3))), (3, None), (4, None)] {
        let house = with(&["1", "2", "3", "4", "5", "6"]).await;
        let a = fresh();
        let _seat = house.join_since(&a, "room:1", Since::Offset(had)).await;
        house.publish("room:1", "end").await;
        assert_eq!(welcome(&a).await, (6, lost.is_none()), "had {had}");
        if let Some((from, to)) = lost {
            assert_eq!(gap(&a).await, (from, to, GapReason::Retention), "had {had}");
        }
        let expected: Vec<u64> = (had.max(3) + 1..=6).collect();
        let offsets: Vec<u64> = until(&a, "end").await.into_iter().map(|one| one.1).collect();
        assert_eq!(offsets, expected, "had {had}");
    }
}

#[tokio::test]
async fn offset_0_asks_for_all_that_is_kept_and_gets_it() {
    let house = with(&["1", "2", "3", "4", "5"]).await;
    let a = fresh();
    let _seat = house.join_since(&a, "room:1", Since::Offset(0)).await;
    assert_eq!(welcome(&a).await, (5, true));
    assert_eq!(texts(&a, 3).await, ["3", "4", "5"]);
}

#[tokio::test]
async fn who_was_there_before_the_first_message_has_lost_what_a_full_history_let_go() {
    let full = with(&["1", "2", "3", "4"]).await;
    let a = fresh();
    let _seat = full.rejoin(&a, "room:1", 0).await;
    assert_eq!((welcome(&a).await, gap(&a).await), ((4, false), (1, 1, GapReason::Retention)));
    assert_eq!(texts(&a, 3).await, ["2", "3", "4"]);

    // Offsets of a channel do not begin with 1: its log is shared.
    let young = with(&[]).await;
    young.publish("room:2", "elsewhere").await;
    young.publish("room:1", "2").await;
    let b = fresh();
    let _seat = young.rejoin(&b, "room:1", 0).await;
    assert_eq!(welcome(&b).await, (2, true));
    assert_eq!(heard(&b).await, ("2".into(), 2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_comes_back_has_not_lost_what_expired_before_it_went() {
    let house = House::new().await;
    house.publish("room:1", "1").await;
    tokio::time::advance(2 * TTL).await;
    house.publish("room:1", "2").await;
    // The message at offset 1 is gone, and the log does not say whether another was between.
    let (a, b) = (fresh(), member(8, Encoding::Protobuf));
    let _again = house.rejoin(&a, "room:1", 1).await;
    assert_eq!((welcome(&a).await, heard(&a).await.0), ((2, true), "2".into()));
    house.publish("room:2", "elsewhere").await;
    house.publish("room:1", "4").await;
    assert_eq!(heard(&a).await, ("4".into(), 4, 2));
    let _new = house.join_since(&b, "room:1", Since::Offset(1)).await;
    assert_eq!(welcome(&b).await, (4, true), "2 comes right after 1");
    assert_eq!(texts(&b, 2).await, ["2", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_away_for_longer_than_messages_are_kept_is_told_that_some_may_have_expired() {
    let house = with(&["1", "2", "3"]).await;
    tokio::time::advance(2 * TTL).await;
    let (early, late, new) = (fresh(), member(8, Encoding::Protobuf), member(9, Encoding::Protobuf));
    let _late = house.rejoin_after(&late, "room:1", 1, TTL).await;
    assert_eq!((welcome(&late).await, gap(&late).await), ((0, false), (0, 0, GapReason::Failover)));
    let _new = house.rejoin_after(&new, "room:1", 0, TTL).await;
    assert_eq!((welcome(&new).await, gap(&new).await), ((0, false), (0, 0, GapReason::Retention)));
    drop((_late, _new));
    house.publish("room:1", "4").await;
    let _late = house.rejoin_after(&late, "room:1", 1, TTL).await;
    assert_eq!((welcome(&late).await, gap(&late).await), ((4, false), (2, 3, GapReason::Retention)));
    assert_eq!(heard(&late).await.0, "4");
    let _early = house.rejoin_after(&early, "room:1", 1, TTL / 2).await;
    assert_eq!((welcome(&early).await, heard(&early).await.0), ((4, true), "4".into()));
}

#[tokio::test]
async fn a_place_after_the_end_of_the_log_is_of_another_log() {
    let house = with(&["1", "2"]).await;
    let a = fresh();
    let _seat = house.join_since(&a, "room:1", Since::Offset(9)).await;
    house.publish("room:1", "3").await;
    assert_eq!(welcome(&a).await, (2, false));
    assert_eq!(gap(&a).await, (0, 2, GapReason::Failover));
    assert_eq!(heard(&a).await, ("3".into(), 3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_comes_back_to_a_history_that_has_expired_has_lost_nothing() {
    let house = with(&["1", "2"]).await;
    tokio::time::advance(2 * TTL).await;
    let (a, b) = (fresh(), member(8, Encoding::Protobuf));
    let _again = house.rejoin(&a, "room:1", 2).await;
    assert_eq!(welcome(&a).await, (0, true));
    // Who was away for longer may have.
    let _new = house.join_since(&b, "room:1", Since::Offset(2)).await;
    assert_eq!((welcome(&b).await, gap(&b).await), ((0, false), (0, 0, GapReason::Failover)));
    house.publish("room:1", "3").await;
    assert_eq!((heard(&a).await.1, heard(&b).await.1), (3, 3));
}

#[tokio::test]
async fn who_knows_more_than_the_room_has_heard_makes_it_read_on() {
    let house = House::new().await;
    let (early, _seat) = house.listener("1").await;
    house.publish_unheard("room:1", &["2", "3"]).await;
    let a = fresh();
    let _seat = house.join_since(&a, "room:1", Since::Offset(2)).await;
    house.publish("room:1", "4").await;
    assert_eq!(welcome(&a).await, (3, true));
    assert_eq!(texts(&a, 2).await, ["3", "4"]);
    assert_eq!(texts(&early, 3).await, ["2", "3", "4"]);
}

#[tokio::test]
async fn the_last_few_are_as_many_as_are_there() {
    let house = with(&["1", "2", "3", "4"]).await;
    for (count, expected) in [(1, vec!["4"]), (2, vec!["3", "4"]), (3, vec!["2", "3", "4"]), (99, vec!["2", "3", "4"])]
    {
        let a = fresh();
        let seat = house.join_since(&a, "room:1", Since::Last(count)).await;
        assert_eq!(welcome(&a).await, (4, true));
        assert_eq!(texts(&a, expected.len()).await, expected);
        assert!(a.outbox.is_empty());
        drop(seat);
    }
    let a = fresh();
    let _seat = house.join_since(&a, "room:empty", Since::Last(5)).await;
    assert_eq!(welcome(&a).await, (0, true));
}

#[tokio::test]
async fn since_a_time_is_what_was_accepted_then_or_later() {
    let (house, now) = (House::new().await, SystemTime::now());
    let at = |seconds| now - Duration::from_secs(seconds);
    for (text, seconds) in [("1", 40), ("2", 30), ("3", 20)] {
        house.publish_at("room:1", text, at(seconds)).await;
    }
    let join = async |seconds| {
        let a = fresh();
        let seat = house.join_since(&a, "room:1", Since::Time(at(seconds))).await;
        (a, seat)
    };
    for (seconds, expected) in [(35, vec!["2", "3"]), (30, vec!["2", "3"]), (29, vec!["3"]), (1, vec![])] {
        let (a, _seat) = join(seconds).await;
        assert_eq!(welcome(&a).await, (3, true), "{seconds} s ago");
        assert_eq!(texts(&a, expected.len()).await, expected);
        assert!(a.outbox.is_empty());
    }
    // Nothing older is kept, and the history is full: something may be gone.
    house.publish_at("room:1", "4", at(10)).await;
    let (a, _seat) = join(35).await;
    assert_eq!((welcome(&a).await, gap(&a).await), ((4, false), (0, 1, GapReason::Retention)));
    assert_eq!(texts(&a, 3).await, ["2", "3", "4"]);
}

#[tokio::test]
async fn since_a_time_before_a_young_channel_began_is_all_of_it() {
    let (house, now) = (House::new().await, SystemTime::now());
    house.publish("room:2", "elsewhere").await;
    house.publish("room:1", "2").await;
    let (a, b) = (fresh(), member(8, Encoding::Protobuf));
    let _recent = house.join_since(&a, "room:1", Since::Time(now - TTL / 2)).await;
    assert_eq!((welcome(&a).await, heard(&a).await.0), ((2, true), "2".into()));
    // What was accepted longer ago than messages are kept may be gone.
    let _long_ago = house.join_since(&b, "room:1", Since::Time(now - 2 * TTL)).await;
    assert_eq!((welcome(&b).await, gap(&b).await), ((2, false), (0, 1, GapReason::Retention)));
    assert_eq!(heard(&b).await.0, "2");
}

#[tokio::test]
async fn a_large_history_is_looked_through_backwards() {
    let house = House::keeping(5000).await;
    let (now, old) = (SystemTime::now(), Duration::from_secs(30));
    for number in 0..1500_u32 {
        house.publish_at("room:1", &number.to_string(), if number < 1400 { now - old } else { now }).await;
        if number % 3 == 0 {
            house.publish("room:2", "elsewhere").await;
        }
    }
    for since in [Since::Last(100), Since::Time(now - old / 2)] {
        let a = fresh();
        let seat = house.join_since(&a, "room:1", since).await;
        assert_eq!(welcome(&a).await, (2000, true), "{since:?}");
        let expected: Vec<String> = (1400..1500).map(|number| number.to_string()).collect();
        assert_eq!(texts(&a, 100).await, expected);
        assert!(a.outbox.is_empty());
        drop(seat);
    }
    let a = fresh();
    let _seat = house.join_since(&a, "room:1", Since::Last(4000)).await;
    assert_eq!(welcome(&a).await, (2000, true));
    assert_eq!(texts(&a, 1500).await, (0..1500).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_channel_without_history_has_no_places() {
    let house = House::new().await;
    let (a, b, c) = (fresh(), member(8, Encoding::Protobuf), member(9, Encoding::Protobuf));
    let _plain = house.join(&a, "live:1").await;
    assert_eq!(welcome(&a).await, (0, false));
    let _asking = house.join_since(&b, "live:1", Since::Last(3)).await;
    assert_eq!((welcome(&b).await, gap(&b).await), ((0, false), (0, 0, GapReason::Retention)));
    let _again = house.rejoin(&c, "live:1", 0).await;
    assert_eq!((welcome(&c).await, gap(&c).await), ((0, false), (0, 0, GapReason::Failover)));
    assert!(a.outbox.is_empty());
}

#[tokio::test]
async fn an_unknown_namespace_is_refused() {
    let house = House::new().await;
    let refused = house.try_join(&fresh(), "nowhere:1", Since::Now).await;
    assert_eq!(refused.err().map(|refusal| refusal.reason), Some(Reason::UnknownNamespace));
    assert_eq!(house.hub.rooms(), 0);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_refuses_before_the_welcome() {
    let house = with(&["1", "2"]).await;
    let a = fresh();
    house.log.failing.store(1, Ordering::SeqCst);
    let refused = house.try_join(&a, "room:1", Since::Offset(1)).await;
    assert_eq!(refused.err().map(|refusal| refusal.reason), Some(Reason::BusAway));
    assert!(a.outbox.is_empty());
    assert_eq!(house.hub.rooms(), 0);
    let _seat = house.join_since(&a, "room:1", Since::Offset(1)).await;
    assert_eq!((welcome(&a).await, heard(&a).await.0), ((2, true), "2".into()));
}

#[tokio::test]
async fn who_leaves_after_a_recall_has_heard_all_of_it() {
    let house = with(&["1", "2", "3"]).await;
    let a = fresh();
    let seat = house.join_since(&a, "room:1", Since::Offset(1)).await;
    welcomed(&a).await;
    assert_eq!(seat.leave(), HISTORY);
    assert_eq!(texts(&a, 2).await, ["2", "3"]);
}

#[tokio::test]
async fn a_session_that_comes_back_to_a_log_that_was_lost_is_told_so_however_empty_it_is() {
    let house = with(&["1", "2", "3"]).await;
    house.forget().await;
    let (a, b) = (fresh(), member(8, Encoding::Protobuf));
    let _empty = house.rejoin(&a, "room:1", 3).await;
    assert_eq!((welcome(&a).await, gap(&a).await), ((0, false), (0, 0, GapReason::Failover)));
    house.publish("room:1", "new 1").await;
    assert_eq!(heard(&a).await, ("new 1".into(), 1, 0));
    let _again = house.rejoin(&b, "room:1", 3).await;
    assert_eq!((welcome(&b).await, gap(&b).await), ((1, false), (0, 1, GapReason::Failover)));
}
