//! Pushing from outside a handler: one at a time, or a stream of pushes with a window.

use std::{
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use trestle_wire::v1::{self, bridge_client::BridgeClient};

use crate::{
    PushError, ServiceError, Target, Update,
    pending::{Answer, Pending},
    run, target,
};

/// Pushes messages to clients. Cheap to clone; clones share a connection, which comes back by itself.
#[derive(Clone, Debug)]
pub struct Pusher {
    client: BridgeClient<Channel>,
}

impl Pusher {
    /// A pusher through the gateway at `endpoint`, which is connected to at the first push.
    ///
    /// # Errors
    /// [`ServiceError::Endpoint`] if it is not a URI.
    pub fn new(endpoint: &str) -> Result<Self, ServiceError> {
        Ok(Self { client: BridgeClient::new(run::endpoint(endpoint)?.connect_lazy()) })
    }

    /// Pushes one message; the report says who got it.
    ///
    /// # Errors
    /// [`PushError::Refused`] or [`PushError::Call`].
    pub async fn push(
        &self,
        target: Target,
        message_type: &str,
        message: &impl prost::Message,
    ) -> Result<v1::PushReport, PushError> {
        let push = target::push(target, message_type, message);
        let answer = self.client.clone().push(push).await?.into_inner();
        Ok(answer.report.unwrap_or_default())
    }

    /// Changes the groups and tags of the target's sessions; returns how many there are, once they have it.
    ///
    /// # Errors
    /// [`PushError::Refused`] or [`PushError::Call`].
    pub async fn update(&self, target: Target, update: Update) -> Result<u32, PushError> {
        update.send(self.client.clone(), target).await
    }

    /// Opens a stream of pushes, of which at most `window` are unanswered; 256 is what a gateway takes at once.
    ///
    /// # Errors
    /// [`PushError::Call`] if the gateway cannot be called.
    pub async fn stream(&self, window: usize) -> Result<PushStream, PushError> {
        let window = window.max(1);
        let (say, said) = mpsc::channel(window);
        let answers = self.client.clone().push_stream(ReceiverStream::new(said)).await?.into_inner();
        let pending = Arc::new(Pending::default());
        let reader = tokio::spawn(read(answers, pending.clone()));
        Ok(PushStream { say, pending, room: Arc::new(Semaphore::new(window)), reader })
    }
}

async fn read(mut answers: Streaming<v1::PushStreamResponse>, pending: Arc<Pending>) {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => pending.answered(answer),
            Ok(None) => break,
            Err(status) => {
                tracing::warn!(%status, "a stream of pushes broke");
                break;
            }
        }
    }
    pending.close();
}

/// A stream of pushes, which go out in the order of the calls.
#[derive(Debug)]
pub struct PushStream {
    say: mpsc::Sender<v1::PushStreamRequest>,
    pending: Arc<Pending>,
    room: Arc<Semaphore>,
    reader: tokio::task::JoinHandle<()>,
}

impl PushStream {
    /// Sends a push once there is room in the window; the receipt is its answer, and may be dropped.
    ///
    /// # Errors
    /// [`PushError::Lost`] once the stream has ended.
    pub async fn send(
        &mut self,
        target: Target,
        message_type: &str,
        message: &impl prost::Message,
    ) -> Result<Receipt, PushError> {
        let room = self.room.clone().acquire_owned().await.map_err(|_| PushError::Lost)?;
        let (seq, answer) = self.pending.open(Some(room)).ok_or(PushError::Lost)?;
        let push = Some(target::push(target, message_type, message));
        let request = v1::PushStreamRequest { seq, push, count: false };
        self.say.send(request).await.map_err(|_| PushError::Lost)?;
        Ok(Receipt(answer))
    }

    /// Ends the stream, and returns when everything sent has been answered.
    pub async fn finish(self) {
        drop(self.say);
        // The reader ends when the gateway does; a panic in it would have closed the pushes too.
        let _ = self.reader.await;
    }
}

/// The answer to a push, to be awaited.
#[derive(Debug)]
#[must_use = "a receipt says whether the push went out; drop it to not care"]
pub struct Receipt(oneshot::Receiver<Answer>);

impl Future for Receipt {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Answer> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(PushError::Lost)))
    }
}
