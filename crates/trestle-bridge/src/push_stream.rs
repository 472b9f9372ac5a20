//! The conversation on one `PushStream`: pushes in, in order; answers out, each as soon as it is known.

use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::{sync::mpsc, task::yield_now};
use tonic::{Status, Streaming};
use trestle_wire::v1;

use crate::{
    Shared,
    push::Origin,
    window::{Room, Window},
};

/// Most frames of a stream that are done in one go, so that others run between: about a millisecond.
pub(crate) const AT_ONCE_MAX: usize = 256;

/// Reads until the caller ends the stream or the node drains; then finishes what was taken.
pub(crate) async fn converse(
    shared: Arc<Shared>,
    mut said: Streaming<v1::PushStreamRequest>,
    answers: mpsc::Sender<Result<v1::PushStreamResponse, Status>>,
    traceparent: Option<Arc<str>>,
) {
    let origin = Origin { service: None, traceparent: traceparent.as_deref() };
    let mut window = Window::default();
    let mut room: Option<Room<v1::PushStreamResponse>> = None;
    'conversation: loop {
        tokio::select! {
            () = shared.draining.cancelled() => break,
            () = window.one_done() => {}
            reserved = answers.clone().reserve_owned(), if room.is_none() => match reserved {
                Ok(reserved) => room = Some(reserved),
                Err(_) => break, // the stream is not read any more
            },
            push = said.message(), if room.is_some() => {
                let mut next = Some(push);
                for left in (0..AT_ONCE_MAX).rev() {
                    let (Some(push), Some(taken)) = (next.take(), room.take()) else { break };
                    let Ok(Some(push)) = push else { break 'conversation };
                    room = window.begin(&shared, origin, push, taken, |pushed| pushed).await;
                    match left {
                        0 => yield_now().await,
                        _ => next = room.as_ref().and_then(|_| said.message().now_or_never()),
                    }
                }
            }
        }
    }
    drop(room);
    window.all_done().await;
}
