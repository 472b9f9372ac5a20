//! Real nodes on a simulated bus: built as `src/app.rs` builds them, cut, crashed, drained and begun anew.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock, Weak},
    time::Duration,
};

use fastrand::Rng;
use parking_lot::Mutex;
use prometheus_client::registry::Registry as Metrics;
use prost::Message as _;
use tokio::io::{DuplexStream, duplex};
use trestle_auth::{AuthConfig, Channels, ChannelsConfig, Gate, History, InboxConfig, Namespace, OverflowPolicy};
use trestle_bus::{Fabric, logs};
use trestle_cluster::{ClusterConfig, Nodes, NodesParts, Presence, PresenceParts, Registry, RegistryParts};
use trestle_codec::Encoding;
use trestle_edge::{Edge, EdgeConfig, Hello};
use trestle_hub::Hub;
use trestle_schema::{SchemaSource, Schemas};
use trestle_session::{Full, Rules, SessionConfig, Spill, Spills};
use trestle_telemetry::trace::Tracer;
use trestle_wire::{ChannelName, NodeId, SessionId, v1};

use crate::{fabric, judge::Judge, subjects, world::World};

/// How long a session waits for its client.
pub(crate) const RESUME_WINDOW: Duration = Duration::from_secs(20);
/// How long a node that is drained has.
const DRAIN: Duration = Duration::from_secs(8);
/// Signs the tokens of clients; long enough.
pub(crate) const SECRET: &[u8] = b"a secret of a simulation, 32 bytes and more";

/// Compiled once, for all seeds.
static SCHEMAS: LazyLock<Schemas> =
    LazyLock::new(|| Schemas::open(SchemaSource::examples()).expect("the examples compile"));
/// Where the secret is.
static SECRET_FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("trestle-simulation-{}", std::process::id()));
    std::fs::write(&path, SECRET).expect("the temporary folder can be written to");
    path
});

/// Nothing spills here.
struct NoDisk;

impl Spills for NoDisk {
    fn open(&self) -> Result<Box<dyn Spill>, Full> {
        Err(Full::Overflow)
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) link: u64,
    fabric: Fabric,
    pub(crate) edge: Arc<Edge>,
    pub(crate) hub: Arc<Hub>,
    nodes: Arc<Nodes>,
    draining: bool,
}

/// All nodes, as clients find them.
pub(crate) struct Cluster {
    pub(crate) world: Arc<World>,
    pub(crate) judge: Arc<Mutex<Judge>>,
    pub(crate) nodes: Mutex<BTreeMap<String, Node>>,
}

fn session_config(rng: &mut Rng) -> SessionConfig {
    SessionConfig {
        ping_interval: Duration::from_secs(5),
        pong_timeout: Duration::from_secs(2),
        resume_window: RESUME_WINDOW,
        outbox_bytes_max: 16 * 1024,
        outbox_frames_max: [16, 64, 512][rng.usize(0..3)],
        replay_frames_max: [4, 16, 256][rng.usize(0..3)],
        ..SessionConfig::default()
    }
}

fn channels() -> Channels {
    let kept = |size, ttl| Some(History { size, ttl: Duration::from_secs(ttl) });
    let namespaces = [
        ("room", Namespace { history: kept(200, 600), presence: true, ..Namespace::default() }),
        ("short", Namespace { history: kept(6, 600), ..Namespace::default() }),
        ("live", Namespace::default()),
        ("tick", Namespace { overflow: OverflowPolicy::DropOldest, ..Namespace::default() }),
    ];
    let namespaces = namespaces.into_iter().map(|(name, namespace)| (name.to_owned(), namespace)).collect();
    Channels::new(&ChannelsConfig { namespaces }, &InboxConfig::default()).expect("sound")
}

impl Cluster {
    pub(crate) fn new(world: Arc<World>, judge: Arc<Mutex<Judge>>) -> Arc<Self> {
        Arc::new(Self { world, judge, nodes: Mutex::default() })
    }

    /// Makes the logs.
    pub(crate) async fn prepare(&self, fabric: &Fabric) {
        for (name, namespace) in channels().iter() {
            let Some(history) = &namespace.history else { continue };
            let spec = logs::history(&subjects(), name, history.size, history.ttl);
            fabric.log.ensure(&spec).await.expect("the weather is fair");
        }
    }

    /// Starts a node, if the bus lets it; as `src/app.rs` does.
    pub(crate) async fn start(self: &Arc<Self>, name: &str, seed: u64) {
        self.judge.lock().note(format_args!("{name}: starts"));
        let (link, fabric) = fabric::connect(&self.world, name);
        match Node::open(name, link, fabric, &mut Rng::with_seed(seed)).await {
            Ok(node) => {
                self.judge.lock().note(format_args!("{name}: serves"));
                self.nodes.lock().insert(name.to_owned(), node);
            }
            Err(error) => {
                self.judge.lock().note(format_args!("{name}: does not start: {error}"));
                self.world.with(|state| state.close(link));
            }
        }
    }

    /// The node dies at once.
    pub(crate) fn crash(&self, name: &str) -> bool {
        let Some(node) = self.nodes.lock().remove(name) else { return false };
        self.judge.lock().note(format_args!("{name}: dies"));
        self.world.with(|state| state.close(node.link));
        true
    }

    /// The node stops in order.
    pub(crate) async fn drain(&self, name: &str) {
        let (link, edge, nodes, fabric) = {
            let mut all = self.nodes.lock();
            let Some(node) = all.get_mut(name).filter(|node| !node.draining) else { return };
            node.draining = true;
            (node.link, Arc::clone(&node.edge), Arc::clone(&node.nodes), node.fabric.clone())
        };
        self.judge.lock().note(format_args!("{name}: drains"));
        edge.drain(DRAIN).await;
        let _left = tokio::time::timeout(Duration::from_secs(2), nodes.leave()).await;
        self.judge.lock().note(format_args!("{name}: is drained"));
        // It may have died meanwhile, and another one have taken its name.
        self.nodes.lock().retain(|_, node| node.link != link);
        fabric.bus.close().await;
    }

    /// A socket to a node that takes clients, another one than `other` if possible.
    pub(crate) fn dial(&self, rng: &mut Rng, other: &str) -> Option<(String, DuplexStream)> {
        let nodes = self.nodes.lock();
        let open: Vec<_> = nodes.iter().filter(|(_, node)| !node.draining).collect();
        let others: Vec<_> = open.iter().filter(|(name, _)| *name != other).copied().collect();
        let choice = if others.is_empty() { open } else { others };
        if choice.is_empty() {
            return None;
        }
        let (name, node) = choice[rng.usize(0..choice.len())];
        let (mine, theirs) = duplex([1024, 4096, 65536][rng.usize(0..3)]);
        let address: SocketAddr = ([127, 0, 0, 1], rng.u16(1024..)).into();
        self.judge.lock().note(format_args!("{name}: is called by {address}"));
        let edge = Arc::clone(&node.edge);
        let hello = Hello { encoding: Encoding::Protobuf, address, token: None };
        tokio::spawn(async move { edge.serve_stream(theirs, hello).await });
        Some((name.clone(), mine))
    }

    /// Where messages of a channel are said or stored.
    pub(crate) fn subject(&self, channel: &str) -> String {
        let name = ChannelName::parse(channel).expect("a channel");
        let stored = !(channel.starts_with("live:") || channel.starts_with("tick:"));
        if stored { subjects().log(&name).to_string() } else { subjects().channel(&name).to_string() }
    }

    /// A message.
    pub(crate) fn comment(&self, id: String) -> v1::Envelope {
        v1::Envelope {
            // A text of 2 bytes in field 1.
            payload: bytes::Bytes::from_static(&[10, 2, b'h', b'i']),
            message_type: "chat.v1.Comment".into(),
            id,
            ..v1::Envelope::default()
        }
    }

    pub(crate) fn acked(&self, user: &str) -> u64 {
        self.judge.lock().acks_agreed.get(user).copied().unwrap_or_default()
    }

    pub(crate) fn acks(&self, user: &str, offset: u64) {
        let mut judge = self.judge.lock();
        let sent = judge.acks_sent.entry(user.to_owned()).or_default();
        *sent = (*sent).max(offset);
    }

    /// Names of the nodes that hold `session`.
    pub(crate) fn holders(&self, session: &str) -> Vec<String> {
        let Ok(session) = SessionId::parse(session) else { return Vec::new() };
        let nodes = self.nodes.lock();
        nodes.iter().filter(|(_, node)| node.hub.member(&session).is_some()).map(|(name, _)| name.clone()).collect()
    }
}

impl Node {
    async fn open(name: &str, link: u64, fabric: Fabric, rng: &mut Rng) -> anyhow::Result<Self> {
        let (id, subjects, mut metrics) = (NodeId::parse(name)?, subjects(), Metrics::default());
        let session = session_config(rng);
        let channels = Arc::new(channels());
        let config = ClusterConfig { record_ttl: Duration::from_secs(120), ..ClusterConfig::default() };
        let nodes = Nodes::open(NodesParts {
            node: id.clone(),
            roles: vec!["edge".into()],
            version: "0".into(),
            endpoint: String::new(),
            subjects: subjects.clone(),
            fabric: fabric.clone(),
            config: config.clone(),
            registry: &mut metrics,
        })
        .await?;
        let registry = Registry::open(RegistryParts {
            node: id.clone(),
            fabric: fabric.clone(),
            subjects: subjects.clone(),
            config: config.clone(),
            resume_window: session.resume_window,
            inbox_ttl: InboxConfig::default().ttl,
            registry: &mut metrics,
        })
        .await?;
        let watchers = Arc::new(Mutex::new(Weak::<Hub>::new()));
        let told = Arc::clone(&watchers);
        let presence = Presence::open(PresenceParts {
            nodes: &nodes,
            subjects: subjects.clone(),
            fabric: fabric.clone(),
            config,
            sink: Arc::new(move |channel: ChannelName, event: v1::PresenceEvent| {
                let hub = told.lock().upgrade();
                if let Some(hub) = hub {
                    hub.tell_watchers(&channel, v1::server_frame::Frame::PresenceEvent(event));
                }
            }),
            registry: &mut metrics,
        });
        let hub = Hub::open(trestle_hub::Parts {
            node: id.clone(),
            subjects: subjects.clone(),
            fabric: fabric.clone(),
            schemas: SCHEMAS.clone(),
            channels: Arc::clone(&channels),
            outbox_bytes_max: session.outbox_bytes_max,
            tracer: Tracer::disabled(),
            registry: &mut metrics,
        })
        .await?;
        *watchers.lock() = Arc::downgrade(&hub);
        let auth = AuthConfig { hs256_secret_file: Some(SECRET_FILE.clone()), ..AuthConfig::default() };
        let edge = Edge::open(trestle_edge::Parts {
            node: id,
            config: EdgeConfig { write_timeout: Duration::from_secs(4), ..EdgeConfig::default() },
            rules: Rules::parse(&session).expect("no rules are sound"),
            session,
            gate: Gate::open(&auth)?,
            channels,
            schemas: SCHEMAS.clone(),
            fabric: fabric.clone(),
            subjects,
            hub: Arc::clone(&hub),
            nodes: Arc::clone(&nodes),
            sessions: registry,
            presence,
            spills: Arc::new(NoDisk),
            tracer: Tracer::disabled(),
            registry: &mut metrics,
        })
        .await?;
        Ok(Self { link, fabric, edge, hub, nodes, draining: false })
    }
}

/// Puts `message` on the bus for a service, as the bridge does.
pub(crate) async fn push(fabric: &Fabric, subject: &str, message: v1::Envelope) {
    let subject = trestle_bus::Subject::from_trusted(subject);
    let body = message.encode_to_vec().into();
    if subject.as_str().starts_with("t.log.") {
        let _stored = fabric.log.append(&subject, None, body).await;
    } else {
        let _said = fabric.bus.publish(&subject, body).await;
    }
}
