//! The JSON client against a gateway that says what the test wants, over a real socket.

mod common;

use common::{Gateway, Peer};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use trestle_client::{Error, JsonClient, Options};
use trestle_wire::v1;

async fn next(peer: &mut Peer) -> Value {
    match peer.message().await {
        Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("not text: {other:?}"),
    }
}

async fn begun(gateway: &Gateway, options: Options) -> (JsonClient, Peer) {
    let begin = async {
        let mut peer = gateway.accept().await;
        let connect = next(&mut peer).await;
        assert!(connect["connect"].is_object(), "{connect}");
        peer.text(
            r#"{"replyTo":1,"connected":{"sessionId":"n.1","resumed":false,"pingInterval":"25s","frameBytesMax":100}}"#,
        )
        .await;
        peer
    };
    let (client, peer) = tokio::join!(JsonClient::connect(&gateway.url, options), begin);
    (client.expect("a session"), peer)
}

#[tokio::test]
async fn a_frame_is_answered_with_a_frame_as_it_came() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = begun(&gateway, Options::default()).await;
    assert_eq!(peer.headers["sec-websocket-protocol"], "trestle.v1.json");
    assert_eq!(client.session().value()["connected"]["sessionId"], "n.1");

    let text = r#"{"replyTo":2,"subscribed":{"channel":"room:42","recovered":false,"offset":"6"}}"#;
    let answer = async {
        let asked = next(&mut peer).await;
        peer.text(&format!(r#"[{{"delivery":{{"offset":"7"}}}},{text}]"#)).await;
        asked
    };
    let (answered, asked) = tokio::join!(client.ask(json!({"subscribe": {"channel": "room:42"}})), answer);
    assert_eq!(asked, json!({"id": 2, "subscribe": {"channel": "room:42"}}));
    let answered = answered.expect("an answer");
    assert_eq!((answered.text(), answered.error()), (text, None));
    let mut frames = client.frames().expect("the first to ask");
    assert_eq!(frames.next().await.expect("a delivery").to_string(), r#"{"delivery":{"offset":"7"}}"#);
}

#[tokio::test]
async fn a_refusal_is_an_answer_that_can_be_read_as_one() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = begun(&gateway, Options::default()).await;
    let refuse = async {
        next(&mut peer).await;
        peer.text(
            r#"{"replyTo":2,"error":{"code":"UNAVAILABLE","reason":"bus_away","message":"m","retryable":true,"retryAfter":"1.500s"}}"#,
        )
        .await;
    };
    let (answer, ()) = tokio::join!(client.ask(json!({"messageType": "A"})), refuse);
    let error = answer.expect("an answer").error().expect("a refusal");
    assert_eq!((error.code(), error.reason.as_str(), error.retryable), (v1::Code::Unavailable, "bus_away", true));
    assert_eq!(error.retry_after, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
}

#[tokio::test]
async fn what_cannot_be_sent_is_said_before() {
    let gateway = Gateway::start().await;
    let (client, peer) = begun(&gateway, Options::default()).await;
    assert!(matches!(client.ask(json!([1])).await, Err(Error::NotAnObject)));
    let large = client.ask(json!({"messageType": "A".repeat(100)})).await;
    assert!(matches!(large, Err(Error::TooLarge { max: 100, .. })), "{large:?}");
    let (closed, code) = tokio::join!(client.close(), peer.closed());
    assert_eq!((closed.code, code), (Some(1000), Some(1000)));
}

#[tokio::test]
async fn unread_frames_become_a_gap() {
    let gateway = Gateway::start().await;
    let (client, mut peer) = begun(&gateway, Options { queue_messages_max: 1, ..Options::default() }).await;
    for offset in 1..=3 {
        peer.text(&format!(r#"{{"delivery":{{"channel":"room:1","offset":"{offset}"}}}}"#)).await;
    }
    let pong = async {
        next(&mut peer).await;
        peer.text(r#"{"replyTo":2,"pong":{}}"#).await;
    };
    tokio::join!(client.ask(json!({"ping": {}})), pong).0.expect("answered past the unread frames");
    let mut frames = client.frames().expect("the first to ask");
    assert_eq!(frames.next().await.expect("the first").value()["delivery"]["offset"], "1");
    let gap = json!({"gap": {"channel": "room:1", "from": "2", "to": "3", "count": "2", "reason": "SLOW"}});
    assert_eq!(frames.next().await.expect("the gap").into_value(), gap);
}
