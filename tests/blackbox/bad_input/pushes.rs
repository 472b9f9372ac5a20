//! `POST /v1/push`: each fault has its HTTP status and its reason.

use serde_json::{Value, json};

use crate::support::{comment, gateway, http, push};

#[tokio::test]
async fn a_bad_push_is_refused_with_status_and_reason() {
    let gateway = gateway(&[]).await;
    let to = |target: Value, message: Value| json!({"target": target, "message": message});
    let live = || json!({"channel": "live:1"});
    let rows = [
        (json!({}), 400, "invalid_target"),
        (json!({"message": comment("a")}), 400, "invalid_target"),
        (to(json!({}), comment("a")), 400, "invalid_target"),
        (to(json!({"channel": "room:*"}), comment("a")), 400, "invalid_channel"),
        (to(json!({"channel": "nowhere:1"}), comment("a")), 404, "unknown_namespace"),
        (to(json!({"session": "nobody"}), comment("a")), 400, "invalid_target"),
        (to(json!({"user": ""}), comment("a")), 400, "invalid_target"),
        (to(json!({"planet": "mars"}), comment("a")), 400, "malformed_frame"),
        (to(live(), json!({})), 404, "unknown_type"),
        (to(live(), json!({"messageType": "chat.v1.Nothing"})), 404, "unknown_type"),
        (to(live(), json!({"messageType": "chat.v1.Comment", "payload": {"text": 5}})), 400, "malformed_payload"),
        (to(live(), json!({"messageType": "chat.v1.Comment", "payload": {"text": ""}})), 400, "rule_violated"),
        (
            to(live(), json!({"messageType": "chat.v1.Comment", "payload": {"text": "a"}, "source": {"user": "root"}})),
            400,
            "reserved_field",
        ),
    ];
    for (body, status, reason) in rows {
        let (answered, said) = push(&gateway, &body).await;
        assert_eq!((answered, &said["error"]["reason"]), (status, &json!(reason)), "{body}: {said}");
    }
    let json_type = "content-type: application/json\r\n";
    for (headers, body, status) in [
        (json_type, "{", 400),
        (json_type, "", 400),
        (json_type, "[]", 400),
        ("content-type: text/plain\r\n", "{}", 400),
    ] {
        let (answered, said) = http(&gateway, "POST", "/v1/push", headers, body).await;
        assert_eq!(answered, status, "{body:?}: {said}");
        assert!(said.contains("malformed_frame"), "{said}");
    }
    assert_eq!(http(&gateway, "GET", "/v1/push", "", "").await.0, 405);
    let huge = format!("{{\"x\":\"{}\"}}", "y".repeat(5 << 20));
    let (status, said) = http(&gateway, "POST", "/v1/push", json_type, &huge).await;
    assert!((400..500).contains(&status), "{status}: {said}");
    // A push to nowhere is no fault: it says who got it.
    let nowhere = format!("{}.{}", gateway.ready()["node"].as_str().expect("a node"), "0".repeat(32));
    let (status, report) = push(&gateway, &to(json!({"session": nowhere}), comment("a"))).await;
    assert_eq!((status, &report["report"]["offline"]), (200, &json!(1)), "{report}");
}
