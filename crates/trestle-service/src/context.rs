//! What a handler knows of its delivery, and what it can do beside returning.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tonic::transport::Channel;
use trestle_wire::v1::{self, bridge_client::BridgeClient, service_frame::Frame};

use crate::{PushError, Target, Update, pending, pending::Pending, target};

/// One delivery, or one session event, for its handler. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context(Arc<Delivered>);

#[derive(Debug)]
struct Delivered {
    envelope: v1::Envelope,
    attempt: u32,
    deadline: Option<SystemTime>,
    cancelled: CancellationToken,
    traceparent: Option<String>,
    link: Link,
}

/// The stream on which a delivery came, for pushes, and its connection, for calls.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) say: mpsc::Sender<v1::ServiceFrame>,
    pub(crate) pending: Arc<Pending>,
    pub(crate) client: BridgeClient<Channel>,
}

impl Context {
    pub(crate) fn new(
        delivery: &v1::Delivery,
        envelope: v1::Envelope,
        cancelled: CancellationToken,
        traceparent: Option<String>,
        link: Link,
    ) -> Self {
        let deadline = delivery.deadline.and_then(|deadline| SystemTime::try_from(deadline).ok());
        Self(Arc::new(Delivered { envelope, attempt: delivery.attempt, deadline, cancelled, traceparent, link }))
    }

    /// The context of a session event: the session is its sender, and there is nothing to be done by a time.
    pub(crate) fn of_event(event: &v1::SessionEvent, cancelled: CancellationToken, link: Link) -> Self {
        let v1::SessionEvent { session_id, user, node, time, .. } = event.clone();
        let source = v1::Source { session: session_id, user, node, service: String::new() };
        let envelope = v1::Envelope { source: Some(source), time, ..v1::Envelope::default() };
        Self(Arc::new(Delivered { envelope, attempt: 1, deadline: None, cancelled, traceparent: None, link }))
    }

    /// The envelope, without its payload.
    #[must_use]
    pub fn envelope(&self) -> &v1::Envelope {
        &self.0.envelope
    }

    /// Who sent it, in the gateway's own words; empty fields where it is not known.
    #[must_use]
    pub fn sender(&self) -> &v1::Source {
        static NOBODY: v1::Source =
            v1::Source { session: String::new(), user: String::new(), node: String::new(), service: String::new() };
        self.0.envelope.source.as_ref().unwrap_or(&NOBODY)
    }

    /// From 1; more than 1 means that it may have been delivered before and was not acknowledged. With several gateway
    /// nodes it can also mean that another node took it, found no instance with room, and gave it back.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// When it comes again if it is not done; for requests, when the client stops waiting.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemTime> {
        self.0.deadline
    }

    /// Waits until nobody waits for the result any more: the client has gone, the deadline has passed, or the stream is
    /// lost. A handler may stop then; what it returns is not sent.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        self.0.cancelled.cancelled()
    }

    /// Whether nobody waits for the result any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }

    /// Pushes a message in the service's name, without counting who got it.
    ///
    /// # Errors
    /// [`PushError`] if it was refused, or is not known to have gone out.
    pub async fn push(
        &self,
        target: Target,
        message_type: &str,
        message: &impl prost::Message,
    ) -> Result<v1::PushReport, PushError> {
        self.send(target::push(target, message_type, message), false).await
    }

    /// As [`Context::push`]; the report says how many sessions took it.
    ///
    /// # Errors
    /// As [`Context::push`].
    pub async fn push_counted(
        &self,
        target: Target,
        message_type: &str,
        message: &impl prost::Message,
    ) -> Result<v1::PushReport, PushError> {
        self.send(target::push(target, message_type, message), true).await
    }

    /// Changes the groups and tags of the target's sessions; returns how many there are, once they have it.
    ///
    /// # Errors
    /// As [`Context::push`].
    pub async fn update(&self, target: Target, update: Update) -> Result<u32, PushError> {
        update.send(self.0.link.client.clone(), target).await
    }

    async fn send(&self, mut push: v1::PushRequest, count: bool) -> Result<v1::PushReport, PushError> {
        if let (Some(message), Some(traceparent)) = (&mut push.message, &self.0.traceparent) {
            message.headers.insert("traceparent".into(), traceparent.clone());
        }
        let link = &self.0.link;
        // Room first, so that the numbers are in the order of the stream.
        let room = link.say.reserve().await.map_err(|_| PushError::Lost)?;
        let (seq, answer) = link.pending.open(None).ok_or(PushError::Lost)?;
        let frame = Frame::Push(v1::PushStreamRequest { seq, push: Some(push), count });
        room.send(v1::ServiceFrame { frame: Some(frame) });
        pending::wait(answer).await
    }
}
