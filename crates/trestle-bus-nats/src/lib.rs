//! Keeps that promise on NATS and JetStream.
//!
//! Live messages are core NATS, logs are JetStream streams, keys are a JetStream bucket, all on one connection. What is
//! beyond the traits: a publish that returned is not a promise if the server dies at that moment (only
//! [`Log::append`](trestle_bus::Log::append) is); after a break every subscription hears
//! [`Heard::Lost(0)`](trestle_bus::Heard::Lost); an append is in the page cache of `replicas` servers, not flushed,
//! unless the servers run with `sync_interval: always`.

mod barrier;
mod config;
mod connect;
mod connections;
mod consumer;
mod jetstream;
mod kv;
mod link;
mod log;
mod publish;
mod reading;

use std::sync::{Arc, atomic::Ordering};

pub use config::{NatsConfig, TlsFiles};
pub use connect::NatsError;
use trestle_bus::Fabric;

use crate::{
    barrier::Barrier,
    connections::Connections,
    kv::BucketKv,
    link::{Link, Signals},
    log::StreamLog,
    publish::CoreBus,
};

/// The bus on NATS.
pub struct Nats;

impl Nats {
    /// Connects, trying for as long as the configuration says.
    ///
    /// # Errors
    /// [`NatsError`] names the servers and says what went wrong last.
    pub async fn connect(config: NatsConfig) -> Result<Fabric, NatsError> {
        let signals = Signals::new();
        let client = connect::connect(&config, &signals).await?;
        let connections = Connections::new(client.statistics().connects.load(Ordering::Relaxed));
        let broke = || NatsError::Broke { url: config.shown_url() };
        let barrier = Barrier::start(client.clone(), config.request_timeout, signals.breaks.subscribe()).await;
        let barrier = barrier.map_err(|_| broke())?;
        barrier.pass().await.ok_or_else(broke)?;
        let link = Link::new(client, config, signals, barrier);
        link.signals.restored(0, 1);
        tokio::spawn(Link::supervise(Arc::downgrade(&link), link.signals.clone(), connections));
        Ok(Fabric {
            bus: Arc::new(CoreBus(link.clone())),
            log: Arc::new(StreamLog(link.clone())),
            kv: Arc::new(BucketKv::new(link)),
        })
    }
}
