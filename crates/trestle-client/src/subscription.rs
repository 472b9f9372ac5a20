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

use crate::{Error, Event, Typed, backlog::Backlog, client::Shared};

/// The messages of one channel, each once and in order, over as many connections as it takes. What is missing is told by
/// [`Event::Gap`]. A [`Stream`] that ends with the client; dropped, it leaves the channel.
pub struct Subscription {
    channel: String,
    subscribed: v1::Subscribed,
    backlog: Arc<Backlog<Event>>,
    /// `None` once it has left.
    shared: Option<Arc<Shared>>,
}

impl Subscription {
    pub(crate) fn new(channel: &str, backlog: Arc<Backlog<Event>>, shared: Arc<Shared>) -> Self {
        Self { channel: channel.to_owned(), subscribed: v1::Subscribed::default(), backlog, shared: Some(shared) }
    }

    pub(crate) fn joined(&mut self, subscribed: v1::Subscribed) {
        self.subscribed = subscribed;
    }

    /// It never came to be: no need to leave.
    pub(crate) fn forget(&mut self) {
        self.shared = None;
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

    /// Whether everything since the place that was asked for follows; if not, a gap says what is missing.
    #[must_use]
    pub fn recovered(&self) -> bool {
        self.subscribed.recovered
    }

    /// The next message or gap; `None` after the client has ended. Nothing is lost if this is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.backlog.poll_next(context)).await
    }

    /// [`next`](Self::next), with a message as one of type `M`.
    pub async fn next_as<M: prost::Message + prost::Name + Default>(&mut self) -> Option<Typed<M>> {
        self.next().await.map(Event::decode)
    }

    /// Leaves the channel and waits until the gateway says so.
    ///
    /// # Errors
    /// [`Error::Timeout`] and [`Error::Closed`]; the subscription is gone all the same.
    pub async fn unsubscribe(mut self) -> Result<(), Error> {
        match self.shared.take() {
            Some(shared) => shared.leave(std::mem::take(&mut self.channel), self.backlog.clone()).await,
            None => Ok(()),
        }
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.backlog.poll_next(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.let_go(std::mem::take(&mut self.channel), self.backlog.clone());
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// Messages pushed to this session, its user, its groups or everyone, and faults that belong to no frame. A [`Stream`] that ends
/// with the client.
pub struct Deliveries {
    backlog: Arc<Backlog<Event>>,
}

impl Deliveries {
    pub(crate) fn new(backlog: Arc<Backlog<Event>>) -> Self {
        Self { backlog }
    }

    /// The next one; `None` after the client has ended. Nothing is lost if this is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.backlog.poll_next(context)).await
    }
}

impl Stream for Deliveries {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.backlog.poll_next(context)
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").finish_non_exhaustive()
    }
}
