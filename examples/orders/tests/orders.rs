//! The example services attached to a real bridge on the embedded bus.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};
use trestle_bridge::{Bridge, Channels, Config, NamespaceView, Nodes, Parts};
use trestle_bus::{
    Fabric, Heard, Subscription,
    embedded::{Embedded, EmbeddedConfig},
    logs,
};
use trestle_example_orders::shop;
use trestle_schema::{SchemaSource, Schemas};
use trestle_service::ServiceError;
use trestle_telemetry::Tracer;
use trestle_wire::{
    ChannelName, NodeId, ServiceName, SessionId, Subject, Subjects,
    v1::{self, bus_reply::Outcome},
};

const SOON: Duration = Duration::from_secs(10);

async fn soon<F: Future>(what: &str, happens: F) -> F::Output {
    timeout(SOON, happens).await.unwrap_or_else(|_| panic!("{what} did not happen within {SOON:?}"))
}

struct NoHistory;

impl Channels for NoHistory {
    fn namespace(&self, name: &str) -> Option<NamespaceView> {
        (name == "live").then_some(NamespaceView { history: false, presence: false })
    }
}

struct Alone;

impl Nodes for Alone {
    fn alive(&self) -> Vec<v1::NodeInfo> {
        Vec::new()
    }
}

/// A gateway without an edge, and the services attached to it.
struct House {
    fabric: Fabric,
    subjects: Subjects,
    session: SessionId,
    stop_services: oneshot::Sender<()>,
    services: JoinHandle<Result<(), ServiceError>>,
}

impl House {
    async fn start() -> Self {
        let fabric = Embedded::open(EmbeddedConfig::default()).expect("memory needs no directory");
        let subjects = Subjects::new("trestle");
        fabric.log.ensure(&logs::work(&subjects)).await.expect("the work log");
        let node = NodeId::parse("node-1").expect("valid");
        let session = SessionId::new(&node, 7);
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/examples");
        let bridge = Bridge::new(Parts {
            node,
            subjects: subjects.clone(),
            schemas: Schemas::open(SchemaSource::Folder(examples.into())).expect("schemas without faults"),
            fabric: fabric.clone(),
            tracer: Tracer::disabled(),
            channels: Arc::new(NoHistory),
            nodes: Arc::new(Alone),
            config: Config::default(),
            registry: &mut prometheus_client::registry::Registry::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { bridge.serve(listener, std::future::pending()).await });
        let (stop_services, stopped) = oneshot::channel::<()>();
        let services = trestle_example_orders::run(endpoint, async move { drop(stopped.await) });
        Self { fabric, subjects, session, stop_services, services: tokio::spawn(services) }
    }

    fn envelope(&self, message_type: &str, payload: &impl Message) -> v1::Envelope {
        v1::Envelope {
            id: format!("{message_type}-1"),
            message_type: message_type.into(),
            payload: payload.encode_to_vec().into(),
            source: Some(v1::Source {
                session: self.session.to_string(),
                node: "node-1".into(),
                ..v1::Source::default()
            }),
            deadline: Some((SystemTime::now() + SOON).into()),
            ..v1::Envelope::default()
        }
    }

    fn up(&self, service: &str, message_type: &str) -> Subject {
        self.subjects.up(&ServiceName::parse(service).expect("valid"), message_type)
    }

    async fn store(&self, service: &str, message_type: &str, payload: &impl Message) {
        let subject = self.subjects.work(&ServiceName::parse(service).expect("valid"), message_type);
        let body = self.envelope(message_type, payload).encode_to_vec().into();
        self.fabric.log.append(&subject, None, body).await.expect("stored");
    }

    async fn hear(&self, subject: Subject) -> Subscription {
        self.fabric.bus.subscribe(&subject, None).await.expect("the bus is there")
    }

    /// Asks until somebody is attached to be asked.
    async fn answer(&self, service: &str, question: &v1::Envelope) -> Outcome {
        let subject = self.up(service, &question.message_type);
        loop {
            match self.fabric.bus.request(&subject, question.encode_to_vec().into(), SOON).await {
                Ok(answer) => return v1::BusReply::decode(answer).expect("a BusReply").outcome.expect("an outcome"),
                Err(trestle_bus::BusError::NoResponders(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn ask(&self, question: &shop::v1::GetQuote) -> v1::Envelope {
        match self.answer("billing", &self.envelope("shop.v1.GetQuote", question)).await {
            Outcome::Reply(reply) => reply,
            Outcome::Error(error) => panic!("not answered but {error:?}"),
        }
    }
}

async fn message<M: Message + Default>(heard: &mut Subscription) -> (v1::Envelope, M) {
    match soon("a message", heard.next()).await {
        Some(Heard::Message(message)) => {
            let envelope = v1::Envelope::decode(message.payload).expect("an envelope");
            let message = M::decode(envelope.payload.clone()).expect("of its type");
            (envelope, message)
        }
        other => panic!("not a message but {other:?}"),
    }
}

#[tokio::test]
async fn both_versions_of_an_order_are_booked_and_acked_with_a_receipt() {
    let house = House::start().await;
    let mut receipts = house.hear(house.subjects.session(&house.session)).await;
    let mut handled = house.hear(house.subjects.handled(&NodeId::parse("node-1").expect("valid"))).await;

    house.store("billing", "shop.v1.OrderPaid", &shop::v1::OrderPaid { order_id: "o1".into(), cents: 250 }).await;
    let (envelope, receipt) = message::<shop::v1::Receipt>(&mut receipts).await;
    assert_eq!(envelope.message_type, "shop.v1.Receipt");
    assert_eq!(envelope.source.expect("a source").service, "billing");
    let expected = |order: &str, cents, currency: &str, version: &str| shop::v1::Receipt {
        order_id: order.into(),
        cents,
        currency: currency.into(),
        order_version: version.into(),
    };
    assert_eq!(receipt, expected("o1", 250, "EUR", "1.0"));

    let total = Some(shop::v2::Money { currency: "CHF".into(), cents: 900 });
    house.store("billing", "shop.v2.OrderPaid", &shop::v2::OrderPaid { order_id: "o2".into(), total }).await;
    let (_, receipt) = message::<shop::v1::Receipt>(&mut receipts).await;
    assert_eq!(receipt, expected("o2", 900, "CHF", "2.0"));

    for id in ["shop.v1.OrderPaid-1", "shop.v2.OrderPaid-1"] {
        let Some(Heard::Message(told)) = soon("handled", handled.next()).await else { panic!("the bus is there") };
        assert_eq!(v1::Handled::decode(told.payload).expect("handled").envelope_id, id);
    }
}

#[tokio::test]
async fn a_quote_is_the_price_of_all_pieces_and_of_at_least_one() {
    let house = House::start().await;
    for (quantity, cents) in [(0, 199), (1, 199), (3, 597)] {
        let question = shop::v1::GetQuote { sku: "a1".into(), quantity };
        let reply = soon("the quote", house.ask(&question)).await;
        assert_eq!(reply.message_type, "shop.v1.Quote");
        let quote = shop::v1::Quote::decode(reply.payload).expect("a quote");
        assert_eq!(quote, shop::v1::Quote { sku: "a1".into(), cents });
    }
}

#[tokio::test]
async fn a_change_of_stock_goes_to_those_who_watch() {
    let house = House::start().await;
    let mut watched = house.hear(house.subjects.channel(&ChannelName::parse("live:stock").expect("valid"))).await;
    let update = |change| shop::v1::InventoryUpdated { sku: "a1".into(), change };
    // Nobody keeps such a message, so first one that is answered: when it is, the service is there.
    let probe = house.envelope("shop.v1.InventoryUpdated", &update(0));
    match soon("an answer", house.answer("stock", &probe)).await {
        Outcome::Error(error) => assert_eq!(error.reason, "not_a_request"),
        other => panic!("not refused but {other:?}"),
    }
    let body = house.envelope("shop.v1.InventoryUpdated", &update(-2)).encode_to_vec();
    house.fabric.bus.publish(&house.up("stock", "shop.v1.InventoryUpdated"), body.into()).await.expect("published");
    for change in [0, -2] {
        let (envelope, got) = message::<shop::v1::InventoryUpdated>(&mut watched).await;
        assert_eq!((got, envelope.channel.as_str()), (update(change), "live:stock"));
    }
}

#[tokio::test]
async fn told_to_stop_they_stop() {
    let house = House::start().await;
    soon("a quote", house.ask(&shop::v1::GetQuote { sku: "a1".into(), quantity: 1 })).await;
    house.stop_services.send(()).expect("they run");
    soon("the end", house.services).await.expect("did not panic").expect("stopped");
}
