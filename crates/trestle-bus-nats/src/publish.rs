//! Live messages on core NATS: [`Bus`].
//!
//! Always: what a subscription has not heard because of a break or because it was slow is told to it; a publish that
//! returned is on its way on a connection that stood when it was called.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use async_nats::{Request, RequestErrorKind, StatusCode, Subscriber, header};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use trestle_bus::{Bus, BusError, BusState, Ends, Feed, Message, Place, Subject, Subscription};

use crate::{jetstream::number, link::Link};

/// Messages that one subscription's task moves before it lets others run.
const AT_ONCE_MAX: usize = 256;

/// [`Bus`] on core NATS.
pub(crate) struct CoreBus(pub(crate) Arc<Link>);

fn native(subject: &Subject) -> async_nats::Subject {
    async_nats::Subject::from(subject.as_str())
}

impl Link {
    /// Waits for `send`, which waits only while the socket is full, but not beyond a break.
    async fn sent<E: std::fmt::Display>(&self, send: impl Future<Output = Result<(), E>>) -> Result<(), BusError> {
        let mut send = pin!(send);
        let sent = match send.as_mut().now_or_never() {
            Some(sent) => sent,
            None => {
                let mut breaks = self.breaks();
                self.check()?;
                tokio::select! {
                    sent = send => sent,
                    _ = breaks.changed() => return Err(BusError::Away),
                }
            }
        };
        sent.map_err(|error| match self.check() {
            Ok(()) => BusError::Refused(error.to_string()),
            Err(away) => away,
        })
    }
}

#[async_trait]
impl Bus for CoreBus {
    async fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.0.check()?;
        self.0.fits(&payload)?;
        self.0.sent(self.0.client.publish(native(subject), payload)).await
    }

    async fn publish_with_reply(&self, subject: &Subject, reply_to: &Subject, payload: Bytes) -> Result<(), BusError> {
        self.0.check()?;
        self.0.fits(&payload)?;
        self.0.sent(self.0.client.publish_with_reply(native(subject), native(reply_to), payload)).await
    }

    async fn subscribe(&self, pattern: &Subject, group: Option<&str>) -> Result<Subscription, BusError> {
        let link = &self.0;
        link.check()?;
        let subscribed = match group {
            Some(group) => link.client.queue_subscribe(native(pattern), group.to_owned()).await,
            None => link.client.subscribe(native(pattern)).await,
        };
        let subscriber = subscribed.map_err(|error| BusError::Refused(format!("{pattern}: {error}")))?;
        let alive = link.alive.lock().clone().ok_or(BusError::Away)?;
        let (stop, stopped) = oneshot::channel();
        let (weak, id) = (Arc::downgrade(link), link.next_id());
        let ends = Ends::with(move || {
            drop(stop);
            if let Some(link) = weak.upgrade() {
                link.forget(id);
            }
        });
        let (feed, subscription) =
            Subscription::bounded(link.config.queue_messages_max, link.config.queue_bytes_max, ends);
        link.remember(id, feed.clone());
        tokio::spawn(pump(subscriber, feed, stopped, link.closing.subscribe(), alive));
        link.barrier().await?;
        Ok(subscription)
    }

    async fn request(&self, subject: &Subject, payload: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        self.0.check()?;
        self.0.fits(&payload)?;
        let mut breaks = self.0.breaks();
        let request = Request::new().payload(payload).timeout(Some(wait));
        let answer = tokio::select! {
            answer = self.0.client.send_request(native(subject), request) => answer,
            _ = breaks.changed() => return Err(BusError::Away),
        };
        answer.map(|message| message.payload).map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => BusError::NoResponders(subject.clone()),
            RequestErrorKind::TimedOut => BusError::Timeout(wait),
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                BusError::Refused(error.to_string())
            }
            RequestErrorKind::Other => BusError::Away,
        })
    }

    async fn gather(
        &self,
        subject: &Subject,
        payload: Bytes,
        most: usize,
        quiet: Duration,
    ) -> Result<Vec<Bytes>, BusError> {
        self.0.check()?;
        self.0.fits(&payload)?;
        let mut breaks = self.0.breaks();
        let inbox = async_nats::Subject::from(self.0.client.new_inbox());
        let subscribed = self.0.client.subscribe(inbox.clone()).await;
        let mut heard = subscribed.map_err(|error| BusError::Refused(error.to_string()))?;
        self.0.sent(self.0.client.publish_with_reply(native(subject), inbox, payload)).await?;
        let mut answers = Vec::new();
        while answers.len() < most {
            let next = tokio::select! {
                next = timeout(quiet, heard.next()) => next,
                _ = breaks.changed() => return Err(BusError::Away),
            };
            match next {
                Ok(Some(message)) if message.status == Some(StatusCode::NO_RESPONDERS) => break,
                Ok(Some(message)) => answers.push(message.payload),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(answers)
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.0.signals.state.subscribe()
    }

    fn payload_bytes_max(&self) -> usize {
        self.0.payload_bytes_max()
    }

    fn nodes_max(&self) -> Option<usize> {
        None
    }

    async fn close(&self) {
        let link = &self.0;
        let was_connected = link.check().is_ok();
        if link.signals.state.send_replace(BusState::Closed) == BusState::Closed {
            return;
        }
        // The server answers in order: after the probe, all that was published is with it, and all that it had for us
        // is with the client.
        if was_connected && link.barrier.pass().await.is_none() {
            tracing::warn!("NATS was lost while closing: what was published last may not have arrived");
        }
        link.closing.send_replace(true);
        link.alive.lock().take();
        link.gone.lock().await.recv().await; // nobody sends: it ends with the last subscription's task
        if let Err(error) = link.client.drain().await {
            tracing::debug!(%error, "the NATS client had ended already");
        }
    }
}

/// Moves what one subscription hears into its queue, until either end is gone.
async fn pump(
    mut subscriber: Subscriber,
    feed: Feed,
    mut stopped: oneshot::Receiver<()>,
    mut closing: watch::Receiver<bool>,
    _alive: mpsc::Sender<()>,
) {
    loop {
        let first = tokio::select! {
            biased;
            _ = &mut stopped => return,
            message = subscriber.next() => message,
            _ = closing.wait_for(|closing| *closing) => None,
        };
        let Some(first) = first else { break };
        push(&feed, first);
        for _ in 1..AT_ONCE_MAX {
            let Some(Some(next)) = subscriber.next().now_or_never() else { break };
            push(&feed, next);
        }
    }
    feed.close();
}

fn push(feed: &Feed, message: async_nats::Message) {
    if message.status.is_some() {
        return; // a word of the server's to a client library, not a message
    }
    let place = |headers| {
        let offset = number(Some(headers), header::NATS_SEQUENCE)?;
        Some(Place { offset, previous: number(Some(headers), header::NATS_LAST_SEQUENCE)? })
    };
    feed.push(Message {
        subject: Subject::from_trusted(message.subject.as_str()),
        reply_to: message.reply.as_ref().map(|reply| Subject::from_trusted(reply.as_str())),
        place: message.headers.as_ref().and_then(place),
        payload: message.payload,
    });
}
