//! Groups, tags, selectors: whom a push is for, over two nodes.

use serde_json::{Value, json};
use trestle_testkit::Gateway;

use crate::{
    support::{Stay, Ws, comment, post, push, until},
    two::Two,
};

/// The counts of a busy machine's nodes are waited for.
const COUNTED: &str = "[bridge]\ncount_quiet = \"300ms\"\n";

/// Pushes a comment, and says how many got it.
async fn reached(gateway: &Gateway, target: Value, text: &str) -> u64 {
    let (status, answer) = push(gateway, &json!({"target": target, "message": comment(text)})).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["report"]["counted"], true, "{answer}");
    answer["report"]["delivered"].as_u64().expect("a number")
}

/// Changes sessions, and says how many.
async fn update(gateway: &Gateway, body: Value) -> u64 {
    let (status, answer) = post(gateway, "/v1/sessions/update", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["sessions"].as_u64().expect("a number")
}

/// Ann and bob at one node, cid at the other, each with groups and tags of their tokens.
async fn three(nodes: &Two) -> [Ws; 3] {
    let ann = json!({"sub": "ann", "groups": ["staff"], "tags": {"plan": "pro", "region": "eu"}});
    let bob = json!({"sub": "bob", "tags": {"plan": "free", "region": "us"}});
    let cid = json!({"sub": "cid", "groups": ["staff", "night"], "tags": {"plan": "pro", "region": "asia"}});
    [Ws::of(&nodes.one, &ann).await, Ws::of(&nodes.one, &bob).await, Ws::of(&nodes.two, &cid).await]
}

/// What each has got since it was last asked.
async fn got(clients: &mut [Ws; 3]) -> [Vec<String>; 3] {
    let mut got = [const { Vec::new() }; 3];
    for (ws, got) in clients.iter_mut().zip(&mut got) {
        for frame in ws.so_far().await {
            got.push(frame["delivery"]["payload"]["text"].as_str().expect("a comment").to_owned());
        }
    }
    got
}

#[tokio::test]
async fn a_push_reaches_a_group_a_selector_or_everyone_but_some() {
    let nodes = Two::with(COUNTED).await;
    let mut clients = three(&nodes).await;
    let bob = clients[1].stay().session;
    let rows = [
        (json!({"group": "staff"}), [true, false, true]),
        (json!({"group": "night"}), [false, false, true]),
        (json!({"group": "nobody"}), [false, false, false]),
        (json!({"tags": "plan=pro"}), [true, false, true]),
        (json!({"tags": "plan=pro AND region IN (eu, us)"}), [true, false, false]),
        (json!({"tags": "NOT plan=pro"}), [false, true, false]),
        (json!({"user": "bob"}), [false, true, false]),
        (json!({"everyone": {}}), [true, true, true]),
        (json!({"everyone": {"exceptSessions": [bob]}}), [true, false, true]),
    ];
    for (target, expected) in rows {
        for gateway in [&nodes.one, &nodes.two] {
            let count = reached(gateway, target.clone(), "hi").await;
            assert_eq!(count, expected.iter().filter(|gets| **gets).count() as u64, "{target}");
            let expected = expected.map(|gets| if gets { vec!["hi".to_owned()] } else { Vec::new() });
            assert_eq!(got(&mut clients).await, expected, "{target}");
        }
    }
}

#[tokio::test]
async fn services_put_sessions_into_groups_and_set_their_tags() {
    let nodes = Two::with(COUNTED).await;
    let mut clients = three(&nodes).await;
    let body = json!({"target": {"tags": "plan=pro"}, "joinGroups": ["vips"], "setTags": {"level": "9"}});
    assert_eq!(update(&nodes.one, body).await, 2);
    assert_eq!(reached(&nodes.two, json!({"group": "vips"}), "vips").await, 2);
    assert_eq!(reached(&nodes.two, json!({"tags": "level=9"}), "nines").await, 2);
    let both = vec!["vips".to_owned(), "nines".to_owned()];
    assert_eq!(got(&mut clients).await, [both.clone(), Vec::new(), both]);
    let body = json!({"target": {"user": "ann"}, "leaveGroups": ["vips", "staff"], "removeTags": ["level"]});
    assert_eq!(update(&nodes.two, body).await, 1);
    assert_eq!(reached(&nodes.one, json!({"group": "vips"}), "vips").await, 1);
    assert_eq!(reached(&nodes.one, json!({"tags": "level EXISTS"}), "nines").await, 1);
    assert_eq!(reached(&nodes.one, json!({"group": "staff"}), "staff").await, 2, "a token's groups stay");
    assert_eq!(update(&nodes.one, json!({"target": {"user": "zoe"}, "joinGroups": ["vips"]})).await, 0);
    // Ann has two of the 32 tags that a session can have: she is not changed, and not counted.
    let many: serde_json::Map<_, _> = (0..32).map(|n| (format!("k{n}"), json!("v"))).collect();
    let body = json!({"target": {"user": "ann"}, "setTags": many});
    assert_eq!(update(&nodes.two, body).await, 0);
    assert_eq!(reached(&nodes.one, json!({"tags": "k0 EXISTS"}), "keys").await, 0);
}

#[tokio::test]
async fn rules_put_sessions_into_groups_as_their_tags_change() {
    let nodes =
        Two::with(&format!("{COUNTED}[session.groups]\nwest-pros = \"plan=pro AND region IN (eu, us)\"\n")).await;
    let mut clients = three(&nodes).await;
    let pros = || json!({"group": "west-pros"});
    assert_eq!(reached(&nodes.two, pros(), "one").await, 1);
    assert_eq!(update(&nodes.two, json!({"target": {"user": "bob"}, "setTags": {"plan": "pro"}})).await, 1);
    assert_eq!(reached(&nodes.two, pros(), "two").await, 2);
    assert_eq!(update(&nodes.two, json!({"target": {"user": "ann"}, "setTags": {"region": "asia"}})).await, 1);
    assert_eq!(reached(&nodes.two, pros(), "three").await, 1);
    let expected = [vec!["one", "two"], vec!["two", "three"], vec![]];
    assert_eq!(got(&mut clients).await, expected.map(|texts| texts.into_iter().map(str::to_owned).collect::<Vec<_>>()));
}

#[tokio::test]
async fn who_is_kicked_is_told_why_and_does_not_come_back() {
    let nodes = Two::with(COUNTED).await;
    let [ann, mut bob, cid] = three(&nodes).await;
    let (status, answer) =
        post(&nodes.two, "/v1/kick", &json!({"target": {"group": "staff"}, "reason": "go home"})).await;
    assert_eq!((status, &answer["sessions"]), (200, &json!(2)), "{answer}");
    for ws in [ann, cid] {
        let stay = ws.stay();
        let (_, end) = ws.end().await;
        assert_eq!(end, Some((4503, "go home".to_owned())));
        for gateway in [&nodes.one, &nodes.two] {
            assert_eq!(Ws::resume(gateway, &stay).await.1["resumed"], false);
        }
    }
    assert_eq!(bob.so_far().await, [json!(null); 0]);
}

/// Ann, bob and cid at a node that is gone, as the other one knows; their stays, and what is left.
async fn left_alone(stop: impl AsyncFnOnce(&mut Gateway)) -> (Two, [Stay; 2]) {
    let config = format!("{COUNTED}[cluster]\nnode_timeout = \"1s\"\nheartbeat_interval = \"300ms\"\n");
    let mut nodes = Two::with(&config).await;
    let [ann, bob, cid] = three(&nodes).await;
    let body = json!({"target": {"user": "ann"}, "joinGroups": ["vips"]});
    assert_eq!(update(&nodes.two, body).await, 1);
    cid.close().await;
    until(&nodes.one, "trestle_cluster_records_dirty", |dirty| dirty == 0.0).await;
    stop(&mut nodes.one).await;
    until(&nodes.two, "trestle_cluster_left_sessions", |left| left == 2.0).await;
    (nodes, [ann.cut(), bob.cut()])
}

/// What is wanted of those who were left alone reaches them.
async fn are_reached(nodes: &Two, [ann, bob]: [Stay; 2]) {
    let body = json!({"target": {"group": "vips"}, "joinGroups": ["late"], "leaveGroups": ["vips"]});
    assert_eq!(update(&nodes.two, body).await, 1);
    let (status, answer) = post(&nodes.two, "/v1/kick", &json!({"target": {"user": "bob"}, "reason": "spam"})).await;
    assert_eq!((status, &answer["sessions"]), (200, &json!(1)), "{answer}");
    assert_eq!(Ws::resume(&nodes.two, &bob).await.1["resumed"], false);
    let (_ann, connected) = Ws::resume(&nodes.two, &ann).await;
    assert_eq!(connected["resumed"], true, "{connected}");
    assert_eq!(reached(&nodes.two, json!({"group": "late"}), "late").await, 1);
    assert_eq!(reached(&nodes.two, json!({"group": "vips"}), "vips").await, 0);
}

#[tokio::test]
async fn sessions_whose_gateway_was_killed_are_changed_and_kicked() {
    let (nodes, stays) = left_alone(async |gateway| _ = gateway.kill().await.expect("killed")).await;
    are_reached(&nodes, stays).await;
}

#[tokio::test]
async fn sessions_whose_gateway_has_stopped_are_changed_and_kicked() {
    let (nodes, stays) = left_alone(async |gateway| _ = gateway.terminate().await.expect("it ends")).await;
    are_reached(&nodes, stays).await;
}
