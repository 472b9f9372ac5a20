//! Programs in other languages, on stubs made from the proto folder and on their own ecosystem's libraries, against the
//! real binary. Each prints one JSON line of what it saw; `tests/blackbox/stubs/<language>/run.sh` fetches, compiles, runs.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};
use trestle_testkit::Gateway;

/// From cold, on a busy machine: packages are fetched, and Go compiles gRPC.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs one language's program against `gateway` and gives what it printed.
async fn run(language: &str, gateway: &Gateway) -> Value {
    let work = tempfile::tempdir().expect("a temp folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blackbox/stubs").join(language).join("run.sh");
    let program = Command::new(&script)
        .arg(work.path())
        .args([format!("ws://{}/ws", gateway.listen()), gateway.grpc().to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(RUN_TIMEOUT, program).await.expect("the program ends in time").expect("the script starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {}; it printed {said:?} and complained:\n{complaint}",
        script.display(),
        output.status
    );
    serde_json::from_str(&said).unwrap_or_else(|fault| panic!("{language} printed {said:?}: {fault}"))
}

/// A gateway with the schemas of these tests, and no services but those that attach.
async fn with_demo_schemas() -> Gateway {
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/blackbox/stubs/schemas");
    Gateway::start(env!("CARGO_BIN_EXE_trestle"), ["--schemas", schemas]).await.expect("starts")
}

#[tokio::test]
async fn typescript_clients_of_both_subprotocols_share_a_room_and_reach_the_services() {
    let gateway = Gateway::start(env!("CARGO_BIN_EXE_trestle"), [""; 0]).await.expect("starts");
    let seen = run("typescript", &gateway).await;

    assert_eq!(seen["sessions"], true, "two sessions, each with an id: {seen}");
    let both = json!(["json: hi ☃", "protobuf: hello"]);
    assert_eq!(seen["comments"], json!({ "json": both, "protobuf": both }), "both clients get both comments");
    for client in ["json", "protobuf"] {
        let quote = &seen["quotes"][client];
        assert_eq!(quote["sku"], "a1", "{seen}");
        assert!(quote["cents"].as_str().and_then(|cents| cents.parse::<i64>().ok()) > Some(0), "{seen}");
        assert_eq!(seen["orders"][client], "HANDLED");
    }
    assert_eq!(seen["receipts"]["json"]["orderId"], "o-json");
    assert_eq!(seen["receipts"]["json"]["cents"], "9007199254740993", "one more than a double can hold");
    assert_eq!(seen["receipts"]["protobuf"]["orderId"], "o-protobuf");
    assert_eq!(seen["receipts"]["protobuf"]["cents"], "250");
}

#[tokio::test]
async fn a_python_service_replies_declines_acks_and_pushes() {
    let gateway = with_demo_schemas().await;
    assert_eq!(
        run("python", &gateway).await,
        json!({
            "attached": ["demo.v1.Job", "demo.v1.Ping"],
            "pong": { "text": "hi ☃", "by": "python" },
            "job": { "level": "HANDLED" },
            "attempts": [1, 2],
            "done": "done 2",
            "counted": [7, 1, true],
            "pushed": 2,
            "news": { "json": "all -1", "protobuf": "all -1" },
            "refused": "NOT_FOUND",
            "source": true,
        })
    );
}

#[tokio::test]
async fn a_go_service_replies_declines_acks_and_pushes_in_order() {
    let gateway = with_demo_schemas().await;
    assert_eq!(
        run("go", &gateway).await,
        json!({
            "attached": ["demo.v1.Job", "demo.v1.Ping"],
            "pong": "hi ☃ by go",
            "job": "HANDLED",
            "attempts": [1, 2],
            "done": "done 2",
            "counted": 1,
            "seqs": [1, 2, 3],
            "ticks": ["tick 1", "tick 2", "tick 3"],
        })
    );
}

#[tokio::test]
async fn a_java_program_pushes_and_is_told_what_was_wrong() {
    let gateway = with_demo_schemas().await;
    assert_eq!(run("java", &gateway).await, json!({ "delivered": 0, "dropped": 0, "refused": "INVALID_ARGUMENT" }));
}
