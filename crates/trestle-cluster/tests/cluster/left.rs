//! Sessions whose node is gone.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use prometheus_client::registry::Registry as Metrics;
use prost::Message as _;
use trestle_bus::{Fabric, Heard, Subscription};
use trestle_cluster::{ClaimRefused, FIRST_EPOCH, LeftParts, Nodes, Registry, left_control, look_after};
use trestle_wire::{
    SessionId, Subjects,
    v1::{self, control::Action, target::Target},
};

use crate::{
    Two, config, on_both, open,
    registry::{noted, registry, stored, ticket},
    session, soon, until,
};

on_both! {
    a_session_that_nobody_comes_back_to_is_ended_once_and_told
    a_session_that_is_kicked_without_its_node_is_over
    what_is_changed_of_a_session_without_a_node_is_what_its_client_finds
    what_is_wanted_before_a_node_is_known_to_be_gone_is_done_when_it_is
    what_a_process_of_the_same_name_left_is_looked_after
}

/// A node that holds sessions and looks after those of others, which wait for `window`.
struct Node {
    nodes: Arc<Nodes>,
    registry: Arc<Registry>,
    fabric: Fabric,
}

impl Node {
    async fn open(fabric: &Fabric, name: &str, window: Duration) -> Self {
        let nodes = open(fabric, name, config()).await.expect("opens");
        let registry = registry(fabric, name).await;
        let parts = LeftParts {
            nodes: Arc::clone(&nodes),
            registry: Arc::clone(&registry),
            fabric: fabric.clone(),
            subjects: Subjects::new("trestle"),
            resume_window: window,
            record_ttl: config().record_ttl,
            node_timeout: config().node_timeout,
            metrics: &mut Metrics::default(),
        };
        look_after(parts).await.expect("listens");
        Self { nodes, registry, fabric: fabric.clone() }
    }
}

const LONG: Duration = Duration::from_secs(600);

/// A node that had a session of anna's and has died.
async fn dead(fabric: &Fabric, name: &str, sessions: &[SessionId]) {
    let (nodes, registry) = (open(fabric, name, config()).await.expect("opens"), registry(fabric, name).await);
    for id in sessions {
        let record = noted(id, FIRST_EPOCH, v1::SessionState::Active);
        registry.note(v1::SessionRecord { connected: Some(SystemTime::now().into()), ..record });
    }
    soon(registry.flush()).await;
    drop((nodes, registry));
}

/// How many sessions have it, by all who look after some.
async fn control(fabric: &Fabric, target: Target, action: &Action) -> u32 {
    let control = v1::Control { target: Some(v1::Target { target: Some(target) }), action: Some(action.clone()) };
    let subject = left_control(&Subjects::new("trestle"));
    let answers = fabric.bus.gather(&subject, control.encode_to_vec().into(), 2, Duration::from_secs(3)).await;
    let counts = answers.expect("answers").into_iter().map(|answer| v1::PushCount::decode(answer).expect("a count"));
    counts.map(|count| count.delivered).sum()
}

async fn events(fabric: &Fabric) -> Subscription {
    fabric.bus.subscribe(&Subjects::new("trestle").session_events(), None).await.expect("listens")
}

async fn event(events: &mut Subscription) -> v1::SessionEvent {
    match soon(events.next()).await {
        Some(Heard::Message(message)) => v1::SessionEvent::decode(message.payload).expect("an event"),
        other => panic!("an event was due: {other:?}"),
    }
}

fn kick() -> Action {
    Action::Kick(v1::KickRequest { reason: "spam".into(), ..v1::KickRequest::default() })
}

async fn gone(one: &Node, name: &str) {
    until(async || (!one.nodes.alive().iter().any(|node| node.node == name)).then_some(())).await;
}

async fn a_session_that_nobody_comes_back_to_is_ended_once_and_told(two: Two) {
    let window = Duration::from_secs(3);
    let a = Node::open(&two.a, "a", window).await;
    let b = Node::open(&two.b, "b", window).await;
    let mut told = events(&two.a).await;
    let (left, back) = (session("c", 1), session("c", 2));
    dead(&two.b, "c", &[left.clone(), back.clone()]).await;
    for node in [&a, &b] {
        gone(node, "c").await;
    }
    b.registry.claim(&ticket(&back, FIRST_EPOCH), "client").await.expect("its client comes back");
    let event = event(&mut told).await;
    assert_eq!(
        (event.change(), &*event.session_id, &*event.user),
        (v1::SessionChange::SessionExpired, left.as_str(), "anna")
    );
    let refused = b.registry.claim(&ticket(&left, FIRST_EPOCH), "client").await;
    assert!(matches!(refused, Err(ClaimRefused::Expired)), "{refused:?}");
    assert_eq!(stored(&a.fabric, &back).await.expect("is there").state(), v1::SessionState::Active);
    assert!(told.try_next().is_none(), "once, and of no other");
}

async fn a_session_that_is_kicked_without_its_node_is_over(two: Two) {
    let a = Node::open(&two.a, "a", LONG).await;
    let _b = Node::open(&two.b, "b", LONG).await;
    let mut told = events(&two.a).await;
    let (one, other) = (session("c", 1), session("c", 2));
    dead(&two.b, "c", &[one.clone(), other.clone()]).await;
    // Before anybody knows that its node is gone.
    assert_eq!(control(&two.a, Target::Session(one.to_string()), &kick()).await, 1);
    gone(&a, "c").await;
    until(async || (control(&two.a, Target::User("anna".into()), &kick()).await == 1).then_some(())).await;
    for id in [one, other] {
        assert_eq!(event(&mut told).await.session_id, id.as_str());
        let refused = a.registry.claim(&ticket(&id, FIRST_EPOCH), "client").await;
        assert!(matches!(refused, Err(ClaimRefused::Expired)), "{refused:?}");
    }
}

async fn what_is_changed_of_a_session_without_a_node_is_what_its_client_finds(two: Two) {
    let a = Node::open(&two.a, "a", LONG).await;
    let id = session("c", 1);
    let parked = v1::Handover { session_id: id.to_string(), groups: vec!["old".into()], ..v1::Handover::default() };
    a.registry.park(&parked).await.expect("is kept");
    dead(&two.b, "c", std::slice::from_ref(&id)).await;
    gone(&a, "c").await;
    let update = Action::Update(v1::UpdateSessionsRequest {
        join_groups: vec!["vips".into()],
        leave_groups: vec!["old".into()],
        set_tags: [("plan".to_owned(), "pro".to_owned())].into(),
        ..v1::UpdateSessionsRequest::default()
    });
    until(async || (control(&two.a, Target::User("anna".into()), &update).await == 1).then_some(())).await;
    let by_tag = Action::Update(v1::UpdateSessionsRequest { join_groups: vec!["pros".into()], ..Default::default() });
    assert_eq!(control(&two.a, Target::Tags("plan=pro".into()), &by_tag).await, 1, "it is known by what it has now");
    let claimed = a.registry.claim(&ticket(&id, FIRST_EPOCH), "client").await.expect("is given");
    let record = claimed.previous.expect("was written");
    assert_eq!((record.groups, record.tags["plan"].as_str()), (vec!["vips".to_owned(), "pros".to_owned()], "pro"));
    let parked = a.registry.unpark(&id).await.expect("reads").expect("is there");
    assert_eq!((parked.groups, parked.tags["plan"].as_str()), (vec!["vips".to_owned(), "pros".to_owned()], "pro"));
    assert_eq!(control(&two.a, Target::Session(id.to_string()), &kick()).await, 0, "it is held again");
}

async fn what_is_wanted_before_a_node_is_known_to_be_gone_is_done_when_it_is(two: Two) {
    let a = Node::open(&two.a, "a", LONG).await;
    let mut told = events(&two.a).await;
    let id = session("c", 1);
    dead(&two.b, "c", std::slice::from_ref(&id)).await;
    assert_eq!(control(&two.a, Target::User("anna".into()), &kick()).await, 0, "nobody knows");
    assert_eq!(event(&mut told).await.session_id, id.as_str());
    let refused = a.registry.claim(&ticket(&id, FIRST_EPOCH), "client").await;
    assert!(matches!(refused, Err(ClaimRefused::Expired)), "{refused:?}");
}

async fn what_a_process_of_the_same_name_left_is_looked_after(two: Two) {
    let (left, new) = (session("a", 1), session("a", 2));
    dead(&two.b, "a", std::slice::from_ref(&left)).await;
    let mut told = events(&two.b).await;
    let a = Node::open(&two.a, "a", Duration::from_secs(2)).await;
    a.registry.note(noted(&new, FIRST_EPOCH, v1::SessionState::Active));
    assert_eq!(event(&mut told).await.session_id, left.as_str());
    soon(a.registry.flush()).await;
    assert_eq!(stored(&two.b, &new).await.expect("is there").state(), v1::SessionState::Active);
}
