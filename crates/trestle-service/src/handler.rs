//! Handlers: what a service does with a message, whatever its type.

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use trestle_wire::v1;

use crate::Context;

/// How long before work comes again whose handler failed with an error of its own: it would most likely fail again.
const FAILED_DELAY: Duration = Duration::from_secs(1);

/// The work was not done: it comes again, here or at another instance; a request is answered with the error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Nack {
    /// Not before this has passed.
    pub delay: Duration,
    /// What the sender of a request is told; `UNAVAILABLE` if there is none.
    pub error: Option<v1::Error>,
}

impl Nack {
    /// Again at once, here or elsewhere.
    #[must_use]
    pub fn again() -> Self {
        Self::default()
    }

    /// Again after `delay`.
    #[must_use]
    pub fn later(delay: Duration) -> Self {
        Self { delay, error: None }
    }

    /// What the sender of a request is told: a class, a stable word for programs, a sentence for people.
    #[must_use]
    pub fn refuse(code: v1::Code, reason: impl Into<String>, message: impl Into<String>) -> Self {
        let error =
            v1::Error { code: code.into(), reason: reason.into(), message: message.into(), ..v1::Error::default() };
        Self { delay: FAILED_DELAY, error: Some(error) }
    }
}

/// So that `?` works in handlers. The error is logged here; clients do not see it.
impl<E: std::error::Error> From<E> for Nack {
    fn from(error: E) -> Self {
        tracing::warn!(%error, "a handler failed");
        Self::later(FAILED_DELAY)
    }
}

/// What comes out of a handler: nothing, or a reply.
pub(crate) type Outcome = Result<Option<v1::Envelope>, Nack>;

/// A handler, its types forgotten.
pub(crate) type Handler = Arc<dyn Fn(Context, v1::Envelope) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// A handler of messages.
pub(crate) fn of_messages<M, F, Fut>(handler: F) -> Handler
where
    M: prost::Message + Default + 'static,
    F: Fn(Context, M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Nack>> + Send + 'static,
{
    erased(handler, |()| None)
}

/// A handler of requests, whose answers are of type `reply_type`.
pub(crate) fn of_requests<M, R, F, Fut>(reply_type: String, handler: F) -> Handler
where
    M: prost::Message + Default + 'static,
    R: prost::Message + 'static,
    F: Fn(Context, M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Nack>> + Send + 'static,
{
    erased(handler, move |reply: R| {
        let payload = reply.encode_to_vec().into();
        Some(v1::Envelope { message_type: reply_type.clone(), payload, ..v1::Envelope::default() })
    })
}

fn erased<M, R, F, Fut>(handler: F, envelope: impl Fn(R) -> Option<v1::Envelope> + Send + Sync + 'static) -> Handler
where
    M: prost::Message + Default + 'static,
    R: 'static,
    F: Fn(Context, M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Nack>> + Send + 'static,
{
    let envelope = Arc::new(envelope);
    Arc::new(move |context, delivered: v1::Envelope| {
        let envelope = envelope.clone();
        match M::decode(delivered.payload) {
            Ok(message) => {
                let handled = handler(context, message);
                Box::pin(async move { handled.await.map(|reply| envelope(reply)) })
            }
            // The gateway checks payloads, so the two sides have different schemas.
            Err(error) => {
                tracing::error!(message_type = delivered.message_type, %error, "a delivery does not fit its handler's type");
                Box::pin(async { Err(Nack::later(FAILED_DELAY)) })
            }
        }
    })
}
