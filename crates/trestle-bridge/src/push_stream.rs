//! The conversation on one `PushStream`: pushes in, in order; answers out, each as soon as it is known.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use trestle_wire::v1;

use crate::{
    Shared,
    push::Origin,
    window::{Burst, Room, Window},
};

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
                let (mut next, mut burst) = (Some(push), Burst::default());
                while let Some(push) = next {
                    let (Ok(Some(push)), Some(taken)) = (push, room.take()) else { break 'conversation };
                    room = window.begin(&shared, origin, push, taken, |pushed| pushed).await;
                    next = burst.next(&mut said, &room).await;
                }
            }
        }
    }
    drop(room);
    window.all_done().await;
}
