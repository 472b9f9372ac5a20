//! The HTTP side: one router, strict JSON, errors of the one table.

mod support;

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use support::{House, TRACEPARENT, shop, soon};
use tower::ServiceExt as _;
use trestle_bridge::Config;
use trestle_bus::Heard;
use trestle_schema::SchemaSource;
use trestle_wire::{ChannelName, v1};

async fn call(house: &House, request: Request<Body>) -> (StatusCode, Value) {
    let response = house.bridge.router().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(body.into()).expect("a request")
}

fn push(body: &Value) -> Request<Body> {
    post("/v1/push", body.to_string())
}

#[tokio::test]
async fn a_push_by_curl_reports_who_got_it() {
    let house = House::start().await;
    let live = house.subjects.channel(&ChannelName::parse("live:1").expect("valid"));
    let _node = house.node_with_sessions(&live, 2, 1).await;
    let mut heard = house.hear(&live).await;
    let mut request = push(&json!({
        "target": {"channel": "live:1"},
        "message": {"messageType": "chat.v1.Comment", "payload": {"text": "hi"}, "headers": {"tenant": "acme"}},
    }));
    request.headers_mut().insert("traceparent", TRACEPARENT.parse().expect("ASCII"));
    let (status, answer) = call(&house, request).await;
    assert_eq!(status, StatusCode::OK);
    let report = json!({"delivered": 2, "dropped": 1, "offline": 0, "counted": true, "offset": "0", "queued": 0});
    assert_eq!(answer, json!({ "report": report }));

    let Some(Heard::Message(message)) = soon("the message", heard.next()).await else { panic!("the bus is there") };
    let sent: v1::Envelope = prost::Message::decode(message.payload).expect("an envelope");
    let payload: shop::Comment = prost::Message::decode(sent.payload).expect("a comment");
    assert_eq!((payload.text.as_str(), sent.headers["tenant"].as_str()), ("hi", "acme"));
    assert_eq!((sent.headers["traceparent"].as_str(), sent.channel.as_str()), (TRACEPARENT, "live:1"));
}

#[tokio::test]
async fn every_target_is_taken() {
    let house = House::start().await;
    let message = json!({"messageType": "chat.v1.Comment", "version": "1", "payload": {"text": "hi"}, "id": "m1"});
    for (target, offline, stored) in [
        (json!({"channel": "room:42"}), 0, true),
        (json!({"session": "node-2.00000000000000000000000000000007"}), 1, false),
        (json!({"user": "ann"}), 1, false),
        (json!({"group": "vips"}), 0, false),
        (json!({"tags": "plan=pro"}), 0, false),
        (json!({"everyone": {}}), 0, false),
        (json!({"everyone": {"exceptSessions": ["node-2.00000000000000000000000000000007"]}}), 0, false),
        (json!({"inbox": "ann"}), 0, true),
    ] {
        let (status, answer) = call(&house, push(&json!({"target": target, "message": message}))).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["report"]["offline"], json!(offline), "{target}");
        assert_eq!(answer["report"]["offset"] != json!("0"), stored, "{target}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_push_is_named() {
    let house = House::with(Config { message_bytes_max: 4096, ..Config::default() }).await;
    let message = json!({"messageType": "chat.v1.Comment", "payload": {"text": "hi"}});
    let everyone = json!({"everyone": {}});
    let of = |message: Value| json!({"target": everyone, "message": message}).to_string();
    let to = |target: Value| json!({"target": target, "message": message}).to_string();
    let rows: Vec<(String, u16, &str, Option<&str>)> = vec![
        ("".into(), 400, "malformed_frame", None),
        ("{".into(), 400, "malformed_frame", None),
        ("[]".into(), 400, "malformed_frame", None),
        ("\"push\"".into(), 400, "malformed_frame", None),
        (r#"{"target":{"everyone":{}},"message":{},"messages":[]}"#.into(), 400, "malformed_frame", None),
        (r#"{"target":{"everyone":{}},"target":{"user":"a"},"message":{}}"#.into(), 400, "malformed_frame", None),
        (r#"{"target":{"everyone":{}}}"#.into(), 400, "malformed_frame", Some("message")),
        (format!(r#"{{"message":{message}}}"#), 400, "invalid_target", Some("target")),
        (to(json!(null)), 400, "invalid_target", Some("target")),
        (to(json!({})), 400, "invalid_target", Some("target")),
        (to(json!("everyone")), 400, "malformed_frame", Some("target")),
        (to(json!({"everyone": true})), 400, "malformed_frame", Some("target")),
        (to(json!({"everyone": {"else": 1}})), 400, "malformed_frame", Some("target")),
        (to(json!({"groups": "admins"})), 400, "malformed_frame", Some("target")),
        (to(json!({"user": "ann", "channel": "room:1"})), 400, "invalid_target", Some("target")),
        (to(json!({"channel": 42})), 400, "malformed_frame", Some("target")),
        (to(json!({"channel": "room:*"})), 400, "invalid_channel", Some("target.channel")),
        (to(json!({"channel": "nowhere:1"})), 404, "unknown_namespace", Some("target.channel")),
        (to(json!({"session": "ann"})), 400, "invalid_target", Some("target.session")),
        (to(json!({"user": ""})), 400, "invalid_target", Some("target.user")),
        (of(json!([])), 400, "malformed_frame", Some("message")),
        (of(json!({})), 404, "unknown_type", Some("message.messageType")),
        (of(json!({"messageType": "chat.v1.Nothing"})), 404, "unknown_type", Some("message.messageType")),
        (of(json!({"messageType": "ORDER_PAID", "version": "7"})), 404, "unknown_version", Some("message.version")),
        (of(json!({"messageType": 3})), 400, "malformed_frame", Some("message")),
        (of(json!({"messageType": "chat.v1.Comment", "text": "hi"})), 400, "malformed_frame", Some("message")),
        (
            of(json!({"messageType": "chat.v1.Comment", "payload": {"txt": "hi"}})),
            400,
            "malformed_payload",
            Some("message.payload.txt"),
        ),
        (
            of(json!({"messageType": "chat.v1.Comment", "payload": {"text": 1}})),
            400,
            "malformed_payload",
            Some("message.payload.text"),
        ),
        (
            of(json!({"messageType": "chat.v1.Comment", "payload": []})),
            400,
            "malformed_payload",
            Some("message.payload"),
        ),
        (of(json!({"messageType": "chat.v1.Comment"})), 400, "rule_violated", Some("message.payload.text")),
        (
            of(json!({"messageType": "chat.v1.Comment", "payload": {"text": "hi"}, "source": {"user": "root"}})),
            400,
            "reserved_field",
            Some("message.source"),
        ),
        (
            of(json!({"messageType": "chat.v1.Comment", "payload": {"text": "hi"}, "prev_offset": "1"})),
            400,
            "reserved_field",
            Some("message.prevOffset"),
        ),
        (
            of(json!({"messageType": "chat.v1.Comment", "payload": {"text": "hi"}, "headers": {"A": "b"}})),
            400,
            "invalid_header",
            Some("message.headers"),
        ),
        (
            of(json!({"messageType": "chat.v1.Comment", "payload": {"text": "hi"}, "headers": {"a": 1}})),
            400,
            "malformed_frame",
            Some("message"),
        ),
        (
            of(json!({"messageType": "chat.v1.Comment", "payload": {"text": "hi"}, "id": "x".repeat(200)})),
            400,
            "invalid_id",
            Some("message.id"),
        ),
        (" ".repeat(5000), 429, "payload_too_large", None),
    ];
    for (body, status, reason, field) in rows {
        let (got, answer) = call(&house, post("/v1/push", body.clone())).await;
        let error = &answer["error"];
        assert_eq!((got.as_u16(), error["reason"].as_str()), (status, Some(reason)), "{body}: {answer}");
        assert_eq!(error["field"].as_str(), field, "{body}: {answer}");
        assert!(
            error["code"].is_string() && error["message"].is_string() && error["retryable"].is_boolean(),
            "{answer}"
        );
    }
    let bytes = b"{\"target\":{\"user\":\"\xff\"}}".to_vec();
    let (status, answer) = call(&house, post("/v1/push", bytes)).await;
    assert_eq!((status.as_u16(), &answer["error"]["reason"]), (400, &json!("malformed_frame")));
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_push_without_asking() {
    let house = House::start().await;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "text/json; application/json"] {
        let request = Request::post("/v1/push").header("content-type", content_type);
        let (status, answer) = call(&house, request.body(Body::from("{}")).expect("a request")).await;
        assert_eq!((status.as_u16(), &answer["error"]["field"]), (400, &json!("content-type")), "{content_type}");
    }
    let mut request = post("/v1/reload", "");
    request.headers_mut().insert("origin", "https://elsewhere.example".parse().expect("ASCII"));
    let (status, answer) = call(&house, request).await;
    assert_eq!((status.as_u16(), &answer["error"]["reason"]), (403, &json!("origin_denied")));
}

#[tokio::test]
async fn a_json_type_with_a_charset_is_json() {
    let house = House::start().await;
    let body =
        json!({"target": {"everyone": {}}, "message": {"messageType": "chat.v1.Comment", "payload": {"text": "hi"}}});
    let request = Request::post("/v1/push").header("content-type", "Application/JSON; charset=utf-8");
    let (status, answer) = call(&house, request.body(Body::from(body.to_string())).expect("a request")).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

#[tokio::test]
async fn other_methods_and_paths_are_not_served() {
    let house = House::start().await;
    for (method, path, status) in [("GET", "/v1/push", 405), ("POST", "/v1/routes", 405), ("GET", "/v1/nothing", 404)] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
        assert_eq!(call(&house, request).await.0.as_u16(), status, "{method} {path}");
    }
}

#[tokio::test]
async fn the_routes_are_listed() {
    let house = House::start().await;
    let request = Request::get("/v1/routes").body(Body::empty()).expect("a request");
    let (status, answer) = call(&house, request).await;
    assert_eq!(status, StatusCode::OK);
    let routes = answer["routes"].as_array().expect("a list");
    let order = routes.iter().find(|route| route["messageType"] == "shop.v1.OrderPaid").expect("is routed");
    let expected = json!({
        "messageType": "shop.v1.OrderPaid", "alias": "ORDER_PAID", "version": "1.0", "service": "billing",
        "transport": "BRIDGE", "destination": "trestle.work.billing.shop.v1.OrderPaid", "ack": "HANDLED", "scopes": [],
    });
    assert_eq!(order, &expected);
    let list = v1::admin_client::AdminClient::new(house.connect().await).list_routes(v1::ListRoutesRequest {}).await;
    assert_eq!(list.expect("listed").into_inner().routes.len(), routes.len());
}

#[tokio::test]
async fn a_reload_takes_the_new_set_or_lists_all_its_faults() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.proto");
    let write =
        |text: &str| std::fs::write(&file, format!("syntax = \"proto3\";\npackage a.v1;\n{text}")).expect("written");
    write("message A { string x = 1; }");
    let house = House::of(Config::default(), SchemaSource::Folder(folder.path().into())).await;
    let mut admin = v1::admin_client::AdminClient::new(house.connect().await);

    write("message A { string x = 1; }\nmessage B { int32 y = 1; }");
    let (status, answer) = call(&house, post("/v1/reload", "")).await;
    assert_eq!((status.as_u16(), answer), (200, json!({"applied": true, "faults": [], "types": 2})));

    write("message A { Missing x = 1; }\nmessage B { int32 y = 1; }");
    let (status, answer) = call(&house, post("/v1/reload", "")).await;
    assert_eq!((status.as_u16(), &answer["error"]["reason"]), (400, &json!("reload_refused")));
    assert_eq!((&answer["applied"], &answer["types"]), (&json!(false), &json!(2)));
    let faults = answer["faults"].as_array().expect("a list");
    assert!(faults.iter().any(|fault| fault.as_str().is_some_and(|fault| fault.contains("Missing"))), "{faults:?}");

    let refused = admin.reload(v1::ReloadRequest {}).await.expect("answered").into_inner();
    assert!(!refused.applied && !refused.faults.is_empty());
    write("message A { string x = 1; }\nmessage B { int32 y = 1; }\nmessage C {}");
    let applied = admin.reload(v1::ReloadRequest {}).await.expect("answered").into_inner();
    assert_eq!((applied.applied, applied.types), (true, 3));
}
