//! Two nodes on one bus: the embedded one, and a real nats-server with a connection for each.

mod faults;
mod left;
mod nodes;
mod presence;
mod registry;
mod shared;

use std::{future::Future, sync::Arc, time::Duration};

use prometheus_client::registry::Registry as Metrics;
use trestle_bus::{
    Fabric,
    embedded::{Embedded, EmbeddedConfig},
};
use trestle_bus_nats::{Nats, NatsConfig};
use trestle_cluster::{Beside, ClusterConfig, Nodes, NodesError, NodesParts};
use trestle_testkit::NatsServer;
use trestle_wire::{NodeId, SessionId, Subjects};

use crate::shared::Shared;

/// How long is waited for what must come. Only a broken promise takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What must come, within [`PATIENCE`].
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it must come, and did not")
}

/// Until `is` says yes. Looks often, for what has no event.
async fn until<T>(mut is: impl AsyncFnMut() -> Option<T>) -> T {
    soon(async {
        loop {
            if let Some(there) = is().await {
                return there;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// A bus with a fabric for each of two nodes, and what must live as long.
struct Two {
    a: Fabric,
    b: Fabric,
    _server: Option<NatsServer>,
}

async fn embedded() -> Two {
    let fabric = Embedded::open(EmbeddedConfig::default()).expect("opens");
    Two { a: Shared::fabric(&fabric).0, b: Shared::fabric(&fabric).0, _server: None }
}

async fn nats() -> Two {
    let server = NatsServer::start().await.expect("starts");
    Two { a: connect(&server).await, b: connect(&server).await, _server: Some(server) }
}

async fn connect(server: &NatsServer) -> Fabric {
    let config = NatsConfig { request_timeout: Duration::from_secs(1), ..NatsConfig::new(server.url()) };
    Nats::connect(config).await.expect("connects")
}

/// One test per name and bus.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod on_embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::embedded().await).await;
            })*
        }
        mod on_nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::nats().await).await;
            })*
        }
    };
}
use on_both;

/// Fast heartbeats; the timeout is the shortest that NATS counts.
fn config() -> ClusterConfig {
    let config = ClusterConfig {
        heartbeat_interval: Duration::from_millis(300),
        node_timeout: Duration::from_secs(1),
        ..ClusterConfig::default()
    };
    let sessions = Beside {
        resume_window: Duration::from_secs(60),
        noticed_after: Duration::from_secs(35),
        outbox_bytes_max: 256 << 10,
    };
    assert_eq!(config.faults(&sessions), Vec::<String>::new());
    config
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).expect("valid")
}

fn session(name: &str, n: usize) -> SessionId {
    SessionId::new(&node(name), n as u128)
}

async fn open(fabric: &Fabric, name: &str, config: ClusterConfig) -> Result<Arc<Nodes>, NodesError> {
    let parts = NodesParts {
        node: node(name),
        roles: vec!["edge".into()],
        version: "1.2.3".into(),
        endpoint: format!("ws://{name}.example/ws"),
        subjects: Subjects::new("trestle"),
        fabric: fabric.clone(),
        config,
        registry: &mut Metrics::default(),
    };
    Nodes::open(parts).await
}
