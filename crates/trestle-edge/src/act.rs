//! Act: what the session has decided in, calls on hub and bus out.
//!
//! Every function here makes a [`Doing`] that owns what it needs, so that a connection can drop it at any time: a dropped
//! request is cancelled at its service, a dropped wait is forgotten.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::timeout;
use trestle_bus::Fabric;
use trestle_codec::{Typed, encode};
use trestle_hub::Member;
use trestle_schema::{Route, route};
use trestle_session::Event;
use trestle_telemetry::trace::{Kind, Span, TraceContext};
use trestle_wire::{
    ChannelName, Reason, Refusal, Subject, UserId,
    subject::token,
    v1::{self, bus_reply::Outcome, server_frame::Frame as Answer},
};

use crate::{
    Edge,
    lane::{Doing, Done},
};

/// Who does it.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) edge: Arc<Edge>,
    pub(crate) member: Arc<Member>,
    pub(crate) user: Option<UserId>,
}

impl Actor {
    /// Takes a seat in a channel.
    pub(crate) fn subscribe(self, id: u32, channel: ChannelName) -> Doing {
        Box::pin(async move {
            let Self { edge, member, .. } = self;
            let history = edge.channels.of(&channel).is_ok_and(|namespace| namespace.history.is_some());
            let name = channel.to_string();
            let encoding = member.encoding;
            let catalogue = edge.schemas.current();
            let welcome = move |offset| {
                let subscribed = v1::Subscribed { channel: name, recovered: false, offset };
                let frame = v1::ServerFrame { reply_to: id, frame: Some(Answer::Subscribed(subscribed)) };
                (id != 0).then(|| encode(encoding, &frame, &catalogue))
            };
            match edge.hub.join(&member, channel.clone(), history, welcome).await {
                Ok(seat) => {
                    let told = Event::Subscribed { id, channel: channel.clone(), result: Ok(()) };
                    Done::Seated(channel, seat, told)
                }
                Err(refusal) => Done::Tell(Event::Subscribed { id, channel, result: Err(refusal) }),
            }
        })
    }

    /// Publishes on a channel.
    pub(crate) fn publish(self, id: u32, channel: ChannelName, history: bool, message: Typed) -> Doing {
        Box::pin(async move {
            let subjects = &self.edge.subjects;
            let subject = if history { subjects.log(&channel) } else { subjects.channel(&channel) };
            let dedup = self.dedup(&message.envelope, &subject);
            let mut envelope = self.stamp(message.envelope);
            envelope.channel = channel.to_string();
            let span = self.publish_span(&mut envelope, &subject);
            let body = Bytes::from(envelope.encode_to_vec());
            let Fabric { bus, log, .. } = &self.edge.fabric;
            let result = if history {
                log.append(&subject, dedup.as_deref(), body).await.map(|appended| appended.offset)
            } else {
                bus.publish(&subject, body).await.map(|()| 0)
            };
            let result = result.map(|offset| accepted(v1::AckLevel::Received, offset)).map_err(Refusal::from);
            Done::Tell(settled(id, false, ended(span, result)))
        })
    }

    /// Sends a message to the service of its route. With `handled`, waits for the service's own acknowledgement.
    pub(crate) fn deliver(self, id: u32, handled: bool, message: Typed) -> Doing {
        Box::pin(async move {
            let ack = route_of(&message).ack;
            let subject = route::destination(&message.kind, &self.edge.subjects).expect("a route has a destination");
            let dedup = self.dedup(&message.envelope, &subject);
            let mut envelope = self.stamp(message.envelope);
            let span = self.publish_span(&mut envelope, &subject);
            let body = Bytes::from(envelope.encode_to_vec());
            let Fabric { bus, log, .. } = &self.edge.fabric;
            if ack == v1::AckLevel::Received {
                let result = bus.publish(&subject, body).await;
                let result = result.map(|()| accepted(v1::AckLevel::Received, 0)).map_err(Refusal::from);
                return Done::Tell(settled(id, handled, ended(span, result)));
            }
            // Before the message is stored: the service may be quicker than the bus's answer.
            let waiting = handled.then(|| self.edge.handled.wait(self.member.session.as_str(), &envelope.id));
            let stored = log.append(&subject, dedup.as_deref(), body).await.map_err(Refusal::from);
            match (ended(span, stored), waiting) {
                (Err(refusal), _) => Done::Tell(settled(id, handled, Err(refusal))),
                // One that was stored before may have been handled before: nobody will say so again.
                (Ok(appended), Some(_)) if appended.duplicate => {
                    Done::Tell(settled(id, handled, Ok(accepted(v1::AckLevel::Durable, 0))))
                }
                (Ok(_), None) => Done::Tell(settled(id, handled, Ok(accepted(v1::AckLevel::Durable, 0)))),
                (Ok(_), Some(waiting)) => {
                    let patience = self.edge.config.handled_timeout;
                    Done::Beside(Box::pin(async move {
                        let done = timeout(patience, waiting.done()).await.unwrap_or(false);
                        let level = if done { v1::AckLevel::Handled } else { v1::AckLevel::Durable };
                        Done::Tell(settled(id, true, Ok(accepted(level, 0))))
                    }))
                }
            }
        })
    }

    /// Asks the service of a route, and waits for its answer.
    pub(crate) fn request(self, id: u32, patience: Duration, message: Typed) -> Doing {
        Box::pin(async move {
            let subject = self.edge.subjects.up(&route_of(&message).service, message.kind.full_name());
            let asked = message.envelope.correlation_id.clone();
            let mut envelope = self.stamp(message.envelope);
            envelope.correlation_id = uuid::Uuid::now_v7().to_string();
            envelope.deadline = Some((std::time::SystemTime::now() + patience).into());
            let span = self.publish_span(&mut envelope, &subject);
            let cancel = Cancel::armed(&self.edge, &envelope.correlation_id);
            let answer = self.edge.fabric.bus.request(&subject, envelope.encode_to_vec().into(), patience).await;
            let result = match answer {
                Ok(bytes) => {
                    cancel.disarm();
                    reply(bytes, asked)
                }
                // Told to the bridge by dropping `cancel`.
                Err(error) => Err(match Refusal::from(error) {
                    refusal if refusal.reason == Reason::Timeout => {
                        Refusal::new(Reason::Timeout, format!("no answer from the service within {patience:?}"))
                    }
                    refusal => refusal,
                }),
            };
            Done::Tell(settled(id, true, ended(span, result)))
        })
    }

    /// What tells a repeated message from another one: its sender, where it goes, and the id that the sender gave. A
    /// message without an id of its own is never a repetition.
    fn dedup(&self, envelope: &v1::Envelope, subject: &Subject) -> Option<String> {
        if envelope.id.is_empty() {
            return None;
        }
        let id = &envelope.id;
        Some(match &self.user {
            Some(user) => format!("u:{}/{subject}/{id}", token(user.as_str())),
            None => format!("s:{}/{subject}/{id}", self.member.session),
        })
    }

    /// Sets what only the gateway may say.
    fn stamp(&self, mut envelope: v1::Envelope) -> v1::Envelope {
        if envelope.id.is_empty() {
            envelope.id = uuid::Uuid::now_v7().to_string();
        }
        envelope.time = Some(std::time::SystemTime::now().into());
        envelope.source = Some(v1::Source {
            session: self.member.session.to_string(),
            user: self.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            node: self.edge.node.to_string(),
            service: String::new(),
        });
        envelope
    }

    /// The span of the hop over the bus, whose context the envelope carries on.
    fn publish_span(&self, envelope: &mut v1::Envelope, subject: &Subject) -> Option<Span> {
        let parent = TraceContext::of(&envelope.headers)?;
        let mut span = self.edge.tracer.span("publish", Kind::Producer, &parent)?;
        span.set("messaging.operation.type", "send");
        span.set("messaging.destination.name", subject.to_string());
        span.set("messaging.message.id", envelope.id.clone());
        span.context().carry(&mut envelope.headers);
        Some(span)
    }
}

/// Tells the bridges that a request is given up, unless it was answered.
struct Cancel {
    edge: Arc<Edge>,
    correlation_id: Option<String>,
}

impl Cancel {
    fn armed(edge: &Arc<Edge>, correlation_id: &str) -> Self {
        Self { edge: Arc::clone(edge), correlation_id: Some(correlation_id.to_owned()) }
    }

    fn disarm(mut self) {
        self.correlation_id = None;
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        let Some(correlation_id) = self.correlation_id.take() else { return };
        let edge = Arc::clone(&self.edge);
        tokio::spawn(async move {
            let cancel = v1::CancelRequest { correlation_id };
            let sent = edge.fabric.bus.publish(&edge.subjects.cancel(), cancel.encode_to_vec().into()).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "a request was not cancelled; it ends at its deadline");
            }
        });
    }
}

fn route_of(message: &Typed) -> &Route {
    message.kind.route().expect("the session refuses a type without a route")
}

fn reply(bytes: Bytes, asked: String) -> Result<Answer, Refusal> {
    match v1::BusReply::decode(bytes).map(|reply| reply.outcome) {
        Ok(Some(Outcome::Reply(mut envelope))) => {
            // The client's own correlation id comes back to it; the gateway's was for the bus.
            envelope.correlation_id = asked;
            Ok(Answer::Reply(envelope))
        }
        Ok(Some(Outcome::Error(error))) => Ok(Answer::Error(error)),
        Ok(None) | Err(_) => Err(Refusal::new(Reason::ReplyInvalid, "what came over the bus is no reply")),
    }
}

fn accepted(level: v1::AckLevel, offset: u64) -> Answer {
    Answer::Accepted(v1::Accepted { level: level.into(), offset })
}

fn settled(id: u32, outstanding: bool, result: Result<Answer, Refusal>) -> Event {
    Event::Settled { id, outstanding, result }
}

fn ended<T>(span: Option<Span>, result: Result<T, Refusal>) -> Result<T, Refusal> {
    if let (Some(mut span), Err(refusal)) = (span, &result) {
        span.fail(refusal.reason.row().word);
    }
    result
}
