//! The pushes of one stream that are under way: begun in order, answered as they finish.
//!
//! The bound is the caller's: it reads the next push only when it has room for one more answer.

use std::sync::Arc;

use futures_util::{StreamExt as _, future::BoxFuture, poll, stream::FuturesUnordered};
use trestle_wire::{ServiceName, v1};

use crate::{Shared, push::Origin};

/// Pushes under way.
#[derive(Debug, Default)]
pub(crate) struct Window {
    under_way: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Window {
    /// Begins a push, and calls `answer` when it is done.
    ///
    /// It is polled once here: the bus's calls are made in the order of the stream, whatever finishes first.
    pub(crate) async fn begin(
        &mut self,
        shared: &Arc<Shared>,
        service: Option<ServiceName>,
        traceparent: Option<Arc<str>>,
        request: v1::PushStreamRequest,
        answer: impl FnOnce(v1::PushStreamResponse) + Send + 'static,
    ) {
        let shared = shared.clone();
        let mut push: BoxFuture<'static, ()> = Box::pin(async move {
            let v1::PushStreamRequest { seq, push, count } = request;
            let origin = Origin { service: service.as_ref(), traceparent: traceparent.as_deref() };
            let outcome = match shared.push(origin, push.unwrap_or_default(), count).await {
                Ok(report) => v1::push_stream_response::Outcome::Report(report),
                Err(refusal) => v1::push_stream_response::Outcome::Error(refusal.into()),
            };
            answer(v1::PushStreamResponse { seq, outcome: Some(outcome) });
        });
        if poll!(&mut push).is_pending() {
            self.under_way.push(push);
        }
    }

    /// Waits until one more is done. Never returns while there is none.
    pub(crate) async fn one_done(&mut self) {
        if self.under_way.next().await.is_none() {
            std::future::pending().await
        }
    }

    /// Waits until all are done.
    pub(crate) async fn all_done(&mut self) {
        while self.under_way.next().await.is_some() {}
    }

    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}
