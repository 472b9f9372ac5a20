//! Many that come back at once, while the channel goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};
use trestle_codec::{Encoding, Since};
use trestle_wire::v1::GapReason;

use crate::house::{House, gap, heard, member, member_with_room, next_bytes, texts, until, welcome, welcomed};

/// Longer than a room remembers what nobody asks for.
const A_WHILE: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_thousand_that_resume_one_channel_cost_one_read_of_its_log() {
    let house = Arc::new(House::keeping(100).await);
    for number in 0..100 {
        house.publish("room:1", &number.to_string()).await;
    }
    let first = member(1000, Encoding::Protobuf);
    let _first = house.join(&first, "room:1").await;
    house.log.gated.store(true, Ordering::SeqCst);
    let (mut joining, begun) = (JoinSet::new(), Arc::new(Semaphore::new(0)));
    for number in 0..1000_u32 {
        let (house, begun) = (Arc::clone(&house), Arc::clone(&begun));
        joining.spawn(async move {
            let member = member(u128::from(number), Encoding::Protobuf);
            // They had different parts of it.
            let had = 1 + u64::from(number % 90);
            begun.add_permits(1);
            (had, house.rejoin(&member, "room:1", had).await, member)
        });
    }
    // All of them are on their way, and one of them reads.
    begun.acquire_many(1000).await.unwrap().forget();
    house.log.waiting.acquire().await.unwrap().forget();
    house.log.gated.store(false, Ordering::SeqCst);
    house.log.gate.add_permits(1000);
    let joined = joining.join_all().await;
    assert_eq!(house.counter("trestle_hub_log_reads"), 1);
    let mut recalled = 0;
    for (had, _seat, member) in &joined {
        assert_eq!(welcome(member).await, (100, true));
        for offset in had + 1..=100 {
            assert_eq!(heard(member).await, ((offset - 1).to_string(), offset, offset - 1));
            recalled += 1;
        }
        assert!(member.outbox.is_empty());
    }
    assert_eq!(house.counter("trestle_hub_recalled_messages"), recalled);
}

#[tokio::test]
async fn a_recalled_message_is_finished_once_for_each_encoding() {
    let house = House::new().await;
    house.publish("room:1", "hi").await;
    let members = [(1, Encoding::Json), (2, Encoding::Json), (3, Encoding::Protobuf)];
    let members = members.map(|(number, encoding)| member(number, encoding));
    let mut seats = Vec::new();
    let mut frames = Vec::new();
    for member in &members {
        seats.push(house.join_since(member, "room:1", Since::Offset(0)).await);
        next_bytes(member).await;
        frames.push(next_bytes(member).await);
    }
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "the very same bytes");
    let frame: serde_json::Value = serde_json::from_slice(&frames[0]).unwrap();
    assert_eq!(frame["delivery"]["payload"], serde_json::json!({"text": "hi"}));
    assert_ne!(frames[0], frames[2]);
}

/// Publishes until told to stop, and then the mark `end`.
fn publisher(house: &Arc<House>) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let (house, stop) = (Arc::clone(house), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let publishing = tokio::spawn(async move {
        let mut count = 0;
        while !stopped.load(Ordering::SeqCst) {
            house.publish("room:1", &count.to_string()).await;
            count += 1;
            tokio::task::yield_now().await;
        }
        house.publish("room:1", "end").await;
        count
    });
    (stop, publishing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_while_messages_come_gets_each_of_them_once_in_order() {
    let house = Arc::new(House::keeping(1 << 20).await);
    for number in 0..300 {
        house.publish("room:1", &format!("before {number}")).await;
    }
    let (stop, publishing) = publisher(&house);
    let mut joining = JoinSet::new();
    for number in 0..200_u128 {
        let house = Arc::clone(&house);
        joining.spawn(async move {
            let member = member_with_room(number, Encoding::Protobuf, 1 << 20);
            (house.join_since(&member, "room:1", Since::Offset(0)).await, member)
        });
    }
    let joined = joining.join_all().await;
    stop.store(true, Ordering::SeqCst);
    let count = publishing.await.unwrap();
    for (_seat, member) in &joined {
        let (offset, recovered) = welcome(member).await;
        assert!(recovered && offset >= 300);
        let all = until(member, "end").await;
        let expected: Vec<u64> = (1..=300 + count).collect();
        assert_eq!(all.iter().map(|one| one.1).collect::<Vec<_>>(), expected);
        assert!(all.iter().all(|one| one.2 + 1 == one.1), "each names the one before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_and_goes_while_messages_come_never_misses_one() {
    let house = Arc::new(House::keeping(1 << 20).await);
    let (stop, publishing) = publisher(&house);
    let mut moving = JoinSet::new();
    for number in 0..20_u128 {
        let house = Arc::clone(&house);
        moving.spawn(async move {
            let (mut had, mut all) = (0, Vec::new());
            // Each stay ends where the next begins.
            for _stay in 0..30 {
                let member = member_with_room(number, Encoding::Protobuf, 1 << 20);
                let seat = house.join_since(&member, "room:1", Since::Offset(had)).await;
                let (offset, recovered) = welcome(&member).await;
                assert!(recovered, "offset {offset}, had {had}");
                tokio::task::yield_now().await;
                let end = seat.leave();
                while had < end {
                    let (_, offset, _) = heard(&member).await;
                    all.push(offset);
                    had = offset;
                }
                assert!(member.outbox.is_empty(), "nothing after the end that was told");
            }
            all
        });
    }
    let all = moving.join_all().await;
    stop.store(true, Ordering::SeqCst);
    publishing.await.unwrap();
    for offsets in all {
        assert_eq!(offsets, (1..=offsets.len() as u64).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_is_published_while_the_log_is_read_follows_it() {
    let house = Arc::new(House::new().await);
    let (early, _early) = house.listener("1").await;
    house.log.gated.store(true, Ordering::SeqCst);
    let late = member(2, Encoding::Protobuf);
    let joining = {
        let (house, late) = (Arc::clone(&house), Arc::clone(&late));
        tokio::spawn(async move { house.join_since(&late, "room:1", Since::Offset(0)).await })
    };
    house.log.waiting.acquire().await.unwrap().forget();
    for text in ["2", "3", "4", "5"] {
        house.publish("room:1", text).await;
        assert_eq!(heard(&early).await.0, text);
    }
    house.log.gate.add_permits(1);
    let _late = joining.await.unwrap();
    // The log has let 1 and 2 go by now, but the room has heard 2 since it began to remember.
    assert_eq!(welcomed(&late).await, 5);
    let texts: Vec<_> = texts(&late, 4).await;
    assert_eq!(texts, ["2", "3", "4", "5"]);
    assert!(late.outbox.is_empty());
}

#[tokio::test]
async fn what_the_log_lets_go_between_two_reads_is_told() {
    let house = Arc::new(House::keeping(600).await);
    let (early, _early) = house.listener("1").await;
    for number in 2..=600 {
        house.publish("room:1", &number.to_string()).await;
    }
    texts(&early, 599).await;
    house.log.gated.store(true, Ordering::SeqCst);
    let late = member(2, Encoding::Protobuf);
    let joining = {
        let (house, late) = (Arc::clone(&house), Arc::clone(&late));
        tokio::spawn(async move { house.rejoin(&late, "room:1", 1).await })
    };
    // It reads 1 to 256; before it reads on, only 401 to 1,000 are left.
    house.log.waiting.acquire().await.unwrap().forget();
    house.log.gate.add_permits(1);
    house.log.waiting.acquire().await.unwrap().forget();
    for number in 601..=1000 {
        house.publish("room:1", &number.to_string()).await;
    }
    texts(&early, 400).await;
    house.log.gated.store(false, Ordering::SeqCst);
    house.log.gate.add_permits(1);
    let _late = joining.await.unwrap();
    assert_eq!(welcome(&late).await, (1000, true), "until then nothing was lost");
    assert_eq!(texts(&late, 255).await, (2..=256).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(gap(&late).await, (257, 400, GapReason::Retention));
    assert_eq!(texts(&late, 600).await, (401..=1000).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(late.outbox.is_empty());
}

#[tokio::test]
async fn an_outbox_that_is_too_small_for_all_gets_it_in_portions() {
    let house = Arc::new(House::keeping(2000).await);
    for number in 0..1500 {
        house.publish("room:1", &number.to_string()).await;
    }
    let small = member_with_room(1, Encoding::Protobuf, 64);
    let joining = {
        let (house, small) = (Arc::clone(&house), Arc::clone(&small));
        tokio::spawn(async move { house.join_since(&small, "room:1", Since::Offset(0)).await })
    };
    assert_eq!(welcome(&small).await, (1500, true));
    for number in 0..1500_u64 {
        assert!(small.outbox.len() <= 33, "half of it, and the one that was put");
        assert_eq!(heard(&small).await, (number.to_string(), number + 1, number));
    }
    let _seat = joining.await.unwrap();
    house.publish("room:1", "live").await;
    assert_eq!(heard(&small).await, ("live".into(), 1501, 1500));
}

#[tokio::test]
async fn who_reads_too_slowly_is_told_what_the_history_let_go_meanwhile() {
    let house = Arc::new(House::keeping(2000).await);
    for number in 0..2000 {
        house.publish("room:1", &number.to_string()).await;
    }
    let slow = member_with_room(1, Encoding::Protobuf, 64);
    let joining = {
        let (house, slow) = (Arc::clone(&house), Arc::clone(&slow));
        tokio::spawn(async move { house.join_since(&slow, "room:1", Since::Offset(0)).await })
    };
    assert_eq!(welcome(&slow).await, (2000, true));
    // Of a thousand that were read at once the rest is lost, when others have let the room forget them.
    for number in 2000..6000 {
        house.publish("room:1", &number.to_string()).await;
    }
    let (mut last, mut missing) = (0, 0);
    while last < 6000 {
        let (text, from, to) = heard(&slow).await;
        if text == "gap" {
            assert_eq!(from, last + 1, "a gap begins after what came before it");
            missing += to - last;
            last = to;
        } else {
            assert_eq!((from, to), (last + 1, last), "the next one, whose previous is the last one");
            last = from;
        }
    }
    assert!(missing > 0, "the history keeps 2,000 of 6,000");
    let _seat = joining.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_room_forgets_what_nobody_asks_for_any_more() {
    let house = House::new().await;
    let (_early, _seat) = house.listener("1").await;
    let join = async |number| {
        let member = member(number, Encoding::Protobuf);
        let seat = house.join_since(&member, "room:1", Since::Offset(0)).await;
        welcomed(&member).await;
        let expected = house.counter("trestle_hub_log_reads");
        (member, seat, expected)
    };
    let (a, _a, first) = join(2).await;
    let (b, _b, second) = join(3).await;
    assert_eq!((first, second), (1, 1));
    tokio::time::advance(A_WHILE).await;
    let (c, _c, third) = join(4).await;
    assert_eq!(third, 2, "it was forgotten, and read again");
    for member in [a, b, c] {
        assert_eq!(heard(&member).await.0, "1");
    }
}

#[tokio::test]
async fn a_member_that_joins_after_a_gap_is_told_of_it_too() {
    let house = House::new().await;
    let (early, _early) = house.listener("1").await;
    let first = member(2, Encoding::Protobuf);
    let _first = house.join_since(&first, "room:1", Since::Offset(0)).await;
    // While the room remembers, it misses more than the history keeps.
    house.publish_unheard("room:1", &["2", "3", "4", "5"]).await;
    house.lose("room:1").await;
    assert_eq!(gap(&early).await, (2, 2, GapReason::Retention));
    assert_eq!(texts(&early, 3).await, ["3", "4", "5"]);
    let late = member(3, Encoding::Protobuf);
    let _late = house.join_since(&late, "room:1", Since::Offset(1)).await;
    assert_eq!((welcome(&late).await, gap(&late).await), ((5, false), (2, 2, GapReason::Retention)));
    assert_eq!(texts(&late, 3).await, ["3", "4", "5"]);
}

#[tokio::test]
async fn a_member_whose_outbox_is_closed_waits_for_nothing() {
    let house = House::keeping(2000).await;
    for number in 0..200 {
        house.publish("room:1", &number.to_string()).await;
    }
    let gone = member_with_room(1, Encoding::Protobuf, 16);
    gone.outbox.close();
    let seat = house.join_since(&gone, "room:1", Since::Offset(0)).await;
    drop(seat);
    assert_eq!(house.hub.rooms(), 0);
}

#[tokio::test]
async fn a_join_that_is_given_up_half_way_leaves_no_room_behind() {
    let house = Arc::new(House::keeping(2000).await);
    for number in 0..200 {
        house.publish("room:1", &number.to_string()).await;
    }
    let stuck = member_with_room(1, Encoding::Protobuf, 16);
    let joining = {
        let (house, stuck) = (Arc::clone(&house), Arc::clone(&stuck));
        tokio::spawn(async move { house.join_since(&stuck, "room:1", Since::Offset(0)).await })
    };
    welcomed(&stuck).await;
    joining.abort();
    assert!(joining.await.is_err());
    assert_eq!(house.hub.rooms(), 0);
}
