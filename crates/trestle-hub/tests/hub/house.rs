//! One hub on an embedded bus, and members whose outboxes the test reads.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use tokio::{sync::Semaphore, time::timeout};
use trestle_auth::{Channels, ChannelsConfig, History, InboxConfig, Namespace, OverflowPolicy};
use trestle_bus::{
    Fabric, Subject,
    embedded::{Embedded, EmbeddedConfig},
    logs,
};
use trestle_codec::{Encoding, Since, encode};
use trestle_hub::{Hub, Join, Joined, Member, Parts, Seat};
use trestle_schema::{SchemaSource, Schemas};
use trestle_session::{Label, Outbox, OutboxLimits, Taken};
use trestle_telemetry::{metrics::Metrics, trace::Tracer};
use trestle_wire::{
    ChannelName, NodeId, Refusal, SessionId, Subjects,
    v1::{self, server_frame::Frame},
};

use crate::unreliable::{Laggard, Lossy};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for an answer on this bus, if there is one.
pub(crate) const QUIET: Duration = Duration::from_millis(200);
/// Messages that `room` keeps, if the test does not say.
pub(crate) const HISTORY: u64 = 3;
/// For how long.
pub(crate) const TTL: Duration = Duration::from_secs(60);
/// Bytes that a page of history may have twice.
pub(crate) const OUTBOX_BYTES_MAX: usize = 64 << 10;

pub(crate) struct House {
    pub(crate) hub: Arc<Hub>,
    pub(crate) fabric: Fabric,
    pub(crate) log: Arc<Laggard>,
    pub(crate) subjects: Subjects,
    pub(crate) schemas: Schemas,
    metrics: Metrics,
    deaf: Arc<AtomicBool>,
    marks: Arc<Semaphore>,
}

impl House {
    /// `room` keeps 3 messages, `live` none, `few` none and drops the newest for who is slow.
    pub(crate) async fn new() -> Self {
        Self::keeping(HISTORY).await
    }

    /// `room` keeps `size` messages.
    pub(crate) async fn keeping(size: u64) -> Self {
        let fabric = Embedded::open(EmbeddedConfig::default()).unwrap();
        let subjects = Subjects::new("t");
        fabric.log.ensure(&logs::history(&subjects, "room", size, TTL)).await.unwrap();
        Self::on(fabric, "n", size).await
    }

    /// Another node on the same bus.
    pub(crate) async fn neighbour(&self, node: &str) -> Self {
        Self::on(self.fabric.clone(), node, HISTORY).await
    }

    async fn on(fabric: Fabric, node: &str, size: u64) -> Self {
        let (deaf, marks) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
        let log = Laggard::of(Arc::clone(&fabric.log));
        let bus = Lossy {
            bus: Arc::clone(&fabric.bus),
            deaf: Arc::clone(&deaf),
            marks: Arc::clone(&marks),
            forgotten: Arc::clone(&log.forgotten),
        };
        let (subjects, schemas) = (Subjects::new("t"), Schemas::open(schemas()).unwrap());
        let mut metrics = Metrics::new();
        let parts = Parts {
            node: NodeId::parse(node).unwrap(),
            subjects: subjects.clone(),
            fabric: Fabric { bus: Arc::new(bus), log: Arc::clone(&log) as _, kv: Arc::clone(&fabric.kv) },
            schemas: schemas.clone(),
            channels: Arc::new(channels(size)),
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            tracer: Tracer::disabled(),
            registry: metrics.registry(),
        };
        Self { hub: Hub::open(parts).await.unwrap(), fabric, log, subjects, schemas, metrics, deaf, marks }
    }

    pub(crate) async fn join(&self, member: &Arc<Member>, name: &str) -> Seat {
        self.join_since(member, name, Since::Now).await
    }

    pub(crate) async fn join_since(&self, member: &Arc<Member>, name: &str, since: Since) -> Seat {
        self.try_join(member, name, since).await.unwrap()
    }

    /// As a session that comes back soon and had everything up to `offset`.
    pub(crate) async fn rejoin(&self, member: &Arc<Member>, name: &str, offset: u64) -> Seat {
        self.rejoin_after(member, name, offset, TTL - Duration::from_millis(1)).await
    }

    /// As one that was away for `absent`.
    pub(crate) async fn rejoin_after(&self, member: &Arc<Member>, name: &str, offset: u64, absent: Duration) -> Seat {
        self.come(member, name, Since::Offset(offset), Some(absent)).await.unwrap()
    }

    pub(crate) async fn try_join(&self, member: &Arc<Member>, name: &str, since: Since) -> Result<Seat, Refusal> {
        self.come(member, name, since, None).await
    }

    async fn come(
        &self,
        member: &Arc<Member>,
        name: &str,
        since: Since,
        absent: Option<Duration>,
    ) -> Result<Seat, Refusal> {
        let (encoding, catalogue) = (member.encoding, self.schemas.current());
        let welcome = move |Joined { offset, recovered }: Joined| {
            let frame = Frame::Subscribed(v1::Subscribed { channel: String::new(), recovered, offset });
            Some(encode(encoding, &v1::ServerFrame { reply_to: 1, frame: Some(frame) }, &catalogue))
        };
        let join = Join { channel: channel(name), since };
        match absent {
            Some(absent) => self.hub.rejoin(member, join, absent, welcome).await,
            None => self.hub.join(member, join, welcome).await,
        }
    }

    /// A member of room:1 that has heard one comment, which says `first`.
    pub(crate) async fn listener(&self, first: &str) -> (Arc<Member>, Seat) {
        let member = member(1, Encoding::Protobuf);
        let seat = self.join(&member, "room:1").await;
        self.publish("room:1", first).await;
        welcomed(&member).await;
        heard(&member).await;
        (member, seat)
    }

    /// Publishes a comment on a channel as an edge would.
    pub(crate) async fn publish(&self, name: &str, text: &str) {
        self.publish_at(name, text, SystemTime::now()).await;
    }

    /// As if it had been accepted at `time`.
    pub(crate) async fn publish_at(&self, name: &str, text: &str, time: SystemTime) {
        let channel = channel(name);
        let envelope = v1::Envelope { time: Some(time.into()), ..comment(text) };
        let body = envelope.encode_to_vec().into();
        if channel.namespace() == "room" {
            self.fabric.log.append(&self.subjects.log(&channel), None, body).await.unwrap();
        } else {
            self.fabric.bus.publish(&self.subjects.channel(&channel), body).await.unwrap();
        }
    }

    /// Makes the subscription of a channel say that it lost something.
    pub(crate) async fn lose(&self, name: &str) {
        self.whisper(name, b"LOST").await;
    }

    /// Loses what `texts` say on a channel.
    pub(crate) async fn publish_unheard(&self, name: &str, texts: &[&str]) {
        self.deaf.store(true, Ordering::SeqCst);
        for text in texts {
            self.publish(name, text).await;
        }
        self.whisper(name, b"MARK").await;
        self.marks.acquire().await.unwrap().forget();
        self.deaf.store(false, Ordering::SeqCst);
    }

    /// From now on the log has lost all that it had stored, and counts anew.
    pub(crate) async fn forget(&self) {
        let all = self.fabric.log.reached(&logs::history_name(&self.subjects, "room")).await.unwrap();
        self.log.forgotten.store(all, Ordering::SeqCst);
    }

    async fn whisper(&self, name: &str, what: &'static [u8]) {
        let subject = self.subjects.channel(&channel(name));
        self.fabric.bus.publish(&subject, Bytes::from_static(what)).await.unwrap();
    }

    /// Publishes `body` and returns the counts of the nodes that answer: delivered and dropped.
    pub(crate) async fn count(&self, subject: &Subject, body: Vec<u8>) -> Vec<(u32, u32)> {
        let answers = self.fabric.bus.gather(subject, body.into(), 2, QUIET).await.unwrap();
        let counts = answers.into_iter().map(|answer| v1::PushCount::decode(answer).unwrap());
        counts.map(|count| (count.delivered, count.dropped)).collect()
    }

    /// The value of a counter, such as `trestle_hub_log_reads`; 0 if it was never counted.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with("_total")));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

fn channels(size: u64) -> Channels {
    let room = Namespace { history: Some(History { size, ttl: TTL }), ..Namespace::default() };
    let few = Namespace { overflow: OverflowPolicy::DropNewest, ..Namespace::default() };
    let namespaces = [("room", room), ("live", Namespace::default()), ("few", few)];
    let namespaces = namespaces.map(|(name, namespace)| (name.to_owned(), namespace)).into();
    Channels::new(&ChannelsConfig { namespaces }, &InboxConfig::default()).unwrap()
}

/// The example types, and one with a queueing of its own.
fn schemas() -> SchemaSource {
    let SchemaSource::Files(mut files) = SchemaSource::examples() else { panic!("files in memory") };
    let tick = r#"syntax = "proto3"; package market.v1; import "trestle/v1/options.proto";
        message Tick {
            option (trestle.v1.queueing) = { overflow: CONFLATE key: "sku" priority: HIGH };
            string sku = 1;
        }"#;
    files.push(("market/v1/tick.proto".to_owned(), tick.to_owned()));
    SchemaSource::Files(files)
}

pub(crate) fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

pub(crate) fn comment(text: &str) -> v1::Envelope {
    let payload = [&[0x0a, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    v1::Envelope {
        id: text.into(),
        message_type: "chat.v1.Comment".into(),
        payload: payload.into(),
        ..v1::Envelope::default()
    }
}

pub(crate) fn session(node: &str, number: u128) -> SessionId {
    SessionId::new(&NodeId::parse(node).unwrap(), number)
}

pub(crate) fn member(number: u128, encoding: Encoding) -> Arc<Member> {
    member_with_room(number, encoding, 1 << 14)
}

/// A member whose outbox takes `frames_max` frames.
pub(crate) fn member_with_room(number: u128, encoding: Encoding, frames_max: usize) -> Arc<Member> {
    let outbox = Outbox::new(OutboxLimits { bytes_max: 8 << 20, frames_max });
    Arc::new(Member::new(session("n", number), encoding, outbox))
}

/// The next frame as it was finished, with its label.
pub(crate) async fn next_taken(member: &Member) -> (Bytes, Option<Label>) {
    let mut taken: Vec<Taken> = Vec::new();
    let some = poll_fn(|context| member.outbox.poll_take(context, 1, &mut taken));
    timeout(PATIENCE, some).await.expect("a frame in time").expect("an open outbox");
    match taken.remove(0) {
        Taken::Frame(frame) => (frame.message().slice_ref(frame.payload()), frame.label().cloned()),
        Taken::Gap(gap) => panic!("the outbox dropped something: {gap:?}"),
    }
}

pub(crate) async fn next_bytes(member: &Member) -> Bytes {
    next_taken(member).await.0
}

pub(crate) async fn next(member: &Member) -> Frame {
    v1::ServerFrames::decode(next_bytes(member).await).unwrap().frames.remove(0).frame.unwrap()
}

/// The next frame as (text, offset, previous) of a delivery, or the gap's ends.
pub(crate) async fn heard(member: &Member) -> (String, u64, u64) {
    match next(member).await {
        Frame::Delivery(envelope) => (envelope.id, envelope.offset, envelope.prev_offset),
        Frame::Gap(gap) => ("gap".into(), gap.from, gap.to),
        other => panic!("neither delivery nor gap: {other:?}"),
    }
}

/// The next frame, which is a gap: from, to and why.
pub(crate) async fn gap(member: &Member) -> (u64, u64, v1::GapReason) {
    match next(member).await {
        Frame::Gap(gap) => (gap.from, gap.to, gap.reason()),
        other => panic!("not a gap: {other:?}"),
    }
}

/// The next frame, which says that the member has joined: the channel's offset.
pub(crate) async fn welcomed(member: &Member) -> u64 {
    welcome(member).await.0
}

/// The same, and whether all that was missed follows.
pub(crate) async fn welcome(member: &Member) -> (u64, bool) {
    match next(member).await {
        Frame::Subscribed(subscribed) => (subscribed.offset, subscribed.recovered),
        other => panic!("not subscribed: {other:?}"),
    }
}

/// The texts of the next `count` deliveries.
pub(crate) async fn texts(member: &Member, count: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        texts.push(heard(member).await.0);
    }
    texts
}

/// Waits until nothing more comes: a mark that is published last has come.
pub(crate) async fn until(member: &Member, mark: &str) -> Vec<(String, u64, u64)> {
    let mut all = Vec::new();
    loop {
        let one = heard(member).await;
        if one.0 == mark {
            return all;
        }
        all.push(one);
    }
}
