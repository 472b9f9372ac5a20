//! Build, run, drain: one node from its configuration to its exit.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use axum::Router;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use trestle_auth::{Channels, Gate};
use trestle_bridge::{Bridge, NamespaceView};
use trestle_bus::{
    BusState, Fabric, LogSpec,
    embedded::{Embedded, EmbeddedConfig},
    logs,
};
use trestle_bus_nats::Nats;
use trestle_cluster::Nodes;
use trestle_edge::{Accept, Edge};
use trestle_hub::Hub;
use trestle_schema::{SchemaSource, Schemas};
use trestle_session::Rules;
use trestle_spill::Disk;
use trestle_telemetry::{Telemetry, Tracer, metrics::Metrics};
use trestle_wire::{NodeId, Subjects, v1};

use crate::{
    cluster::{self, Cluster, Watchers},
    config::{BusKind, Config, Role},
    console::{self, Status},
    demo,
    drain::Signals,
    output,
    server::Server,
};

/// How long a node that cannot start waits for the bus to take that it is gone.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A node that serves.
pub(crate) struct Node {
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Where services connect.
    pub(crate) grpc: Option<SocketAddr>,
    /// Its name.
    pub(crate) id: NodeId,
    pub(crate) fabric: Fabric,
    pub(crate) schemas: Schemas,
    pub(crate) edge: Option<Arc<Edge>>,
    pub(crate) status: Arc<Status>,
    pub(crate) telemetry: Telemetry,
    /// Stops taking connections, of clients and of HTTP.
    pub(crate) intake: CancellationToken,
    /// Stops the bridge: its streams are drained first.
    pub(crate) bridge_stop: CancellationToken,
    pub(crate) demo_stop: CancellationToken,
    pub(crate) http: Server,
    pub(crate) bridge: Option<Bridge>,
    pub(crate) bridge_server: Server,
    /// How long services have for their acks when the node stops, if the node has that long.
    pub(crate) bridge_drain: Duration,
    pub(crate) demo: Option<JoinHandle<()>>,
    /// This node among the others.
    pub(crate) nodes: Arc<Nodes>,
    /// Cancelled when an operator has a node without an edge drained.
    pub(crate) told_to_drain: CancellationToken,
}

/// Serves until SIGTERM or SIGINT, or until a server of the node dies; then drains. A second signal ends it at once.
pub(crate) async fn serve(config: Config, json_logs: bool) -> anyhow::Result<()> {
    let drain_timeout = config.drain_timeout;
    let mut signals = Signals::listen()?;
    let ready = console::Ready::new(&config);
    let mut node = tokio::select! {
        node = Node::start(config) => node?,
        () = signals.stop() => bail!("told to stop before it was ready"),
    };
    // Whoever started it may not read what it says; it serves all the same.
    let _reader = output::print(if json_logs { ready.json(&node) } else { ready.welcome(&node) })?;
    let told = signals.until_told(&mut node).await;
    let drained = tokio::select! {
        drained = node.drain(drain_timeout) => drained,
        () = signals.stop() => Err(anyhow!("told to stop again while draining: what was in flight is cut")),
    };
    told.and(drained)
}

impl Node {
    /// Takes the node's place among the others, and serves.
    pub(crate) async fn start(config: Config) -> anyhow::Result<Self> {
        let faults = config.faults();
        if !faults.is_empty() {
            bail!("the configuration has faults:\n  {}", faults.join("\n  "));
        }
        let id = config.node_id()?;
        let telemetry = Telemetry::init(&config.telemetry, &id)?;
        let tracer = telemetry.tracer();
        let mut metrics = Metrics::new();
        let subjects = Subjects::new(&config.subject_prefix);
        let schemas = Schemas::open(schema_source(&config)?)?;
        let channels = Channels::new(&config.channels, &config.inbox);
        let channels = Arc::new(channels.map_err(|faults| anyhow::anyhow!(faults.join("; ")))?);
        let fabric = open_bus(&config, &id).await?;
        ensure_logs(&fabric, &subjects, &channels, config.work_bytes_max).await?;
        let cluster = Cluster { config: &config, node: &id, subjects: &subjects, fabric: &fabric };
        let nodes = cluster.nodes(metrics.registry()).await?;
        let ground = Ground { cluster, channels, schemas, telemetry, tracer, metrics, nodes: Arc::clone(&nodes) };
        let built = ground.build().await;
        if built.is_err() {
            // Nobody may take it for alive.
            let _left = timeout(LEAVE_TIMEOUT, nodes.leave()).await;
        }
        built
    }
}

/// What a node stands on, before it serves.
struct Ground<'a> {
    cluster: Cluster<'a>,
    channels: Arc<Channels>,
    schemas: Schemas,
    telemetry: Telemetry,
    tracer: Tracer,
    metrics: Metrics,
    nodes: Arc<Nodes>,
}

impl Ground<'_> {
    /// Builds everything in the order of the way of a message, and begins to serve.
    async fn build(self) -> anyhow::Result<Node> {
        let Self { cluster, channels, schemas, telemetry, tracer, mut metrics, nodes } = self;
        let Cluster { config, node: id, subjects, fabric } = cluster;

        let told_to_drain = match config.roles.contains(&Role::Edge) {
            true => CancellationToken::new(),
            false => cluster::hear_drain(&cluster, &nodes).await?,
        };
        let status = Arc::new(Status::new(fabric.bus.state()));
        let mut router = Router::new();
        let mut edge = None;
        if config.roles.contains(&Role::Edge) {
            let rules = Rules::parse(&config.session).map_err(|faults| anyhow!(faults.join("; ")))?;
            let registry = cluster.registry(&nodes, metrics.registry()).await?;
            let spills = Disk::start(config.spill.clone(), metrics.registry())
                .context("the threads of the spill cannot start")?;
            let watchers = Watchers::default();
            let presence = cluster.presence(&nodes, &watchers, metrics.registry());
            let hub = Hub::open(trestle_hub::Parts {
                node: id.clone(),
                subjects: subjects.clone(),
                fabric: fabric.clone(),
                schemas: schemas.clone(),
                channels: Arc::clone(&channels),
                outbox_bytes_max: config.session.outbox_bytes_max,
                tracer: tracer.clone(),
                registry: metrics.registry(),
            });
            let hub = hub.await.context("the bus cannot be listened to")?;
            watchers.tell(&hub);
            let opened = Edge::open(trestle_edge::Parts {
                node: id.clone(),
                config: config.edge.clone(),
                session: config.session.clone(),
                rules,
                gate: Gate::open(&config.auth)?,
                channels: Arc::clone(&channels),
                schemas: schemas.clone(),
                fabric: fabric.clone(),
                subjects: subjects.clone(),
                hub,
                nodes: Arc::clone(&nodes),
                sessions: registry,
                presence,
                spills: Arc::new(spills),
                tracer: tracer.clone(),
                registry: metrics.registry(),
            });
            let opened = opened.await.context("the bus cannot be listened to")?;
            router = router.merge(opened.router());
            edge = Some(opened);
        }

        if config.roles.contains(&Role::Connector) {
            tracing::warn!("role connector: no connector is part of this version, so it has nothing to do");
        }
        let bridge_stop = CancellationToken::new();
        let (mut bridge_server, mut bridge, mut grpc) = (Server::none("gRPC"), None, None);
        if config.roles.contains(&Role::Bridge) {
            let built = Bridge::new(trestle_bridge::Parts {
                node: id.clone(),
                subjects: subjects.clone(),
                schemas: schemas.clone(),
                fabric: fabric.clone(),
                tracer: tracer.clone(),
                channels: Arc::new(Namespaces(Arc::clone(&channels))),
                nodes: Arc::new(Living(Arc::clone(&nodes))),
                config: config.bridge.clone(),
                registry: metrics.registry(),
            });
            let listener = TcpListener::bind(config.grpc).await.with_context(|| format!("grpc: {}", config.grpc))?;
            grpc = Some(listener.local_addr()?);
            router = router.merge(config.http_api.guard(built.router()));
            let (stop, serving) = (bridge_stop.clone(), built.clone());
            bridge_server =
                Server::start("gRPC", async move { Ok(serving.serve(listener, stop.cancelled_owned()).await?) });
            bridge = Some(built);
        }

        router = router.merge(console::router(&status, metrics, config.page && edge.is_some()));
        let accept = Accept::bind(config.listen, &config.edge).with_context(|| format!("listen: {}", config.listen))?;
        let listen = accept.local_addr();
        let intake = CancellationToken::new();
        let stop = intake.clone();
        let http = Server::start("HTTP", async move { Ok(accept.serve(router, stop).await?) });

        let demo_stop = CancellationToken::new();
        let demo = match (config.schemas.is_none(), grpc) {
            (true, Some(address)) => Some(demo::start(address, demo_stop.clone())),
            _ => None,
        };
        Ok(Node {
            listen,
            grpc,
            id: id.clone(),
            fabric: fabric.clone(),
            schemas,
            edge,
            status,
            telemetry,
            intake,
            bridge_stop,
            demo_stop,
            http,
            bridge,
            bridge_server,
            bridge_drain: config.bridge.drain_deadline,
            demo,
            nodes,
            told_to_drain,
        })
    }
}

/// Where the configuration says that the schemas are.
pub(crate) fn schema_source(config: &Config) -> anyhow::Result<SchemaSource> {
    let Some(path) = &config.schemas else { return Ok(SchemaSource::examples()) };
    if !path.exists() {
        bail!("schemas: {} does not exist", path.display());
    }
    Ok(SchemaSource::from_path(path))
}

async fn open_bus(config: &Config, id: &NodeId) -> anyhow::Result<Fabric> {
    match config.bus_kind()? {
        BusKind::Embedded => {
            let embedded = EmbeddedConfig { data_dir: config.data_dir.clone(), ..EmbeddedConfig::default() };
            Embedded::open(embedded).context("the embedded bus cannot open its logs (data_dir)")
        }
        BusKind::Nats(url) => {
            let connection = config.nats.connection(&url, id, &config.subject_prefix);
            Nats::connect(connection).await.context("the bus cannot be reached")
        }
    }
}

async fn ensure_logs(
    fabric: &Fabric,
    subjects: &Subjects,
    channels: &Channels,
    work_bytes_max: u64,
) -> anyhow::Result<()> {
    let histories = channels.iter().filter_map(|(name, namespace)| {
        let history = namespace.history.as_ref()?;
        Some(logs::history(subjects, name, history.size, history.ttl))
    });
    let work = LogSpec { bytes_max: Some(work_bytes_max), ..logs::work(subjects) };
    for spec in histories.chain([work]) {
        fabric.log.ensure(&spec).await.with_context(|| {
            let size =
                spec.bytes_max.map(|bytes| format!(" of up to {bytes} bytes (work_bytes_max)")).unwrap_or_default();
            format!("the bus does not keep log {}{size}; look at its storage limits", spec.name)
        })?;
    }
    Ok(())
}

/// What the bridge wants to know of the channels' policy.
struct Namespaces(Arc<Channels>);

impl trestle_bridge::Channels for Namespaces {
    fn namespace(&self, name: &str) -> Option<NamespaceView> {
        self.0
            .get(name)
            .map(|namespace| NamespaceView { history: namespace.history.is_some(), presence: namespace.presence })
    }
}

/// What the bridge wants to know of the nodes.
struct Living(Arc<Nodes>);

impl trestle_bridge::Nodes for Living {
    fn alive(&self) -> Vec<v1::NodeInfo> {
        self.0.alive()
    }
}

/// Whether the bus is connected.
pub(crate) fn is_connected(state: BusState) -> bool {
    matches!(state, BusState::Connected(_))
}
