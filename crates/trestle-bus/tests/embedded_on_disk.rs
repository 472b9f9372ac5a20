//! The embedded bus keeps the promise, with logs on disk.

use tempfile::TempDir;
use trestle_bus::{
    Fabric,
    embedded::{Embedded, EmbeddedConfig},
};

async fn on_disk() -> (Fabric, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = Some(folder.path().to_owned());
    let config = EmbeddedConfig { data_dir, queue_messages_max: 8_000, ..EmbeddedConfig::default() };
    (Embedded::open(config).expect("opens"), folder)
}

trestle_bus::promise_suite!(on_disk);
