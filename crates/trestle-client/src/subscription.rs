//! What a program reads: the messages of a channel, and those pushed to it.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use trestle_wire::v1;

use crate::{Error, Event, client::Shared, inbox::Inbox};

/// The messages of one channel, in order. A [`Stream`] that ends with the connection; dropped, it leaves the channel.
pub struct Subscription {
    channel: String,
    subscribed: v1::Subscribed,
    inbox: Arc<Inbox<Event>>,
    /// `None` once it has left.
    shared: Option<Arc<Shared>>,
}

impl Subscription {
    pub(crate) fn new(channel: &str, inbox: Arc<Inbox<Event>>, shared: Arc<Shared>) -> Self {
        Self { channel: channel.to_owned(), subscribed: v1::Subscribed::default(), inbox, shared: Some(shared) }
    }

    pub(crate) fn joined(&mut self, subscribed: v1::Subscribed) {
        self.subscribed = subscribed;
    }

    /// It never came to be: no need to leave.
    pub(crate) fn forget(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.forget(&self.channel, &self.inbox);
        }
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// The offset at which listening began: the channel's last message at that time; 0 where it keeps no history.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.subscribed.offset
    }

    /// The next message or gap; `None` after the connection has ended. Nothing is lost if this is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.inbox.poll_next(context)).await
    }

    /// Leaves the channel and waits until the gateway says so.
    ///
    /// # Errors
    /// [`Error::Timeout`] and [`Error::Closed`]; the subscription is gone all the same.
    pub async fn unsubscribe(mut self) -> Result<(), Error> {
        let Some(shared) = self.shared.take() else { return Ok(()) };
        match shared.leave(&self.channel, &self.inbox).await? {
            Some(leaving) => shared.left(leaving).await,
            None => Ok(()),
        }
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.inbox.poll_next(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let (channel, inbox) = (std::mem::take(&mut self.channel), self.inbox.clone());
        let runtime = shared.runtime().clone();
        runtime.spawn(async move {
            // Nobody is there to be told, and waiting for the answer would keep the connection open.
            let _ = shared.leave(&channel, &inbox).await;
        });
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// Messages pushed to this session, its user or everyone, and faults that belong to no frame. A [`Stream`] that ends
/// with the connection.
pub struct Deliveries {
    inbox: Arc<Inbox<Event>>,
}

impl Deliveries {
    pub(crate) fn new(inbox: Arc<Inbox<Event>>) -> Self {
        Self { inbox }
    }

    /// The next one; `None` after the connection has ended. Nothing is lost if this is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.inbox.poll_next(context)).await
    }
}

impl Stream for Deliveries {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.inbox.poll_next(context)
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}
