//! Three nodes on a NATS cluster of three, with a history and with work on all three of its servers.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tempfile::NamedTempFile;
use trestle_testkit::{Cut, Gateway, NatsCluster};

use super::balancer::Balancer;
use crate::support::{EXAMPLES, file, gateway, http, until};

/// How many nodes there are.
pub(super) const NODES: usize = 3;
/// A node that has said nothing for so long is gone.
pub(super) const NODE_TIMEOUT: Duration = Duration::from_secs(4);

const CONFIG: &str = r#"
drain_timeout = "20s"
[nats]
replicas = 3
[cluster]
node_timeout = "4s"
heartbeat_interval = "1s"
presence_linger = "1s"
[channels.namespaces.room]
history = { size = 100000, ttl = "10m" }
presence = true
[channels.namespaces.live]
"#;

/// A connection that is dead is noticed soon.
pub(super) const QUICK_PINGS: &str = "[session]\nping_interval = \"4s\"\npong_timeout = \"3s\"\n";

/// The nodes, the nats-servers under them and the balancers before them.
pub(super) struct Fleet {
    pub(super) nats: NatsCluster,
    pub(super) nodes: Vec<Option<Gateway>>,
    /// Between the first node and NATS, if asked for.
    pub(super) cut: Option<Cut>,
    clients: Balancer,
    services: Balancer,
    config: NamedTempFile,
    /// What nodes that are gone had counted.
    counted: BTreeMap<String, f64>,
}

impl Fleet {
    pub(super) async fn start() -> Self {
        Self::start_with(false, QUICK_PINGS).await
    }

    /// With a [`Cut`] between the first node and NATS, and `more` configuration.
    pub(super) async fn start_with(cut: bool, more: &str) -> Self {
        let nats = NatsCluster::start().await.expect("three nats-servers start");
        let cut = if cut { Some(nats.cut().await.expect("doors")) } else { None };
        let mut fleet = Self {
            nats,
            nodes: (0..NODES).map(|_| None).collect(),
            cut,
            clients: Balancer::start().await,
            services: Balancer::start().await,
            config: file(&format!("{CONFIG}{more}")),
            counted: BTreeMap::new(),
        };
        for at in 0..NODES {
            fleet.begin(at).await;
        }
        for node in fleet.living() {
            until(node, "trestle_cluster_nodes", |nodes| nodes == NODES as f64).await;
        }
        fleet
    }

    /// Starts a node, which gets its share of new connections from then on.
    pub(super) async fn begin(&mut self, at: usize) {
        let url = match &self.cut {
            Some(cut) if at == 0 => cut.nats_url(),
            _ => self.nats.url(),
        };
        let (config, name) = (self.config.path().to_str().unwrap(), format!("node-{at}"));
        let args = ["--bus", &url, "--schemas", EXAMPLES, "--config", config, "--node", &name];
        self.nodes[at] = Some(gateway(&args).await);
        self.balance();
    }

    /// New connections go to the nodes that run.
    pub(super) fn balance(&self) {
        self.clients.set(self.living().map(Gateway::listen).collect());
        self.services.set(self.living().map(Gateway::grpc).collect());
    }

    /// Until a node comes or goes, clients get to this one only.
    pub(super) fn only(&self, at: usize) {
        self.clients.set(vec![self.node(at).listen()]);
    }

    /// Kills a node in the middle of whatever it does.
    pub(super) async fn kill(&mut self, at: usize) {
        self.remember(at).await;
        self.nodes[at].take().expect("it runs").kill().await.expect("killed");
        self.balance();
    }

    /// A node that runs.
    pub(super) fn node(&self, at: usize) -> &Gateway {
        self.nodes[at].as_ref().expect("it runs")
    }

    /// The nodes that run.
    pub(super) fn living(&self) -> impl Iterator<Item = &Gateway> {
        self.nodes.iter().flatten()
    }

    /// Where clients connect.
    pub(super) fn clients(&self) -> SocketAddr {
        self.clients.address()
    }

    /// Where services attach.
    pub(super) fn services(&self) -> String {
        format!("http://{}", self.services.address())
    }

    /// Keeps what a node has counted that is about to go.
    pub(super) async fn remember(&mut self, at: usize) {
        let node = self.nodes[at].as_ref().expect("it runs");
        add(&mut self.counted, node).await;
    }

    /// How clients got on that wanted to resume, by outcome, over all nodes.
    pub(super) async fn resumes(&self) -> String {
        let mut counted = self.counted.clone();
        for node in self.living() {
            add(&mut counted, node).await;
        }
        let words: Vec<_> = counted.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        if words.is_empty() { "none".into() } else { words.join(", ") }
    }
}

async fn add(counted: &mut BTreeMap<String, f64>, node: &Gateway) {
    let (_, metrics) = http(node, "GET", "/metrics", "", "").await;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix("trestle_edge_resumes_total{outcome=\"") else { continue };
        let Some((outcome, count)) = rest.split_once("\"} ") else { continue };
        *counted.entry(outcome.to_owned()).or_default() += count.parse::<f64>().expect("a number");
    }
}
