//! NATS keeps the promise: the suite against a real nats-server, a fresh one for each test.

use trestle_bus::Fabric;
use trestle_bus_nats::{Nats, NatsConfig};
use trestle_testkit::NatsServer;

async fn on_nats() -> (Fabric, NatsServer) {
    let server = NatsServer::start().await.expect("nats-server starts");
    let config = NatsConfig { queue_messages_max: 8_000, ..NatsConfig::new(server.url()) };
    (Nats::connect(config).await.expect("connects"), server)
}

trestle_bus::promise_suite!(on_nats);
