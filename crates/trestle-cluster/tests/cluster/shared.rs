//! The embedded bus as one that several nodes share, and that can lose what a node publishes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use trestle_bus::{Bus, BusError, BusState, Fabric, Subject, Subscription};

/// One node's way to a bus.
pub(crate) struct Shared {
    bus: Arc<dyn Bus>,
    mute: Arc<AtomicBool>,
}

impl Shared {
    /// `fabric` as one node has it, and whether what it publishes is lost.
    pub(crate) fn fabric(fabric: &Fabric) -> (Fabric, Arc<AtomicBool>) {
        let mute = Arc::new(AtomicBool::new(false));
        let bus = Self { bus: Arc::clone(&fabric.bus), mute: Arc::clone(&mute) };
        (Fabric { bus: Arc::new(bus), ..fabric.clone() }, mute)
    }
}

#[async_trait]
impl Bus for Shared {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        if self.mute.load(Ordering::SeqCst) { Ok(()) } else { self.bus.publish(subject, payload).await }
    }

    async fn publish_with_reply(&self, subject: &Subject, reply_to: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.bus.publish_with_reply(subject, reply_to, payload).await
    }

    async fn subscribe(&self, pattern: &Subject, group: Option<&str>) -> Result<Subscription, BusError> {
        self.bus.subscribe(pattern, group).await
    }

    async fn request(&self, subject: &Subject, payload: Bytes, timeout: Duration) -> Result<Bytes, BusError> {
        self.bus.request(subject, payload, timeout).await
    }

    async fn gather(
        &self,
        subject: &Subject,
        payload: Bytes,
        most: usize,
        quiet: Duration,
    ) -> Result<Vec<Bytes>, BusError> {
        self.bus.gather(subject, payload, most, quiet).await
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.bus.state()
    }

    fn payload_bytes_max(&self) -> usize {
        self.bus.payload_bytes_max()
    }

    /// Not known, as on any bus that processes share.
    fn nodes_max(&self) -> Option<usize> {
        None
    }

    async fn close(&self) {
        self.bus.close().await;
    }
}
