//! What is to be done with sessions reaches the tasks that own them.

use std::{future::poll_fn, sync::Arc, time::Duration};

use prost::Message as _;
use tokio::{task::JoinHandle, time::Instant};
use trestle_codec::Encoding;
use trestle_hub::{Mail, Member, Presence};
use trestle_session::{Outbox, OutboxLimits};
use trestle_wire::{
    GroupName, UserId,
    v1::{self, control::Action, target::Target},
};

use crate::house::{House, comment, heard, member, session};

/// A client's task that does what its mail says until it is kicked; what it was told.
fn owner(member: &Arc<Member>) -> JoinHandle<Vec<String>> {
    let member = Arc::clone(member);
    tokio::spawn(async move {
        let mut told = Vec::new();
        loop {
            match poll_fn(|context| member.mail.poll_next(context)).await {
                Mail::Update { change, done } => {
                    told.push(format!("join {}", change.join_groups.join(",")));
                    done.send(()).unwrap();
                }
                Mail::Kick { reason } => {
                    told.push(format!("kick {reason}"));
                    return told;
                }
                Mail::Edge(_) => panic!("nobody sent it"),
            }
        }
    })
}

struct Stays {
    members: Vec<Arc<Member>>,
    _present: Vec<Presence>,
    owners: Vec<JoinHandle<Vec<String>>>,
}

/// Three sessions, of which two are ann's.
async fn stays(house: &House) -> Stays {
    let ann = UserId::parse("ann").unwrap();
    let members: Vec<_> = (1..=3).map(|number| member(number, Encoding::Protobuf)).collect();
    let mut present = Vec::new();
    for (number, member) in members.iter().enumerate() {
        present.push(house.hub.arrive(member, (number < 2).then_some(&ann)).await.unwrap());
    }
    let owners = members.iter().map(owner).collect();
    Stays { members, _present: present, owners }
}

fn control(target: Target, action: Action) -> Vec<u8> {
    v1::Control { target: Some(v1::Target { target: Some(target) }), action: Some(action) }.encode_to_vec()
}

fn update(group: &str) -> Action {
    Action::Update(v1::UpdateSessionsRequest { join_groups: vec![group.to_owned()], ..Default::default() })
}

fn kick(reason: &str) -> Action {
    Action::Kick(v1::KickRequest { target: None, reason: reason.to_owned() })
}

fn everyone_but(except: &[&Member]) -> Target {
    let except_sessions = except.iter().map(|member| member.session.to_string()).collect();
    Target::Everyone(v1::Everyone { except_sessions })
}

#[tokio::test]
async fn a_change_reaches_those_it_is_for_and_counts_those_that_made_it() {
    let house = House::new().await;
    let Stays { members, _present, owners } = stays(&house).await;
    members[1].facts.lock().tags.insert("plan".into(), "pro".into());
    let group = GroupName::parse("g").unwrap();
    let _in_group = house.hub.join_group(&members[2], group).await.unwrap();
    let all = house.subjects.control();
    let one = house.subjects.session_control(&members[2].session);
    for (subject, target, name, expected) in [
        (&all, Target::User("ann".into()), "by-user", 2),
        (&all, Target::Group("g".into()), "by-group", 1),
        (&all, Target::Tags("plan=pro".into()), "by-tags", 1),
        (&all, everyone_but(&[&members[0]]), "by-all", 2),
        (&one, Target::Session(members[2].session.to_string()), "by-session", 1),
    ] {
        assert_eq!(house.count(subject, control(target, update(name))).await, [(expected, 0)], "{name}");
    }
    assert_eq!(house.count(&all, control(everyone_but(&[]), kick("bye"))).await, [(3, 0)]);
    let mut told = Vec::new();
    for owner in owners {
        told.push(owner.await.unwrap().join("; "));
    }
    assert_eq!(
        told,
        [
            "join by-user; kick bye",
            "join by-user; join by-tags; join by-all; kick bye",
            "join by-group; join by-all; join by-session; kick bye",
        ]
    );
}

#[tokio::test]
async fn a_node_without_any_of_them_says_so_but_not_of_a_single_session() {
    let house = House::new().await;
    let Stays { _present, owners: _owners, .. } = stays(&house).await;
    let all = house.subjects.control();
    for target in [
        Target::User("bob".into()),
        Target::Group("none".into()),
        Target::Tags("plan=pro".into()),
        Target::Tags(String::new()),
        Target::Channel("room:1".into()),
    ] {
        // Whoever asks waits for all nodes.
        assert_eq!(house.count(&all, control(target.clone(), kick("no"))).await, [(0, 0)], "{target:?}");
    }
    let single = Target::Session(session("n", 99).to_string());
    assert_eq!(house.count(&all, control(single, kick("no"))).await, []);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_do_it_in_time_is_not_counted_and_holds_up_nobody_else() {
    let house = House::new().await;
    let (a, b) = (member(1, Encoding::Protobuf), member(2, Encoding::Protobuf));
    let _present = (house.hub.arrive(&a, None).await.unwrap(), house.hub.arrive(&b, None).await.unwrap());
    let _owner = owner(&a);
    // Nobody reads the mail of b.
    let subject = house.subjects.control();
    let slow = house.fabric.bus.gather(&subject, control(everyone_but(&[]), update("x")).into(), 1, PATIENT);
    let answer = slow.await.unwrap();
    assert_eq!(v1::PushCount::decode(answer[0].clone()).unwrap().delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn however_much_is_under_way_no_push_waits_for_it() {
    let house = House::new().await;
    let (mut members, mut present) = (Vec::new(), Vec::new());
    for number in 0..30 {
        let member = member(number, Encoding::Protobuf);
        present.push(house.hub.arrive(&member, None).await.unwrap());
        members.push(member);
    }
    let began = Instant::now();
    // Nobody reads their mail: 1,800 things are to be done.
    for member in &members {
        let subject = house.subjects.session_control(&member.session);
        for _ in 0..60 {
            let body = control(Target::Session(member.session.to_string()), update("x")).into();
            house.fabric.bus.publish(&subject, body).await.unwrap();
        }
    }
    let push = comment("p").encode_to_vec().into();
    house.fabric.bus.publish(&house.subjects.session(&members[0].session), push).await.unwrap();
    assert_eq!(heard(&members[0]).await.0, "p");
    assert!(began.elapsed() < PATIENT / 5, "before the first of them was given up");
}

/// Longer than clients' tasks are given.
const PATIENT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_session_that_moved_here_is_controlled_under_its_own_name() {
    let house = House::new().await;
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 100 });
    let moved = Arc::new(Member::new(session("m", 5), Encoding::Protobuf, outbox));
    let _present = house.hub.arrive(&moved, None).await.unwrap();
    let owner = owner(&moved);
    let subject = house.subjects.session_control(&moved.session);
    let body = control(Target::Session(moved.session.to_string()), kick("bye"));
    assert_eq!(house.count(&subject, body).await, [(1, 0)]);
    assert_eq!(owner.await.unwrap(), ["kick bye"]);
}

#[tokio::test]
async fn a_control_that_says_nothing_is_passed_over() {
    let house = House::new().await;
    let Stays { _present, owners: _owners, .. } = stays(&house).await;
    let nothing = v1::Control { target: None, action: None }.encode_to_vec();
    assert_eq!(house.count(&house.subjects.control(), nothing).await, []);
    assert_eq!(house.counter("trestle_hub_malformed"), 1);
}
