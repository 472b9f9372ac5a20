//! The hub on the embedded bus, with a switch that makes the bus lose what it carries.

#![allow(clippy::unwrap_used)] // a test

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use trestle_bus::{
    Bus, BusError, BusState, Ends, Fabric, Heard, Subject, Subscription,
    embedded::{Embedded, EmbeddedConfig},
    logs,
};
use trestle_codec::{Encoded, Encoding, encode};
use trestle_hub::{Hub, Member, Parts, Seat};
use trestle_schema::{SchemaSource, Schemas};
use trestle_session::{Outbox, OutboxLimits};
use trestle_telemetry::trace::Tracer;
use trestle_wire::{
    ChannelName, NodeId, SessionId, Subjects, UserId,
    v1::{self, server_frame::Frame},
};

const PATIENCE: Duration = Duration::from_secs(10);
const HISTORY: u64 = 3;

/// A bus that loses what subscriptions hear while `deaf`, and says so when asked.
struct Lossy {
    bus: Arc<dyn Bus>,
    deaf: Arc<AtomicBool>,
    /// A permit for each mark that went by.
    marks: Arc<Semaphore>,
}

#[async_trait]
impl Bus for Lossy {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.bus.publish(subject, payload).await
    }

    async fn publish_with_reply(&self, subject: &Subject, to: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.bus.publish_with_reply(subject, to, payload).await
    }

    async fn subscribe(&self, pattern: &Subject, group: Option<&str>) -> Result<Subscription, BusError> {
        let mut inner = self.bus.subscribe(pattern, group).await?;
        let (deaf, marks) = (Arc::clone(&self.deaf), Arc::clone(&self.marks));
        let (feed, subscription) = Subscription::bounded(1024, 1 << 20, Ends::with(|| ()));
        tokio::spawn(async move {
            while let Some(heard) = inner.next().await {
                match heard {
                    Heard::Message(message) if message.payload == "MARK" => marks.add_permits(1),
                    Heard::Message(_) if deaf.load(Ordering::SeqCst) => {}
                    Heard::Message(message) if message.payload == "LOST" => feed.lost(0),
                    Heard::Message(message) => feed.push(message),
                    Heard::Lost(count) => feed.lost(count),
                }
            }
        });
        Ok(subscription)
    }

    async fn request(&self, subject: &Subject, payload: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        self.bus.request(subject, payload, wait).await
    }

    async fn gather(
        &self,
        subject: &Subject,
        payload: Bytes,
        most: usize,
        quiet: Duration,
    ) -> Result<Vec<Bytes>, BusError> {
        self.bus.gather(subject, payload, most, quiet).await
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.bus.state()
    }

    fn payload_bytes_max(&self) -> usize {
        self.bus.payload_bytes_max()
    }

    fn nodes_max(&self) -> Option<usize> {
        self.bus.nodes_max()
    }

    async fn close(&self) {
        self.bus.close().await;
    }
}

struct House {
    hub: Arc<Hub>,
    fabric: Fabric,
    subjects: Subjects,
    schemas: Schemas,
    deaf: Arc<AtomicBool>,
    marks: Arc<Semaphore>,
}

impl House {
    async fn new() -> Self {
        let fabric = Embedded::open(EmbeddedConfig::default()).unwrap();
        let deaf = Arc::new(AtomicBool::new(false));
        let marks = Arc::new(Semaphore::new(0));
        let bus = Lossy { bus: Arc::clone(&fabric.bus), deaf: Arc::clone(&deaf), marks: Arc::clone(&marks) };
        let bus = Arc::new(bus);
        let (subjects, schemas) = (Subjects::new("t"), Schemas::open(SchemaSource::examples()).unwrap());
        fabric.log.ensure(&logs::history(&subjects, "room", HISTORY, Duration::from_secs(60))).await.unwrap();
        let parts = Parts {
            node: NodeId::parse("n").unwrap(),
            subjects: subjects.clone(),
            fabric: Fabric { bus, ..fabric.clone() },
            schemas: schemas.clone(),
            tracer: Tracer::disabled(),
            registry: &mut Registry::default(),
        };
        Self { hub: Hub::open(parts).await.unwrap(), fabric, subjects, schemas, deaf, marks }
    }

    async fn join(&self, member: &Arc<Member>, name: &str) -> Seat {
        let (encoding, catalogue) = (member.encoding, self.schemas.current());
        let welcome = move |offset| {
            let frame = Frame::Subscribed(v1::Subscribed { offset, ..v1::Subscribed::default() });
            Some(encode(encoding, &v1::ServerFrame { reply_to: 1, frame: Some(frame) }, &catalogue))
        };
        let channel = ChannelName::parse(name).unwrap();
        let history = channel.namespace() == "room";
        self.hub.join(member, channel, history, welcome).await.unwrap()
    }

    /// A member of room:1 that has heard one comment, which says `first`.
    async fn listener(&self, first: &str) -> (Arc<Member>, Seat) {
        let member = member(1, Encoding::Protobuf);
        let seat = self.join(&member, "room:1").await;
        self.publish("room:1", first).await;
        welcomed(&member).await;
        heard(&member).await;
        (member, seat)
    }

    /// Publishes a comment on a channel as an edge would.
    async fn publish(&self, name: &str, text: &str) {
        let channel = ChannelName::parse(name).unwrap();
        let body = comment(text).encode_to_vec().into();
        if channel.namespace() == "room" {
            self.fabric.log.append(&self.subjects.log(&channel), None, body).await.unwrap();
        } else {
            self.fabric.bus.publish(&self.subjects.channel(&channel), body).await.unwrap();
        }
    }

    /// Makes the subscription of a channel say that it lost something.
    async fn lose(&self, name: &str) {
        self.whisper(name, b"LOST").await;
    }

    /// Loses what `texts` say on a channel.
    async fn publish_unheard(&self, name: &str, texts: &[&str]) {
        self.deaf.store(true, Ordering::SeqCst);
        for text in texts {
            self.publish(name, text).await;
        }
        self.whisper(name, b"MARK").await;
        self.marks.acquire().await.unwrap().forget();
        self.deaf.store(false, Ordering::SeqCst);
    }

    async fn whisper(&self, name: &str, what: &'static [u8]) {
        let subject = self.subjects.channel(&ChannelName::parse(name).unwrap());
        self.fabric.bus.publish(&subject, Bytes::from_static(what)).await.unwrap();
    }
}

fn comment(text: &str) -> v1::Envelope {
    let payload = [&[0x0a, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    v1::Envelope {
        id: text.into(),
        message_type: "chat.v1.Comment".into(),
        payload: payload.into(),
        ..v1::Envelope::default()
    }
}

fn member(number: u128, encoding: Encoding) -> Arc<Member> {
    let session = SessionId::new(&NodeId::parse("n").unwrap(), number);
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 1000 });
    Arc::new(Member { session, encoding, outbox })
}

async fn next_bytes(member: &Member) -> Bytes {
    let mut frames: Vec<Encoded> = Vec::new();
    let taken = poll_fn(|context| member.outbox.poll_take(context, 1, &mut frames));
    timeout(PATIENCE, taken).await.expect("a frame in time").expect("an open outbox");
    frames[0].as_bytes().clone()
}

async fn next(member: &Member) -> Frame {
    let bytes = next_bytes(member).await;
    v1::ServerFrames::decode(bytes).unwrap().frames.remove(0).frame.unwrap()
}

/// The next frame as (text, offset, previous) of a delivery, or the gap's ends.
async fn heard(member: &Member) -> (String, u64, u64) {
    match next(member).await {
        Frame::Delivery(envelope) => (envelope.id, envelope.offset, envelope.prev_offset),
        Frame::Gap(gap) => ("gap".into(), gap.from, gap.to),
        other => panic!("neither delivery nor gap: {other:?}"),
    }
}

async fn welcomed(member: &Member) -> u64 {
    match next(member).await {
        Frame::Subscribed(subscribed) => subscribed.offset,
        other => panic!("not subscribed: {other:?}"),
    }
}

#[tokio::test]
async fn a_room_is_there_exactly_while_somebody_sits_in_it() {
    let house = House::new().await;
    let (a, b) = (member(1, Encoding::Protobuf), member(2, Encoding::Protobuf));
    assert_eq!(house.hub.rooms(), 0);
    let seats = (house.join(&a, "live:1").await, house.join(&b, "live:1").await);
    assert_eq!(house.hub.rooms(), 1);
    drop(seats.0);
    assert_eq!(house.hub.rooms(), 1);
    drop(seats.1);
    assert_eq!(house.hub.rooms(), 0);
    // And can be opened again.
    let _seat = house.join(&a, "live:1").await;
    house.publish("live:1", "x").await;
    assert_eq!((welcomed(&a).await, welcomed(&a).await), (0, 0));
    assert_eq!(heard(&a).await.0, "x");
}

#[tokio::test]
async fn a_message_reaches_every_member_in_its_own_encoding() {
    let house = House::new().await;
    let (json, protobuf) = (member(1, Encoding::Json), member(2, Encoding::Protobuf));
    let _seats = (house.join(&json, "room:1").await, house.join(&protobuf, "room:1").await);
    house.publish("room:1", "hi").await;
    assert_eq!(welcomed(&protobuf).await, 0);
    assert_eq!(heard(&protobuf).await, ("hi".into(), 1, 0));
    next_bytes(&json).await;
    let frame: serde_json::Value = serde_json::from_slice(&next_bytes(&json).await).unwrap();
    assert_eq!(frame["delivery"]["payload"], serde_json::json!({"text": "hi"}));
    assert_eq!((&frame["delivery"]["offset"], &frame["delivery"]["prevOffset"]), (&"1".into(), &"0".into()));
}

#[tokio::test]
async fn who_joins_is_told_the_offset_that_comes_before_its_first_message() {
    let house = House::new().await;
    let (early, late) = (member(1, Encoding::Protobuf), member(2, Encoding::Protobuf));
    house.publish("room:1", "a").await;
    let _early = house.join(&early, "room:1").await;
    assert_eq!(welcomed(&early).await, 1);
    house.publish("room:1", "b").await;
    assert_eq!(heard(&early).await, ("b".into(), 2, 1));
    let _late = house.join(&late, "room:1").await;
    assert_eq!(welcomed(&late).await, 2);
    house.publish("room:1", "c").await;
    assert_eq!(heard(&late).await, ("c".into(), 3, 2));
}

#[tokio::test]
async fn what_the_bus_did_not_bring_is_read_from_the_history() {
    let house = House::new().await;
    let (a, _seat) = house.listener("a").await;
    house.publish_unheard("room:1", &["b"]).await;
    house.publish("room:2", "elsewhere").await;
    house.publish_unheard("room:1", &["c"]).await;
    house.publish("room:1", "d").await;
    assert_eq!(heard(&a).await, ("b".into(), 2, 1));
    assert_eq!(heard(&a).await, ("c".into(), 4, 2));
    assert_eq!(heard(&a).await, ("d".into(), 5, 4));
}

#[tokio::test]
async fn a_break_that_nothing_follows_is_filled_too() {
    let house = House::new().await;
    let (a, _seat) = house.listener("a").await;
    house.publish_unheard("room:1", &["b"]).await;
    house.lose("room:1").await;
    assert_eq!(heard(&a).await, ("b".into(), 2, 1));
}

#[tokio::test]
async fn what_the_history_no_longer_has_is_told_in_a_gap() {
    let house = House::new().await;
    let (a, _seat) = house.listener("1").await;
    house.publish_unheard("room:1", &["2", "3", "4", "5", "6"]).await;
    house.lose("room:1").await;
    // Three are kept: 4, 5 and 6.
    assert_eq!(heard(&a).await, ("gap".into(), 2, 3));
    for (text, offset) in [("4", 4), ("5", 5), ("6", 6)] {
        let (heard, at, _) = heard(&a).await;
        assert_eq!((heard.as_str(), at), (text, offset));
    }
}

#[tokio::test]
async fn a_channel_without_history_is_told_of_a_break() {
    let house = House::new().await;
    let a = member(1, Encoding::Protobuf);
    let _seat = house.join(&a, "live:1").await;
    welcomed(&a).await;
    house.lose("live:1").await;
    assert_eq!(heard(&a).await, ("gap".into(), 0, 0));
}

#[tokio::test]
async fn pushes_reach_a_session_a_user_and_everyone_and_are_counted() {
    let house = House::new().await;
    let ann = UserId::parse("ann").unwrap();
    let members: Vec<_> = (1..=3).map(|number| member(number, Encoding::Protobuf)).collect();
    let mut present = Vec::new();
    for (number, member) in members.iter().enumerate() {
        present.push(house.hub.arrive(member, (number < 2).then_some(&ann)).await.unwrap());
    }
    let subjects = &house.subjects;
    for (subject, expected) in [
        (subjects.session(&members[2].session), 1),
        (subjects.user(&ann), 2),
        (subjects.all(), 3),
        (subjects.session(&SessionId::new(&NodeId::parse("n").unwrap(), 99)), 0),
    ] {
        let body = comment("p").encode_to_vec().into();
        let counts = house.fabric.bus.gather(&subject, body, 1, PATIENCE).await.unwrap();
        let count = v1::PushCount::decode(counts[0].clone()).unwrap();
        assert_eq!((count.delivered, count.dropped), (expected, 0), "{subject}");
    }
    assert_eq!(house.hub.sessions(), 3);
    drop(present);
    assert_eq!((house.hub.sessions(), house.hub.rooms()), (0, 0));
}

#[tokio::test]
async fn a_full_outbox_is_counted_as_dropped_and_closed() {
    let house = House::new().await;
    let session = SessionId::new(&NodeId::parse("n").unwrap(), 1);
    let outbox = Outbox::new(OutboxLimits { bytes_max: 1 << 20, frames_max: 1 });
    let slow = Arc::new(Member { session, encoding: Encoding::Json, outbox });
    let _present = house.hub.arrive(&slow, None).await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..3 {
        let (all, body) = (house.subjects.all(), comment("p").encode_to_vec().into());
        let answers = house.fabric.bus.gather(&all, body, 1, PATIENCE).await.unwrap();
        let count = v1::PushCount::decode(answers[0].clone()).unwrap();
        counts.push((count.delivered, count.dropped));
    }
    assert_eq!(counts, [(1, 0), (0, 1), (0, 0)]);
}
