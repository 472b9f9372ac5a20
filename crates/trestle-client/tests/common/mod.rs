//! A gateway that says only what its test tells it to, over a real socket.
#![allow(dead_code)] // each test file uses its own part

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        http::{HeaderMap, HeaderValue},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use trestle_client::{Client, Error, Event, Options, Reconnect, Subscription};
use trestle_wire::v1::{self, client_frame::Frame as Ask, server_frame::Frame};

/// Where clients connect to.
pub(crate) struct Gateway {
    pub(crate) listener: TcpListener,
    pub(crate) url: String,
}

/// The gateway's end of one connection.
pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) headers: HeaderMap,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}/ws", listener.local_addr().expect("bound"));
        Self { listener, url }
    }

    /// Accepts one connection on whatever subprotocol it asks for.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().await.expect("a connection");
        let mut headers = HeaderMap::new();
        #[allow(clippy::result_large_err)] // the type is tungstenite's
        let upgrade = |request: &Request, mut response: Response| {
            headers = request.headers().clone();
            let subprotocol: HeaderValue = headers["sec-websocket-protocol"].clone();
            response.headers_mut().insert("sec-websocket-protocol", subprotocol);
            Ok(response)
        };
        let socket = accept_hdr_async(stream, upgrade).await.expect("an upgrade");
        Peer { socket, headers }
    }

    /// A client whose session has begun, and the gateway's end of it.
    pub(crate) async fn client(&self, options: Options) -> (Client, Peer) {
        let (client, (peer, _)) = tokio::join!(Client::connect(&self.url, options), self.begin(connected()));
        (client.expect("a session"), peer)
    }

    /// Accepts one connection and agrees to its connect.
    pub(crate) async fn begin(&self, connected: v1::Connected) -> (Peer, v1::Connect) {
        let mut peer = self.accept().await;
        let (id, connect) = peer.connect().await;
        peer.answer(id, Frame::Connected(connected)).await;
        (peer, connect)
    }

    /// The next connection's answer is this HTTP text.
    pub(crate) async fn http(&self, answer: &str) {
        let (mut stream, _) = self.listener.accept().await.expect("a connection");
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.expect("a request");
        assert_ne!(read, 0);
        stream.write_all(answer.as_bytes()).await.expect("sent");
    }
}

/// Comes back at once.
pub(crate) fn quick() -> Options {
    let reconnect = Reconnect { base: Duration::from_millis(1), cap: Duration::from_millis(5), give_up: None };
    Options { reconnect: Some(reconnect), ..Options::default() }
}

pub(crate) fn connected() -> v1::Connected {
    v1::Connected {
        session_id: "n.1".into(),
        resume_token: "token 1".into(),
        ping_interval: Some(prost_types::Duration { seconds: 25, nanos: 0 }),
        frame_bytes_max: 1000,
        ..Default::default()
    }
}

impl Peer {
    /// The next frame of the client.
    pub(crate) async fn next(&mut self) -> v1::ClientFrame {
        match self.message().await {
            Message::Binary(bytes) => {
                let mut frames = v1::ClientFrames::decode(bytes).expect("ClientFrames").frames;
                assert_eq!(frames.len(), 1, "{frames:?}");
                frames.remove(0)
            }
            other => panic!("not a frame: {other:?}"),
        }
    }

    /// The connect that a client begins with.
    pub(crate) async fn connect(&mut self) -> (u32, v1::Connect) {
        match self.next().await {
            v1::ClientFrame { id, frame: Some(Ask::Connect(connect)) } => (id, connect),
            other => panic!("not a connect: {other:?}"),
        }
    }

    /// Breaks off without a close frame. What was written arrives.
    pub(crate) fn cut(self) {
        drop(self);
    }

    /// Breaks off so that what was written and not yet read is lost.
    pub(crate) fn reset(self) {
        self.socket.into_inner().set_zero_linger().expect("a socket");
    }

    /// Breaks off in the middle of a message.
    pub(crate) async fn break_off(self) {
        // A final binary message of 100 bytes, and three of them.
        self.socket.into_inner().write_all(&[0x82, 100, 10, 20, 30]).await.expect("the client is there");
    }

    pub(crate) async fn message(&mut self) -> Message {
        self.socket.next().await.expect("the connection is open").expect("and whole")
    }

    pub(crate) async fn answer(&mut self, reply_to: u32, frame: Frame) {
        self.send(vec![v1::ServerFrame { reply_to, frame: Some(frame) }]).await;
    }

    /// Sends frames in one message.
    pub(crate) async fn send(&mut self, frames: Vec<v1::ServerFrame>) {
        let message = Message::binary(v1::ServerFrames { frames }.encode_to_vec());
        self.socket.send(message).await.expect("the client is there");
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.expect("the client is there");
    }

    /// Closes, reads until the client has closed too, and hangs up.
    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.close(Some(frame)).await.expect("the client is there");
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Reads until the client closes, hangs up, and says with which code.
    pub(crate) async fn closed(mut self) -> Option<u16> {
        let mut code = None;
        while let Some(Ok(message)) = self.socket.next().await {
            if let Message::Close(frame) = message {
                code = frame.map(|frame| frame.code.into());
            }
        }
        code
    }
}

/// Subscribes, the gateway agreeing at offset 6.
pub(crate) async fn subscribed(client: &Client, peer: &mut Peer, channel: &str) -> Subscription {
    let agree = async {
        let v1::ClientFrame { id, frame: Some(Ask::Subscribe(subscribe)) } = peer.next().await else { panic!() };
        peer.answer(id, Frame::Subscribed(v1::Subscribed { channel: subscribe.channel, recovered: false, offset: 6 }))
            .await;
    };
    let (subscription, ()) = tokio::join!(client.subscribe(channel), agree);
    subscription.expect("subscribed")
}

pub(crate) fn accepted(offset: u64) -> Frame {
    Frame::Accepted(v1::Accepted { level: v1::AckLevel::Received.into(), offset })
}

pub(crate) fn offset(event: Option<Event>) -> u64 {
    match event {
        Some(Event::Message(envelope)) => envelope.offset,
        other => panic!("not a message: {other:?}"),
    }
}

/// A message of a channel, the next after the one with the offset before.
pub(crate) fn delivery(channel: &str, offset: u64) -> v1::ServerFrame {
    let prev_offset = offset.saturating_sub(1);
    let envelope = v1::Envelope { channel: channel.into(), offset, prev_offset, ..Default::default() };
    v1::ServerFrame { reply_to: 0, frame: Some(Frame::Delivery(envelope)) }
}

pub(crate) fn refusal(reason: &str) -> Frame {
    Frame::Error(v1::Error { code: v1::Code::PermissionDenied.into(), reason: reason.into(), ..Default::default() })
}

pub(crate) fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.expect_err("refused").refused().expect("by the gateway").reason.clone()
}

/// Longer than a test ever takes, for what must not time out in it.
pub(crate) const LONG: Duration = Duration::from_secs(60);
