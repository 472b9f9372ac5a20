//! What operators see and do, by command and by HTTP.

use serde_json::{Value, json};
use tokio::process::Command;
use trestle_testkit::Gateway;

use crate::{
    support::{Ws, get, until},
    two::Two,
};

/// Runs a command against a gateway: whether it succeeded, and all it said.
pub(crate) async fn trestle(gateway: &Gateway, args: &[&str]) -> (bool, String) {
    let url = format!("http://{}", gateway.listen());
    let output =
        Command::new(env!("CARGO_BIN_EXE_trestle")).args(args).args(["--url", &url]).output().await.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout) + &text(output.stderr))
}

/// Runs a command that succeeds.
async fn said(gateway: &Gateway, args: &[&str]) -> String {
    let (done, said) = trestle(gateway, args).await;
    assert!(done, "{args:?}: {said}");
    said
}

/// Ann at one node, on a channel, in a group, with a tag; bob at the other.
async fn ann_and_bob(nodes: &Two) -> (Ws, Ws) {
    let ann = json!({"sub": "ann", "groups": ["staff"], "tags": {"plan": "pro"}});
    let mut ann = Ws::of(&nodes.one, &ann).await;
    ann.subscribe(json!({"channel": "room:1"})).await;
    (ann, Ws::of(&nodes.two, &json!({"sub": "bob"})).await)
}

#[tokio::test]
async fn sessions_of_all_nodes_are_listed() {
    let nodes = Two::start().await;
    let (ann, bob) = ann_and_bob(&nodes).await;
    for gateway in [&nodes.one, &nodes.two] {
        let table = said(gateway, &["sessions"]).await;
        let row = |session: &str| table.lines().find(|line| line.starts_with(session)).expect("a row").to_owned();
        for word in ["active", "ann", "one", "room:1", "staff", "plan=pro"] {
            assert!(row(&ann.stay().session).contains(word), "{word} is not in {table}");
        }
        assert!(row(&bob.stay().session).contains("bob"), "{table}");
        for whose in [["--user", "ann"], ["--group", "staff"], ["--tags", "plan=pro"], ["--channel", "room:1"]] {
            let list: Value =
                serde_json::from_str(&said(gateway, &[&["sessions", "--json"], &whose[..]].concat()).await)
                    .expect("JSON");
            assert_eq!(list["sessions"].as_array().map(Vec::len), Some(1), "{whose:?}: {list}");
            let session = &list["sessions"][0];
            assert_eq!((&session["sessionId"], &session["state"]), (&json!(ann.stay().session), &json!("ACTIVE")));
            assert_eq!((&session["node"], &session["groups"]), (&json!("one"), &json!(["staff"])), "{session}");
            assert_eq!((&session["subscriptions"], &session["tags"]), (&json!(["room:1"]), &json!({"plan": "pro"})));
        }
    }
    // One page after the other.
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let (status, page) = get(&nodes.one, &format!("/v1/sessions?limit=1&after={after}")).await;
        assert_eq!(status, 200, "{page}");
        let session = page["sessions"][0]["sessionId"].as_str().expect("a session").to_owned();
        seen.push(session.clone());
        if page["more"] != true {
            break;
        }
        after = session;
    }
    let mut both = vec![ann.stay().session, bob.stay().session];
    both.sort();
    assert_eq!(seen, both);

    let stay = ann.cut();
    until(&nodes.one, "trestle_edge_pending", |pending| pending == 1.0).await;
    let row = said(&nodes.two, &["sessions", "--session", &stay.session]).await;
    assert!(row.contains("pending"), "{row}");
}

#[tokio::test]
async fn nodes_and_presence_are_listed() {
    let nodes = Two::start().await;
    let (_ann, _bob) = ann_and_bob(&nodes).await;
    let table = said(&nodes.two, &["nodes"]).await;
    for node in ["one", "two"] {
        let row = table.lines().find(|line| line.starts_with(node)).expect("a row");
        assert!(row.contains("serving") && row.contains("edge,bridge"), "{table}");
    }
    // Presence comes to the other node by itself, a moment later.
    let seen = async {
        loop {
            let table = said(&nodes.two, &["presence", "room:1"]).await;
            if table.contains("ann") {
                return table;
            }
        }
    };
    let table = tokio::time::timeout(crate::support::PATIENCE, seen).await.expect("in time");
    assert!(table.contains("1 session, 1 user"), "{table}");
    let (done, said) = trestle(&nodes.one, &["presence", "live:1"]).await;
    assert!(!done && said.contains("presence"), "{said}");
}

#[tokio::test]
async fn sessions_are_changed_and_ended_by_command() {
    let nodes = Two::start().await;
    let (mut ann, bob) = ann_and_bob(&nodes).await;
    let update = ["update", "--user", "ann", "--join", "vips", "--set", "level=9"];
    assert!(said(&nodes.two, &update).await.contains("1 session changed"));
    for target in ["group:vips", "tags:level=9"] {
        said(&nodes.two, &["push", target, "chat.v1.Comment", r#"{"text":"hi"}"#]).await;
        assert_eq!(ann.texts(1).await, ["hi"], "{target}");
    }
    let kicked = said(&nodes.one, &["kick", "--user", "bob", "--reason", "closing time"]).await;
    assert!(kicked.contains("1 session ended"), "{kicked}");
    let (_, end) = bob.end().await;
    assert_eq!(end, Some((4503, "closing time".to_owned())));
    assert!(said(&nodes.one, &["kick", "--user", "bob"]).await.contains("0 sessions"));
    assert_eq!(ann.so_far().await, [json!(null); 0]);
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let nodes = Two::start().await;
    for (args, word) in [
        (&["drain", "three"][..], "three"),
        (&["kick"], "whose"),
        (&["sessions", "--tags", "plan="], "tags"),
        (&["presence", "nonsense"], "namespace"),
    ] {
        let (done, said) = trestle(&nodes.one, args).await;
        assert!(!done && said.contains(word), "{args:?}: {said}");
    }
}
