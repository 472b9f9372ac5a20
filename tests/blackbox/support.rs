//! A WebSocket client that knows nothing of Trestle: tokio-tungstenite and JSON. And small ways to say what tests say often.

use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::CloseFrame},
};
use trestle_testkit::Gateway;

/// Longest wait for anything that should come soon.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// The folder of the example schemas.
pub(crate) const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/examples");
/// shop.v1.Quote { sku: "a1", cents: 199 }
pub(crate) const QUOTE: &[u8] = &[0x0a, 2, b'a', b'1', 0x10, 0xc7, 0x01];

/// A gateway with the example schemas and no services of its own.
pub(crate) async fn quiet() -> Gateway {
    gateway(&["--schemas", EXAMPLES]).await
}

/// Starts the real binary with `args`.
pub(crate) async fn gateway(args: &[&str]) -> Gateway {
    Gateway::start(env!("CARGO_BIN_EXE_trestle"), args).await.expect("the gateway starts")
}

/// A file that lives as long as the test, such as a configuration.
pub(crate) fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temp file");
    std::fs::write(file.path(), text).expect("a temp file can be written");
    file
}

/// A client that speaks JSON by hand.
pub(crate) struct Ws {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    frames: VecDeque<Value>,
}

/// How a connection ended: the close code and reason, if a close frame came.
pub(crate) type End = Option<(u16, String)>;

impl Ws {
    /// Upgrades, without a subprotocol and without a first frame.
    pub(crate) async fn open(gateway: &Gateway) -> Self {
        Self::open_with(gateway, &[]).await
    }

    /// Upgrades with headers.
    pub(crate) async fn open_with(gateway: &Gateway, headers: &[(&'static str, &str)]) -> Self {
        Self::upgrade(gateway, "/ws", headers).await
    }

    /// Upgrades at another path, such as one with a query.
    pub(crate) async fn open_at(gateway: &Gateway, path: &str) -> Self {
        Self::upgrade(gateway, path, &[]).await
    }

    async fn upgrade(gateway: &Gateway, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = format!("ws://{}{path}", gateway.listen()).into_client_request().expect("an address");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let (socket, _) = connect_async(request).await.expect("upgraded");
        Self { socket, frames: VecDeque::new() }
    }

    /// Opens, connects and takes the `connected` frame.
    pub(crate) async fn connect(gateway: &Gateway) -> Self {
        let mut ws = Self::open(gateway).await;
        let answer = ws.ask(json!({"id": 1, "connect": {}})).await;
        assert!(answer["connected"].is_object(), "{answer}");
        ws
    }

    /// Connects, and listens to `channel`.
    pub(crate) async fn on(gateway: &Gateway, channel: &str) -> Self {
        let mut ws = Self::connect(gateway).await;
        let answer = ws.ask(json!({"id": 2, "subscribe": {"channel": channel}})).await;
        assert_eq!(answer["subscribed"]["channel"], channel, "{answer}");
        ws
    }

    /// Sends a value as a text message.
    pub(crate) async fn send(&mut self, frame: Value) {
        self.raw(Message::text(frame.to_string())).await;
    }

    /// Sends any message.
    pub(crate) async fn raw(&mut self, message: Message) {
        self.socket.send(message).await.expect("sent");
    }

    /// Sends a frame with an id and waits for what answers it.
    pub(crate) async fn ask(&mut self, frame: Value) -> Value {
        let id = frame["id"].clone();
        self.send(frame).await;
        self.answer(&id).await
    }

    /// The frame that answers `id`; what comes before it stays for [`Ws::next`].
    pub(crate) async fn answer(&mut self, id: &Value) -> Value {
        let mut before = VecDeque::new();
        loop {
            let frame = self.next().await;
            if frame["replyTo"] == *id {
                before.append(&mut self.frames);
                self.frames = before;
                return frame;
            }
            before.push_back(frame);
        }
    }

    /// The next frame, out of its batch.
    pub(crate) async fn next(&mut self) -> Value {
        match self.next_or_end().await {
            Ok(frame) => frame,
            Err(end) => panic!("the connection ended: {end:?}"),
        }
    }

    /// The next delivery, past anything else.
    pub(crate) async fn delivery(&mut self) -> Value {
        loop {
            let mut frame = self.next().await;
            if frame["delivery"].is_object() {
                return frame["delivery"].take();
            }
        }
    }

    /// The next frame, or how the connection ended.
    pub(crate) async fn next_or_end(&mut self) -> Result<Value, End> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            match timeout(PATIENCE, self.socket.next()).await.expect("something comes in time") {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).expect("the gateway sends JSON") {
                    Value::Array(batch) => self.frames.extend(batch),
                    frame => self.frames.push_back(frame),
                },
                Some(Ok(Message::Close(frame))) => return Err(frame.map(said)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("not JSON: {other:?}"),
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// The frames until the connection ends, and how it ended.
    pub(crate) async fn end(mut self) -> (Vec<Value>, End) {
        let mut frames = Vec::new();
        loop {
            match self.next_or_end().await {
                Ok(frame) => frames.push(frame),
                Err(end) => return (frames, end),
            }
        }
    }

    /// Closes, and waits until the gateway has closed its side too.
    pub(crate) async fn close(mut self) {
        self.socket.close(None).await.expect("closed");
        self.end().await;
    }

    /// The socket under it.
    pub(crate) fn socket(&mut self) -> &mut WebSocketStream<MaybeTlsStream<TcpStream>> {
        &mut self.socket
    }
}

fn said(frame: CloseFrame) -> (u16, String) {
    (frame.code.into(), frame.reason.to_string())
}

/// A comment for a chat.
pub(crate) fn comment(text: &str) -> Value {
    json!({"messageType": "chat.v1.Comment", "payload": {"text": text}})
}

/// A plain HTTP exchange by hand: status and body.
pub(crate) async fn http(gateway: &Gateway, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(gateway.listen()).await.expect("a connection");
    let head = format!("{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}");
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    stream.write_all(format!("{head}{length}\r\n{body}").as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // A server that refuses what it has not read to the end may reset; what it said before counts.
    let _reset = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

/// `POST /v1/push` with a JSON body.
pub(crate) async fn push(gateway: &Gateway, body: &Value) -> (u16, Value) {
    let (status, body) =
        http(gateway, "POST", "/v1/push", "content-type: application/json\r\n", &body.to_string()).await;
    let start = body.find('{').unwrap_or(0);
    let end = body.rfind('}').map_or(0, |end| end + 1);
    (status, serde_json::from_str(&body[start..end.max(start)]).unwrap_or(Value::String(body)))
}
