//! Live messages in this process: [`Bus`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{sync::watch, time::timeout};
use trestle_wire::Subject;

use super::{EmbeddedConfig, facts::Facts, index::Index, stored::Stored};
use crate::{Bus, BusError, BusState, Ends, Heard, Message, Place, Subscription, pattern};

/// The live part of an embedded bus.
pub(super) struct Live {
    index: Index,
    ids: AtomicU64,
    state: watch::Sender<BusState>,
    /// The same as a flag, for every publish to look at.
    closed: AtomicBool,
    config: EmbeddedConfig,
}

impl Live {
    pub(super) fn new(config: EmbeddedConfig) -> Arc<Self> {
        let state = watch::Sender::new(BusState::Connected(1));
        Arc::new(Self { index: Index::new(), ids: AtomicU64::new(1), state, closed: AtomicBool::new(false), config })
    }

    pub(super) fn is_open(&self) -> Result<(), BusError> {
        if self.closed.load(Ordering::Acquire) { Err(BusError::Away) } else { Ok(()) }
    }

    pub(super) fn fits(&self, payload: &Bytes) -> Result<(), BusError> {
        let (bytes, max) = (payload.len(), self.config.payload_bytes_max);
        if bytes > max { Err(BusError::TooLarge { bytes, max }) } else { Ok(()) }
    }

    /// Delivers to who listens now and says to how many.
    fn send(&self, subject: &Subject, reply_to: Option<&Subject>, payload: Bytes) -> Result<usize, BusError> {
        self.is_open()?;
        self.fits(&payload)?;
        let message = Message { subject: subject.clone(), reply_to: reply_to.cloned(), payload, place: None };
        Ok(self.index.deliver(&message))
    }

    /// Delivers what a log has stored.
    pub(super) fn republish(&self, subject: Subject, payload: Bytes, place: Place) {
        self.index.deliver(&Message { subject, reply_to: None, payload, place: Some(place) });
    }

    fn listen(self: &Arc<Self>, at: &Subject, group: Option<&str>, messages_max: usize) -> Subscription {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (live, removed) = (Arc::downgrade(self), at.clone());
        let ends = Ends::with(move || {
            if let Some(live) = live.upgrade() {
                live.index.remove(&removed, id);
            }
        });
        let (feed, subscription) = Subscription::bounded(messages_max, self.config.queue_bytes_max, ends);
        self.index.add(at, group, id, feed.clone());
        if self.is_open().is_err() {
            feed.close(); // closed in between: the index was emptied before this one came
        }
        subscription
    }

    /// A subject of its own for one question, and what is heard there.
    fn inbox(self: &Arc<Self>, answers_max: usize) -> (Subject, Subscription) {
        let inbox = Subject::from_trusted(format!("_INBOX.{:016x}", fastrand::u64(..)));
        let subscription = self.listen(&inbox, None, answers_max);
        (inbox, subscription)
    }

    pub(super) fn state(&self) -> watch::Receiver<BusState> {
        self.state.subscribe()
    }

    /// A log's disk has failed: the bus counts as away until the process begins again, so that the node is not ready.
    /// Live messages go on for those who are still here.
    pub(super) fn fail(&self) {
        self.state.send_if_modified(|state| {
            let open = matches!(state, BusState::Connected(_));
            if open {
                *state = BusState::Away;
            }
            open
        });
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.state.send_replace(BusState::Closed);
        self.index.close();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.index.close();
    }
}

/// [`Bus`] in this process. Closing it closes the logs and the keys too.
pub(super) struct LiveBus {
    pub(super) live: Arc<Live>,
    pub(super) facts: Arc<Facts>,
    pub(super) stored: Arc<Stored>,
}

#[async_trait]
impl Bus for LiveBus {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.live.send(subject, None, payload).map(|_| ())
    }

    async fn publish_with_reply(&self, subject: &Subject, reply_to: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.live.send(subject, Some(reply_to), payload).map(|_| ())
    }

    async fn subscribe(&self, pattern: &Subject, group: Option<&str>) -> Result<Subscription, BusError> {
        self.live.is_open()?;
        if !pattern::is_valid(pattern.as_str(), true) {
            return Err(BusError::Refused(format!("{pattern:?} is not a pattern")));
        }
        Ok(self.live.listen(pattern, group, self.live.config.queue_messages_max))
    }

    async fn request(&self, subject: &Subject, payload: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        let (inbox, mut answers) = self.live.inbox(1);
        if self.live.send(subject, Some(&inbox), payload)? == 0 {
            return Err(BusError::NoResponders(subject.clone()));
        }
        match timeout(wait, answers.next()).await {
            Ok(Some(Heard::Message(answer))) => Ok(answer.payload),
            Ok(_) => Err(BusError::Away),
            Err(_) => Err(BusError::Timeout(wait)),
        }
    }

    async fn gather(
        &self,
        subject: &Subject,
        payload: Bytes,
        most: usize,
        quiet: Duration,
    ) -> Result<Vec<Bytes>, BusError> {
        let (inbox, mut heard) = self.live.inbox(self.live.config.queue_messages_max);
        let mut answers = Vec::new();
        if self.live.send(subject, Some(&inbox), payload)? == 0 {
            return Ok(answers);
        }
        while answers.len() < most {
            match timeout(quiet, heard.next()).await {
                Ok(Some(Heard::Message(answer))) => answers.push(answer.payload),
                Ok(Some(Heard::Lost(_))) => {}
                Ok(None) | Err(_) => break,
            }
        }
        Ok(answers)
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.live.state()
    }

    fn payload_bytes_max(&self) -> usize {
        self.live.config.payload_bytes_max
    }

    fn nodes_max(&self) -> Option<usize> {
        Some(1)
    }

    async fn close(&self) {
        self.live.close();
        self.facts.close().await;
        self.stored.close().await; // last, as it gives the data directory back
    }
}
