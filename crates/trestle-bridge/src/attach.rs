//! The conversation on one attached stream: hello, then acks, nacks, replies, pushes and credits, until either side ends.
//!
//! In: a service's frames. Out: answers to them; deliveries come beside them ([`crate::outgoing`]). One task owns the
//! conversation and reads a frame only when it has room for one answer, so a service that does not read its stream stops
//! only itself. When the task ends, whatever the instance had in hand is given back or answered.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use tonic::Streaming;
use trestle_wire::{
    Reason, Refusal,
    v1::{self, gateway_frame::Frame, service_frame::Frame as Said},
};

use crate::{
    Shared, events, hello,
    inflight::{Answered, DeliveryId},
    instance::Instance,
    outgoing::{Answer, Attached},
    parcel::Task,
    push::Origin,
    serve,
    service::Service,
    status::status,
    window::{Burst, Room, Window},
};

/// Holds the conversation; its frames go to `answers`, and to what comes through `accepted`.
pub(crate) async fn converse(
    shared: Arc<Shared>,
    mut said: Streaming<v1::ServiceFrame>,
    answers: mpsc::Sender<Answer>,
    accepted: oneshot::Sender<Attached>,
    traceparent: Option<Arc<str>>,
) {
    match admit(&shared, &mut said, accepted).await {
        Ok((service, instance, attached)) => {
            let mut conversation = Conversation { shared, service, instance, traceparent, window: Window::default() };
            if answers.send(Ok(frame(Frame::Attached(attached)))).await.is_ok() {
                conversation.run(&mut said, &answers).await;
            }
            conversation.part().await;
        }
        Err(refusal) => {
            tracing::info!(%refusal, "an instance was refused");
            // A closed channel: it did not wait for the answer.
            let _ = answers.send(Err(status(&refusal))).await;
        }
    }
}

/// Takes the hello, and makes the instance part of its service once its types are heard.
async fn admit(
    shared: &Arc<Shared>,
    said: &mut Streaming<v1::ServiceFrame>,
    accepted: oneshot::Sender<Attached>,
) -> Result<(Arc<Service>, Arc<Instance>, v1::Attached), Refusal> {
    let by = Instant::now() + shared.config.hello_timeout;
    let expected = || Refusal::new(Reason::HelloExpected, "the first frame of the stream must be hello");
    let first = tokio::select! {
        biased;
        () = shared.draining.cancelled() => {
            return Err(Refusal::new(Reason::Draining, "this node is about to stop; attach to another"));
        }
        first = timeout_at(by, said.message()) => first.map_err(|_| expected())?,
    };
    let hello = match first {
        Ok(Some(v1::ServiceFrame { frame: Some(Said::Hello(hello)) })) => hello,
        Ok(_) | Err(_) => return Err(expected()),
    };
    let hello = hello::check(hello, &shared.schemas.current(), &shared.config)?;

    let service = shared.services.get(&hello.service, &shared.metrics);
    let id = shared.next_instance();
    let (instance, queue) = Instance::new(id, hello.instance, hello.service, shared.config.max_in_flight_max);
    let start = |message_type: &Arc<str>| serve::start(shared, &service, message_type);
    let mut ready = service.attach(&instance, hello.takes, hello.max_in_flight, start);
    if hello.session_events {
        ready.extend(service.listen(&instance, || events::start(shared, &service)));
    }
    // The other end is the response of this call, which lives as long as the stream.
    let _ = accepted.send(Attached { service: service.clone(), instance: instance.clone(), queue });

    if timeout_at(by, all(ready)).await.is_err() {
        shared.lose(&service, &instance).await;
        return Err(Refusal::new(Reason::BusAway, "the bus does not carry this service's messages now; attach again"));
    }
    let name = instance.name.clone();
    tracing::info!(service = %service.name, instance = name, "instance attached");
    let attached = v1::Attached {
        instance: name,
        node: shared.node.to_string(),
        types: hello.types,
        max_in_flight: hello.max_in_flight,
    };
    Ok((service, instance, attached))
}

/// Waits until all are true. One whose other side has gone never is.
async fn all(ready: Vec<watch::Receiver<bool>>) {
    for mut ready in ready {
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Conversation {
    shared: Arc<Shared>,
    service: Arc<Service>,
    instance: Arc<Instance>,
    traceparent: Option<Arc<str>>,
    window: Window,
}

impl Conversation {
    /// Reads and answers until the service ends the stream, or the node has drained.
    async fn run(&mut self, said: &mut Streaming<v1::ServiceFrame>, answers: &mpsc::Sender<Answer>) {
        let draining = self.shared.draining.clone();
        let (mut told, mut all_taken) = (false, false);
        let mut room: Option<Room<v1::GatewayFrame>> = None;
        loop {
            if all_taken && self.instance.in_hand() == 0 && self.window.is_empty() {
                return;
            }
            tokio::select! {
                () = self.shared.closing.cancelled() => return,
                () = draining.cancelled(), if !told => {
                    told = true;
                    let deadline = prost_types::Duration::try_from(*self.shared.drain_deadline.lock()).ok();
                    self.instance.drain(v1::Draining { deadline });
                }
                // What was taken off the bus before is for the instances that are still here.
                () = self.service.intakes_ended(), if told && !all_taken => all_taken = true,
                reserved = answers.clone().reserve_owned(), if room.is_none() => match reserved {
                    Ok(reserved) => room = Some(reserved),
                    Err(_) => return, // the stream is not read any more
                },
                frame = said.message(), if room.is_some() => {
                    let (mut next, mut burst) = (Some(frame), Burst::default());
                    while let Some(frame) = next {
                        let (Ok(Some(frame)), Some(taken)) = (frame, room.take()) else { return };
                        room = self.hear(frame, taken).await;
                        next = burst.next(said, &room).await;
                    }
                }
                () = answers.closed() => return,
                () = self.window.one_done() => {}
                (requests, others) = self.instance.late() => self.late(requests, others),
            }
        }
    }

    /// Does what a frame says; returns the room for an answer if it took none.
    async fn hear(&mut self, frame: v1::ServiceFrame, room: Room<v1::GatewayFrame>) -> Option<Room<v1::GatewayFrame>> {
        let answered = match frame.frame {
            Some(Said::Ack(ack)) => self.ack(ack),
            Some(Said::Nack(nack)) => self.nack(nack),
            Some(Said::Reply(reply)) => self.reply(reply).await,
            Some(Said::Push(push)) => {
                let origin = Origin { service: Some(&self.service.name), traceparent: self.traceparent.as_deref() };
                let pushed = |pushed| self::frame(Frame::Pushed(pushed));
                return self.window.begin(&self.shared, origin, push, room, pushed).await;
            }
            Some(Said::Credit(v1::Credit { max_in_flight })) => {
                // Unlike in the hello, 0 is 0: the instance pauses.
                self.service.resize(self.instance.id, max_in_flight.min(self.shared.config.max_in_flight_max));
                Ok(())
            }
            Some(Said::Hello(_)) => Err(Refusal::new(Reason::HelloExpected, "hello comes once, as the first frame")),
            None => Err(Refusal::new(Reason::EmptyFrame, "the frame carries nothing that this gateway knows")),
        };
        match answered {
            Ok(()) => Some(room),
            Err(refusal) => room.send(Ok(frame_of(refusal))).try_reserve_owned().ok(),
        }
    }

    /// Settles beside the conversation: the bus's own ack takes a round trip, and other acks are behind this one.
    fn ack(&self, ack: v1::Ack) -> Result<(), Refusal> {
        let mut tasks = Vec::with_capacity(ack.delivery_ids.len());
        let mut refused = Ok(());
        for id in ack.delivery_ids {
            match self.instance.answer(DeliveryId(id)) {
                // A request is not done by an ack; its sender is told below, the service here.
                Answered::Open(task) if task.is_request() => {
                    let sentence = format!("delivery {id} is a request: it takes a reply or a nack");
                    refused = refused.and(Err(Refusal::new(Reason::ReplyInvalid, sentence).field("ack.delivery_ids")));
                    tasks.push(task);
                }
                Answered::Open(task) | Answered::Late(task) => tasks.push(task),
                Answered::Cancelled => {}
                Answered::Unknown => refused = refused.and(Err(unknown(id, "ack.delivery_ids"))),
            }
        }
        let (shared, service, id) = (self.shared.clone(), self.service.clone(), self.instance.id);
        self.shared.tasks.spawn(async move {
            let count = tasks.len();
            let acks = tasks.into_iter().map(|task| shared.acked(&service, task));
            futures_util::future::join_all(acks).await;
            service.release(id, count);
        });
        refused
    }

    fn nack(&self, nack: v1::Nack) -> Result<(), Refusal> {
        let (task, late) = match self.instance.answer(DeliveryId(nack.delivery_id)) {
            Answered::Open(task) => (task, false),
            Answered::Late(task) => (task, true),
            Answered::Cancelled => return Ok(()),
            Answered::Unknown => return Err(unknown(nack.delivery_id, "nack.delivery_id")),
        };
        let (shared, service, id) = (self.shared.clone(), self.service.clone(), self.instance.id);
        self.shared.tasks.spawn(async move {
            if late {
                // The bus has given it to somebody else by now; a nak would take it away from there.
                shared.cancelled(&service, task);
            } else {
                shared.nacked(&service, task, nack).await;
            }
            service.release(id, 1);
        });
        Ok(())
    }

    async fn reply(&mut self, reply: v1::Reply) -> Result<(), Refusal> {
        let id = DeliveryId(reply.delivery_id);
        if self.instance.is_request(id) == Some(false) {
            let sentence = format!("delivery {} is not a request: ack or nack it", reply.delivery_id);
            return Err(Refusal::new(Reason::NotARequest, sentence).field("reply.delivery_id"));
        }
        let task = match self.instance.answer(id) {
            Answered::Open(task) | Answered::Late(task) => task,
            Answered::Cancelled => return Ok(()),
            Answered::Unknown => return Err(unknown(reply.delivery_id, "reply.delivery_id")),
        };
        let result = self.shared.replied(&self.service, task, reply.message).await;
        self.service.release(self.instance.id, 1);
        result
    }

    fn late(&self, requests: Vec<Task>, others: usize) {
        for task in requests {
            self.shared.cancelled(&self.service, task);
        }
        if others > 0 {
            let (service, instance) = (&self.service.name, &self.instance.name);
            tracing::warn!(%service, instance, others, "deliveries not acked in time; they come again");
        }
    }

    /// The stream is over: what was in hand is given back, what was begun is finished.
    async fn part(mut self) {
        self.shared.lose(&self.service, &self.instance).await;
        self.window.all_done().await;
        tracing::info!(service = %self.service.name, instance = self.instance.name, "instance gone");
    }
}

impl Shared {
    /// Parts with an instance: what it had in hand is given back, or answered as lost.
    async fn lose(&self, service: &Service, instance: &Instance) {
        let (open, late) = service.detach(instance);
        let lost = open.into_iter().map(|task| self.lost(service, task));
        futures_util::future::join_all(lost).await;
        // Late ones are with somebody else by now.
        for task in late {
            self.cancelled(service, task);
        }
    }
}

fn unknown(id: u64, field: &str) -> Refusal {
    let sentence = format!("delivery {id} was never sent on this stream, or was answered already");
    Refusal::new(Reason::UnknownDelivery, sentence).field(field)
}

fn frame(frame: Frame) -> v1::GatewayFrame {
    v1::GatewayFrame { frame: Some(frame) }
}

fn frame_of(refusal: Refusal) -> v1::GatewayFrame {
    frame(Frame::Error(refusal.into()))
}

/// How long the conversations of a stopped node may take to finish what they had begun.
pub(crate) const FINISH_WAIT: Duration = Duration::from_secs(3);
