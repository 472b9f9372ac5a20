//! From the bus to the rooms: one task per subject that is listened to.
//!
//! What always holds: the members of a channel with history get its messages in the order of their offsets, each once;
//! what the bus did not bring is read from the log, and what the log no longer has is told in a gap.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prost::Message as _;
use trestle_bus::{BusError, Fabric, Heard, Message, Place, Stored, Subject, Subscription};
use trestle_schema::Schemas;
use trestle_telemetry::trace::{Kind, TraceContext, Tracer};
use trestle_wire::{
    ChannelName, NodeId, SessionId, Subjects,
    v1::{self, GapReason, server_frame::Frame},
};

use crate::{
    Audience, Delivered, Member,
    fanout::{deliver, send},
    metrics::Metrics,
    room::{Inside, Room},
};

/// Most messages read from a log at once to fill a gap: 256 x 1 KiB is a quarter of a default outbox.
const FILL_MAX: usize = 256;
/// How long the log is asked again after a failed read before the gap is told instead: an election of a JetStream leader
/// takes 4 to 10 s.
const FILL_TRIES: u32 = 5;
const FILL_PAUSE: Duration = Duration::from_secs(3);

/// What every listening task needs.
pub(crate) struct Core {
    pub(crate) node: NodeId,
    pub(crate) subjects: Subjects,
    pub(crate) fabric: Fabric,
    pub(crate) schemas: Schemas,
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Metrics,
    pub(crate) sessions: Mutex<HashMap<SessionId, Arc<Member>>>,
}

impl Core {
    /// Listens for `room`, and says from which offset on.
    pub(crate) async fn open(&self, room: &Room) -> Result<(Subscription, u64), BusError> {
        let subject = match &room.audience {
            Audience::Channel(channel) => self.subjects.channel(channel),
            Audience::User(user) => self.subjects.user(user),
            Audience::Everyone => self.subjects.all(),
        };
        let subscription = self.fabric.bus.subscribe(&subject, None).await?;
        let offset = match &room.audience {
            // After the subscription is in force, so that nothing falls between.
            Audience::Channel(channel) if room.history => {
                let log = trestle_bus::logs::history_name(&self.subjects, channel.namespace());
                self.fabric.log.last(&log, &self.subjects.log(channel)).await?
            }
            _ => 0,
        };
        Ok((subscription, offset))
    }

    /// Carries what `subscription` hears to `room`, until the bus is closed.
    pub(crate) async fn pump(self: Arc<Self>, room: Arc<Room>, mut subscription: Subscription) {
        while let Some(heard) = subscription.next().await {
            match heard {
                Heard::Message(message) => self.message(&room, message).await,
                Heard::Lost(count) => self.lost(&room, count).await,
            }
        }
    }

    async fn message(&self, room: &Room, message: Message) {
        if let (Some(place), Audience::Channel(channel)) = (message.place, &room.audience) {
            let heard = room.inside(|inside| inside.offset);
            if place.offset <= heard {
                return;
            }
            if place.previous > heard {
                self.fill(room, channel, Some(place.previous)).await;
            }
        }
        let Some(envelope) = self.envelope(&message) else { return };
        let count = room.inside(|inside| self.fan_out(envelope, message.place, inside));
        self.answer(message.reply_to, count).await;
    }

    /// Carries pushes to single sessions, until the bus is closed.
    pub(crate) async fn pump_sessions(self: Arc<Self>, mut subscription: Subscription) {
        while let Some(heard) = subscription.next().await {
            let message = match heard {
                Heard::Message(message) => message,
                Heard::Lost(count) => {
                    self.lost_pushes("sessions", count);
                    continue;
                }
            };
            // <prefix>.session.<node>.<random>: what follows `session.` is the session's id.
            let id = message.subject.as_str().rsplitn(3, '.').take(2).collect::<Vec<_>>();
            let [random, node] = id[..] else { continue };
            let Ok(session) = SessionId::parse(&format!("{node}.{random}")) else { continue };
            let Some(envelope) = self.envelope(&message) else { continue };
            let member = self.sessions.lock().get(&session).cloned();
            let count = self.traced(envelope, |envelope| {
                deliver(envelope, member.as_ref(), &self.schemas.current(), &self.metrics)
            });
            self.answer(message.reply_to, count).await;
        }
    }

    fn envelope(&self, message: &Message) -> Option<v1::Envelope> {
        match v1::Envelope::decode(message.payload.clone()) {
            Ok(envelope) => Some(envelope),
            Err(error) => {
                self.metrics.malformed.inc();
                tracing::warn!(subject = %message.subject, %error, "a message on the bus is not an envelope");
                None
            }
        }
    }

    fn fan_out(&self, mut envelope: v1::Envelope, place: Option<Place>, inside: &mut Inside) -> Delivered {
        if let Some(place) = place {
            (envelope.offset, envelope.prev_offset) = (place.offset, place.previous);
            inside.offset = place.offset;
        }
        self.traced(envelope, |envelope| deliver(envelope, inside.members(), &self.schemas.current(), &self.metrics))
    }

    /// Runs `work` in a `fanout` span if the envelope's trace is sampled.
    fn traced(&self, mut envelope: v1::Envelope, work: impl FnOnce(v1::Envelope) -> Delivered) -> Delivered {
        let parent = TraceContext::of(&envelope.headers);
        let Some(mut span) = parent.and_then(|parent| self.tracer.span("fanout", Kind::Consumer, &parent)) else {
            return work(envelope);
        };
        span.context().carry(&mut envelope.headers);
        span.set("messaging.operation.type", "process");
        span.set("messaging.message.id", envelope.id.clone());
        span.set("trestle.message_type", envelope.message_type.clone());
        let count = work(envelope);
        span.set("trestle.sessions.delivered", i64::from(count.delivered));
        span.set("trestle.sessions.dropped", i64::from(count.dropped));
        count
    }

    async fn answer(&self, reply_to: Option<Subject>, count: Delivered) {
        let Some(reply_to) = reply_to else { return };
        let Delivered { delivered, dropped } = count;
        let answer = v1::PushCount { node: self.node.to_string(), delivered, dropped };
        if let Err(error) = self.fabric.bus.publish(&reply_to, answer.encode_to_vec().into()).await {
            tracing::debug!(%error, "a push's count was not reported");
        }
    }

    /// The bus lost something: read it from the history, or tell the members.
    async fn lost(&self, room: &Room, count: u64) {
        match &room.audience {
            Audience::Channel(channel) if room.history => self.fill(room, channel, None).await,
            // A bus that was away does not know how many; a queue that was full does.
            Audience::Channel(channel) if count > 0 => self.tell_gap(room, channel, (0, 0), count, GapReason::Slow),
            Audience::Channel(channel) => self.tell_gap(room, channel, (0, 0), 0, GapReason::Failover),
            Audience::User(_) => self.lost_pushes("a user", count),
            Audience::Everyone => self.lost_pushes("everyone", count),
        }
    }

    /// Pushes that may be missing: their senders were told, since such a push is counted or unacknowledged.
    fn lost_pushes(&self, target: &str, count: u64) {
        self.metrics.lost_pushes.inc_by(count.max(1));
        tracing::warn!(target, count, "pushes may have been lost: the bus was away, or this node too slow");
    }

    /// Fans out what the log has after the last offset heard, up to `until` or to its end, and tells what it has not.
    async fn fill(&self, room: &Room, channel: &ChannelName, until: Option<u64>) {
        let log = trestle_bus::logs::history_name(&self.subjects, channel.namespace());
        let subject = self.subjects.log(channel);
        let mut tries = 0;
        loop {
            let heard = room.inside(|inside| inside.offset);
            // The last message heard is read again: if it is still there, so is everything after it.
            match self.fabric.log.read(&log, &subject, heard.max(1), FILL_MAX).await {
                Ok(stored) => {
                    let fresh = heard == 0 && stored.len() < FILL_MAX;
                    let whole = fresh || stored.first().is_some_and(|first| first.offset == heard);
                    let last = stored.last().map_or(heard, |last| last.offset);
                    let first = stored.iter().map(|one| one.offset).find(|offset| *offset > heard);
                    let missing = first.map(|first| first - 1).or(until).filter(|to| *to > heard);
                    if let Some(to) = missing.filter(|_| !whole) {
                        self.tell_gap(room, channel, (heard + 1, to), 0, GapReason::Retention);
                    }
                    let more = stored.len() == FILL_MAX;
                    room.inside(|inside| self.replay(stored, until, inside));
                    if more && until.is_none_or(|until| last < until) {
                        continue;
                    }
                    if let Some(until) = until.filter(|until| whole && last < *until) {
                        self.tell_gap(room, channel, (last + 1, until), 0, GapReason::Retention);
                    }
                    return;
                }
                Err(error) if tries < FILL_TRIES => {
                    tries += 1;
                    tracing::warn!(%channel, %error, tries, "a gap could not be read from the history; trying again");
                    tokio::time::sleep(FILL_PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(%channel, %error, "a gap could not be read from the history; telling the clients");
                    return self.tell_gap(room, channel, (heard + 1, until.unwrap_or(0)), 0, GapReason::Failover);
                }
            }
        }
    }

    /// Fans out stored messages after the last one heard, up to `until`.
    fn replay(&self, stored: Vec<Stored>, until: Option<u64>, inside: &mut Inside) {
        for one in stored {
            if until.is_some_and(|until| one.offset > until) {
                return;
            }
            if one.offset <= inside.offset {
                continue;
            }
            let place = Place { offset: one.offset, previous: inside.offset };
            match v1::Envelope::decode(one.payload) {
                Ok(envelope) => {
                    self.fan_out(envelope, Some(place), inside);
                }
                Err(error) => {
                    inside.offset = one.offset;
                    self.metrics.malformed.inc();
                    tracing::warn!(offset = one.offset, %error, "a stored message is not an envelope");
                }
            }
        }
    }

    fn tell_gap(&self, room: &Room, channel: &ChannelName, (from, to): (u64, u64), count: u64, reason: GapReason) {
        let gap = v1::Gap { channel: channel.to_string(), from, to, count, reason: reason.into() };
        self.metrics.missing.inc_by(count.max(1));
        room.inside(|inside| send(Frame::Gap(gap), inside.members(), &self.schemas.current(), &self.metrics));
    }
}
