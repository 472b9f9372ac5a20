//! Pushes that wait for their answer, by their number on the stream.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use trestle_wire::v1::{self, push_stream_response::Outcome};

use crate::PushError;

/// The answer to one push.
pub(crate) type Answer = Result<v1::PushReport, PushError>;

/// The unanswered pushes of one stream.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    closed: bool,
    waiting: HashMap<u64, (oneshot::Sender<Answer>, Option<OwnedSemaphorePermit>)>,
}

impl Pending {
    /// Numbers a push. `room` is given back when its answer has come. `None` once the stream has ended.
    pub(crate) fn open(&self, room: Option<OwnedSemaphorePermit>) -> Option<(u64, oneshot::Receiver<Answer>)> {
        let mut state = self.0.lock();
        if state.closed {
            return None;
        }
        let (told, answer) = oneshot::channel();
        state.last += 1;
        let seq = state.last;
        state.waiting.insert(seq, (told, room));
        Some((seq, answer))
    }

    /// The answer to a push has come.
    pub(crate) fn answered(&self, response: v1::PushStreamResponse) {
        let Some((told, _room)) = self.0.lock().waiting.remove(&response.seq) else {
            return tracing::warn!(seq = response.seq, "an answer to a push that was not made");
        };
        let answer = match response.outcome {
            Some(Outcome::Report(report)) => Ok(report),
            Some(Outcome::Error(error)) => Err(PushError::Refused(error)),
            None => Err(PushError::Lost),
        };
        // Whoever pushed may not wait for it.
        let _ = told.send(answer);
    }

    /// The stream has ended: what waits is lost.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.waiting.clear();
    }
}

/// Waits for an answer.
pub(crate) async fn wait(answer: oneshot::Receiver<Answer>) -> Answer {
    answer.await.unwrap_or(Err(PushError::Lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_push_gets_its_own_answer_and_the_rest_is_lost_with_the_stream() {
        let pending = Pending::default();
        let (first, first_answer) = pending.open(None).expect("open");
        let (second, second_answer) = pending.open(None).expect("open");
        let (_, third_answer) = pending.open(None).expect("open");
        let report = v1::PushReport { offset: 7, ..v1::PushReport::default() };
        pending.answered(v1::PushStreamResponse { seq: second, outcome: Some(Outcome::Report(report)) });
        let error = v1::Error { reason: "bus_away".into(), ..v1::Error::default() };
        pending.answered(v1::PushStreamResponse { seq: first, outcome: Some(Outcome::Error(error)) });
        pending.answered(v1::PushStreamResponse { seq: 99, outcome: None });
        pending.close();
        assert_eq!(wait(second_answer).await.expect("reported"), report);
        assert!(matches!(wait(first_answer).await, Err(PushError::Refused(error)) if error.reason == "bus_away"));
        assert!(matches!(wait(third_answer).await, Err(PushError::Lost)));
        assert!(pending.open(None).is_none());
    }
}
