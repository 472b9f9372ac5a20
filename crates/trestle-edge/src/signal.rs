//! What happens once to the node, and is waited for by every connection all its life.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A signal to everything on the node.
#[derive(Default)]
pub(crate) struct Signal {
    /// Looked at by each connection whenever it wakes, so not behind the token's lock.
    raised: AtomicBool,
    token: CancellationToken,
}

/// A task that waits for a signal.
pub(crate) type Waiting = Pin<Box<WaitForCancellationFutureOwned>>;

impl Signal {
    /// Raises it, for good.
    pub(crate) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Returns once it is raised.
    pub(crate) async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// As [`Signal::wait`], to be kept and polled.
    pub(crate) fn raised(&self) -> Waiting {
        Box::pin(self.token.clone().cancelled_owned())
    }

    /// The same for a task that has been kept waiting, or is from here on: it is listed once, and then only looks. `waiting`
    /// is of one task and one signal.
    pub(crate) fn poll(&self, waiting: &mut Option<Waiting>, context: &mut Context<'_>) -> Poll<()> {
        if self.raised.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if waiting.is_none() {
            let mut listed = self.raised();
            if listed.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            *waiting = Some(listed);
        }
        Poll::Pending
    }
}
