//! How long a message for a room of one takes while there is a large room beside it.
//!
//! `cargo run --profile simulation -p trestle-hub --example large_room -- [members] [messages a second] [threads]`. A second's
//! messages for the large room come at once. Each of its members has a task that writes what waits for it, which takes
//! as long as a small send.

use std::{
    future::poll_fn,
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use prost::Message as _;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};
use trestle_auth::{Channels, ChannelsConfig, InboxConfig, Namespace};
use trestle_bus::{
    Fabric,
    embedded::{Embedded, EmbeddedConfig},
};
use trestle_codec::{Encoding, Since};
use trestle_hub::{Hub, Join, Member, Parts, Seat};
use trestle_schema::{SchemaSource, Schemas};
use trestle_session::{Outbox, OutboxLimits, Taken};
use trestle_telemetry::{metrics::Metrics, trace::Tracer};
use trestle_wire::{ChannelName, NodeId, SessionId, Subjects, v1};

/// How long the small room is listened to.
const LASTS: Duration = Duration::from_secs(10);
/// The small room's messages: 5,000 of them.
const PERIOD: Duration = Duration::from_millis(2);
/// What a write costs: a send of 128 B over loopback.
const WRITE: Duration = Duration::from_micros(8);

struct Node {
    hub: Arc<Hub>,
    fabric: Fabric,
    subjects: Subjects,
}

#[derive(Default)]
struct Written {
    writes: AtomicU64,
    frames: AtomicU64,
}

fn main() {
    let mut args =
        std::env::args().skip(1).map(|arg| arg.parse().expect("members, messages a second and threads, as numbers"));
    let (members, burst, threads) = (args.next().unwrap_or(50_000), args.next().unwrap_or(1), args.next().unwrap_or(2));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads as usize).enable_all().build();
    runtime.expect("a runtime").block_on(async move { tokio::spawn(measure(members, burst)).await }).expect("no panic");
}

async fn measure(members: u64, burst: u64) {
    let node = Arc::new(Node::open().await);
    let (written, small) = (Arc::new(Written::default()), Arc::new(Written::default()));
    let mut seats = Vec::new();
    for number in 1..=members {
        let (member, seat) = node.join(number, "live:large").await;
        seats.push(seat);
        tokio::spawn(write(member, Arc::clone(&written), None::<fn(SystemTime)>));
    }
    let (times, mut taken) = tokio::sync::mpsc::channel(1 << 16);
    let (member, seat) = node.join(0, "live:small").await;
    seats.push(seat);
    let show = move |due| {
        let late = SystemTime::now().duration_since(due).unwrap_or_default();
        // At the end nobody counts any more.
        _ = times.try_send(late);
    };
    tokio::spawn(write(member, small, Some(show)));
    let busy = tokio::spawn(Arc::clone(&node).disturb(burst));
    let mut tick = interval_at(Instant::now() + PERIOD, PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, start) = (SystemTime::now(), Instant::now());
    while start.elapsed() < LASTS {
        // Measured from when it was due, however late this task is.
        let due = begun + tick.tick().await.duration_since(start);
        node.publish("live:small", due).await;
    }
    busy.abort();
    let mut all = Vec::new();
    while let Ok(late) = taken.try_recv() {
        all.push(late);
    }
    all.sort();
    let at = |part: usize| all[(all.len() - 1) * part / 1000];
    println!("small room: {} messages, p50 {:?}, p99 {:?}, max {:?}", all.len(), at(500), at(990), at(1000));
    let (writes, frames) = (written.writes.load(Ordering::Relaxed), written.frames.load(Ordering::Relaxed));
    println!("large room: {frames} deliveries, {:.1} to a write", frames as f64 / writes as f64);
}

impl Node {
    async fn open() -> Self {
        let fabric = Embedded::open(EmbeddedConfig::default()).expect("a bus in memory");
        let (subjects, schemas) = (Subjects::new("t"), Schemas::open(SchemaSource::examples()).expect("the examples"));
        let mut metrics = Metrics::new();
        let namespaces = [("live".to_owned(), Namespace::default())].into();
        let channels = Channels::new(&ChannelsConfig { namespaces }, &InboxConfig::default()).expect("one namespace");
        let parts = Parts {
            node: NodeId::parse("n").expect("a name"),
            subjects: subjects.clone(),
            fabric: fabric.clone(),
            schemas,
            channels: Arc::new(channels),
            outbox_bytes_max: 256 << 10,
            tracer: Tracer::disabled(),
            registry: metrics.registry(),
        };
        Self { hub: Hub::open(parts).await.expect("a hub"), fabric, subjects }
    }

    async fn join(&self, number: u64, channel: &str) -> (Arc<Member>, Seat) {
        let session = SessionId::new(&NodeId::parse("n").expect("a name"), number.into());
        let outbox = Outbox::new(OutboxLimits { bytes_max: 256 << 10, frames_max: 1024 });
        let member = Arc::new(Member::new(session, Encoding::Protobuf, outbox));
        let join = Join { channel: ChannelName::parse(channel).expect("a channel"), since: Since::Now };
        let seat = self.hub.join(&member, join, |_| None).await.expect("a seat");
        (member, seat)
    }

    async fn publish(&self, channel: &str, due: SystemTime) {
        let envelope = v1::Envelope {
            id: "128 bytes".into(),
            message_type: "chat.v1.Comment".into(),
            payload: vec![0; 128].into(),
            time: Some(due.into()),
            ..v1::Envelope::default()
        };
        let subject = self.subjects.channel(&ChannelName::parse(channel).expect("a channel"));
        self.fabric.bus.publish(&subject, envelope.encode_to_vec().into()).await.expect("a bus in memory");
    }

    async fn disturb(self: Arc<Self>, burst: u64) {
        let mut tick = interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            for _ in 0..burst {
                self.publish("live:large", SystemTime::now()).await;
            }
        }
    }
}

/// Writes all that comes, and shows when each message was due.
async fn write(member: Arc<Member>, written: Arc<Written>, mut show: Option<impl FnMut(SystemTime)>) {
    let mut taken = Vec::new();
    while poll_fn(|context| member.outbox.poll_take(context, usize::MAX, &mut taken)).await.is_ok() {
        let end = Instant::now() + WRITE;
        while Instant::now() < end {
            spin_loop();
        }
        written.writes.fetch_add(1, Ordering::Relaxed);
        written.frames.fetch_add(taken.len() as u64, Ordering::Relaxed);
        match &mut show {
            Some(show) => taken.drain(..).filter_map(due).for_each(show),
            None => taken.clear(),
        }
    }
}

fn due(taken: Taken) -> Option<SystemTime> {
    let Taken::Frame(frame) = taken else { return None };
    let frames = v1::ServerFrames::decode(frame.payload()).expect("our own frames").frames;
    match frames.into_iter().next()?.frame? {
        v1::server_frame::Frame::Delivery(envelope) => SystemTime::try_from(envelope.time?).ok(),
        _ => None,
    }
}
