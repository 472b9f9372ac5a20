//! A bridge on the embedded bus, and real gRPC clients over loopback.

#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use trestle_bridge::{Bridge, Channels, Config, NamespaceView, Nodes, Parts, ServeError};
use trestle_bus::{
    Fabric, Heard, Subscription,
    embedded::{Embedded, EmbeddedConfig},
    logs,
};
use trestle_schema::{SchemaSource, Schemas};
use trestle_telemetry::Tracer;
use trestle_wire::{
    NodeId, ServiceName, Subject, Subjects,
    name::INBOX,
    v1::{self, bridge_client::BridgeClient, gateway_frame::Frame, service_frame::Frame as Say},
};

/// Longest wait for anything that should happen.
pub const SOON: Duration = Duration::from_secs(10);

/// What should happen soon.
pub async fn soon<F: Future>(what: &str, happens: F) -> F::Output {
    timeout(SOON, happens).await.unwrap_or_else(|_| panic!("{what} did not happen within {SOON:?}"))
}

struct Namespaces;

impl Channels for Namespaces {
    fn namespace(&self, name: &str) -> Option<NamespaceView> {
        match name {
            "room" => Some(NamespaceView { history: true, presence: true }),
            "live" => Some(NamespaceView { history: false, presence: false }),
            _ => None,
        }
    }
}

/// The nodes that live, as the test says.
#[derive(Clone, Default)]
pub struct Alive(Arc<Mutex<Vec<v1::NodeInfo>>>);

impl Nodes for Alive {
    fn alive(&self) -> Vec<v1::NodeInfo> {
        self.0.lock().clone()
    }
}

impl Alive {
    /// An edge of that name, with so many clients, lives from now on.
    pub fn edge(&self, name: &str, active: u32) {
        let roles = vec!["edge".into(), "bridge".into()];
        self.0.lock().push(v1::NodeInfo { node: name.into(), roles, active, ..v1::NodeInfo::default() });
    }
}

/// One node with nothing but a bridge.
pub struct House {
    pub fabric: Fabric,
    pub subjects: Subjects,
    pub bridge: Bridge,
    pub alive: Alive,
    pub address: SocketAddr,
    pub registry: prometheus_client::registry::Registry,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<Result<(), ServeError>>,
}

impl House {
    pub async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/examples");
        Self::of(config, SchemaSource::Folder(examples.into())).await
    }

    pub async fn of(config: Config, source: SchemaSource) -> Self {
        let fabric = Embedded::open(EmbeddedConfig::default()).expect("memory needs no directory");
        let subjects = Subjects::new("trestle");
        fabric.log.ensure(&logs::work(&subjects)).await.expect("the work log");
        let history = logs::history(&subjects, "room", 100, Duration::from_secs(60));
        fabric.log.ensure(&history).await.expect("the room's log");
        let inbox = logs::history(&subjects, INBOX, 1000, Duration::from_secs(60));
        fabric.log.ensure(&inbox).await.expect("the log of the inboxes");
        let alive = Alive::default();
        let mut registry = prometheus_client::registry::Registry::default();
        let bridge = Bridge::new(Parts {
            node: NodeId::parse("node-1").expect("valid"),
            subjects: subjects.clone(),
            schemas: Schemas::open(source).expect("schemas without faults"),
            fabric: fabric.clone(),
            tracer: Tracer::disabled(),
            channels: Arc::new(Namespaces),
            nodes: Arc::new(alive.clone()),
            config,
            registry: &mut registry,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = bridge.clone();
        let server = tokio::spawn(async move { serving.serve(listener, async move { drop(stopped.await) }).await });
        Self { fabric, subjects, bridge, alive, address, registry, stop: Some(stop), server }
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("a uri");
        soon("connecting", endpoint.connect()).await.expect("the bridge listens")
    }

    /// Attaches an instance that takes everything of its service.
    pub async fn attach(&self, service: &str, max_in_flight: u32) -> Instance {
        self.attach_as(v1::Hello { service: service.into(), max_in_flight, ..v1::Hello::default() }).await
    }

    pub async fn attach_as(&self, hello: v1::Hello) -> Instance {
        let mut instance = self.open(vec![Say::Hello(hello)]).await;
        match instance.frame().await {
            Frame::Attached(attached) => instance.attached = attached,
            other => panic!("not attached but {other:?}"),
        }
        instance
    }

    /// Opens a stream and says `first`; `credit` frames keep the call alive where there is nothing to say.
    pub async fn open(&self, first: Vec<Say>) -> Instance {
        let (say, said) = mpsc::channel(256);
        for frame in first {
            say.send(v1::ServiceFrame { frame: Some(frame) }).await.expect("room");
        }
        let mut client = BridgeClient::new(self.connect().await);
        let frames = soon("the call", client.attach(ReceiverStream::new(said))).await.expect("begins").into_inner();
        Instance { say, frames, ready: VecDeque::new(), attached: v1::Attached::default() }
    }

    /// Stores a message for a service, as an edge does for DURABLE and HANDLED.
    pub async fn store(&self, service: &str, message_type: &str, payload: &impl prost::Message) -> String {
        let envelope = self.envelope(message_type, payload);
        let subject = self.subjects.work(&ServiceName::parse(service).expect("valid"), message_type);
        let body = Bytes::from(envelope.encode_to_vec());
        self.fabric.log.append(&subject, None, body).await.expect("stored");
        envelope.id
    }

    /// Sends a live message to a service, as an edge does for RECEIVED.
    pub async fn send(&self, service: &str, message_type: &str, payload: &impl prost::Message) -> String {
        let envelope = self.envelope(message_type, payload);
        self.fabric.bus.publish(&self.up(service, message_type), envelope.encode_to_vec().into()).await.expect("sent");
        envelope.id
    }

    /// Asks a service, as an edge does.
    pub fn request(
        &self,
        service: &str,
        message_type: &str,
        payload: &impl prost::Message,
        within: Duration,
    ) -> (String, JoinHandle<v1::bus_reply::Outcome>) {
        let mut envelope = self.envelope(message_type, payload);
        envelope.correlation_id = format!("correlation-{}", envelope.id);
        envelope.deadline = Some((SystemTime::now() + within).into());
        let (bus, subject) = (self.fabric.bus.clone(), self.up(service, message_type));
        let body = Bytes::from(envelope.encode_to_vec());
        let asked = tokio::spawn(async move {
            let answer = bus.request(&subject, body, within + SOON).await.expect("an answer");
            v1::BusReply::decode(answer).expect("a BusReply").outcome.expect("an outcome")
        });
        (envelope.correlation_id, asked)
    }

    /// Asks a service, and returns once the bus has the request; its answer comes to the subscription.
    pub async fn ask_in_order(
        &self,
        service: &str,
        message_type: &str,
        payload: &impl prost::Message,
    ) -> (String, Subscription) {
        let mut envelope = self.envelope(message_type, payload);
        envelope.correlation_id = format!("correlation-{}", envelope.id);
        let inbox = Subject::from_trusted(format!("inbox.{}", envelope.id));
        let answers = self.hear(&inbox).await;
        let body = Bytes::from(envelope.encode_to_vec());
        let asked = self.fabric.bus.publish_with_reply(&self.up(service, message_type), &inbox, body).await;
        asked.expect("published");
        (envelope.correlation_id, answers)
    }

    /// The client of a request has gone.
    pub async fn cancel(&self, correlation_id: &str) {
        let cancel = v1::CancelRequest { correlation_id: correlation_id.into() };
        self.fabric.bus.publish(&self.subjects.cancel(), cancel.encode_to_vec().into()).await.expect("published");
    }

    pub fn up(&self, service: &str, message_type: &str) -> Subject {
        self.subjects.up(&ServiceName::parse(service).expect("valid"), message_type)
    }

    pub fn envelope(&self, message_type: &str, payload: &impl prost::Message) -> v1::Envelope {
        v1::Envelope {
            id: v1::Envelope::new_id(),
            message_type: message_type.into(),
            version: "1.0".into(),
            payload: payload.encode_to_vec().into(),
            source: Some(v1::Source {
                session: "node-1.00000000000000000000000000000001".into(),
                node: "node-1".into(),
                ..v1::Source::default()
            }),
            headers: BTreeMap::from([("traceparent".into(), TRACEPARENT.into())]),
            ..v1::Envelope::default()
        }
    }

    pub async fn hear(&self, subject: &Subject) -> Subscription {
        self.fabric.bus.subscribe(subject, None).await.expect("the bus is there")
    }

    /// A node that has sessions behind `subject`, and answers every counted push with these numbers.
    pub async fn node_with_sessions(&self, subject: &Subject, delivered: u32, dropped: u32) -> JoinHandle<()> {
        let mut heard = self.hear(subject).await;
        let bus = self.fabric.bus.clone();
        tokio::spawn(async move {
            while let Some(Heard::Message(message)) = heard.next().await {
                let Some(reply_to) = message.reply_to else { continue };
                let count = v1::PushCount { node: "node-2".into(), delivered, dropped, queued: 0 };
                bus.publish(&reply_to, count.encode_to_vec().into()).await.expect("answered");
            }
        })
    }

    /// What the metrics say, as text.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }

    /// Tells the bridge to stop, and does not wait.
    pub fn begin_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until the bridge has stopped.
    pub async fn stopped(self) {
        soon("stopping", self.server).await.expect("did not panic").expect("served");
    }
}

/// The trace of every envelope that [`House::envelope`] makes; not sampled.
pub const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// An attached instance. Dropping it is what a kill looks like from the other side.
pub struct Instance {
    say: mpsc::Sender<v1::ServiceFrame>,
    pub frames: Streaming<v1::GatewayFrame>,
    ready: VecDeque<v1::Delivery>,
    pub attached: v1::Attached,
}

impl Instance {
    pub async fn say(&self, frame: Say) {
        self.say.send(v1::ServiceFrame { frame: Some(frame) }).await.expect("the stream is open");
    }

    /// Says a frame without content.
    pub async fn say_nothing(&self) {
        self.say.send(v1::ServiceFrame { frame: None }).await.expect("the stream is open");
    }

    pub async fn ack(&self, ids: impl IntoIterator<Item = u64>) {
        self.say(Say::Ack(v1::Ack { delivery_ids: ids.into_iter().collect() })).await;
    }

    pub async fn reply(&self, delivery_id: u64, message_type: &str, payload: &impl prost::Message) {
        let message = v1::Envelope {
            message_type: message_type.into(),
            payload: payload.encode_to_vec().into(),
            ..v1::Envelope::default()
        };
        self.say(Say::Reply(v1::Reply { delivery_id, message: Some(message) })).await;
    }

    /// The next frame that is no delivery; deliveries before it are kept.
    pub async fn frame(&mut self) -> Frame {
        loop {
            match self.any().await {
                Frame::Deliveries(deliveries) => self.ready.extend(deliveries.deliveries),
                other => return other,
            }
        }
    }

    pub async fn error(&mut self) -> v1::Error {
        match self.frame().await {
            Frame::Error(error) => error,
            other => panic!("not an error but {other:?}"),
        }
    }

    pub async fn delivery(&mut self) -> v1::Delivery {
        while self.ready.is_empty() {
            match self.any().await {
                Frame::Deliveries(deliveries) => self.ready.extend(deliveries.deliveries),
                other => panic!("not a delivery but {other:?}"),
            }
        }
        self.ready.pop_front().expect("not empty")
    }

    pub async fn deliveries(&mut self, count: usize) -> Vec<v1::Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            deliveries.push(self.delivery().await);
        }
        deliveries
    }

    /// Whether everything said so far has been heard, and nothing came of it but what is kept: a frame that is refused
    /// comes back in its order.
    pub async fn settled(&mut self) {
        self.ack([u64::MAX]).await;
        let error = self.error().await;
        assert_eq!(error.reason, "unknown_delivery");
    }

    /// How many deliveries have come that nobody asked for yet.
    pub fn unasked(&self) -> usize {
        self.ready.len()
    }

    /// How the stream ends.
    pub async fn end(&mut self) -> Result<(), Status> {
        loop {
            match soon("the end of the stream", self.frames.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }

    async fn any(&mut self) -> Frame {
        let frame = soon("a frame", self.frames.message()).await.expect("the stream lives").expect("not its end");
        frame.frame.expect("a frame says something")
    }
}

/// The stable word of a status.
pub fn reason(status: &Status) -> &str {
    status.metadata().get("trestle-reason").and_then(|value| value.to_str().ok()).unwrap_or("none")
}

/// The messages of `shop.v1` that the tests send, by hand.
pub mod shop {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct OrderPaid {
        #[prost(string, tag = "1")]
        pub order_id: String,
        #[prost(int64, tag = "2")]
        pub cents: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct UserCreated {
        #[prost(string, tag = "1")]
        pub user_id: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct InventoryUpdated {
        #[prost(string, tag = "1")]
        pub sku: String,
        #[prost(sint32, tag = "2")]
        pub change: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct GetQuote {
        #[prost(string, tag = "1")]
        pub sku: String,
        #[prost(uint32, tag = "2")]
        pub quantity: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Quote {
        #[prost(string, tag = "1")]
        pub sku: String,
        #[prost(int64, tag = "2")]
        pub cents: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Comment {
        #[prost(string, tag = "1")]
        pub text: String,
    }

    pub fn order(n: u32) -> OrderPaid {
        OrderPaid { order_id: format!("o{n}"), cents: 100 }
    }

    pub fn user(n: u32) -> UserCreated {
        UserCreated { user_id: format!("u{n}") }
    }

    pub fn stock(n: i32) -> InventoryUpdated {
        InventoryUpdated { sku: "a1".into(), change: n }
    }

    pub fn get_quote() -> GetQuote {
        GetQuote { sku: "a1".into(), quantity: 2 }
    }

    pub fn comment(text: &str) -> Comment {
        Comment { text: text.into() }
    }
}
