//! Act: what the session has decided in, calls on hub and bus out.
//!
//! Every function here makes a [`Doing`] that owns what it needs, so that a connection can drop it at any time: a dropped
//! request is cancelled at its service, a dropped wait is forgotten.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use prost::Message as _;
use tokio::{sync::oneshot, time::timeout};
use trestle_bus::Fabric;
use trestle_cluster::Seat as PresenceSeat;
use trestle_codec::{Page, Since, Typed, encode};
use trestle_hub::{Join, Joined, Member, Seat};
use trestle_schema::{Route, route};
use trestle_session::Event;
use trestle_telemetry::trace::{Kind, Span, TraceContext};
use trestle_wire::{
    ChannelName, GroupName, Reason, Refusal, Subject, UserId,
    subject::token,
    v1::{self, bus_reply::Outcome, server_frame::Frame as Answer},
};

use crate::{
    Edge,
    lane::{Doing, Done, Regrouped},
    seats::Listening,
};

/// A channel that a client wants to listen to.
pub(crate) struct Wanted {
    pub(crate) channel: ChannelName,
    pub(crate) since: Since,
    /// Whether it wants to know who comes and goes.
    pub(crate) presence: bool,
    /// Whether it is the user's inbox.
    pub(crate) inbox: bool,
    /// Whether the client asked for an answer.
    pub(crate) answered: bool,
    /// Set when the answer waits in the outbox; what was missed follows it there.
    pub(crate) begun: Arc<AtomicBool>,
}

/// A channel that a resumed session listens to again.
pub(crate) struct Again {
    pub(crate) channel: ChannelName,
    pub(crate) since: Since,
    pub(crate) presence: bool,
    /// Whether the client is told `subscribed`.
    pub(crate) told: bool,
    /// How long ago at most the session listened to it.
    pub(crate) absent: Duration,
}

/// Who does it.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) edge: Arc<Edge>,
    pub(crate) member: Arc<Member>,
    pub(crate) user: Option<UserId>,
}

impl Actor {
    /// Listens to a channel: a seat in its room and, where the namespace has presence, being seen there.
    pub(crate) fn subscribe(self, id: u32, wanted: Wanted) -> Doing {
        Box::pin(async move {
            let channel = wanted.channel.clone();
            let (name, encoding, catalogue) = (channel.to_string(), self.member.encoding, self.edge.schemas.current());
            let (answered, begun) = (wanted.answered, wanted.begun);
            let welcome = move |joined: Joined| {
                begun.store(true, Ordering::Relaxed);
                let subscribed = v1::Subscribed { channel: name, recovered: joined.recovered, offset: joined.offset };
                let frame = v1::ServerFrame { reply_to: id, frame: Some(Answer::Subscribed(subscribed)) };
                answered.then(|| encode(encoding, &frame, &catalogue))
            };
            let listening = self.listen(&channel, wanted.presence, async {
                let since = self.place(wanted.since, wanted.inbox).await?;
                self.edge.hub.join(&self.member, Join { channel: channel.clone(), since }, welcome).await
            });
            match listening.await {
                Ok(listening) => {
                    let told = Event::Subscribed { id, channel: channel.clone(), result: Ok(()) };
                    Done::Seated(channel, listening, told)
                }
                Err(refusal) => Done::Tell(Event::Subscribed { id, channel, result: Err(refusal) }),
            }
        })
    }

    /// Listens again, after a resume, to a channel that the session knows of.
    pub(crate) fn resubscribe(self, again: Again) -> Doing {
        Box::pin(async move {
            let Again { channel, since, presence, told, absent } = again;
            let (name, encoding, catalogue) = (channel.to_string(), self.member.encoding, self.edge.schemas.current());
            let welcome = move |Joined { recovered, offset }: Joined| {
                let subscribed = Answer::Subscribed(v1::Subscribed { channel: name, recovered, offset });
                let frame = v1::ServerFrame { reply_to: 0, frame: Some(subscribed) };
                told.then(|| encode(encoding, &frame, &catalogue))
            };
            let listening = self.listen(&channel, presence, async {
                let join = Join { channel: channel.clone(), since };
                self.edge.hub.rejoin(&self.member, join, absent, welcome).await
            });
            // Without a frame of its own to answer, the error has to name the channel.
            let listening = listening.await.map_err(|refusal| refusal.field(channel.as_str()));
            Done::Resumed(channel, listening)
        })
    }

    /// Listens to what comes from now on, without a word to the client.
    pub(crate) async fn listen_now(&self, channel: &ChannelName, presence: bool) -> Result<Listening, Refusal> {
        let join = Join { channel: channel.clone(), since: Since::Now };
        self.listen(channel, presence, self.edge.hub.join(&self.member, join, |_| None)).await
    }

    /// Where to begin: in the inbox, with what the user has not acked on any device, unless the client says otherwise.
    async fn place(&self, since: Since, inbox: bool) -> Result<Since, Refusal> {
        match (since, &self.user) {
            (Since::Now, Some(user)) if inbox => {
                let acked = self.edge.registry.inbox_acked(user).await.map_err(Refusal::from)?;
                Ok(Since::Offset(acked))
            }
            (since, _) => Ok(since),
        }
    }

    /// A seat, and what goes with it.
    async fn listen(
        &self,
        channel: &ChannelName,
        presence: bool,
        seat: impl Future<Output = Result<Seat, Refusal>>,
    ) -> Result<Listening, Refusal> {
        let edge = &self.edge;
        let shown = edge.has_presence(channel);
        // Before the seat: whoever asks who is there after `subscribed` has come finds this session.
        let present = if shown { Some(self.be_present(channel).await?) } else { None };
        let watch = (shown && presence).then(|| edge.hub.watch(&self.member, channel));
        Ok(Listening { seat: seat.await?, present, watch })
    }

    async fn be_present(&self, channel: &ChannelName) -> Result<PresenceSeat, Refusal> {
        self.edge
            .presence
            .enter(channel.clone(), self.member.session.clone(), self.user.as_ref())
            .await
            .map_err(Refusal::from)
    }

    /// Is seen on its channels again, after a resume; where that fails it is to be tried again after `pause`.
    pub(crate) fn reappear(self, channels: Vec<ChannelName>, pause: Duration) -> Doing {
        Box::pin(async move {
            let (wanted, mut present) = (channels.len(), Vec::with_capacity(channels.len()));
            for channel in channels {
                match self.be_present(&channel).await {
                    Ok(seat) => present.push((channel, seat)),
                    Err(refusal) => tracing::warn!(%channel, %refusal, "a session could not be shown as present again"),
                }
            }
            let again = (present.len() < wanted).then_some(pause);
            Done::Present(present, again)
        })
    }

    /// Joins groups, and leaves others after that.
    pub(crate) fn regroup(
        self,
        join: Vec<GroupName>,
        left: Vec<GroupName>,
        late: bool,
        done: Option<oneshot::Sender<()>>,
    ) -> Doing {
        Box::pin(async move {
            let mut joined = Vec::with_capacity(join.len());
            for group in join {
                let seat = self.edge.hub.join_group(&self.member, group.clone()).await;
                joined.push((group, seat));
            }
            Done::Groups(Regrouped { joined, left, late, done })
        })
    }

    /// Reads a page of a channel's history.
    pub(crate) fn history(self, id: u32, channel: ChannelName, page: Page, limit: u32) -> Doing {
        Box::pin(async move {
            let page = self.edge.hub.page(&channel, page, limit).await;
            Done::Tell(settled(id, false, page.map(Answer::History)))
        })
    }

    /// Reads who is on a channel.
    pub(crate) fn presence(self, id: u32, channel: ChannelName) -> Doing {
        Box::pin(async move {
            let state = self.edge.presence.state(&channel).await.map_err(Refusal::from);
            Done::Tell(settled(id, false, state.map(Answer::Presence)))
        })
    }

    /// Notes how far the user is done with the inbox.
    pub(crate) fn ack_inbox(self, id: u32, offset: u64) -> Doing {
        Box::pin(async move {
            let acked = match &self.user {
                Some(user) => self.edge.registry.ack_inbox(user, offset).await.map_err(Refusal::from),
                None => Err(Refusal::new(Reason::NoInbox, "only users have an inbox; connect with a token")),
            };
            Done::Tell(settled(id, false, acked.map(|offset| accepted(v1::AckLevel::Durable, offset))))
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
            envelope.correlation_id = v1::Envelope::new_id();
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
            envelope.id = v1::Envelope::new_id();
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
