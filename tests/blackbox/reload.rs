//! Schemas are changed under the running gateway.

use std::path::Path;

use serde_json::{Value, json};
use trestle_testkit::process::Signal;

use crate::support::{Ws, gateway, http};

const ONE: &str = "syntax = \"proto3\";\npackage t.v1;\nmessage Note {\n  string text = 1;\n}\n";
const TWO: &str = "syntax = \"proto3\";\npackage t.v1;\nmessage Note {\n  string text = 1;\n  string mood = 2;\n}\n\
                   message More {}\n";
const BROKEN: &str = "syntax = \"proto3\";\npackage t.v1;\nmessage Note {\n  strin text = 1;\n  Unknown u = 2;\n}\n";
const INCOMPATIBLE: &str = "syntax = \"proto3\";\npackage t.v1;\nmessage Note {\n  int64 text = 1;\n}\n";

fn write(dir: &Path, text: &str) {
    std::fs::create_dir_all(dir.join("t/v1")).expect("a folder");
    std::fs::write(dir.join("t/v1/note.proto"), text).expect("written");
}

fn note(payload: Value) -> Value {
    json!({"id": 9, "publish": {"channel": "live:1", "message": {"messageType": "t.v1.Note", "payload": payload}}})
}

async fn reload(gateway: &trestle_testkit::Gateway) -> Value {
    let (_, body) = http(gateway, "POST", "/v1/reload", "", "").await;
    let (start, end) = (body.find('{').expect("JSON"), body.rfind('}').expect("JSON"));
    serde_json::from_str(&body[start..=end]).expect("JSON")
}

#[tokio::test]
async fn new_schemas_are_taken_and_bad_ones_refused_whole_without_dropping_a_connection() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), ONE);
    let gateway = gateway(&["--schemas", dir.path().to_str().unwrap()]).await;
    let mut ws = Ws::on(&gateway, "live:1").await;
    assert_eq!(ws.ask(note(json!({"text": "a", "mood": "b"}))).await["error"]["reason"], "malformed_payload");

    write(dir.path(), TWO);
    assert_eq!(reload(&gateway).await["applied"], true);
    assert!(ws.ask(note(json!({"text": "a", "mood": "b"}))).await["accepted"].is_object());
    assert_eq!(ws.delivery().await["payload"], json!({"text": "a", "mood": "b"}));

    for text in [BROKEN, INCOMPATIBLE, ONE] {
        write(dir.path(), text);
        let refused = reload(&gateway).await;
        assert!(refused["applied"] != true, "{refused}");
        assert!(!refused["faults"].as_array().expect("a list").is_empty(), "{refused}");
        assert!(ws.ask(note(json!({"text": "a", "mood": "b"}))).await["accepted"].is_object(), "the old set stays");
        ws.delivery().await;
    }
}

#[tokio::test]
async fn sighup_reloads_too() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path(), ONE);
    let mut gateway = gateway(&["--schemas", dir.path().to_str().unwrap()]).await;
    let mut ws = Ws::on(&gateway, "live:1").await;
    write(dir.path(), TWO);
    gateway.process().signal(Signal::HUP).expect("signalled");
    gateway.process().line("that it reloaded", |line| line.contains("schemas reloaded")).await.expect("said");
    assert!(ws.ask(note(json!({"text": "a", "mood": "b"}))).await["accepted"].is_object());
    write(dir.path(), BROKEN);
    gateway.process().signal(Signal::HUP).expect("signalled");
    let said = gateway.process().line("that it refused", |line| line.contains("refused")).await.expect("said");
    assert!(said.contains("note.proto:4"), "the place of the fault is named: {said}");
}
