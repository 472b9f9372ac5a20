//! The gRPC and HTTP that services and operators use.
//!
//! | station | file | in -> out |
//! | --- | --- | --- |
//! | attach | `attach.rs`, `hello.rs`, `outgoing.rs` | a service's stream <-> its frames |
//! | serve | `serve.rs`, `stored.rs`, `live.rs` | subject -> an instance with room, under credit and deadline |
//! | choose | `pool.rs`, `service.rs`, `instance.rs`, `inflight.rs` | a delivery -> who gets it; what is unanswered |
//! | settle | `settle.rs`, `ticket.rs` | ack, nack, reply, cancel, loss -> bus |
//! | tell | `events.rs` | what happens to sessions -> one instance of each service that wants it |
//! | push | `push.rs`, `target.rs`, `window.rs`, `push_stream.rs` | push -> envelope -> subject |
//! | control | `control.rs` | groups, tags, kicks -> the nodes that hold the sessions |
//! | ask | `nodes.rs`, `sessions.rs`, `rebalance.rs` | operators' questions -> nodes -> one answer |
//! | answer | `grpc.rs`, `admin.rs`, `http.rs`, `status.rs` | calls of services and operators |
//! | run | `run.rs` | listener -> served, drained, closed |

mod admin;
mod attach;
mod config;
mod control;
mod events;
mod grpc;
mod hello;
mod http;
mod inflight;
mod instance;
mod live;
mod metrics;
mod nodes;
mod outgoing;
mod parcel;
mod pool;
mod push;
mod push_stream;
mod rebalance;
mod run;
mod serve;
mod service;
mod sessions;
mod settle;
pub mod status;
mod stored;
mod target;
mod ticket;
mod window;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use trestle_bus::Fabric;
use trestle_schema::Schemas;
use trestle_telemetry::Tracer;
use trestle_wire::{NodeId, Subjects};

pub use config::Config;
pub use nodes::Nodes;
pub use run::ServeError;

use crate::{metrics::Metrics, pool::InstanceId, service::Services, ticket::Tickets};

/// What a bridge is told about channels, when somebody pushes to one.
pub trait Channels: Send + Sync + 'static {
    /// The namespace of that name; `None` if none is configured.
    fn namespace(&self, name: &str) -> Option<NamespaceView>;
}

/// What the bridge has to know of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceView {
    /// Whether its channels keep their messages: a push is then appended to the log, and reports its offset.
    pub history: bool,
    /// Whether it is known who is on its channels.
    pub presence: bool,
}

/// What a [`Bridge`] is made of.
pub struct Parts<'a> {
    /// This node.
    pub node: NodeId,
    /// Makes the subjects of the bus.
    pub subjects: Subjects,
    /// The message types in use.
    pub schemas: Schemas,
    /// The bus.
    pub fabric: Fabric,
    /// Records spans.
    pub tracer: Tracer,
    /// Knows the channel namespaces.
    pub channels: Arc<dyn Channels>,
    /// Knows the nodes that live.
    pub nodes: Arc<dyn Nodes>,
    /// What the operator has set.
    pub config: Config,
    /// Gets the bridge's metrics.
    pub registry: &'a mut prometheus_client::registry::Registry,
}

/// The side of services and operators on one node. Cheap to clone; all clones are one bridge.
#[derive(Clone)]
pub struct Bridge(pub(crate) Arc<Shared>);

impl Bridge {
    /// A bridge that serves nobody yet: see [`Bridge::serve`] and [`Bridge::router`].
    #[must_use]
    pub fn new(parts: Parts<'_>) -> Self {
        let Parts { node, subjects, schemas, fabric, tracer, channels, nodes, config, registry } = parts;
        Self(Arc::new(Shared {
            node,
            subjects,
            schemas,
            fabric,
            tracer,
            channels,
            nodes,
            drain_deadline: Mutex::new(config.drain_deadline),
            config,
            metrics: Metrics::new(registry),
            services: Services::default(),
            tickets: Tickets::default(),
            instances: AtomicU64::new(1),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        }))
    }
}

/// What all stations of a bridge share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) subjects: Subjects,
    pub(crate) schemas: Schemas,
    pub(crate) fabric: Fabric,
    pub(crate) tracer: Tracer,
    pub(crate) channels: Arc<dyn Channels>,
    pub(crate) nodes: Arc<dyn Nodes>,
    pub(crate) config: Config,
    /// How long a drain waits for acks: [`Config::drain_deadline`], unless somebody knows better.
    pub(crate) drain_deadline: Mutex<Duration>,
    pub(crate) metrics: Metrics,
    pub(crate) services: Services,
    pub(crate) tickets: Tickets,
    instances: AtomicU64,
    /// Conversations, intakes and settlements.
    pub(crate) tasks: TaskTracker,
    /// Nothing new is taken in.
    pub(crate) draining: CancellationToken,
    /// The time to finish is over.
    pub(crate) closing: CancellationToken,
}

impl Shared {
    pub(crate) fn next_instance(&self) -> InstanceId {
        InstanceId(self.instances.fetch_add(1, Ordering::Relaxed))
    }
}
