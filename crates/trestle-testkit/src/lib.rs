//! Real servers, test clients, faults. For tests only.
//!
//! Nothing here is mocked: [`nats::NatsServer`] is a real nats-server, [`cluster::NatsCluster`] three of them,
//! [`process::Gateway`] the real binary, [`cut::Cut`] a break between them. What has to be installed is, when a test
//! first asks for it ([`provide()`]).

pub mod cluster;
pub mod cut;
pub mod nats;
pub mod otel;
pub mod process;
pub mod provide;

pub use cluster::NatsCluster;
pub use cut::{Cut, CutMode};
pub use nats::NatsServer;
pub use otel::Collector;
pub use process::{Gateway, Process};
pub use provide::provide;
