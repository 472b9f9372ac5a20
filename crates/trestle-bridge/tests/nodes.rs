//! What operators and services ask of nodes, which the test plays on the bus.

mod support;

use std::sync::Arc;

use support::{House, reason, soon};
use tokio::{sync::mpsc, task::JoinHandle};
use trestle_bus::Heard;
use trestle_cluster::left_control;
use trestle_wire::{
    ChannelName, NodeId, SessionId, Subject,
    v1::{
        self, admin_client::AdminClient, bridge_client::BridgeClient, control::Action, node_answer::Answer,
        node_ask::Ask, target::Target,
    },
};

/// Hears what is asked on `subject` and answers with what `answer` says, if it says something.
async fn answering<M: prost::Message + Default + 'static, A: prost::Message + 'static>(
    house: &House,
    subject: &Subject,
    answer: impl Fn(&M) -> Option<A> + Send + Sync + 'static,
) -> (mpsc::Receiver<M>, JoinHandle<()>) {
    let (heard, asked) = mpsc::channel(64);
    let mut subscription = house.hear(subject).await;
    let bus = Arc::clone(&house.fabric.bus);
    let task = tokio::spawn(async move {
        while let Some(Heard::Message(message)) = subscription.next().await {
            let ask = M::decode(message.payload).expect("what the subject carries");
            let said = answer(&ask);
            heard.send(ask).await.expect("the test reads");
            if let (Some(said), Some(reply_to)) = (said, message.reply_to) {
                bus.publish(&reply_to, said.encode_to_vec().into()).await.expect("answered");
            }
        }
    });
    (asked, task)
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("valid")
}

fn session(n: u128) -> SessionId {
    SessionId::new(&node("edge-1"), n)
}

fn whose(target: Target) -> Option<v1::Target> {
    Some(v1::Target { target: Some(target) })
}

fn counted(delivered: u32) -> Option<v1::PushCount> {
    Some(v1::PushCount { node: "edge-1".into(), delivered, ..v1::PushCount::default() })
}

#[tokio::test]
async fn an_update_goes_to_the_nodes_and_says_how_many_sessions_have_it() {
    let house = House::start().await;
    let answer = |_: &v1::Control| counted(3);
    let (mut asked, _node) = answering(&house, &house.subjects.control(), answer).await;
    let mut client = BridgeClient::new(house.connect().await);
    let update = v1::UpdateSessionsRequest {
        target: whose(Target::User("ann".into())),
        join_groups: vec!["vips".into()],
        set_tags: [("plan".to_owned(), "pro".to_owned())].into(),
        ..v1::UpdateSessionsRequest::default()
    };
    let sessions = client.update_sessions(update.clone()).await.expect("updated").into_inner().sessions;
    assert_eq!(sessions, 3);
    let control = asked.recv().await.expect("asked");
    assert_eq!((control.target, control.action), (update.target.clone(), Some(Action::Update(update.clone()))));

    let nothing = v1::UpdateSessionsRequest { join_groups: vec!["a b".into()], ..update };
    let status = client.update_sessions(nothing).await.expect_err("refused");
    assert_eq!(reason(&status), "invalid_name");
    assert!(asked.try_recv().is_err(), "what is refused goes nowhere");
    assert!(house.metrics().contains(r#"controls_total{action="update",target="user",outcome="ok"} 1"#));
}

#[tokio::test]
async fn sessions_whose_node_is_gone_are_changed_by_those_who_look_after_them() {
    let house = House::start().await;
    let (mut asked, _heir) = answering(&house, &left_control(&house.subjects), |_: &v1::Control| counted(2)).await;
    let (_held, _node) = answering(&house, &house.subjects.control(), |_: &v1::Control| counted(3)).await;
    let mut admin = AdminClient::new(house.connect().await);
    let of = |target| v1::KickRequest { target: whose(target), reason: String::new() };
    let ann = of(Target::User("ann".into()));
    assert_eq!(admin.kick(ann.clone()).await.expect("kicked").into_inner().sessions, 5, "here and there");
    assert_eq!(asked.recv().await.expect("asked").action, Some(Action::Kick(ann)));
    // One session is asked for there if no node holds it.
    assert_eq!(admin.kick(of(Target::Session(session(8).to_string()))).await.expect("kicked").into_inner().sessions, 2);
    let (_own, _holder) =
        answering(&house, &house.subjects.session_control(&session(7)), |_: &v1::Control| counted(1)).await;
    assert_eq!(admin.kick(of(Target::Session(session(7).to_string()))).await.expect("kicked").into_inner().sessions, 1);
}

#[tokio::test]
async fn one_session_is_reached_on_its_own_subject_and_ends_for_good() {
    let house = House::start().await;
    let subject = house.subjects.session_control(&session(7));
    let (mut asked, _node) = answering(&house, &subject, |_: &v1::Control| counted(1)).await;
    let mut admin = AdminClient::new(house.connect().await);
    let kick = v1::KickRequest { target: whose(Target::Session(session(7).to_string())), reason: "spam".into() };
    assert_eq!(admin.kick(kick.clone()).await.expect("kicked").into_inner().sessions, 1);
    assert_eq!(asked.recv().await.expect("asked").action, Some(Action::Kick(kick)));
    // Nobody at all listens for another one.
    let kick = v1::KickRequest { target: whose(Target::Session(session(8).to_string())), reason: String::new() };
    assert_eq!(admin.kick(kick).await.expect("kicked").into_inner().sessions, 0);
    let all = v1::KickRequest { target: whose(Target::Everyone(v1::Everyone::default())), reason: String::new() };
    let status = admin.kick(all).await.expect_err("refused");
    assert_eq!((reason(&status), status.code()), ("invalid_target", tonic::Code::InvalidArgument));
}

#[tokio::test]
async fn the_nodes_that_live_are_listed_by_name() {
    let house = House::start().await;
    house.alive.edge("edge-2", 5);
    house.alive.edge("edge-1", 7);
    let mut admin = AdminClient::new(house.connect().await);
    let nodes = admin.list_nodes(v1::ListNodesRequest {}).await.expect("listed").into_inner().nodes;
    let names: Vec<_> = nodes.iter().map(|node| (node.node.as_str(), node.active)).collect();
    assert_eq!(names, [("edge-1", 7), ("edge-2", 5)]);
}

#[tokio::test]
async fn sessions_are_asked_of_all_nodes_with_a_limit() {
    let house = House::start().await;
    house.alive.edge("edge-1", 3);
    let answer = |ask: &v1::NodeAsk| {
        let Some(Ask::Sessions(request)) = &ask.ask else { panic!("not {ask:?}") };
        let ids = (1..=3).map(session).filter(|id| id.as_str() > request.after.as_str());
        let sessions: Vec<_> =
            ids.map(|id| v1::SessionInfo { session_id: id.to_string(), ..Default::default() }).collect();
        let more = sessions.len() > request.limit as usize;
        let sessions = sessions.into_iter().take(request.limit as usize).collect();
        let answer = Some(Answer::Sessions(v1::ListSessionsResponse { sessions, more, silent_nodes: Vec::new() }));
        Some(v1::NodeAnswer { node: "edge-1".into(), answer })
    };
    let (mut asked, _node) = answering(&house, &house.subjects.ask_all(), answer).await;
    let mut admin = AdminClient::new(house.connect().await);
    let request = |limit, after: &str| v1::ListSessionsRequest {
        target: whose(Target::Tags("plan=pro".into())),
        channel: "room:1".into(),
        limit,
        after: after.into(),
    };
    let page = admin.list_sessions(request(2, "")).await.expect("listed").into_inner();
    assert_eq!((page.sessions.len(), page.more), (2, true));
    let rest = admin.list_sessions(request(2, &page.sessions[1].session_id)).await.expect("listed").into_inner();
    assert_eq!((rest.sessions[0].session_id.as_str(), rest.more), (session(3).as_str(), false));
    assert_eq!(rest.silent_nodes, [""; 0]);
    for (given, asked_for) in [(0, 100), (5000, 1000)] {
        admin.list_sessions(request(given, "")).await.expect("listed");
        let limits = std::iter::from_fn(|| asked.try_recv().ok()).filter_map(|ask| match ask.ask {
            Some(Ask::Sessions(request)) => Some(request.limit),
            _ => None,
        });
        assert_eq!(limits.last(), Some(asked_for));
    }
}

#[tokio::test]
async fn nodes_that_do_not_answer_are_named_beside_the_sessions_of_those_that_do() {
    let house = House::start().await;
    house.alive.edge("edge-1", 1);
    house.alive.edge("edge-2", 1);
    let info = || v1::SessionInfo { session_id: session(1).to_string(), ..v1::SessionInfo::default() };
    let answer = move |_: &v1::NodeAsk| {
        let page = v1::ListSessionsResponse { sessions: vec![info()], ..v1::ListSessionsResponse::default() };
        Some(v1::NodeAnswer { node: "edge-1".into(), answer: Some(Answer::Sessions(page)) })
    };
    let (_asked, _node) = answering(&house, &house.subjects.ask_all(), answer).await;
    let mut admin = AdminClient::new(house.connect().await);
    let page = admin.list_sessions(v1::ListSessionsRequest::default()).await.expect("listed").into_inner();
    assert_eq!((page.sessions.len(), page.more), (1, false));
    assert_eq!(page.silent_nodes, ["edge-2"]);
}

#[tokio::test]
async fn a_listing_that_cannot_be_is_refused() {
    let house = House::start().await;
    let mut admin = AdminClient::new(house.connect().await);
    let plain = v1::ListSessionsRequest::default;
    for (request, word, field) in [
        (
            v1::ListSessionsRequest { target: whose(Target::Channel("room:1".into())), ..plain() },
            "invalid_target",
            "target.channel",
        ),
        (
            v1::ListSessionsRequest { target: whose(Target::Tags("(".into())), ..plain() },
            "invalid_selector",
            "target.tags",
        ),
        (v1::ListSessionsRequest { target: Some(v1::Target::default()), ..plain() }, "invalid_target", "target"),
        (v1::ListSessionsRequest { channel: "nowhere:1".into(), ..plain() }, "unknown_namespace", "channel"),
        (v1::ListSessionsRequest { channel: "room:*".into(), ..plain() }, "invalid_channel", "channel"),
        (v1::ListSessionsRequest { after: "x".into(), ..plain() }, "invalid_target", "after"),
    ] {
        let status = admin.list_sessions(request.clone()).await.expect_err("refused");
        let named = status.metadata().get("trestle-field").and_then(|field| field.to_str().ok());
        assert_eq!((reason(&status), named), (word, Some(field)), "{request:?}");
    }
}

#[tokio::test]
async fn presence_is_put_together_where_the_namespace_has_it() {
    let house = House::start().await;
    let room = ChannelName::parse("room:1").expect("valid");
    let member = |id: u128| v1::PresenceMember { session_id: session(id).to_string(), user: "ann".into() };
    let whole = v1::PresenceChange { joined: vec![member(1), member(2)], whole: true, ..Default::default() };
    let answer = move |_: &v1::PresenceAsk| Some(whole.clone());
    let (_asked, _node) = answering(&house, &house.subjects.presence_ask(&room), answer).await;
    let mut admin = AdminClient::new(house.connect().await);
    let ask = |channel: &str| v1::GetPresenceRequest { channel: channel.into() };
    let state = admin.get_presence(ask("room:1")).await.expect("known").into_inner().presence.expect("a state");
    assert_eq!((state.channel.as_str(), state.sessions, state.users, state.complete), ("room:1", 2, 1, true));
    let empty = admin.get_presence(ask("room:2")).await.expect("known").into_inner().presence.expect("a state");
    assert_eq!((empty.sessions, empty.complete), (0, true));
    for (channel, word) in [("live:1", "no_presence"), ("nowhere:1", "unknown_namespace"), ("", "invalid_channel")] {
        let status = admin.get_presence(ask(channel)).await.expect_err("refused");
        assert_eq!(reason(&status), word, "{channel}");
    }
}

#[tokio::test]
async fn a_node_drains_when_it_is_told_to_and_is_there() {
    let house = House::start().await;
    house.alive.edge("edge-1", 7);
    house.alive.edge("edge-2", 7);
    let answer = |ask: &v1::NodeAsk| {
        assert!(matches!(&ask.ask, Some(Ask::Drain(drain)) if drain.node == "edge-1"), "{ask:?}");
        let info = v1::NodeInfo { node: "edge-1".into(), active: 7, draining: true, ..v1::NodeInfo::default() };
        Some(v1::NodeAnswer { node: "edge-1".into(), answer: Some(Answer::Info(info)) })
    };
    let (_asked, _node) = answering(&house, &house.subjects.ask(&node("edge-1")), answer).await;
    let mut admin = AdminClient::new(house.connect().await);
    let ask = |node: &str| v1::DrainRequest { node: node.into() };
    let drained = admin.drain(ask("edge-1")).await.expect("drains").into_inner().node.expect("its state");
    assert_eq!((drained.active, drained.draining), (7, true));
    // The second one lives by its heartbeat, but does not listen any more.
    for (name, word, said) in [
        ("edge-2", "unknown_node", "does not listen"),
        ("edge-3", "unknown_node", "edge-1, edge-2"),
        ("Edge", "invalid_name", "Edge"),
    ] {
        let status = admin.drain(ask(name)).await.expect_err("refused");
        assert_eq!(reason(&status), word, "{name}");
        assert!(status.message().contains(said), "{status}");
    }
}

#[tokio::test]
async fn what_a_node_refuses_is_said_in_its_own_words() {
    let house = House::start().await;
    house.alive.edge("edge-1", 7);
    let answer = |_: &v1::NodeAsk| {
        let refusal = trestle_wire::Refusal::new(trestle_wire::Reason::Draining, "it drains already");
        Some(v1::NodeAnswer { node: "edge-1".into(), answer: Some(Answer::Error(refusal.into())) })
    };
    let (_asked, _node) = answering(&house, &house.subjects.ask(&node("edge-1")), answer).await;
    let mut admin = AdminClient::new(house.connect().await);
    let status = admin.drain(v1::DrainRequest { node: "edge-1".into() }).await.expect_err("refused");
    assert_eq!((reason(&status), status.message()), ("draining", "it drains already"));
}

#[tokio::test]
async fn only_a_node_with_more_than_its_share_is_asked_to_shed() {
    let house = House::start().await;
    house.alive.edge("edge-1", 900);
    house.alive.edge("edge-2", 0);
    let answer = |ask: &v1::NodeAsk| {
        assert_eq!(ask.ask, Some(Ask::Shed(450)));
        // Not all of them could be asked.
        let info = v1::NodeInfo { active: 440, ..v1::NodeInfo::default() };
        Some(v1::NodeAnswer { node: "edge-1".into(), answer: Some(Answer::Info(info)) })
    };
    let (mut asked, _node) = answering(&house, &house.subjects.ask(&node("edge-1")), answer).await;
    let mut admin = AdminClient::new(house.connect().await);
    let shares = admin.rebalance(v1::RebalanceRequest {}).await.expect("asked").into_inner().nodes;
    let share = |node: &str, sessions, asked| v1::NodeShare { node: node.into(), sessions, asked };
    assert_eq!(shares, [share("edge-1", 900, 440), share("edge-2", 0, 0)]);
    assert!(soon("the question", asked.recv()).await.is_some());
    assert!(asked.try_recv().is_err(), "once");
}
