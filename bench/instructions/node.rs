//! One node on the embedded bus, built as `src/app.rs` of the gateway does, without its sockets.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use prometheus_client::registry::Registry as Metrics;
use trestle_auth::{AuthConfig, Gate, InboxConfig};
use trestle_bus::{
    Fabric,
    embedded::{Embedded, EmbeddedConfig},
};
use trestle_cluster::{ClusterConfig, Nodes, NodesParts, Presence, PresenceParts, Registry, RegistryParts};
use trestle_codec::Encoding;
use trestle_edge::{Edge, EdgeConfig, Hello, Stream};
use trestle_hub::Hub;
use trestle_schema::Schemas;
use trestle_session::{Full, Rules, SessionConfig, Spill, Spills};
use trestle_telemetry::trace::Tracer;
use trestle_wire::{NodeId, Subjects};

use crate::sample;

/// A node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) fabric: Fabric,
    pub(crate) subjects: Subjects,
    pub(crate) schemas: Schemas,
    pub(crate) hub: Arc<Hub>,
    edge: Arc<Edge>,
    sessions: Arc<Registry>,
}

/// Nothing spills here.
struct NoDisk;

impl Spills for NoDisk {
    fn open(&self) -> Result<Box<dyn Spill>, Full> {
        Err(Full::Overflow)
    }
}

impl Node {
    /// Builds it. Call it inside a tokio runtime.
    pub(crate) async fn open() -> anyhow::Result<Self> {
        let (id, subjects, mut metrics) = (NodeId::parse("n")?, Subjects::new("t"), Metrics::default());
        let fabric = Embedded::open(EmbeddedConfig::default())?;
        // No ping comes while it is counted.
        let session = SessionConfig { ping_interval: Duration::from_secs(3600), ..SessionConfig::default() };
        let schemas = sample::schemas();
        let channels = Arc::new(sample::channels());
        let hub = Hub::open(trestle_hub::Parts {
            node: id.clone(),
            subjects: subjects.clone(),
            fabric: fabric.clone(),
            schemas: schemas.clone(),
            channels: Arc::clone(&channels),
            outbox_bytes_max: session.outbox_bytes_max,
            tracer: Tracer::disabled(),
            registry: &mut metrics,
        })
        .await
        .context("the hub cannot be opened")?;
        let (nodes, sessions, presence) = cluster(&id, &subjects, &fabric, &session, &mut metrics).await?;
        let edge = Edge::open(trestle_edge::Parts {
            node: id.clone(),
            config: EdgeConfig::default(),
            rules: Rules::default(),
            session,
            gate: Gate::open(&AuthConfig::default())?,
            channels,
            schemas: schemas.clone(),
            fabric: fabric.clone(),
            subjects: subjects.clone(),
            hub: Arc::clone(&hub),
            nodes,
            sessions: Arc::clone(&sessions),
            presence,
            spills: Arc::new(NoDisk),
            tracer: Tracer::disabled(),
            registry: &mut metrics,
        })
        .await
        .context("the edge cannot be opened")?;
        Ok(Self { id, fabric, subjects, schemas, hub, edge, sessions })
    }

    /// Waits until what is known of the clients is written down, which would come at some time while it is counted.
    pub(crate) async fn settled(&self) {
        self.sessions.flush().await;
    }

    /// Serves a client, until it goes, in a task of its own.
    pub(crate) fn serve(&self, stream: impl Stream, encoding: Encoding) {
        let (edge, address) = (Arc::clone(&self.edge), SocketAddr::from((Ipv4Addr::LOCALHOST, 1024)));
        tokio::spawn(async move { edge.serve_stream(stream, Hello { encoding, address, token: None }).await });
    }
}

/// What a node knows of others.
async fn cluster(
    id: &NodeId,
    subjects: &Subjects,
    fabric: &Fabric,
    session: &SessionConfig,
    metrics: &mut Metrics,
) -> anyhow::Result<(Arc<Nodes>, Arc<Registry>, Arc<Presence>)> {
    let config = ClusterConfig::default();
    let nodes = Nodes::open(NodesParts {
        node: id.clone(),
        roles: vec!["edge".to_owned()],
        version: "0".to_owned(),
        endpoint: String::new(),
        subjects: subjects.clone(),
        fabric: fabric.clone(),
        config: config.clone(),
        registry: metrics,
    });
    let nodes = nodes.await.context("the table of nodes cannot be opened")?;
    let registry = Registry::open(RegistryParts {
        node: id.clone(),
        fabric: fabric.clone(),
        subjects: subjects.clone(),
        config: config.clone(),
        resume_window: session.resume_window,
        inbox_ttl: InboxConfig::default().ttl,
        registry: metrics,
    });
    let registry = registry.await.context("the registry cannot be opened")?;
    let presence = Presence::open(PresenceParts {
        nodes: &nodes,
        subjects: subjects.clone(),
        fabric: fabric.clone(),
        config,
        sink: Arc::new(|_, _| ()), // the channels here have no presence
        registry: metrics,
    });
    Ok((nodes, registry, presence))
}
