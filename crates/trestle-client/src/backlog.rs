//! The bounded queue between the task that reads the socket and a program that may not be reading.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use trestle_wire::v1;

/// What waits in a backlog, and can be missing from it.
pub(crate) trait Item: Send + 'static {
    /// What is missing without this item.
    fn missing(&self) -> v1::Gap;
    /// The item that tells of it.
    fn gap(gap: v1::Gap) -> Self;
}

/// A queue for one reader. The writer never waits and the reader always learns what was not kept.
pub(crate) struct Backlog<T> {
    max: usize,
    state: Mutex<State<T>>,
    reader: AtomicWaker,
}

struct State<T> {
    queue: VecDeque<T>,
    /// What came after the queue and was not kept; its place is the end of the queue.
    missing: Option<v1::Gap>,
    ended: bool,
}

impl<T: Item> Backlog<T> {
    pub(crate) fn new(max: usize) -> Self {
        let state = State { queue: VecDeque::new(), missing: None, ended: false };
        Self { max, state: Mutex::new(state), reader: AtomicWaker::new() }
    }

    /// Puts `item` at the end, or counts it as missing when there is no room.
    pub(crate) fn offer(&self, item: T) {
        let mut state = self.state.lock();
        if state.ended {
            return;
        }
        let gap = state.missing.take();
        if state.queue.len() + usize::from(gap.is_some()) >= self.max {
            state.missing = Some(merge(gap, item.missing()));
        } else {
            state.queue.extend(gap.map(T::gap));
            state.queue.push_back(item);
        }
        drop(state);
        self.reader.wake();
    }

    /// Nothing comes any more; what is queued can still be read.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.reader.wake();
    }

    /// The next item; `None` after the end.
    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.reader.register(context.waker());
        let mut state = self.state.lock();
        let item = state.queue.pop_front().or_else(|| state.missing.take().map(T::gap));
        match item {
            Some(item) => Poll::Ready(Some(item)),
            None if state.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// Two neighbouring gaps as one. Offsets are known only if they are of one channel and both have them.
fn merge(before: Option<v1::Gap>, next: v1::Gap) -> v1::Gap {
    let Some(before) = before else { return next };
    let count = if before.count == 0 || next.count == 0 { 0 } else { before.count + next.count };
    if before.channel != next.channel {
        return v1::Gap { channel: String::new(), from: 0, to: 0, count, reason: before.reason };
    }
    let known = before.from != 0 && next.to != 0;
    v1::Gap { from: if known { before.from } else { 0 }, to: if known { next.to } else { 0 }, count, ..before }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::Event;

    fn message(offset: u64) -> Event {
        Event::Message(v1::Envelope { channel: "room:1".into(), offset, ..Default::default() })
    }

    fn gap(from: u64, to: u64, count: u64) -> Event {
        let reason = v1::GapReason::Slow.into();
        Event::Gap(v1::Gap { channel: "room:1".into(), from, to, count, reason })
    }

    async fn next(backlog: &Backlog<Event>) -> Option<Event> {
        poll_fn(|context| backlog.poll_next(context)).await
    }

    #[tokio::test]
    async fn what_had_no_room_is_told_in_its_place() {
        let backlog = Backlog::new(2);
        (1..=5).for_each(|offset| backlog.offer(message(offset)));
        assert_eq!(next(&backlog).await, Some(message(1)));
        assert_eq!(next(&backlog).await, Some(message(2)));
        backlog.offer(message(6)); // one place for the gap, one for this
        assert_eq!(next(&backlog).await, Some(gap(3, 5, 3)));
        assert_eq!(next(&backlog).await, Some(message(6)));
    }

    #[tokio::test]
    async fn a_gap_is_told_though_nothing_comes_after_it() {
        let backlog = Backlog::new(1);
        (1..=3).for_each(|offset| backlog.offer(message(offset)));
        backlog.end();
        backlog.offer(message(4));
        assert_eq!(next(&backlog).await, Some(message(1)));
        assert_eq!(next(&backlog).await, Some(gap(2, 3, 2)));
        assert_eq!(next(&backlog).await, None);
    }

    #[test]
    fn a_gap_of_unknown_size_stays_unknown() {
        let known = v1::Gap { channel: "a".into(), from: 3, to: 4, count: 2, reason: 1 };
        let unknown = v1::Gap { channel: "a".into(), reason: 1, ..Default::default() };
        assert_eq!(merge(Some(known.clone()), unknown.clone()), unknown);
        let elsewhere = v1::Gap { channel: "b".into(), ..known.clone() };
        let both = v1::Gap { count: 4, reason: 1, ..Default::default() };
        assert_eq!(merge(Some(known), elsewhere), both);
    }
}
