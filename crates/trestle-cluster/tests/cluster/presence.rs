//! Who is on a channel.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prometheus_client::registry::Registry as Metrics;
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use trestle_bus::{
    BusState, Fabric, Heard,
    embedded::{Embedded, EmbeddedConfig},
};
use trestle_cluster::{ClusterConfig, Nodes, Presence, PresenceParts, Seat, ask_presence};
use trestle_wire::{ChannelName, Subjects, UserId, v1};

use crate::{Two, config, connect, on_both, open, session, shared::Shared, soon, until};

on_both! {
    who_comes_and_goes_on_one_node_is_seen_on_the_other
    a_node_that_comes_late_knows_who_is_there
    a_session_that_moves_or_comes_back_soon_makes_no_event
    a_dead_node_takes_its_members_with_it
    a_crowd_is_exact_and_told_by_its_counts
    whoever_keeps_no_replica_asks
    a_channel_that_all_have_left_is_let_go
}

/// A node with presence, and the events that it hears.
pub(crate) struct Node {
    nodes: Option<Arc<Nodes>>,
    pub(crate) presence: Arc<Presence>,
    events: mpsc::Receiver<v1::PresenceEvent>,
    metrics: Metrics,
}

pub(crate) fn room() -> ChannelName {
    ChannelName::parse("room:1").expect("valid")
}

fn user(name: &str) -> UserId {
    UserId::parse(name).expect("valid")
}

fn quick() -> ClusterConfig {
    ClusterConfig {
        presence_linger: Duration::from_millis(300),
        presence_interval: Duration::from_millis(20),
        ..config()
    }
}

pub(crate) async fn start(fabric: &Fabric, name: &str, config: ClusterConfig) -> Node {
    let nodes = open(fabric, name, config.clone()).await.expect("starts");
    let (sink, events) = mpsc::channel(10_000);
    let mut metrics = Metrics::default();
    let presence = Presence::open(PresenceParts {
        nodes: &nodes,
        subjects: Subjects::new("trestle"),
        fabric: fabric.clone(),
        config,
        sink: Arc::new(move |channel, event| {
            assert_eq!(channel.as_str(), event.channel);
            sink.try_send(event).expect("there is room");
        }),
        registry: &mut metrics,
    });
    Node { nodes: Some(nodes), presence, events, metrics }
}

async fn both(two: &Two) -> (Node, Node) {
    let (a, b) = (start(&two.a, "a", quick()).await, start(&two.b, "b", quick()).await);
    for (here, there) in [(&a, "b"), (&b, "a")] {
        until(async || here.nodes.as_ref()?.lives(&crate::node(there)).then_some(())).await;
    }
    (a, b)
}

impl Node {
    pub(crate) async fn enter(&self, n: usize, who: Option<&str>) -> Seat {
        self.presence.enter(room(), session("a", n), who.map(user).as_ref()).await.expect("enters")
    }

    async fn state(&self) -> v1::PresenceState {
        self.presence.state(&room()).await.expect("is known")
    }

    /// Until these are there, by the state; gives it.
    pub(crate) async fn sees(&self, there: &[usize]) -> v1::PresenceState {
        let there: BTreeSet<_> = there.iter().map(|n| session("a", *n).as_str().to_owned()).collect();
        until(async || Some(self.state().await).filter(|state| names(&state.members) == there)).await
    }

    /// Who is there by the events so far, from nobody.
    fn follow(&mut self, there: &mut BTreeSet<String>) {
        while let Ok(event) = self.events.try_recv() {
            apply(&event, there);
        }
    }

    fn metric(&self, name: &str) -> i64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).expect("renders");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("trestle_cluster_{name} ")));
        line.expect("the metric is there").parse().expect("a number")
    }
}

fn names(members: &[v1::PresenceMember]) -> BTreeSet<String> {
    members.iter().map(|member| member.session_id.clone()).collect()
}

fn apply(event: &v1::PresenceEvent, there: &mut BTreeSet<String>) {
    for name in names(&event.joined) {
        assert!(there.insert(name.clone()), "{name} joined twice");
    }
    for name in names(&event.left) {
        assert!(there.remove(&name), "{name} left and was not there");
    }
    assert_eq!(event.sessions as usize, there.len());
}

async fn event(node: &mut Node) -> v1::PresenceEvent {
    soon(node.events.recv()).await.expect("an event")
}

async fn who_comes_and_goes_on_one_node_is_seen_on_the_other(two: Two) {
    let (mut a, b) = both(&two).await;
    let _watching = a.enter(0, None).await;
    assert_eq!(names(&event(&mut a).await.joined), BTreeSet::from([session("a", 0).as_str().to_owned()]));
    let seats = [b.enter(1, Some("anna")).await, b.enter(2, Some("anna")).await, b.enter(3, Some("ben")).await];
    let mut there = BTreeSet::from([session("a", 0).as_str().to_owned()]);
    while there.len() < 4 {
        apply(&event(&mut a).await, &mut there);
    }
    let state = a.sees(&[0, 1, 2, 3]).await;
    assert_eq!((state.sessions, state.users, state.complete), (4, 2, true));
    let member = state.members.iter().find(|member| member.session_id == session("a", 1).as_str()).expect("is there");
    assert_eq!(member.user, "anna");
    b.sees(&[0, 1, 2, 3]).await;
    drop(seats);
    while there.len() > 1 {
        apply(&event(&mut a).await, &mut there);
    }
    let state = b.sees(&[0]).await;
    assert_eq!((state.sessions, state.users), (1, 0));
}

async fn a_node_that_comes_late_knows_who_is_there(two: Two) {
    let (a, b) = both(&two).await;
    let _seats = [a.enter(1, None).await, a.enter(2, None).await];
    a.sees(&[1, 2]).await;
    let _late = b.enter(3, None).await;
    b.sees(&[1, 2, 3]).await;
    // By its own replica too, once that has settled: the other node is not asked any more.
    let mut asked = two.a.bus.subscribe(&Subjects::new("trestle").presence_ask(&room()), None).await.expect("listens");
    until(async || {
        let state = b.state().await;
        assert_eq!(state.sessions, 3);
        asked.try_next().is_none().then_some(())
    })
    .await;
    assert_eq!((b.metric("presence_members"), b.metric("presence_channels")), (3, 1));
}

async fn a_session_that_moves_or_comes_back_soon_makes_no_event(two: Two) {
    let (mut a, mut b) = both(&two).await;
    let (_one, _other) = (a.enter(0, None).await, b.enter(9, None).await);
    let seat = a.enter(1, None).await;
    a.sees(&[0, 1, 9]).await;
    b.sees(&[0, 1, 9]).await;
    let (mut there, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    while there.len() < 3 || elsewhere.len() < 3 {
        tokio::select! {
            event = a.events.recv() => apply(&event.expect("an event"), &mut there),
            event = b.events.recv() => apply(&event.expect("an event"), &mut elsewhere),
        }
    }
    drop(seat);
    let seat = a.enter(1, None).await;
    drop(seat);
    let _moved = b.enter(1, None).await;
    // The end of the linger there is heard as a change of the node's count, and only after that somebody new.
    let mut changes = two.b.bus.subscribe(&Subjects::new("trestle").presence(&room()), None).await.expect("listens");
    soon(async {
        loop {
            let Some(Heard::Message(message)) = changes.next().await else { panic!("a change was due") };
            let change = v1::PresenceChange::decode(message.payload).expect("a change");
            if change.node == "a" && change.left == [session("a", 1).as_str()] {
                return;
            }
        }
    })
    .await;
    let _last = b.enter(5, None).await;
    for node in [&mut a, &mut b] {
        let next = event(node).await;
        assert_eq!(names(&next.joined), BTreeSet::from([session("a", 5).as_str().to_owned()]));
        assert!(next.left.is_empty(), "{next:?}");
    }
    b.sees(&[0, 1, 5, 9]).await;
}

async fn a_dead_node_takes_its_members_with_it(two: Two) {
    let (mut a, b) = both(&two).await;
    let _watching = a.enter(0, None).await;
    let seats = [b.enter(1, None).await, b.enter(2, None).await];
    a.sees(&[0, 1, 2]).await;
    let mut there = BTreeSet::new();
    while there.len() < 3 {
        apply(&event(&mut a).await, &mut there);
    }
    // As with a kill: no heartbeat, no word.
    let Node { nodes, presence, .. } = b;
    drop((nodes, presence));
    let died = Instant::now();
    while there.len() > 1 {
        apply(&event(&mut a).await, &mut there);
    }
    let bound = quick().node_timeout + Duration::from_secs(2);
    assert!(died.elapsed() <= bound, "{:?}", died.elapsed());
    a.sees(&[0]).await;
    drop(seats);
}

async fn a_crowd_is_exact_and_told_by_its_counts(two: Two) {
    const CROWD: usize = 5_000; // more than one message takes
    let (mut a, b) = both(&two).await;
    let _watching = a.enter(0, None).await;
    let mut seats = Vec::new();
    for n in 1..CROWD {
        seats.push(b.enter(n, Some(&format!("user-{}", n / 2))).await);
    }
    let (sessions, users) = (u32::try_from(CROWD).expect("fits"), u32::try_from(CROWD / 2).expect("fits"));
    let state = until(async || Some(a.state().await).filter(|state| state.sessions == sessions)).await;
    assert_eq!((state.users, state.complete, state.members.len()), (users, false, 0));
    let told = loop {
        let event = event(&mut a).await;
        if event.sessions == sessions {
            break event;
        }
    };
    assert_eq!((told.joined.len(), told.users), (0, users));
    // A node that comes now is told the whole in several messages.
    let asked = ask_presence(&two.a, &Subjects::new("trestle"), &room(), 10_000).await.expect("is known");
    assert_eq!((asked.sessions, asked.members.len(), asked.complete), (sessions, CROWD, true));
    seats.truncate(1);
    a.sees(&[0, 1]).await;
}

async fn whoever_keeps_no_replica_asks(two: Two) {
    let (a, b) = both(&two).await;
    assert_eq!(b.state().await, v1::PresenceState { channel: "room:1".into(), complete: true, ..Default::default() });
    let _seat = a.enter(1, Some("anna")).await;
    let state = b.sees(&[1]).await;
    assert_eq!((state.sessions, state.users), (1, 1));
    assert_eq!(b.metric("presence_channels"), 0);
}

async fn a_channel_that_all_have_left_is_let_go(two: Two) {
    let (a, b) = both(&two).await;
    let seat = a.enter(1, None).await;
    let other = b.enter(2, None).await;
    a.sees(&[1, 2]).await;
    drop(seat);
    b.sees(&[2]).await;
    drop(other);
    until(async || (a.metric("presence_channels") == 0 && b.metric("presence_channels") == 0).then_some(())).await;
    assert_eq!((a.metric("presence_members"), b.metric("presence_members")), (0, 0));
}

/// Two nodes on one embedded bus under a clock that jumps; what the second says can be lost.
async fn lossy() -> (Node, Node, Arc<std::sync::atomic::AtomicBool>) {
    let fabric = Embedded::open(EmbeddedConfig::default()).expect("opens");
    let (whole, (leaky, mute)) = (Shared::fabric(&fabric).0, Shared::fabric(&fabric));
    let (a, b) = (start(&whole, "a", quick()).await, start(&leaky, "b", quick()).await);
    until(async || a.nodes.as_ref()?.lives(&crate::node("b")).then_some(())).await;
    (a, b, mute)
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_found_by_what_comes_next() {
    let (mut a, b, mute) = lossy().await;
    let _watching = a.enter(0, None).await;
    let _one = b.enter(1, None).await;
    a.sees(&[0, 1]).await;
    tokio::time::sleep(Duration::from_secs(2)).await; // the replica has settled
    mute.store(true, Ordering::SeqCst);
    let _two = b.enter(2, None).await;
    tokio::time::sleep(Duration::from_secs(1)).await; // it has been told, in vain
    mute.store(false, Ordering::SeqCst);
    assert_eq!(a.state().await.sessions, 2);
    let began = Instant::now();
    let _three = b.enter(3, None).await;
    a.sees(&[0, 1, 2, 3]).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(a.metric("presence_resyncs_total") >= 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut there = BTreeSet::new();
    a.follow(&mut there);
    assert_eq!(there.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_lost_last_word_is_found_by_the_digest() {
    let (a, b, mute) = lossy().await;
    let _watching = a.enter(0, None).await;
    let seat = b.enter(1, None).await;
    a.sees(&[0, 1]).await;
    mute.store(true, Ordering::SeqCst);
    drop(seat);
    tokio::time::sleep(Duration::from_secs(1)).await;
    mute.store(false, Ordering::SeqCst);
    let began = Instant::now();
    a.sees(&[0]).await;
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
}

/// Random comings, goings and moves with losses; both replicas end exact, and the events add up.
#[tokio::test(start_paused = true)]
async fn two_nodes_that_lose_words_agree_in_the_end() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut a, mut b, mute) = lossy().await;
        let (_one, _other) = (a.enter(100, None).await, b.enter(101, None).await);
        let mut seats: Vec<(usize, bool, Seat)> = Vec::new();
        for _ in 0..random.usize(20..100) {
            let (n, here) = (random.usize(0..10), random.bool());
            mute.store(random.u8(..) < 80, Ordering::SeqCst);
            match random.usize(0..4) {
                0 | 1 => seats.push((n, here, if here { &a } else { &b }.enter(n, None).await)),
                2 if !seats.is_empty() => drop(seats.swap_remove(random.usize(0..seats.len()))),
                _ => tokio::time::sleep(Duration::from_millis(random.u64(0..1500))).await,
            }
        }
        mute.store(false, Ordering::SeqCst);
        let mut there: Vec<_> = seats.iter().map(|(n, ..)| *n).chain([100, 101]).collect();
        there.sort_unstable();
        there.dedup();
        tokio::time::sleep(Duration::from_secs(15)).await; // a digest, an answer, and what lingers is gone
        for node in [&mut a, &mut b] {
            assert_eq!(names(&node.state().await.members), names(&node.sees(&there).await.members), "seed {seed}");
            let mut followed = BTreeSet::new();
            node.follow(&mut followed);
            assert_eq!(followed.len(), there.len(), "seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_break_of_the_bus_both_replicas_are_exact() {
    let mut server = trestle_testkit::NatsServer::start().await.expect("starts");
    let two = Two { a: connect(&server).await, b: connect(&server).await, _server: None };
    let (a, b) = both(&two).await;
    let (_one, _other) = (a.enter(1, None).await, b.enter(2, None).await);
    let leaves = b.enter(3, None).await;
    a.sees(&[1, 2, 3]).await;
    server.kill().await.expect("is killed");
    for fabric in [&two.a, &two.b] {
        soon(fabric.bus.state().wait_for(|state| *state == BusState::Away)).await.expect("the bus lives");
    }
    assert!(a.presence.state(&room()).await.is_err(), "what is known may be old");
    drop(leaves);
    let comes = b.enter(4, None).await;
    tokio::time::sleep(quick().presence_linger * 2).await; // it is gone while nobody can be told
    server.restart().await.expect("starts again");
    for fabric in [&two.a, &two.b] {
        soon(fabric.bus.state().wait_for(|state| *state != BusState::Away)).await.expect("the bus lives");
    }
    let back = Instant::now();
    until(async || {
        let state = a.presence.state(&room()).await.ok()?;
        (names(&state.members) == [1, 2, 4].map(|n| session("a", n).as_str().to_owned()).into()).then_some(())
    })
    .await;
    assert!(back.elapsed() < Duration::from_secs(12), "{:?}", back.elapsed());
    b.sees(&[1, 2, 4]).await;
    drop(comes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_come_at_once_are_few_events() {
    let fabric = Embedded::open(EmbeddedConfig::default()).expect("opens");
    let mut a =
        start(&Shared::fabric(&fabric).0, "a", ClusterConfig { presence_members_max: 10_000, ..config() }).await;
    let mut told = fabric.bus.subscribe(&Subjects::new("trestle").presence(&room()), None).await.expect("listens");
    let mut seats = Vec::new();
    for n in 0..1000 {
        seats.push(a.enter(n, None).await);
    }
    let (mut there, mut events) = (BTreeSet::new(), 0);
    while there.len() < 1000 {
        apply(&event(&mut a).await, &mut there);
        events += 1;
    }
    let mut messages = 0;
    while timeout(Duration::from_millis(300), told.next()).await.is_ok() {
        messages += 1;
    }
    assert!(events <= 20 && messages <= 20, "{events} events, {messages} messages");
}
