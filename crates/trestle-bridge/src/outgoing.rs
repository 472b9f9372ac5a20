//! What an attached stream is written: answers to its own frames first, then deliveries, as many in a frame as are ready,
//! and what happens to sessions.
//!
//! No timer and nothing adaptive: under load a frame fills by itself, and alone a delivery goes at once.

use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use tonic::Status;
use trestle_wire::v1::{self, gateway_frame::Frame};

use crate::{
    instance::{Instance, Outgoing, Queue},
    service::Service,
};

/// Most deliveries in one frame: what a frame costs is spread thin enough there.
const DELIVERIES_MAX: usize = 64;
/// A frame is closed once its payloads reach this, so that it stays well below the 4 MiB that gRPC clients take.
const FRAME_BYTES_MAX: usize = 1 << 20;

/// What comes out of a stream's conversation: frames that answer the service's, then at most one status.
pub(crate) type Answer = Result<v1::GatewayFrame, Status>;

/// An accepted instance, from which deliveries are written.
pub(crate) struct Attached {
    pub(crate) service: Arc<Service>,
    pub(crate) instance: Arc<Instance>,
    pub(crate) queue: Queue,
}

/// The frames of one stream. Ends when the conversation drops its side of `answers`.
///
/// `attached` comes through `accepted` before the frame that says so.
pub(crate) fn frames(
    answers: mpsc::Receiver<Answer>,
    accepted: tokio::sync::oneshot::Receiver<Attached>,
) -> impl Stream<Item = Answer> + Send {
    let writer = Writer { answers, accepted: Some(accepted), attached: None, next: None };
    stream::unfold(writer, |mut writer| async move {
        let frame = writer.frame().await?;
        Some((frame, writer))
    })
}

struct Writer {
    answers: mpsc::Receiver<Answer>,
    accepted: Option<tokio::sync::oneshot::Receiver<Attached>>,
    attached: Option<Attached>,
    /// Taken off the queue, and not fit for the frame before.
    next: Option<Outgoing>,
}

impl Writer {
    async fn frame(&mut self) -> Option<Answer> {
        // Deliveries may be ready before `attached` is said; it comes first.
        let Some(attached) = &mut self.attached else {
            let answer = self.answers.recv().await?;
            self.attached = self.accepted.take().and_then(|mut accepted| accepted.try_recv().ok());
            return Some(answer);
        };
        let first = match self.next.take() {
            Some(first) => first,
            None => tokio::select! {
                biased;
                answer = self.answers.recv() => return answer.or_else(|| attached.farewell()),
                first = attached.next() => first,
            },
        };
        let (frame, next) = attached.write(first);
        self.next = next;
        Some(Ok(self::frame(frame)))
    }
}

impl Attached {
    /// Waits for either queue; neither starves the other.
    async fn next(&mut self) -> Outgoing {
        tokio::select! {
            Some(outgoing) = self.queue.outgoing.recv() => outgoing,
            Some(event) = self.queue.events.recv() => Outgoing::Event(event),
            else => std::future::pending().await,
        }
    }

    /// What a stream that has nothing in flight is still told when it is drained.
    fn farewell(&mut self) -> Option<Answer> {
        while let Ok(outgoing) = self.queue.outgoing.try_recv() {
            if let Outgoing::Draining(draining) = outgoing {
                return Some(Ok(frame(Frame::Draining(draining))));
            }
        }
        None
    }

    /// The frame that begins with `first`, and what was taken off the queue beyond it.
    fn write(&mut self, first: Outgoing) -> (Frame, Option<Outgoing>) {
        let delivery = match first {
            Outgoing::Deliver(delivery) => delivery,
            Outgoing::Cancel(id) => {
                self.service.release(self.instance.id, 1);
                return (Frame::Cancel(v1::Cancel { delivery_id: id.0 }), None);
            }
            Outgoing::Draining(draining) => return (Frame::Draining(draining), None),
            Outgoing::Event(event) => return (Frame::SessionEvent(event), None),
        };
        let mut bytes = size(&delivery);
        let mut deliveries = vec![delivery];
        while deliveries.len() < DELIVERIES_MAX && bytes < FRAME_BYTES_MAX {
            match self.queue.outgoing.try_recv() {
                Ok(Outgoing::Deliver(delivery)) => {
                    if bytes + size(&delivery) > FRAME_BYTES_MAX {
                        return (deliveries_frame(deliveries), Some(Outgoing::Deliver(delivery)));
                    }
                    bytes += size(&delivery);
                    deliveries.push(delivery);
                }
                Ok(other) => return (deliveries_frame(deliveries), Some(other)),
                Err(_) => break,
            }
        }
        (deliveries_frame(deliveries), None)
    }
}

fn frame(frame: Frame) -> v1::GatewayFrame {
    v1::GatewayFrame { frame: Some(frame) }
}

fn deliveries_frame(deliveries: Vec<v1::Delivery>) -> Frame {
    Frame::Deliveries(v1::Deliveries { deliveries })
}

fn size(delivery: &v1::Delivery) -> usize {
    delivery.envelope.as_ref().map_or(0, |envelope| envelope.payload.len())
}
