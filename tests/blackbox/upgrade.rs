//! From HTTP to WebSocket: what is refused, and who one is after it.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{PATIENCE, Ws, file, gateway, http, push};

const GOOD: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// What tokens are signed with.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A type for everyone, and one for those with a scope.
const SCHEMA: &str = r#"syntax = "proto3";
package t.v1;
import "trestle/v1/options.proto";
message Note {}
message Secret { option (trestle.v1.route) = { service: "vault" scopes: ["admin"] }; }
"#;

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_told_why() {
    let gateway = gateway(&[]).await;
    let rows = [
        ("GET", String::new(), 426, "speaks WebSocket"),
        ("POST", GOOD.to_owned(), 426, "speaks WebSocket"),
        ("GET", GOOD.replace("version: 13", "version: 8"), 426, "version 13"),
        ("GET", GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400, "Sec-WebSocket-Key"),
        ("GET", format!("{GOOD}sec-websocket-protocol: mqtt, chat\r\n"), 400, "trestle.v1.json"),
    ];
    for (method, headers, status, said) in rows {
        let (answered, body) = http(&gateway, method, "/ws", &headers, "").await;
        assert_eq!(answered, status, "{headers}");
        assert!(body.contains(said), "{body:?} does not say {said:?}");
    }
}

#[tokio::test]
async fn the_first_known_subprotocol_of_the_client_is_spoken() {
    let gateway = gateway(&[]).await;
    let ws = Ws::open_with(&gateway, &[("sec-websocket-protocol", "other, trestle.v1.json, trestle.v1.proto")]).await;
    drop(ws);
    // tungstenite itself refuses an upgrade whose subprotocol it did not ask for.
    let mut bare = Ws::open(&gateway).await;
    assert!(bare.ask(json!({"id": 1, "connect": {}})).await["connected"].is_object(), "none asked for means JSON");
}

#[tokio::test]
async fn only_listed_origins_may_connect() {
    let config = file("[edge]\norigins = [\"https://app.example\"]\n");
    let gateway = gateway(&["--config", config.path().to_str().unwrap()]).await;
    let (status, body) = http(&gateway, "GET", "/ws", &format!("{GOOD}origin: https://evil.example\r\n"), "").await;
    assert_eq!(status, 403);
    assert!(body.contains("origin_denied"), "{body}");
    let mut ws = Ws::open_with(&gateway, &[("origin", "https://app.example")]).await;
    assert!(ws.ask(json!({"id": 1, "connect": {}})).await["connected"].is_object());
    // A program that is no browser sends none.
    Ws::connect(&gateway).await;
}

#[tokio::test]
async fn more_connections_than_there_are_places_are_told_to_go_elsewhere() {
    let config = file("[edge]\nconnections_max = 1\n");
    let gateway = gateway(&["--config", config.path().to_str().unwrap()]).await;
    let ws = Ws::connect(&gateway).await;
    let (status, body) = http(&gateway, "GET", "/ws", GOOD, "").await;
    assert_eq!(status, 429);
    assert!(body.contains("too_many_connections"), "{body}");
    ws.close().await;
    // The place is free when the connection no longer counts, a moment after the client sees it close.
    let free =
        async { while !http(&gateway, "GET", "/metrics", "", "").await.1.contains("trestle_edge_connections 0\n") {} };
    tokio::time::timeout(crate::support::PATIENCE, free).await.expect("the place is free again");
    Ws::connect(&gateway).await;
}

#[tokio::test]
async fn a_client_that_does_not_say_what_it_wants_is_closed() {
    let config = file("[edge]\nhandshake_timeout = \"100ms\"\n");
    let gateway = gateway(&["--config", config.path().to_str().unwrap()]).await;
    let mut ws = Ws::connect(&gateway).await;
    for sent in ["", "GET /ws HTTP/1.1\r\nhost: t\r\nupgrade: websocket\r\n"] {
        let mut stream = TcpStream::connect(gateway.listen()).await.expect("a connection");
        stream.write_all(sent.as_bytes()).await.expect("sent");
        let mut said = Vec::new();
        let closed = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("closed in time");
        assert_eq!(closed.expect("closed in order"), 0, "{sent:?}");
    }
    assert_eq!(ws.ask(json!({"id": 9, "ping": {}})).await["replyTo"], 9, "a WebSocket may be silent for longer");
}

#[tokio::test]
async fn a_token_comes_by_frame_header_or_query_and_gives_a_user() {
    let secret = file(SECRET);
    let config = file(&format!(
        "[auth]\nanonymous = false\nhs256_secret_file = {:?}\n\
         [channels.namespaces.staff]\nsubscribe = \"users\"\npublish = \"nobody\"\n",
        secret.path()
    ));
    let schemas = tempfile::tempdir().expect("a folder");
    std::fs::write(schemas.path().join("t.proto"), SCHEMA).expect("written");
    let args = ["--config", config.path().to_str().unwrap(), "--schemas", schemas.path().to_str().unwrap()];
    let gateway = gateway(&args).await;
    let good = token(&json!({"sub": "ann", "scope": "chat", "exp": 4_000_000_000_u64}));
    let expired = token(&json!({"sub": "ann", "exp": 1_000_000_000}));

    let mut by_frame = Ws::open(&gateway).await;
    let connected = by_frame.ask(json!({"id": 1, "connect": {"token": good}})).await;
    assert_eq!(connected["connected"]["user"], "ann", "{connected}");
    by_frame.close().await;
    let mut by_header = Ws::open_with(&gateway, &[("authorization", &format!("Bearer {good}"))]).await;
    assert_eq!(by_header.ask(json!({"id": 1, "connect": {}})).await["connected"]["user"], "ann");
    let subscribed = by_header.ask(json!({"id": 2, "subscribe": {"channel": "staff:1"}})).await;
    assert!(subscribed["subscribed"].is_object(), "{subscribed}");
    let mut by_query = Ws::open_at(&gateway, &format!("/ws?access_token={good}")).await;
    assert_eq!(by_query.ask(json!({"id": 1, "ping": {}})).await["replyTo"], 1, "an implicit connect");

    // What the token grants is asked for on the channel and by the type.
    let secret = json!({"id": 3, "message": {"messageType": "t.v1.Secret"}});
    let refused = by_header.ask(secret).await;
    assert_eq!(refused["error"]["reason"], "missing_scope", "{refused}");
    assert!(refused["error"]["message"].as_str().is_some_and(|message| message.contains("admin")), "{refused}");
    let note = json!({"id": 4, "publish": {"channel": "staff:1", "message": {"messageType": "t.v1.Note"}}});
    assert_eq!(by_header.ask(note).await["error"]["reason"], "channel_publish");

    // Both of the user's sessions get what is pushed to the user.
    let body = json!({"target": {"user": "ann"}, "message": {"messageType": "t.v1.Note"}});
    let (status, report) = push(&gateway, &body).await;
    assert_eq!((status, &report["report"]["delivered"]), (200, &json!(2)), "{report}");
    assert_eq!(by_header.delivery().await["messageType"], "t.v1.Note");
    assert_eq!(by_query.delivery().await["messageType"], "t.v1.Note");

    for (token, reason) in
        [(None, "token_missing"), (Some("x.y.z"), "token_invalid"), (Some(&*expired), "token_expired")]
    {
        let mut ws = Ws::open(&gateway).await;
        ws.send(json!({"id": 1, "connect": {"token": token.unwrap_or_default()}})).await;
        let (frames, end) = ws.end().await;
        assert_eq!(frames[0]["error"]["reason"], reason);
        assert_eq!(end.map(|(code, _)| code), Some(4500), "do not come back with the same token");
    }
}

/// An HS256 token.
fn token(claims: &serde_json::Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("signed")
}
