//! From the bus to the rooms: one task per subject that is listened to.
//!
//! What always holds: the members of a channel with history get its messages in the order of their offsets, each once.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use parking_lot::Mutex;
use prost::Message as _;
use tokio::{sync::Semaphore, task::yield_now, time::Instant};
use trestle_auth::Channels;
use trestle_bus::{Fabric, Heard, Message, Place, Subject, Subscription};
use trestle_schema::{Catalogue, Schemas};
use trestle_telemetry::trace::{Kind, Span, TraceContext, Tracer};
use trestle_wire::{
    NodeId, SessionId, Subjects,
    v1::{self, GapReason, server_frame::Frame},
};

use crate::{
    Audience, Delivered, Member,
    fanout::Parcel,
    metrics::Metrics,
    planted::{Fault, is_planted},
    pushes::Selectors,
    recall::{Budget, Lost, Recalled},
    room::{Inside, Past, Room},
    seat::Entry,
    slices::{Load, Run, TOGETHER_MAX},
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
    /// Held by the one who has something on its way to everyone.
    pub(crate) turn: tokio::sync::Mutex<()>,
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

/// What was said in a room.
pub(crate) struct Said {
    /// `None` if it cannot be read.
    pub(crate) envelope: Option<v1::Envelope>,
    /// Its place in the channel's log.
    pub(crate) place: Option<Place>,
    /// Who is told what became of it.
    pub(crate) reply_to: Option<Subject>,
}

impl Core {
    /// Carries what `subscription` hears to `room`, until the bus is closed.
    pub(crate) async fn pump(self: Arc<Self>, room: Arc<Room>, mut subscription: Subscription) {
        let mut heard = None;
        let Some(past) = &room.past else {
            loop {
                if heard.is_none() {
                    heard = subscription.next().await;
                }
                match heard {
                    Some(_) => self.hear(&room, &mut heard, &mut subscription).await,
                    None => return,
                }
            }
        };
        loop {
            let forget = room.forget(past);
            if heard.is_some() {
                self.hear(&room, &mut heard, &mut subscription).await;
                continue;
            }
            tokio::select! {
                biased;
                next = subscription.next() => match next {
                    Some(_) => heard = next,
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

    /// Does what `heard` asks for, and leaves there what has come behind it but does not go with it.
    async fn hear(&self, room: &Room, heard: &mut Option<Heard>, subscription: &mut Subscription) {
        match heard.take() {
            Some(Heard::Message(message)) => {
                let said = vec![self.said(message)];
                self.message(room, said, heard, subscription).await;
            }
            Some(Heard::Lost(count)) => match &room.past {
                Some(past) => self.fill(room, past, None, count).await,
                None => self.lost(room, count).await,
            },
            None => {}
        }
    }

    /// Fans out what was said; to a large room together with what has come behind it, as long as that follows on it.
    async fn message(
        &self,
        room: &Room,
        mut said: Vec<Said>,
        other: &mut Option<Heard>,
        subscription: &mut Subscription,
    ) {
        if let (Some(place), Some(past)) = (said[0].place, &room.past) {
            let heard = room.inside(|inside| inside.offset);
            // The first of its channel comes late after a fill, or begins a log anew.
            if place.offset <= heard && (place.previous > 0 || !self.begins_anew(room, past).await) {
                return;
            }
            if place.previous > heard && !is_planted(Fault::NoGapCheck) {
                self.fill(room, past, Some(place.previous), 0).await;
            }
        }
        if room.inside(|inside| inside.is_large()) {
            while said.len() < TOGETHER_MAX && other.is_none() {
                match subscription.try_next() {
                    Some(Heard::Message(message)) if follows(room, &said, &message) => said.push(self.said(message)),
                    Some(next) => *other = Some(next),
                    None => break,
                }
            }
        }
        let run = self.fan_out(room, said).await;
        self.report(run).await;
    }

    fn said(&self, message: Message) -> Said {
        Said { envelope: self.read_as(&message), place: message.place, reply_to: message.reply_to }
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

    /// Puts what was said into the outboxes, and remembers it for those who come back.
    pub(crate) async fn fan_out(&self, room: &Room, said: Vec<Said>) -> Box<Run> {
        let begin = |inside: &mut Inside| {
            let catalogue = self.schemas.current();
            let loads = said.into_iter().filter_map(|said| self.take_in(room, said, inside, &catalogue)).collect();
            Run::new(loads, catalogue)
        };
        self.spread(room, begin).await
    }

    /// Takes in what was said: from now on it is the last that the room has heard.
    fn take_in(&self, room: &Room, said: Said, inside: &mut Inside, catalogue: &Catalogue) -> Option<Load> {
        let Said { envelope, place, reply_to } = said;
        let Some(mut envelope) = envelope else {
            if let Some(place) = place {
                inside.pass(place.offset);
            }
            return None;
        };
        if let Some(place) = place {
            let previous = inside.previous(place.previous);
            (envelope.offset, envelope.prev_offset) = (place.offset, previous);
            inside.offset = place.offset;
        }
        let span = self.span(&mut envelope);
        let parcel = Arc::new(Parcel::delivery(envelope, room.channel(), room.overflow, catalogue));
        if let Some(place) = place.filter(|_| inside.recall.collects()) {
            inside.recall.heard(Recalled::new(place.offset, Arc::clone(&parcel)));
        }
        Some(Load::new(parcel, span, reply_to))
    }

    /// Sends what `begin` makes of `room` to all who are in there at that moment, with a pause for others after each slice.
    pub(crate) async fn spread(&self, room: &Room, begin: impl FnOnce(&mut Inside) -> Box<Run>) -> Box<Run> {
        // Other rooms have one pump.
        let _turn = match room.audience {
            Audience::Everyone => Some(Box::pin(self.turn.lock()).await),
            _ => None,
        };
        let mut all_reached = room.inside(|inside| {
            let run = begin(inside);
            inside.begin(run)
        });
        loop {
            if let Some(run) = all_reached {
                return run;
            }
            yield_now().await;
            all_reached = room.inside(Inside::go_on);
        }
    }

    /// Sends `word` to all who are in `room` at the moment in which it does what is `before`.
    pub(crate) async fn tell(&self, room: &Room, word: Box<Run>, before: impl FnOnce(&mut Inside)) {
        let begin = |inside: &mut Inside| {
            before(inside);
            word
        };
        self.spread(room, begin).await.end(&self.metrics).for_each(drop);
    }

    /// Sends `run` to one session.
    pub(crate) async fn send(&self, mut run: Box<Run>, member: &Member) {
        run.reach(member);
        self.report(run).await;
    }

    /// Notes what became of it, and tells those who want to know.
    pub(crate) async fn report(&self, run: Box<Run>) {
        for (reply_to, count) in run.end(&self.metrics) {
            self.answer(reply_to, count).await;
        }
    }

    /// A word of the gateway's own.
    pub(crate) fn word(&self, frame: Frame) -> Box<Run> {
        Run::new(vec![Load::word(frame)], self.schemas.current())
    }

    /// A `fanout` span, if the envelope's trace is sampled.
    pub(crate) fn span(&self, envelope: &mut v1::Envelope) -> Option<Span> {
        let parent = TraceContext::of(&envelope.headers)?;
        let mut span = self.tracer.span("fanout", Kind::Consumer, &parent)?;
        span.context().carry(&mut envelope.headers);
        span.set("messaging.operation.type", "process");
        span.set("messaging.message.id", envelope.id.clone());
        span.set("trestle.message_type", envelope.message_type.clone());
        Some(span)
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
    async fn lost(&self, room: &Room, count: u64) {
        match &room.audience {
            // A bus that was away does not know how many; a queue that was full does.
            Audience::Channel(_) if count > 0 => self.tell_gap(room, Lost::unknown(GapReason::Slow), count).await,
            Audience::Channel(_) => self.tell_gap(room, Lost::unknown(GapReason::Failover), 0).await,
            Audience::User(_) => self.lost_pushes("a user", Scope::All(room), count).await,
            Audience::Group(_) => self.lost_pushes("a group", Scope::All(room), count).await,
            Audience::Everyone | Audience::Watchers(_) => {
                self.lost_pushes("everyone", Scope::All(room), count).await;
            }
        }
    }

    /// Pushes to `target` may be missing: those whom they may have been for are told. A break hits all subscriptions at
    /// once, and everyone is told of it once, by the room of everyone.
    pub(crate) async fn lost_pushes(&self, target: &str, scope: Scope<'_>, count: u64) {
        self.metrics.lost_pushes.inc_by(count.max(1));
        if count > 0 {
            let told = v1::Gap { count, reason: GapReason::Slow.into(), ..v1::Gap::default() };
            tracing::warn!(target, count, "pushes are lost: this node was too slow");
            return self.tell_lost(scope, told).await;
        }
        match scope {
            Scope::All(room) if room.audience == Audience::Everyone => {
                tracing::warn!("pushes may be lost: the bus was away");
                self.tell_lost(scope, v1::Gap { reason: GapReason::Failover.into(), ..v1::Gap::default() }).await;
            }
            _ => tracing::debug!(target, "pushes may be lost: the bus was away"),
        }
    }

    async fn tell_lost(&self, scope: Scope<'_>, gap: v1::Gap) {
        match scope {
            Scope::All(room) => self.tell(room, self.word(Frame::Gap(gap)), |_| ()).await,
            // Nobody knows how many of them each has missed.
            Scope::Some => {
                let word = self.word(Frame::Gap(v1::Gap { count: 0, ..gap }));
                self.tell(&self.everyone, word, |_| ()).await;
            }
            Scope::One(session) => {
                let Some(member) = self.sessions.lock().get(session).cloned() else { return };
                self.send(self.word(Frame::Gap(gap)), &member).await;
            }
        }
    }

    /// Tells the members of a channel what they do not get.
    pub(crate) async fn tell_gap(&self, room: &Room, lost: Lost, count: u64) {
        let Some(channel) = room.channel() else { return };
        let gap = v1::Gap { count, ..lost.gap(channel.as_str()) };
        self.metrics.missing.inc_by(count.max(1));
        let before = |inside: &mut Inside| {
            inside.offset = inside.offset.max(lost.to);
            // Those who join have to find the gap too.
            inside.recall.clear();
        };
        self.tell(room, self.word(Frame::Gap(gap)), before).await;
    }
}

/// Whether `message` is the next after what was `said`, so that nothing has to be looked up between them.
fn follows(room: &Room, said: &[Said], message: &Message) -> bool {
    if room.past.is_none() {
        return true;
    }
    let (Some(last), Some(place)) = (said.last().and_then(|said| said.place), message.place) else { return false };
    place.previous <= last.offset && last.offset < place.offset
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
