//! Clients that are silent, and clients that only seem so.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Ws, file, gateway};

const QUICK: &str = "[session]\nping_interval = \"300ms\"\npong_timeout = \"200ms\"\nconnect_timeout = \"300ms\"\n";

#[tokio::test]
async fn a_silent_client_that_answers_pings_stays() {
    let config = file(QUICK);
    let gateway = gateway(&["--config", config.path().to_str().unwrap()]).await;
    let mut ws = Ws::connect(&gateway).await;
    // tungstenite answers pings by itself as long as it is read from.
    let mut pings = 0;
    while pings < 5 {
        let message = ws.socket().next().await.expect("open").expect("healthy");
        pings += usize::from(message.is_ping());
        ws.socket().flush().await.expect("the pong leaves");
    }
    assert!(ws.ask(json!({"id": 2, "ping": {}})).await["pong"].is_object());
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_closed_with_4001() {
    let config = file(QUICK);
    let gateway = gateway(&["--config", config.path().to_str().unwrap()]).await;
    let ws = Ws::connect(&gateway).await;
    // Read below tungstenite, so that no pong is sent.
    let bytes = raw_until_end(ws).await;
    let close = [0x88, 2 + u8::try_from("no pong in time".len()).unwrap(), 0x0f, 0xa1];
    assert!(bytes.windows(4).any(|window| window == close), "a close frame with 4001 in {bytes:x?}");
}

#[tokio::test]
async fn a_socket_without_a_first_frame_is_closed_with_4002() {
    let config = file(QUICK);
    let gateway = gateway(&["--config", config.path().to_str().unwrap()]).await;
    let (frames, end) = Ws::open(&gateway).await.end().await;
    assert_eq!(frames[0]["error"]["reason"], "connect_timeout");
    assert_eq!(end.map(|(code, _)| code), Some(4002));
}

#[tokio::test]
async fn a_clients_own_ping_is_answered_with_its_bytes() {
    let gateway = gateway(&[]).await;
    let mut ws = Ws::connect(&gateway).await;
    ws.raw(Message::Ping("abc".into())).await;
    let pong = ws.socket().next().await.expect("open").expect("healthy");
    assert_eq!(pong, Message::Pong("abc".into()));
}

async fn raw_until_end(mut ws: Ws) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;
    use tokio_tungstenite::MaybeTlsStream;

    let MaybeTlsStream::Plain(stream) = ws.socket().get_mut() else { panic!("a plain socket") };
    let mut bytes = Vec::new();
    tokio::time::timeout(crate::support::PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("closed")
        .expect("read");
    bytes
}
