//! The operators' paths of the HTTP side: canonical JSON in and out, refusals of the one table, no browsers.

mod support;

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use prost::Message as _;
use serde_json::{Value, json};
use support::House;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;
use trestle_bus::{Heard, Subject};
use trestle_wire::{
    ChannelName, NodeId,
    v1::{self, control::Action, node_answer::Answer},
};

const SESSION: &str = "edge-1.00000000000000000000000000000007";

async fn call(house: &House, request: Request<Body>) -> (StatusCode, Value) {
    let response = house.bridge.router().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn get(house: &House, path: &str) -> (u16, Value) {
    let (status, answer) = call(house, Request::get(path).body(Body::empty()).expect("a request")).await;
    (status.as_u16(), answer)
}

async fn post(house: &House, path: &str, body: &str) -> (u16, Value) {
    let request = Request::post(path).header("content-type", "application/json");
    let (status, answer) = call(house, request.body(Body::from(body.to_owned())).expect("a request")).await;
    (status.as_u16(), answer)
}

/// A node that answers everything on `subject` with `answer`.
async fn node(house: &House, subject: &Subject, answer: impl prost::Message + 'static) -> JoinHandle<()> {
    let mut heard = house.hear(subject).await;
    let bus = Arc::clone(&house.fabric.bus);
    tokio::spawn(async move {
        while let Some(Heard::Message(message)) = heard.next().await {
            let reply_to = message.reply_to.expect("an answer is awaited");
            bus.publish(&reply_to, answer.encode_to_vec().into()).await.expect("answered");
        }
    })
}

fn counted(delivered: u32) -> v1::PushCount {
    v1::PushCount { node: "edge-1".into(), delivered, ..v1::PushCount::default() }
}

#[tokio::test]
async fn nodes_and_their_sessions_are_listed() {
    let house = House::start().await;
    house.alive.edge("edge-1", 7);
    let (status, answer) = get(&house, "/v1/nodes").await;
    assert_eq!(status, 200);
    let listed = &answer["nodes"][0];
    assert_eq!(
        (&listed["node"], &listed["roles"], &listed["active"], &listed["draining"]),
        (&json!("edge-1"), &json!(["edge", "bridge"]), &json!(7), &json!(false))
    );

    let session = v1::SessionInfo {
        session_id: SESSION.into(),
        state: v1::SessionState::Active.into(),
        user: "ann".into(),
        tags: [("plan".to_owned(), "pro".to_owned())].into(),
        queue_bytes: 12,
        ..v1::SessionInfo::default()
    };
    let page = v1::ListSessionsResponse { sessions: vec![session], ..v1::ListSessionsResponse::default() };
    let answer = v1::NodeAnswer { node: "edge-1".into(), answer: Some(Answer::Sessions(page)) };
    let mut asked = house.hear(&house.subjects.ask_all()).await;
    let _node = node(&house, &house.subjects.ask_all(), answer).await;
    let query = format!("tags=plan%3Dpro%20AND%20region%20EXISTS&channel=room:1&limit=5&after={SESSION}");
    let (status, answer) = get(&house, &format!("/v1/sessions?{query}")).await;
    assert_eq!((status, &answer["more"]), (200, &json!(false)), "{answer}");
    let listed = &answer["sessions"][0];
    assert_eq!(
        (&listed["sessionId"], &listed["state"], &listed["user"]),
        (&json!(SESSION), &json!("ACTIVE"), &json!("ann"))
    );
    assert_eq!(
        (&listed["tags"], &listed["queueBytes"], &listed["groups"]),
        (&json!({"plan": "pro"}), &json!("12"), &json!([]))
    );
    let Some(Heard::Message(message)) = asked.next().await else { panic!("asked") };
    let expected = v1::ListSessionsRequest {
        target: Some(v1::Target { target: Some(v1::target::Target::Tags("plan=pro AND region EXISTS".into())) }),
        channel: "room:1".into(),
        limit: 5,
        after: SESSION.into(),
    };
    let ask = v1::NodeAsk::decode(message.payload).expect("a NodeAsk");
    assert_eq!(ask.ask, Some(v1::node_ask::Ask::Sessions(expected)));
}

#[tokio::test]
async fn presence_is_told_by_the_channels_name_in_the_path() {
    let house = House::start().await;
    let room = ChannelName::parse("room:a/b").expect("valid");
    let member = v1::PresenceMember { session_id: SESSION.into(), user: "ann".into() };
    let whole = v1::PresenceChange { joined: vec![member], whole: true, ..v1::PresenceChange::default() };
    let _node = node(&house, &house.subjects.presence_ask(&room), whole).await;
    let (status, answer) = get(&house, "/v1/presence/room:a%2Fb").await;
    assert_eq!(status, 200);
    let members = json!([{"sessionId": SESSION, "user": "ann"}]);
    let expected = json!({"channel": "room:a/b", "sessions": 1, "users": 1, "members": members, "complete": true});
    assert_eq!(answer["presence"], expected);
}

#[tokio::test]
async fn sessions_are_updated_and_ended() {
    let house = House::start().await;
    let mut asked = house.hear(&house.subjects.control()).await;
    let _node = node(&house, &house.subjects.control(), counted(2)).await;
    let update = json!({"target": {"group": "guests"}, "joinGroups": ["vips"], "setTags": {"plan": "pro"}});
    assert_eq!(post(&house, "/v1/sessions/update", &update.to_string()).await, (200, json!({"sessions": 2})));
    let kick = json!({"target": {"user": "ann"}, "reason": "spam"});
    assert_eq!(post(&house, "/v1/kick", &kick.to_string()).await, (200, json!({"sessions": 2})));
    for expected in ["update", "kick"] {
        let Some(Heard::Message(message)) = asked.next().await else { panic!("asked") };
        let control = v1::Control::decode(message.payload).expect("a Control");
        match control.action.expect("an action") {
            Action::Update(update) => assert_eq!((expected, &update.set_tags["plan"]), ("update", &"pro".to_owned())),
            Action::Kick(kick) => assert_eq!((expected, kick.reason.as_str()), ("kick", "spam")),
        }
    }
}

#[tokio::test]
async fn a_node_is_drained_and_the_others_evened_out() {
    let house = House::start().await;
    house.alive.edge("edge-1", 900);
    house.alive.edge("edge-2", 0);
    let info = v1::NodeInfo { node: "edge-1".into(), active: 900, draining: true, ..v1::NodeInfo::default() };
    let answer = v1::NodeAnswer { node: "edge-1".into(), answer: Some(Answer::Info(info)) };
    let subject = house.subjects.ask(&NodeId::parse("edge-1").expect("valid"));
    let _node = node(&house, &subject, answer).await;
    let (status, answer) = post(&house, "/v1/drain", r#"{"node":"edge-1"}"#).await;
    assert_eq!((status, &answer["node"]["draining"], &answer["node"]["active"]), (200, &json!(true), &json!(900)));
    let (status, answer) = post(&house, "/v1/rebalance", "").await;
    let nodes = json!([
        {"node": "edge-1", "sessions": 900, "asked": 450},
        {"node": "edge-2", "sessions": 0, "asked": 0},
    ]);
    assert_eq!((status, answer), (200, json!({ "nodes": nodes })));
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_named() {
    let house = House::start().await;
    for (path, status, reason, field) in [
        ("/v1/sessions?usr=ann", 400, "malformed_frame", Some("query")),
        ("/v1/sessions?limit=many", 400, "malformed_frame", Some("query")),
        ("/v1/sessions?limit=-1", 400, "malformed_frame", Some("query")),
        ("/v1/sessions?user=ann&group=vips", 400, "invalid_target", Some("target")),
        ("/v1/sessions?user=", 400, "invalid_target", Some("target.user")),
        ("/v1/sessions?tags=plan%3D", 400, "invalid_selector", Some("target.tags")),
        ("/v1/sessions?channel=nowhere:1", 404, "unknown_namespace", Some("channel")),
        ("/v1/sessions?after=1", 400, "invalid_target", Some("after")),
        ("/v1/presence/live:1", 400, "no_presence", Some("channel")),
        ("/v1/presence/nowhere:1", 404, "unknown_namespace", Some("channel")),
        ("/v1/presence/room:*", 400, "invalid_channel", Some("channel")),
        ("/v1/presence/%FF", 400, "invalid_channel", Some("channel")),
    ] {
        let (got, answer) = get(&house, path).await;
        let error = &answer["error"];
        assert_eq!((got, error["reason"].as_str()), (status, Some(reason)), "{path}: {answer}");
        assert_eq!(error["field"].as_str(), field, "{path}: {answer}");
    }
    for (path, body, status, reason, field) in [
        ("/v1/sessions/update", "", 400, "malformed_frame", None),
        ("/v1/sessions/update", "{}", 400, "invalid_target", Some("target")),
        ("/v1/sessions/update", r#"{"target":{"user":"ann"}}"#, 400, "malformed_frame", None),
        ("/v1/sessions/update", r#"{"target":{"user":"ann"},"joinGroup":["a"]}"#, 400, "malformed_frame", None),
        (
            "/v1/sessions/update",
            r#"{"target":{"user":"ann"},"setTags":{"a b":"c"}}"#,
            400,
            "invalid_tag",
            Some("set_tags"),
        ),
        (
            "/v1/sessions/update",
            r#"{"target":{"channel":"room:1"},"joinGroups":["a"]}"#,
            400,
            "invalid_target",
            Some("target.channel"),
        ),
        ("/v1/kick", r#"{"target":{"everyone":{}}}"#, 400, "invalid_target", Some("target.everyone")),
        ("/v1/kick", r#"{"target":{"user":"ann","group":"b"}}"#, 400, "malformed_frame", None),
        ("/v1/drain", "{}", 400, "invalid_name", Some("node")),
        ("/v1/drain", r#"{"node":"edge-9"}"#, 404, "unknown_node", Some("node")),
    ] {
        let (got, answer) = post(&house, path, body).await;
        let error = &answer["error"];
        assert_eq!((got, error["reason"].as_str()), (status, Some(reason)), "{path} {body}: {answer}");
        assert_eq!(error["field"].as_str(), field, "{path} {body}: {answer}");
    }
}

#[tokio::test]
async fn pages_in_browsers_do_nothing_to_nodes_and_sessions() {
    let house = House::start().await;
    for (path, body) in
        [("/v1/kick", r#"{"target":{"user":"ann"}}"#), ("/v1/drain", r#"{"node":"edge-1"}"#), ("/v1/rebalance", "")]
    {
        let request = Request::post(path).header("content-type", "application/json");
        let request = request.header("origin", "https://elsewhere.example").body(Body::from(body)).expect("a request");
        let (status, answer) = call(&house, request).await;
        assert_eq!((status.as_u16(), &answer["error"]["reason"]), (403, &json!("origin_denied")), "{path}");
    }
    // What a page can send without being asked is refused by its type.
    for path in ["/v1/sessions/update", "/v1/kick", "/v1/drain"] {
        let request = Request::post(path).header("content-type", "text/plain").body(Body::from("{}"));
        let (status, answer) = call(&house, request.expect("a request")).await;
        assert_eq!((status.as_u16(), &answer["error"]["field"]), (400, &json!("content-type")), "{path}");
    }
}
