//! The conversation on one `PushStream`: pushes in, in order; answers out, each as soon as it is known.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use trestle_wire::v1;

use crate::{Shared, window::Window};

/// Reads until the caller ends the stream or the node drains; then finishes what was taken.
pub(crate) async fn converse(
    shared: Arc<Shared>,
    mut said: Streaming<v1::PushStreamRequest>,
    answers: mpsc::Sender<Result<v1::PushStreamResponse, Status>>,
    traceparent: Option<Arc<str>>,
) {
    let mut window = Window::default();
    let mut room = None;
    loop {
        tokio::select! {
            () = shared.draining.cancelled() => break,
            () = window.one_done() => {}
            reserved = answers.clone().reserve_owned(), if room.is_none() => match reserved {
                Ok(reserved) => room = Some(reserved),
                Err(_) => break, // the stream is not read any more
            },
            push = said.message(), if room.is_some() => match (push, room.take()) {
                (Ok(Some(push)), Some(room)) => {
                    let answer = move |pushed| drop(room.send(Ok(pushed)));
                    window.begin(&shared, None, traceparent.as_deref(), push, answer).await;
                }
                _ => break,
            },
        }
    }
    drop(room);
    window.all_done().await;
}
