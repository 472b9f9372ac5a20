//! The embedded bus keeps the promise, with logs in memory.

use trestle_bus::{
    Fabric,
    embedded::{Embedded, EmbeddedConfig},
};

async fn in_memory() -> (Fabric, ()) {
    let config = EmbeddedConfig { queue_messages_max: 8_000, ..EmbeddedConfig::default() };
    (Embedded::open(config).expect("opens"), ())
}

trestle_bus::promise_suite!(in_memory);
