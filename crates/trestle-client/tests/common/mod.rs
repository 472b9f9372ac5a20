//! A gateway that says only what its test tells it to, over a real socket.
#![allow(dead_code)] // each test file uses its own part

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        http::{HeaderMap, HeaderValue},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use trestle_client::{Client, Error, Options};
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
        let begin = async {
            let mut peer = self.accept().await;
            let id = match peer.next().await {
                v1::ClientFrame { id, frame: Some(Ask::Connect(_)) } => id,
                other => panic!("not a connect: {other:?}"),
            };
            peer.answer(id, Frame::Connected(connected())).await;
            peer
        };
        let (client, peer) = tokio::join!(Client::connect(&self.url, options), begin);
        (client.expect("a session"), peer)
    }
}

pub(crate) fn connected() -> v1::Connected {
    v1::Connected {
        session_id: "n.1".into(),
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

/// A message of a channel.
pub(crate) fn delivery(channel: &str, offset: u64) -> v1::ServerFrame {
    let envelope = v1::Envelope { channel: channel.into(), offset, ..Default::default() };
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
