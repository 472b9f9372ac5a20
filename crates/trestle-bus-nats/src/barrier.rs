//! A round trip that proves that the server has seen what was sent before it, shared by all who wait for one.
//!
//! Sending SUB and flushing proves nothing: the server may read it after another client's message. So a probe is sent
//! on the same connection, to ourselves; when it is back, everything before it is in force.

use std::time::Duration;

use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// Calls that wait to be taken up by the next probe; more wait outside.
const WAITING_MAX: usize = 1_024;

/// The way to the task that sends the probes.
pub(crate) struct Barrier(mpsc::Sender<oneshot::Sender<()>>);

impl Barrier {
    /// Starts the task. A probe is given up after `patience` and when `breaks` changes.
    pub(crate) async fn start(
        client: Client,
        patience: Duration,
        breaks: watch::Receiver<u64>,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = Subject::from(client.new_inbox());
        let probes = client.subscribe(inbox.clone()).await?;
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(probe(client, inbox, probes, waiting, patience, breaks));
        Ok(Self(sender))
    }

    /// Returns once the server has seen what was sent before this call; `None` if that cannot be said.
    pub(crate) async fn pass(&self) -> Option<()> {
        let (sender, passed) = oneshot::channel();
        self.0.send(sender).await.ok()?;
        passed.await.ok()
    }
}

async fn probe(
    client: Client,
    inbox: Subject,
    mut probes: Subscriber,
    mut waiting: mpsc::Receiver<oneshot::Sender<()>>,
    patience: Duration,
    mut breaks: watch::Receiver<u64>,
) {
    let mut number = 0_u64;
    while let Some(first) = waiting.recv().await {
        // Who asks while the probe is under way is not covered by it and waits for the next one.
        let mut covered = vec![first];
        while let Ok(next) = waiting.try_recv() {
            covered.push(next);
        }
        number += 1;
        let probe = Bytes::copy_from_slice(&number.to_be_bytes());
        breaks.mark_unchanged();
        let round_trip = timeout(patience, async {
            client.publish(inbox.clone(), probe.clone()).await.ok()?;
            // Those of probes that were given up may come before it.
            while probes.next().await?.payload != probe {}
            Some(())
        });
        let passed = tokio::select! {
            back = round_trip => back.ok().flatten(),
            _ = breaks.changed() => None,
        };
        if passed.is_some() {
            for waiting in covered {
                let _ = waiting.send(()); // who has gone does not wait any more
            }
        }
    }
}
