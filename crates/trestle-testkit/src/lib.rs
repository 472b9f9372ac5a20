//! Real servers, test clients, faults. For tests only.
//!
//! Nothing here is mocked: [`nats::NatsServer`] is a real nats-server, [`process::Gateway`] the real binary. What has to
//! be installed is, when a test first asks for it ([`provide()`]).

pub mod nats;
pub mod otel;
pub mod process;
pub mod provide;

pub use nats::NatsServer;
pub use otel::Collector;
pub use process::{Gateway, Process};
pub use provide::provide;
