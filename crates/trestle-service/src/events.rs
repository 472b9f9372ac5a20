//! Session events: told one after the other to the service's handler, in the order in which they came.

use std::{future::Future, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use trestle_wire::v1;

use crate::{Context, context::Link};

/// Events that may wait for the handler; more are lost, as they are when no instance is attached. 1024 of 200 bytes are
/// 200 KiB.
const EVENTS_MAX: usize = 1024;

/// A handler of session events.
pub(crate) type Listener = Arc<dyn Fn(Context, v1::SessionEvent) -> BoxFuture<'static, ()> + Send + Sync>;

/// A handler, its type forgotten.
pub(crate) fn listener<F, Fut>(handler: F) -> Listener
where
    F: Fn(Context, v1::SessionEvent) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Arc::new(move |context, event| Box::pin(handler(context, event)))
}

/// The queue of one stream's events. When it is dropped, the handler still gets what is in it.
pub(crate) struct Events {
    queue: mpsc::Sender<v1::SessionEvent>,
    task: JoinHandle<()>,
    /// Tells the handler that the stream is lost.
    _cancels: DropGuard,
}

impl Events {
    /// Runs `listener` for what is put in, one event after the other.
    pub(crate) fn start(listener: Listener, link: Link) -> Self {
        let (queue, mut events) = mpsc::channel(EVENTS_MAX);
        let cancelled = CancellationToken::new();
        let lost = cancelled.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let context = Context::of_event(&event, lost.clone(), link.clone());
                // A task of its own: a panic in one event must not end those behind it.
                if let Err(error) = tokio::spawn(listener(context, event)).await {
                    tracing::error!(%error, "a handler of session events broke down");
                }
            }
        });
        Self { queue, task, _cancels: cancelled.drop_guard() }
    }

    /// Puts an event in; one without room is lost.
    pub(crate) fn tell(&self, event: v1::SessionEvent) {
        if self.queue.try_send(event).is_err() {
            tracing::warn!("a session event is lost: the handler does not keep up");
        }
    }

    /// Returns when the handler is done with all that was put in.
    pub(crate) async fn finish(self) {
        let Self { queue, task, _cancels } = self;
        drop(queue);
        // It does not panic: the handlers, which may, are tasks of their own.
        let _ = task.await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trestle_wire::v1::bridge_client::BridgeClient;

    use super::*;

    fn link() -> Link {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        Link { say: mpsc::channel(1).0, pending: Arc::default(), client: BridgeClient::new(channel) }
    }

    fn event(session: &str) -> v1::SessionEvent {
        v1::SessionEvent { session_id: session.into(), user: "ann".into(), ..v1::SessionEvent::default() }
    }

    #[tokio::test]
    async fn events_are_handled_in_their_order_and_a_panic_costs_only_its_own() {
        let (done, mut handled) = mpsc::channel(8);
        let events = Events::start(
            listener(move |context: Context, event| {
                let done = done.clone();
                async move {
                    assert_ne!(event.session_id, "2", "the handler of the second one breaks down");
                    let sender = context.sender().clone();
                    done.send((event.session_id, sender.session, sender.user)).await.expect("room");
                }
            }),
            link(),
        );
        for session in ["1", "2", "3"] {
            events.tell(event(session));
        }
        for session in ["1", "3"] {
            let next = tokio::time::timeout(Duration::from_secs(10), handled.recv()).await.expect("soon");
            assert_eq!(next, Some((session.into(), session.into(), "ann".into())));
        }
        events.finish().await;
        assert_eq!(handled.recv().await, None, "the handler is gone, and what it held");
    }
}
