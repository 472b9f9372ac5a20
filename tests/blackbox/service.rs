//! One instance of a service, by hand on the generated gRPC client.

use std::collections::VecDeque;

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use trestle_testkit::Gateway;
use trestle_wire::v1::{self, bridge_client::BridgeClient, gateway_frame::Frame as Got, service_frame::Frame as Say};

use crate::support::PATIENCE;

/// An attached instance. Dropping it cuts its connection without a word, as a crash does.
pub(crate) struct Instance {
    say: mpsc::Sender<v1::ServiceFrame>,
    hear: Streaming<v1::GatewayFrame>,
    deliveries: VecDeque<v1::Delivery>,
}

/// A connection to the gateway's gRPC side.
pub(crate) async fn bridge(gateway: &Gateway) -> BridgeClient<Channel> {
    BridgeClient::connect(format!("http://{}", gateway.grpc())).await.expect("a connection")
}

impl Instance {
    /// Attaches to `gateway` as an instance of `service` that takes `types` (none: all of its), `credit` at a time.
    pub(crate) async fn attach(gateway: &Gateway, service: &str, types: &[&str], credit: u32) -> Self {
        let (say, said) = mpsc::channel(64);
        let types = types.iter().map(|name| v1::ConsumedType { message_type: (*name).into(), versions: Vec::new() });
        let hello = v1::Hello {
            service: service.into(),
            types: types.collect(),
            max_in_flight: credit,
            ..v1::Hello::default()
        };
        say.send(v1::ServiceFrame { frame: Some(Say::Hello(hello)) }).await.expect("room");
        let hear = bridge(gateway).await.attach(ReceiverStream::new(said)).await.expect("attached").into_inner();
        let mut instance = Self { say, hear, deliveries: VecDeque::new() };
        let first = instance.frame().await;
        assert!(matches!(first, Got::Attached(_)), "{first:?}");
        instance
    }

    /// Says something.
    pub(crate) async fn say(&self, frame: Say) {
        self.say.send(v1::ServiceFrame { frame: Some(frame) }).await.expect("the stream is open");
    }

    /// Acks one delivery.
    pub(crate) async fn ack(&self, delivery_id: u64) {
        self.say(Say::Ack(v1::Ack { delivery_ids: vec![delivery_id] })).await;
    }

    /// Replies to a request with a message of a type.
    pub(crate) async fn reply(&self, delivery_id: u64, message_type: &str, payload: Vec<u8>) {
        let message =
            v1::Envelope { message_type: message_type.into(), payload: payload.into(), ..v1::Envelope::default() };
        self.say(Say::Reply(v1::Reply { delivery_id, message: Some(message) })).await;
    }

    /// The next frame of the gateway.
    pub(crate) async fn frame(&mut self) -> Got {
        let frame = timeout(PATIENCE, self.hear.message()).await.expect("a frame in time").expect("a healthy stream");
        frame.expect("the stream goes on").frame.expect("a frame that says something")
    }

    /// The next delivery; anything else but `draining` fails the test.
    pub(crate) async fn delivery(&mut self) -> v1::Delivery {
        loop {
            if let Some(delivery) = self.deliveries.pop_front() {
                return delivery;
            }
            match self.frame().await {
                Got::Deliveries(batch) => self.deliveries.extend(batch.deliveries),
                Got::Draining(_) => {}
                other => panic!("no delivery: {other:?}"),
            }
        }
    }

    /// The next delivery, if one comes within a moment.
    pub(crate) async fn soon(&mut self, wait: std::time::Duration) -> Option<v1::Delivery> {
        timeout(wait, self.delivery()).await.ok()
    }
}

/// The envelope of a delivery.
pub(crate) fn envelope(delivery: &v1::Delivery) -> &v1::Envelope {
    delivery.envelope.as_ref().expect("a delivery has an envelope")
}
