//! The bounded queue between a bus and one subscription.
//!
//! In: messages, from any thread, never waiting. Out: [`Heard`], to the one who owns the [`Subscription`].
//! Always: what does not fit is counted at the very place where it is missing, and the count is heard there.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    task::{Poll, Waker},
};

use parking_lot::{Mutex, MutexGuard};

use crate::{Heard, Message};

/// A queue that once held more than this gives its memory back when it has been emptied.
const KEPT_MAX: usize = 64;

/// The bus's end of a [`Subscription`]. Cheap to clone; [`Feed::close`] ends the subscription.
#[derive(Clone)]
pub struct Feed(Arc<Queue>);

/// A subscription; dropping it ends it.
pub struct Subscription {
    queue: Arc<Queue>,
    _ends: Ends,
}

struct Queue {
    messages_max: usize,
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    heard: VecDeque<Heard>,
    messages: usize,
    bytes: usize,
    waker: Option<Waker>,
    closed: bool,
}

impl Subscription {
    /// A subscription that holds at most `messages_max` messages and `bytes_max` bytes of payload, and at least one
    /// message; and the end that feeds it. `ends` runs when the subscription is dropped.
    #[must_use]
    pub fn bounded(messages_max: usize, bytes_max: usize, ends: Ends) -> (Feed, Self) {
        let queue = Arc::new(Queue { messages_max: messages_max.max(1), bytes_max, state: Mutex::default() });
        (Feed(queue.clone()), Self { queue, _ends: ends })
    }

    /// The next message; `None` when the bus is closed and all that came before has been taken. Safe to drop.
    pub async fn next(&mut self) -> Option<Heard> {
        std::future::poll_fn(|context| {
            let mut state = self.queue.state.lock();
            match state.take() {
                Some(heard) => Poll::Ready(Some(heard)),
                None if state.closed => Poll::Ready(None),
                None => {
                    match &mut state.waker {
                        Some(waker) => waker.clone_from(context.waker()),
                        none => *none = Some(context.waker().clone()),
                    }
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next message if it is there already.
    pub fn try_next(&mut self) -> Option<Heard> {
        self.queue.state.lock().take()
    }
}

impl Feed {
    /// Gives `message` to the subscription, or counts it as lost when there is no room.
    pub fn push(&self, message: Message) {
        let queue = &*self.0;
        let mut state = queue.state.lock();
        let bytes = message.payload.len();
        let room = state.messages < queue.messages_max && state.bytes + bytes <= queue.bytes_max;
        if room || (state.messages == 0 && !state.closed) {
            state.messages += 1;
            state.bytes += bytes;
            state.heard.push_back(Heard::Message(message));
        } else {
            state.lose(1);
        }
        wake(state);
    }

    /// Tells the subscription that `count` messages were lost here; 0 when that is not known.
    pub fn lost(&self, count: u64) {
        let mut state = self.0.state.lock();
        state.lose(count);
        wake(state);
    }

    /// Ends the subscription after what it holds.
    pub fn close(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        wake(state);
    }
}

impl State {
    fn take(&mut self) -> Option<Heard> {
        let heard = self.heard.pop_front();
        if let Some(Heard::Message(message)) = &heard {
            self.messages -= 1;
            self.bytes -= message.payload.len();
        }
        if self.heard.is_empty() && self.heard.capacity() > KEPT_MAX {
            self.heard = VecDeque::new();
        }
        heard
    }

    /// One entry however many are lost in a row, so that it needs no room of its own. Unknown swallows known.
    fn lose(&mut self, count: u64) {
        match self.heard.back_mut() {
            Some(Heard::Lost(lost)) => *lost = if *lost == 0 || count == 0 { 0 } else { *lost + count },
            _ => self.heard.push_back(Heard::Lost(count)),
        }
    }
}

/// Wakes who waits, after letting go of what it will want to lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// Runs when a subscription is dropped.
pub struct Ends(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Ends {
    /// Calls `end` on drop.
    #[must_use]
    pub fn with(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(end)))
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

impl fmt::Debug for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ends")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use trestle_wire::Subject;

    use super::*;

    fn message(payload: &'static str) -> Message {
        let subject = Subject::from_trusted("s");
        Message { subject, reply_to: None, payload: Bytes::from_static(payload.as_bytes()), place: None }
    }

    fn heard(subscription: &mut Subscription) -> Vec<String> {
        std::iter::from_fn(|| subscription.try_next())
            .map(|heard| match heard {
                Heard::Message(message) => String::from_utf8_lossy(&message.payload).into_owned(),
                Heard::Lost(count) => format!("lost {count}"),
            })
            .collect()
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_where_it_is_missing() {
        let (feed, mut subscription) = Subscription::bounded(2, 100, Ends::with(|| ()));
        for payload in ["a", "b", "c", "d"] {
            feed.push(message(payload));
        }
        assert_eq!(heard(&mut subscription), ["a", "b", "lost 2"]);
        feed.push(message("e"));
        assert_eq!(heard(&mut subscription), ["e"]);
        feed.close();
        assert!(subscription.next().await.is_none());
    }

    #[test]
    fn bytes_are_bounded_too_but_one_message_always_fits() {
        let (feed, mut subscription) = Subscription::bounded(10, 4, Ends::with(|| ()));
        feed.push(message("12345"));
        feed.push(message("6"));
        assert_eq!(heard(&mut subscription), ["12345", "lost 1"]);
    }

    #[test]
    fn an_unknown_loss_stays_unknown() {
        let (feed, mut subscription) = Subscription::bounded(1, 100, Ends::with(|| ()));
        feed.lost(3);
        feed.lost(0);
        feed.lost(2);
        assert_eq!(heard(&mut subscription), ["lost 0"]);
    }
}
