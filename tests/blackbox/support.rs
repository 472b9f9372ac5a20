//! A WebSocket client that knows nothing of Trestle: tokio-tungstenite and JSON. And small ways to say what tests say often.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

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

/// How often something is looked at that does not tell by itself.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The folder of the example schemas.
pub(crate) const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/examples");
/// shop.v1.Quote { sku: "a1", cents: 199 }
pub(crate) const QUOTE: &[u8] = &[0x0a, 2, b'a', b'1', 0x10, 0xc7, 0x01];

/// `shop.v1.OrderPaid`, as a service sees it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OrderPaid {
    #[prost(string, tag = "1")]
    pub(crate) order_id: String,
    #[prost(int64, tag = "2")]
    pub(crate) cents: i64,
}

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

/// A client that speaks JSON by hand, and counts as the protocol says.
pub(crate) struct Ws {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    frames: VecDeque<Value>,
    stay: Stay,
}

/// What a client needs to resume its session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stay {
    pub(crate) session: String,
    pub(crate) token: String,
    /// Frames of the gateway that have come, but `connected`.
    pub(crate) received: u64,
    /// The last offset on each channel; 0 where there is no history.
    pub(crate) places: BTreeMap<String, u64>,
}

impl Stay {
    /// A `resume` by count, with the places.
    pub(crate) fn resume(&self) -> Value {
        let channel = |(channel, offset): (&String, &u64)| json!({"channel": channel, "offset": offset.to_string()});
        let channels: Vec<_> = self.places.iter().map(channel).collect();
        json!({"sessionId": self.session, "token": self.token, "received": self.received.to_string(), "channels": channels})
    }

    /// Counts a frame of the gateway, and keeps what it says.
    pub(crate) fn took(&mut self, frame: &Value) {
        if let Some(connected) = frame["connected"].as_object() {
            let text = |key: &str| connected.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            (self.session, self.token) = (text("sessionId"), text("resumeToken"));
            self.received = text("received").parse().unwrap_or(0);
            return;
        }
        self.received += 1;
        for kind in ["subscribed", "delivery"] {
            if let Some(channel) = frame[kind]["channel"].as_str().filter(|channel| !channel.is_empty()) {
                self.places.insert(channel.to_owned(), number(&frame[kind]["offset"]));
            }
        }
    }
}

/// A 64-bit number as canonical JSON writes it; 0 where it is not there.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_str().map_or(0, |digits| digits.parse().expect("a number in a string"))
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
        Self::over(socket)
    }

    /// Over a socket that was upgraded already.
    pub(crate) fn over(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        Self { socket, frames: VecDeque::new(), stay: Stay::default() }
    }

    /// Connects with a token of these claims.
    pub(crate) async fn of(gateway: &Gateway, claims: &Value) -> Self {
        let mut ws = Self::open(gateway).await;
        let answer = ws.ask(json!({"id": 1, "connect": {"token": crate::two::token(claims)}})).await;
        assert_eq!(answer["connected"]["user"], claims["sub"], "{answer}");
        ws
    }

    /// Subscribes, and gives the answer.
    pub(crate) async fn subscribe(&mut self, subscribe: Value) -> Value {
        let mut answer = self.ask(json!({"id": 2, "subscribe": subscribe})).await;
        assert!(answer["subscribed"].is_object(), "{answer}");
        answer["subscribed"].take()
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

    /// Opens, and goes on with a session if the gateway lets it; also gives what the `connected` frame said.
    pub(crate) async fn resume(gateway: &Gateway, stay: &Stay) -> (Self, Value) {
        Self::resume_with(gateway, stay, stay.resume()).await
    }

    /// As [`Ws::resume`], asking with this.
    pub(crate) async fn resume_with(gateway: &Gateway, stay: &Stay, resume: Value) -> (Self, Value) {
        let mut ws = Self::open(gateway).await;
        ws.stay.places.clone_from(&stay.places);
        ws.send(json!({"id": 1, "connect": {"resume": resume}})).await;
        let mut answer = ws.answer(&json!(1)).await;
        assert!(answer["connected"].is_object(), "{answer}");
        (ws, answer["connected"].take())
    }

    /// What is needed to resume, as of what has come.
    pub(crate) fn stay(&self) -> Stay {
        self.stay.clone()
    }

    /// Loses the connection: a reset, without a close frame.
    pub(crate) fn cut(self) -> Stay {
        let MaybeTlsStream::Plain(stream) = self.socket.get_ref() else { panic!("TLS was not asked for") };
        stream.set_zero_linger().expect("a socket");
        self.stay
    }

    /// Says something that is answered at once, and gives the frames that came before the answer.
    pub(crate) async fn so_far(&mut self) -> Vec<Value> {
        let id = json!(u32::MAX);
        self.send(json!({"id": id, "ping": {}})).await;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["replyTo"] == id {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// Publishes a comment and waits until it is accepted.
    pub(crate) async fn publish(&mut self, channel: &str, text: &str) -> Value {
        let answer = self.ask(json!({"id": 9, "publish": {"channel": channel, "message": comment(text)}})).await;
        assert!(answer["accepted"].is_object(), "{channel} {text}: {answer}");
        answer
    }

    /// The texts of the next deliveries, with their channels: `room:1 hello`.
    pub(crate) async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(text(&self.delivery().await));
        }
        texts
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
                Some(Ok(Message::Text(text))) => {
                    let batch = match serde_json::from_str(&text).expect("the gateway sends JSON") {
                        Value::Array(batch) => batch,
                        frame => vec![frame],
                    };
                    batch.iter().for_each(|frame| self.stay.took(frame));
                    self.frames.extend(batch);
                }
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

/// A delivered comment with its channel: `room:1 hello`, or the text alone if it was pushed without one.
pub(crate) fn text(delivery: &Value) -> String {
    let text = delivery["payload"]["text"].as_str().expect("a comment");
    match delivery["channel"].as_str() {
        Some(channel) => format!("{channel} {text}"),
        None => text.to_owned(),
    }
}

/// A sample of the gateway's metrics, by its name and labels as they are written; 0 where it is not there.
pub(crate) async fn metric(gateway: &Gateway, sample: &str) -> f64 {
    let (status, body) = http(gateway, "GET", "/metrics", "", "").await;
    assert_eq!(status, 200, "{body}");
    let mut lines = body.lines().filter_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    lines.next().map_or(0.0, |value| value.split(' ').next().expect("a value").parse().expect("a number"))
}

/// Waits until a sample of the metrics `is` what is expected.
pub(crate) async fn until(gateway: &Gateway, sample: &str, is: impl Fn(f64) -> bool) {
    let look = async {
        while !is(metric(gateway, sample).await) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{sample} does not become what it should"));
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
    post(gateway, "/v1/push", body).await
}

/// `POST` with a JSON body.
pub(crate) async fn post(gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
    let headers = "content-type: application/json\r\n";
    let (status, body) = http(gateway, "POST", path, headers, &body.to_string()).await;
    (status, in_json(body))
}

/// `GET` of something in JSON.
pub(crate) async fn get(gateway: &Gateway, path: &str) -> (u16, Value) {
    let (status, body) = http(gateway, "GET", path, "", "").await;
    (status, in_json(body))
}

/// The JSON of a body, out of its chunks.
fn in_json(body: String) -> Value {
    let start = body.find('{').unwrap_or(0);
    let end = body.rfind('}').map_or(0, |end| end + 1);
    serde_json::from_str(&body[start..end.max(start)]).unwrap_or(Value::String(body))
}
