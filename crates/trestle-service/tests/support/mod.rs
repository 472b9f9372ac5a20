//! A gateway that says what the test tells it to, over real gRPC.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};
use trestle_service::{Builder, Service, ServiceError};
use trestle_wire::v1::{
    self, bridge_server, gateway_frame::Frame, push_stream_response::Outcome, service_frame::Frame as Said,
};

pub const SOON: Duration = Duration::from_secs(10);

pub async fn soon<F: Future>(what: &str, happens: F) -> F::Output {
    timeout(SOON, happens).await.unwrap_or_else(|_| panic!("{what} did not happen within {SOON:?}"))
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Note {
    #[prost(string, tag = "1")]
    pub text: String,
}

pub fn note(text: &str) -> Note {
    Note { text: text.into() }
}

/// A gateway played by the test.
pub struct Gateway {
    pub endpoint: String,
    pub streams: mpsc::Receiver<Attached>,
}

/// The gateway's side of one attached stream.
pub struct Attached {
    pub said: Streaming<v1::ServiceFrame>,
    pub say: mpsc::Sender<Result<v1::GatewayFrame, Status>>,
    pub last: u64,
}

#[derive(Clone)]
pub struct Script(mpsc::Sender<Attached>);

type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl bridge_server::Bridge for Script {
    type AttachStream = Frames<v1::GatewayFrame>;
    type PushStreamStream = Frames<v1::PushStreamResponse>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ServiceFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (say, frames) = mpsc::channel(64);
        let attached = Attached { said: request.into_inner(), say, last: 0 };
        self.0.send(attached).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(frames))))
    }

    async fn push(&self, request: Request<v1::PushRequest>) -> Result<Response<v1::PushResponse>, Status> {
        match request.into_inner().target.and_then(|target| target.target) {
            Some(v1::target::Target::User(_)) => {
                let report = v1::PushReport { delivered: 2, counted: true, ..v1::PushReport::default() };
                Ok(Response::new(v1::PushResponse { report: Some(report) }))
            }
            _ => {
                let mut status = Status::not_found("there is no channel namespace \"nowhere\"");
                status.metadata_mut().insert("trestle-reason", "unknown_namespace".parse().expect("ASCII"));
                Err(status)
            }
        }
    }

    /// Knows the sessions of users only; each has as many as the update has parts.
    async fn update_sessions(
        &self,
        request: Request<v1::UpdateSessionsRequest>,
    ) -> Result<Response<v1::UpdateSessionsResponse>, Status> {
        let update = request.into_inner();
        let (joined, left) = (update.join_groups.len(), update.leave_groups.len());
        let parts = joined + left + update.set_tags.len() + update.remove_tags.len();
        let user = matches!(update.target.and_then(|target| target.target), Some(v1::target::Target::User(_)));
        Ok(Response::new(v1::UpdateSessionsResponse { sessions: if user { parts as u32 } else { 0 } }))
    }

    /// Answers each with its own number as the offset.
    async fn push_stream(
        &self,
        request: Request<Streaming<v1::PushStreamRequest>>,
    ) -> Result<Response<Self::PushStreamStream>, Status> {
        use tokio_stream::StreamExt as _;
        let answers = request.into_inner().map(|push| {
            let push = push?;
            let report = v1::PushReport { offset: push.seq, ..v1::PushReport::default() };
            Ok(v1::PushStreamResponse { seq: push.seq, outcome: Some(Outcome::Report(report)) })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

impl Gateway {
    pub async fn start() -> Self {
        let (attached, streams) = mpsc::channel(4);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let service = bridge_server::BridgeServer::new(Script(attached));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Self { endpoint, streams }
    }

    /// The next stream and its hello, not yet answered.
    pub async fn hello(&mut self) -> (Attached, v1::Hello) {
        let mut stream = soon("a stream", self.streams.recv()).await.expect("the gateway runs");
        match stream.said().await {
            Said::Hello(hello) => (stream, hello),
            other => panic!("not hello but {other:?}"),
        }
    }

    pub async fn attached(&mut self) -> Attached {
        let (stream, _) = self.hello().await;
        stream.say(Frame::Attached(v1::Attached::default())).await;
        stream
    }
}

impl Attached {
    pub async fn say(&self, frame: Frame) {
        self.say.send(Ok(v1::GatewayFrame { frame: Some(frame) })).await.expect("the stream is open");
    }

    pub async fn said(&mut self) -> Said {
        let frame = soon("a frame", self.said.message()).await.expect("the stream lives").expect("not its end");
        frame.frame.expect("a frame says something")
    }

    /// Waits until the service has ended the stream; what it still says is returned.
    pub async fn rest(&mut self) -> Vec<Said> {
        let mut rest = Vec::new();
        while let Ok(Some(frame)) = soon("the end", self.said.message()).await {
            rest.extend(frame.frame);
        }
        rest
    }

    pub async fn deliver(&mut self, message_type: &str, text: &str) -> u64 {
        self.last += 1;
        let delivery = v1::Delivery {
            delivery_id: self.last,
            envelope: Some(v1::Envelope {
                message_type: message_type.into(),
                payload: note(text).encode_to_vec().into(),
                source: Some(v1::Source { session: "s1".into(), ..v1::Source::default() }),
                ..v1::Envelope::default()
            }),
            attempt: 1,
            request: message_type == ASK,
            deadline: None,
        };
        self.say(Frame::Deliveries(v1::Deliveries { deliveries: vec![delivery] })).await;
        self.last
    }
}

pub const NOTE: &str = "notes.v1.Note";
pub const ASK: &str = "notes.v1.Ask";

pub struct Running {
    pub stop: oneshot::Sender<()>,
    pub service: JoinHandle<Result<(), ServiceError>>,
}

pub fn run(gateway: &Gateway, builder: Builder) -> Running {
    let (stop, stopped) = oneshot::channel::<()>();
    let builder = builder.endpoint(&gateway.endpoint);
    let service = tokio::spawn(builder.run(async move { drop(stopped.await) }));
    Running { stop, service }
}

pub fn notes() -> Builder {
    Service::builder("notes")
}
