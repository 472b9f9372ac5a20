//! A user's inbox: what waits there until some device of the user has acked it.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use trestle_wire::v1::{self, client_frame::Frame as Ask};

use crate::{Error, Event, Subscription, Typed, client::Shared};

/// The messages of the user's inbox, in order. A [`Stream`] that ends with the client.
///
/// Each comes at least once to some device of the user: it comes again, to this or another one, until it is acked.
///
/// ```no_run
/// # use trestle_client::{Client, Error, Event};
/// # async fn example(client: Client) -> Result<(), Error> {
/// let mut inbox = client.inbox().await?;
/// while let Some(event) = inbox.next().await {
///     if let Event::Message(message) = event {
///         println!("{}", message.message_type);
///         inbox.ack(message.offset).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Inbox {
    subscription: Subscription,
    shared: Arc<Shared>,
}

impl Inbox {
    pub(crate) fn new(subscription: Subscription, shared: Arc<Shared>) -> Self {
        Self { subscription, shared }
    }

    /// The next message or gap; `None` after the client has ended. Nothing is lost if this is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.subscription.next().await
    }

    /// [`next`](Self::next), with a message as one of type `M`.
    pub async fn next_as<M: prost::Message + prost::Name + Default>(&mut self) -> Option<Typed<M>> {
        self.subscription.next_as().await
    }

    /// The user is done with everything up to this offset: no device of the user gets it again. Repeated until the gateway
    /// has taken it or [`Options::retry_for`](crate::Options::retry_for) is over.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Timeout`] and [`Error::Closed`]: it may come again.
    pub async fn ack(&self, offset: u64) -> Result<(), Error> {
        let ack = v1::ClientAck { received: 0, inbox_offset: offset };
        self.shared.ask(Ask::Ack(ack)).await.map(|_| ())
    }

    /// Listens to it no longer; what was not acked stays.
    ///
    /// # Errors
    /// As [`Subscription::unsubscribe`].
    pub async fn unsubscribe(self) -> Result<(), Error> {
        self.subscription.unsubscribe().await
    }
}

impl Stream for Inbox {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        Pin::new(&mut self.subscription).poll_next(context)
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}
