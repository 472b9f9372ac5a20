//! The service behind the gateway: answers each question with what it was asked.

use anyhow::{Context as _, bail};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trestle_wire::v1::{
    Delivery, Envelope, Hello, Reply, ServiceFrame, bridge_client::BridgeClient, gateway_frame, service_frame::Frame,
};

use crate::v1::{Answer, Ask};

/// More than are ever outstanding, so that the bench measures the way and not the waiting.
const IN_FLIGHT: u32 = 1024;

/// Serves until the gateway at `grpc` is gone.
pub(super) async fn serve(grpc: &str) -> anyhow::Result<()> {
    let mut bridge = BridgeClient::connect(format!("http://{grpc}")).await.context("no gateway")?;
    // Its bound is that of the deliveries: each has one answer.
    let (answers, outgoing) = mpsc::channel(IN_FLIGHT as usize);
    let hello = Hello { service: "bench".into(), max_in_flight: IN_FLIGHT, ..Hello::default() };
    answers.send(frame(Frame::Hello(hello))).await?;
    let mut incoming = bridge.attach(ReceiverStream::new(outgoing)).await.context("not attached")?.into_inner();
    while let Some(message) = incoming.message().await? {
        match message.frame {
            Some(gateway_frame::Frame::Attached(_)) => super::ready(grpc),
            Some(gateway_frame::Frame::Deliveries(deliveries)) => {
                for delivery in deliveries.deliveries {
                    answers.send(frame(Frame::Reply(answer(delivery)?))).await?;
                }
            }
            Some(gateway_frame::Frame::Error(error)) => bail!("refused: {error:?}"),
            _ => {}
        }
    }
    Ok(())
}

fn answer(delivery: Delivery) -> anyhow::Result<Reply> {
    let asked = Ask::decode(delivery.envelope.context("a delivery without an envelope")?.payload)?;
    let payload = Answer { filling: asked.filling }.encode_to_vec().into();
    let message = Envelope { message_type: "bench.v1.Answer".into(), payload, ..Envelope::default() };
    Ok(Reply { delivery_id: delivery.delivery_id, message: Some(message) })
}

fn frame(frame: Frame) -> ServiceFrame {
    ServiceFrame { frame: Some(frame) }
}
