//! Pushes to sessions, users, groups, those that a selector picks, and everyone; and who watches a channel.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use trestle_codec::Encoding;
use trestle_hub::{Member, Presence};
use trestle_session::Outbox;
use trestle_session::OutboxLimits;
use trestle_wire::{
    ChannelName, GroupName, Subject, UserId,
    v1::{self, GapReason, Overflow, Priority, server_frame::Frame},
};

use crate::house::{
    House, PATIENCE, channel, comment, heard, member, member_with_room, next, next_taken, session, welcomed,
};

async fn push(house: &House, subject: &Subject) -> Vec<(u32, u32)> {
    house.count(subject, comment("p").encode_to_vec()).await
}

async fn arrived(house: &House, count: u128) -> Vec<(Arc<Member>, Presence)> {
    let mut all = Vec::new();
    for number in 1..=count {
        let member = member(number, Encoding::Protobuf);
        let presence = house.hub.arrive(&member, None).await.unwrap();
        all.push((member, presence));
    }
    all
}

#[tokio::test]
async fn pushes_reach_a_session_a_user_and_everyone_and_are_counted() {
    let house = House::new().await;
    let ann = UserId::parse("ann").unwrap();
    let members: Vec<_> = (1..=3).map(|number| member(number, Encoding::Protobuf)).collect();
    let mut present = Vec::new();
    for (number, member) in members.iter().enumerate() {
        present.push(house.hub.arrive(member, (number < 2).then_some(&ann)).await.unwrap());
    }
    let subjects = &house.subjects;
    for (subject, expected) in
        [(subjects.session(&members[2].session), 1), (subjects.user(&ann), 2), (subjects.all(), 3)]
    {
        assert_eq!(push(&house, &subject).await, [(expected, 0)], "{subject}");
    }
    assert_eq!((house.hub.sessions(), house.hub.members().len()), (3, 3));
    assert!(house.hub.member(&members[0].session).is_some_and(|found| Arc::ptr_eq(&found, &members[0])));
    drop(present);
    assert_eq!((house.hub.sessions(), house.hub.rooms()), (0, 0));
    assert!(house.hub.member(&members[0].session).is_none());
}

#[tokio::test]
async fn a_node_says_nothing_of_a_session_that_it_does_not_hold() {
    let house = House::new().await;
    assert_eq!(push(&house, &house.subjects.session(&session("n", 99))).await, []);
}

#[tokio::test]
async fn a_session_that_moved_here_is_reached_under_its_own_name_and_not_where_it_began() {
    let house = House::new().await;
    let there = house.neighbour("m").await;
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 100 });
    let moved = Arc::new(Member::new(session("m", 5), Encoding::Protobuf, outbox));
    let presence = house.hub.arrive(&moved, None).await.unwrap();
    let subject = house.subjects.session(&moved.session);
    assert_eq!(push(&house, &subject).await, [(1, 0)]);
    assert_eq!(heard(&moved).await.0, "p");
    drop(presence);
    assert_eq!(push(&house, &subject).await, []);
    // It goes home again.
    let _home = there.hub.arrive(&moved, None).await.unwrap();
    assert_eq!(push(&house, &subject).await, [(1, 0)]);
}

#[tokio::test]
async fn a_group_is_whoever_joined_it() {
    let house = House::new().await;
    let all = arrived(&house, 3).await;
    let group = GroupName::parse("night shift".replace(' ', "-").as_str()).unwrap();
    let mut seats = Vec::new();
    for (member, _) in &all[..2] {
        seats.push(house.hub.join_group(member, group.clone()).await.unwrap());
    }
    let subject = house.subjects.group(&group);
    assert_eq!(push(&house, &subject).await, [(2, 0)]);
    drop(seats.pop());
    assert_eq!(push(&house, &subject).await, [(1, 0)]);
    drop(seats);
    assert_eq!((push(&house, &subject).await, house.hub.rooms()), (vec![], 0));
    assert!(all[2].0.outbox.is_empty());
}

async fn select(house: &House, selector: &str, except: &[&Member]) -> Vec<(u32, u32)> {
    let push = v1::SelectedPush {
        selector: selector.to_owned(),
        except_sessions: except.iter().map(|member| member.session.to_string()).collect(),
        envelope: Some(comment("p")),
    };
    house.count(&house.subjects.select(), push.encode_to_vec()).await
}

#[tokio::test]
async fn a_selector_picks_sessions_by_the_tags_they_have_now() {
    let house = House::new().await;
    let all = arrived(&house, 3).await;
    for ((member, _), plan) in all.iter().zip(["pro", "pro", "free"]) {
        member.facts.lock().tags.insert("plan".into(), plan.into());
    }
    assert_eq!(select(&house, "plan=pro", &[]).await, [(2, 0)]);
    assert_eq!(select(&house, "plan=pro", &[&all[0].0]).await, [(1, 0)]);
    assert_eq!(select(&house, "", &[&all[0].0]).await, [(2, 0)]);
    assert_eq!(select(&house, "plan=gold", &[]).await, [(0, 0)]);
    all[2].0.facts.lock().tags.insert("plan".into(), "pro".into());
    assert_eq!(select(&house, "plan=pro", &[]).await, [(3, 0)]);
    assert_eq!(select(&house, "plan=", &[]).await, [], "what cannot be read is for nobody");
    assert_eq!(house.counter("trestle_hub_malformed"), 1);
    let counts: Vec<_> = all.iter().map(|(member, _)| member.outbox.len()).collect();
    assert_eq!(counts, [2, 4, 2]);
}

#[tokio::test]
async fn a_full_outbox_is_counted_as_dropped_and_closed() {
    let house = House::new().await;
    let slow = member_with_room(1, Encoding::Json, 1);
    let _present = house.hub.arrive(&slow, None).await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.extend(push(&house, &house.subjects.all()).await);
    }
    assert_eq!(counts, [(1, 0), (0, 1), (0, 0)]);
    assert_eq!(house.counter("trestle_hub_slow_clients"), 1);
    assert_eq!(house.counter("trestle_hub_dropped"), 1);
}

#[tokio::test]
async fn what_a_policy_drops_is_counted_and_the_outbox_stays_open() {
    let house = House::new().await;
    let slow = member_with_room(1, Encoding::Protobuf, 2);
    let _seat = house.join(&slow, "few:1").await;
    let subject = house.subjects.channel(&channel("few:1"));
    let mut counts = Vec::new();
    for _ in 0..3 {
        counts.extend(push(&house, &subject).await);
    }
    assert_eq!(counts, [(1, 0), (0, 1), (0, 1)]);
    assert_eq!((house.counter("trestle_hub_dropped"), house.counter("trestle_hub_slow_clients")), (2, 0));
    assert_eq!((welcomed(&slow).await, heard(&slow).await.0), (0, "p".into()));
}

/// What comes before the push that follows on what `subject` lost: the count and the reason of each gap.
async fn told(
    house: &House,
    subject: &Subject,
    lost: &'static str,
    body: &[u8],
    member: &Member,
) -> Vec<(u64, GapReason)> {
    house.fabric.bus.publish(subject, Bytes::from_static(lost.as_bytes())).await.unwrap();
    house.fabric.bus.publish(subject, Bytes::copy_from_slice(body)).await.unwrap();
    let mut told = Vec::new();
    loop {
        match next(member).await {
            Frame::Gap(gap) => told.push((gap.count, gap.reason())),
            _ => return told,
        }
    }
}

#[tokio::test]
async fn pushes_that_are_lost_are_told_to_those_whom_they_may_have_been_for_and_a_break_once() {
    let house = House::new().await;
    let (here, other) = (member(1, Encoding::Protobuf), member(2, Encoding::Protobuf));
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 100 });
    let moved = Arc::new(Member::new(session("m", 5), Encoding::Protobuf, outbox));
    let ann = UserId::parse("ann").unwrap();
    let _present = (
        house.hub.arrive(&here, Some(&ann)).await.unwrap(),
        house.hub.arrive(&other, None).await.unwrap(),
        house.hub.arrive(&moved, None).await.unwrap(),
    );
    let subjects = &house.subjects;
    let push = comment("p").encode_to_vec();
    let selected = v1::SelectedPush { envelope: Some(comment("p")), ..v1::SelectedPush::default() }.encode_to_vec();
    let (all, select, user) = (subjects.all(), subjects.select(), subjects.user(&ann));
    let (mine, moving) = (subjects.session(&here.session), subjects.session(&moved.session));

    // A break: each subscription says so.
    let quiet: [(&Subject, &[u8], &Member); 4] =
        [(&mine, &push, &here), (&moving, &push, &moved), (&user, &push, &here), (&select, &selected, &here)];
    for (subject, body, member) in quiet {
        assert_eq!(told(&house, subject, "LOST", body, member).await, [], "{subject}");
    }
    assert_eq!(told(&house, &all, "LOST", &push, &here).await, [(0, GapReason::Failover)]);

    // This node was too slow for some of them.
    assert_eq!(told(&house, &user, "LOST 2", &push, &here).await, [(2, GapReason::Slow)]);
    assert_eq!(told(&house, &mine, "LOST 2", &push, &here).await, [(0, GapReason::Slow)], "some of it, of somebody");
    assert_eq!(told(&house, &all, "LOST 2", &push, &here).await, [(2, GapReason::Slow)]);
    moved.outbox.take(usize::MAX, &mut Vec::new());
    assert_eq!(told(&house, &moving, "LOST 2", &push, &moved).await, [(2, GapReason::Slow)]);
    let told_last = told(&house, &mine, "LOST", &push, &here).await;
    assert_eq!(told_last, [], "nobody else missed what was for the one that moved");
}

#[tokio::test]
async fn a_session_that_waits_for_its_client_is_counted_as_it_is() {
    let house = House::new().await;
    let away = member(1, Encoding::Protobuf);
    let presence = house.hub.arrive(&away, None).await.unwrap();
    presence.set_away(true);
    let count = async || {
        let body = comment("p").encode_to_vec().into();
        let answers = house.fabric.bus.gather(&house.subjects.session(&away.session), body, 1, PATIENCE).await.unwrap();
        let count = v1::PushCount::decode(answers[0].clone()).unwrap();
        (count.delivered, count.queued, count.dropped)
    };
    assert_eq!(count().await, (0, 1, 0));
    assert_eq!(house.counter("trestle_hub_delivered"), 1, "it is in the outbox");
    away.outbox.close();
    assert_eq!(count().await, (0, 0, 1), "what waits for it was given up");
    presence.set_away(false);
    assert_eq!(count().await, (0, 0, 0), "it is on its way out");
}

#[tokio::test]
async fn a_message_is_labelled_with_what_its_namespace_and_its_type_say() {
    let house = House::new().await;
    let a = member(1, Encoding::Protobuf);
    let _present = house.hub.arrive(&a, None).await.unwrap();
    let _seats = (house.join(&a, "few:1").await, house.join(&a, "room:1").await);
    assert_eq!((welcomed(&a).await, welcomed(&a).await), (0, 0));
    let label = async |subject: Option<&Subject>, envelope: v1::Envelope| {
        let body = envelope.encode_to_vec().into();
        match subject {
            Some(subject) => house.fabric.bus.publish(subject, body).await.unwrap(),
            None => _ = house.fabric.log.append(&house.subjects.log(&channel("room:1")), None, body).await.unwrap(),
        }
        next_taken(&a).await.1.expect("a message has a label")
    };
    let few = house.subjects.channel(&channel("few:1"));
    let tick = |sku: &str| v1::Envelope { message_type: "market.v1.Tick".into(), ..comment(sku) };

    let plain = label(Some(&few), comment("x")).await;
    assert_eq!((&plain.channel, plain.offset), (&Some(channel("few:1")), 0));
    assert_eq!((plain.overflow, plain.priority, plain.key), (Overflow::DropNewest, Priority::Normal, 0));
    let push = label(Some(&house.subjects.all()), comment("x")).await;
    assert_eq!((&push.channel, push.overflow, push.id), (&None::<ChannelName>, Overflow::Disconnect, plain.id));
    let stored = label(None, comment("y")).await;
    assert_eq!((&stored.channel, stored.offset, stored.overflow), (&Some(channel("room:1")), 1, Overflow::Disconnect));
    assert_ne!(stored.id, plain.id);
    let (a1, b, a2) = (
        label(Some(&few), tick("a")).await,
        label(Some(&few), tick("b")).await,
        label(Some(&house.subjects.all()), tick("a")).await,
    );
    assert_eq!((a1.overflow, a1.priority), (Overflow::Conflate, Priority::High));
    assert!(a1.key != b.key && a1.key == a2.key);
}

#[tokio::test]
async fn watchers_are_told_by_their_own_node_without_a_subject() {
    let house = House::new().await;
    let (a, b) = (member(1, Encoding::Protobuf), member(2, Encoding::Protobuf));
    let watching = house.hub.watch(&a, &channel("room:1"));
    let _elsewhere = house.hub.watch(&b, &channel("room:2"));
    assert_eq!(house.hub.rooms(), 0);
    let event = v1::PresenceEvent { channel: "room:1".into(), sessions: 3, ..v1::PresenceEvent::default() };
    house.hub.tell_watchers(&channel("room:1"), Frame::PresenceEvent(event.clone()));
    assert!(matches!(next(&a).await, Frame::PresenceEvent(told) if told == event));
    drop(watching);
    house.hub.tell_watchers(&channel("room:1"), Frame::PresenceEvent(event));
    assert!(a.outbox.is_empty() && b.outbox.is_empty());
}
