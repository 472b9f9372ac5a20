//! From the bus to the rooms: one task per subject that is listened to.
//!
//! What always holds: the members of a channel with history get its messages in the order of their offsets, each once.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::{sync::Semaphore, time::Instant};
use trestle_auth::Channels;
use trestle_bus::{Fabric, Heard, Message, Place, Subject, Subscription};
use trestle_schema::{Catalogue, Schemas};
use trestle_telemetry::trace::{Kind, TraceContext, Tracer};
use trestle_wire::{
    NodeId, SessionId, Subjects,
    v1::{self, GapReason, server_frame::Frame},
};

use crate::{
    Audience, Delivered, Member,
    fanout::{Parcel, send},
    metrics::Metrics,
    planted::{Fault, is_planted},
    pushes::Selectors,
    recall::{Budget, Lost, Recalled},
    room::{Inside, Past, Room},
    seat::Entry,
};

/// What every listening task needs.
pub(crate) struct Core {
    pub(crate) node: NodeId,
    pub(crate) subjects: Subjects,
    pub(crate) fabric: Fabric,
    pub(crate) schemas: Schemas,
    pub(crate) channels: Arc<Channels>,
    /// Most bytes of a page of history.
    pub(crate) page_bytes_max: usize,
    pub(crate) tracer: Tracer,
    pub(crate) metrics: Metrics,
    pub(crate) sessions: Mutex<HashMap<SessionId, Arc<Member>>>,
    pub(crate) rooms: Mutex<HashMap<Audience, Entry>>,
    /// The room of everyone, which never closes.
    pub(crate) everyone: Arc<Room>,
    /// What all rooms remember.
    pub(crate) budget: Arc<Budget>,
    pub(crate) selectors: Mutex<Selectors>,
    /// A permit for each thing to be done with sessions that may be waited for.
    pub(crate) controls: Arc<Semaphore>,
}

/// Whom lost pushes were for.
#[derive(Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// All who are in this room.
    All(&'a Room),
    /// Some of the sessions of this node.
    Some,
    /// One session.
    One(&'a SessionId),
}

impl Core {
    /// Carries what `subscription` hears to `room`, until the bus is closed.
    pub(crate) async fn pump(self: Arc<Self>, room: Arc<Room>, mut subscription: Subscription) {
        let Some(past) = &room.past else {
            while let Some(heard) = subscription.next().await {
                match heard {
                    Heard::Message(message) => self.message(&room, message).await,
                    Heard::Lost(count) => self.lost(&room, count),
                }
            }
            return;
        };
        loop {
            let forget = room.forget(past);
            tokio::select! {
                biased;
                heard = subscription.next() => match heard {
                    Some(Heard::Message(message)) => self.message(&room, message).await,
                    Some(Heard::Lost(count)) => self.fill(&room, past, None, count).await,
                    None => return,
                },
                () = past.nudge.notified() => if past.wanted_more() {
                    self.fill(&room, past, None, 0).await;
                    past.filled.notify_waiters();
                },
                () = tokio::time::sleep_until(forget.unwrap_or_else(Instant::now)), if forget.is_some() => {}
            }
        }
    }

    async fn message(&self, room: &Room, message: Message) {
        if let (Some(place), Some(past)) = (message.place, &room.past) {
            let heard = room.inside(|inside| inside.offset);
            // The first of its channel comes late after a fill, or begins a log anew.
            if place.offset <= heard && (place.previous > 0 || !self.begins_anew(room, past).await) {
                return;
            }
            if place.previous > heard && !is_planted(Fault::NoGapCheck) {
                self.fill(room, past, Some(place.previous), 0).await;
            }
        }
        let Some(envelope) = self.read_as(&message) else {
            if let Some(place) = message.place {
                room.inside(|inside| inside.pass(place.offset));
            }
            return;
        };
        let count = room.inside(|inside| self.fan_out(room, envelope, message.place, inside));
        self.answer(message.reply_to, count).await;
    }

    /// What a message of the bus says, if it can be read.
    pub(crate) fn read_as<M: prost::Message + Default>(&self, message: &Message) -> Option<M> {
        match M::decode(message.payload.clone()) {
            Ok(said) => Some(said),
            Err(error) => {
                self.metrics.malformed.inc();
                tracing::warn!(subject = %message.subject, %error, "a message on the bus cannot be read");
                None
            }
        }
    }

    /// Puts a message that was heard into the outboxes, and remembers it for those who come back.
    pub(crate) fn fan_out(
        &self,
        room: &Room,
        mut envelope: v1::Envelope,
        place: Option<Place>,
        inside: &mut Inside,
    ) -> Delivered {
        if let Some(place) = place {
            let previous = inside.previous(place.previous);
            (envelope.offset, envelope.prev_offset) = (place.offset, previous);
            inside.offset = place.offset;
        }
        self.traced(envelope, |envelope, catalogue| {
            let parcel = Parcel::delivery(envelope, room.channel(), room.overflow, catalogue);
            let count = send(&parcel, inside.members(), catalogue, &self.metrics);
            if let Some(place) = place.filter(|_| inside.recall.collects()) {
                inside.recall.heard(Recalled::new(place.offset, parcel));
            }
            count
        })
    }

    /// Runs `work` with the types in use, in a `fanout` span if the envelope's trace is sampled.
    pub(crate) fn traced(
        &self,
        mut envelope: v1::Envelope,
        work: impl FnOnce(v1::Envelope, &Catalogue) -> Delivered,
    ) -> Delivered {
        let catalogue = self.schemas.current();
        let parent = TraceContext::of(&envelope.headers);
        let Some(mut span) = parent.and_then(|parent| self.tracer.span("fanout", Kind::Consumer, &parent)) else {
            return work(envelope, &catalogue);
        };
        span.context().carry(&mut envelope.headers);
        span.set("messaging.operation.type", "process");
        span.set("messaging.message.id", envelope.id.clone());
        span.set("trestle.message_type", envelope.message_type.clone());
        let count = work(envelope, &catalogue);
        span.set("trestle.sessions.delivered", i64::from(count.delivered));
        span.set("trestle.sessions.dropped", i64::from(count.dropped));
        count
    }

    pub(crate) async fn answer(&self, reply_to: Option<Subject>, count: Delivered) {
        let Some(reply_to) = reply_to else { return };
        let Delivered { delivered, dropped, queued } = count;
        let answer = v1::PushCount { node: self.node.to_string(), delivered, dropped, queued };
        if let Err(error) = self.fabric.bus.publish(&reply_to, answer.encode_to_vec().into()).await {
            tracing::debug!(%error, "a push's count was not reported");
        }
    }

    /// The bus lost something that no history has: the members are told.
    fn lost(&self, room: &Room, count: u64) {
        match &room.audience {
            // A bus that was away does not know how many; a queue that was full does.
            Audience::Channel(_) if count > 0 => self.tell_gap(room, Lost::unknown(GapReason::Slow), count),
            Audience::Channel(_) => self.tell_gap(room, Lost::unknown(GapReason::Failover), 0),
            Audience::User(_) => self.lost_pushes("a user", Scope::All(room), count),
            Audience::Group(_) => self.lost_pushes("a group", Scope::All(room), count),
            Audience::Everyone | Audience::Watchers(_) => self.lost_pushes("everyone", Scope::All(room), count),
        }
    }

    /// Pushes to `target` may be missing: those whom they may have been for are told. A break hits all subscriptions at
    /// once, and everyone is told of it once, by the room of everyone.
    pub(crate) fn lost_pushes(&self, target: &str, scope: Scope<'_>, count: u64) {
        self.metrics.lost_pushes.inc_by(count.max(1));
        if count > 0 {
            let told = v1::Gap { count, reason: GapReason::Slow.into(), ..v1::Gap::default() };
            tracing::warn!(target, count, "pushes are lost: this node was too slow");
            return self.tell_lost(scope, told);
        }
        match scope {
            Scope::All(room) if room.audience == Audience::Everyone => {
                tracing::warn!("pushes may be lost: the bus was away");
                self.tell_lost(scope, v1::Gap { reason: GapReason::Failover.into(), ..v1::Gap::default() });
            }
            _ => tracing::debug!(target, "pushes may be lost: the bus was away"),
        }
    }

    fn tell_lost(&self, scope: Scope<'_>, gap: v1::Gap) {
        let catalogue = self.schemas.current();
        let tell = |gap, members: &[Arc<Member>]| {
            _ = send(&Parcel::word(Frame::Gap(gap)), members, &catalogue, &self.metrics);
        };
        match scope {
            Scope::All(room) => room.inside(|inside| tell(gap, inside.members())),
            // Nobody knows how many of them each has missed.
            Scope::Some => self.everyone.inside(|inside| tell(v1::Gap { count: 0, ..gap }, inside.members())),
            Scope::One(session) => {
                let member = self.sessions.lock().get(session).cloned();
                tell(gap, member.as_slice());
            }
        }
    }

    /// Tells the members of a channel what they do not get.
    pub(crate) fn tell_gap(&self, room: &Room, lost: Lost, count: u64) {
        let Some(channel) = room.channel() else { return };
        let gap = v1::Gap { count, ..lost.gap(channel.as_str()) };
        self.metrics.missing.inc_by(count.max(1));
        let (parcel, catalogue) = (Parcel::word(Frame::Gap(gap)), self.schemas.current());
        room.inside(|inside| {
            send(&parcel, inside.members(), &catalogue, &self.metrics);
            inside.offset = inside.offset.max(lost.to);
            // Those who join have to find the gap too.
            inside.recall.clear();
        });
    }
}

impl Room {
    /// Lets go what nobody has asked for in a while; when to look again, if there is anything.
    fn forget(&self, past: &Past) -> Option<Instant> {
        if !past.recalling.load(Ordering::Acquire) {
            return None;
        }
        self.inside(|inside| {
            let ends = inside.recall.ends().filter(|ends| *ends > Instant::now());
            if ends.is_none() {
                inside.recall.clear();
                past.recalling.store(false, Ordering::Release);
            }
            ends
        })
    }
}
