//! The pushes of one stream that are under way: those to one subject in their order, answered as they finish.
//!
//! A log stores what is polled first first ([`trestle_bus::Log::append`]), so stored pushes are all under way at once,
//! each polled as it comes; so are counted ones, which hand their message over in their first poll unless the bus is
//! full. Of other calls nothing tells when they have handed their message over, short of their end:
//! with a full channel or a spent budget a first poll may leave it where it was. So the next of them to a subject is
//! begun when the one before has ended; one with none before it is done at once, if the bus has room. The bound is the
//! caller's: it reads the next push only when it has room for one more answer.

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    sync::Arc,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, poll, stream::FuturesUnordered};
use tokio::{sync::mpsc::OwnedPermit, task::yield_now};
use tonic::{Status, Streaming};
use trestle_bus::Subject;
use trestle_wire::{Refusal, v1};

use crate::{Shared, push::Origin};

/// Room for one answer on a stream.
pub(crate) type Room<A> = OwnedPermit<Result<A, Status>>;

/// Most frames of a stream that are done in one go, so that others run between: about a millisecond.
const AT_ONCE_MAX: usize = 256;

/// Frames of one stream that are done one right after the other.
#[derive(Debug, Default)]
pub(crate) struct Burst(usize);

impl Burst {
    /// The next frame, if it has come already and there is room for an answer; none after many, so that others run first.
    pub(crate) async fn next<M, A>(
        &mut self,
        said: &mut Streaming<M>,
        room: &Option<Room<A>>,
    ) -> Option<Result<Option<M>, Status>> {
        self.0 += 1;
        if self.0 == AT_ONCE_MAX {
            yield_now().await;
            return None;
        }
        room.as_ref().and_then(|_| said.message().now_or_never())
    }
}

/// A push; its subject if others may be behind it.
type Push = BoxFuture<'static, Option<Subject>>;

/// Pushes under way.
#[derive(Default)]
pub(crate) struct Window {
    /// Those that are stored, and the first of each other subject.
    under_way: FuturesUnordered<Push>,
    /// Those behind it. A subject is here while one of it is under way.
    behind: HashMap<Subject, VecDeque<Push>>,
}

impl Window {
    /// Takes a push, and answers into `room` when it is done. It goes on while [`Window::one_done`] is waited for. Returns
    /// room for the next answer, if there is any now.
    pub(crate) async fn begin<A: Send + 'static>(
        &mut self,
        shared: &Arc<Shared>,
        origin: Origin<'_>,
        request: v1::PushStreamRequest,
        room: Room<A>,
        wrap: fn(v1::PushStreamResponse) -> A,
    ) -> Option<Room<A>> {
        let v1::PushStreamRequest { seq, push, count } = request;
        let answer = move |room: Room<A>, result| room.send(Ok(wrap(answer_of(seq, result))));
        let mut prepared = match shared.prepare(origin, push.unwrap_or_default()) {
            Ok(prepared) => prepared,
            Err(refusal) => return answer(room, Err(refusal)).try_reserve_owned().ok(),
        };
        let ordered = !prepared.is_stored() && !count;
        if ordered
            && !self.behind.contains_key(prepared.subject())
            && let Some(result) = shared.send_now(&mut prepared)
        {
            return answer(room, result).try_reserve_owned().ok();
        }
        let (shared, subject) = (shared.clone(), prepared.subject().clone());
        let push = async move { drop(answer(room, shared.send(prepared, count).await)) };
        // A counted one waits for all nodes; the stream's acks must not wait behind a row of those.
        if ordered {
            self.add(subject, push);
        } else {
            self.start(push).await;
        }
        None
    }

    /// Takes something whose order is that of the first polls. Does not wait.
    async fn start(&mut self, push: impl Future<Output = ()> + Send + 'static) {
        let mut push = push.map(|()| None).boxed();
        if poll!(&mut push).is_pending() {
            self.under_way.push(push);
        }
    }

    /// Takes something to be done after all that was taken for the same subject.
    fn add(&mut self, subject: Subject, push: impl Future<Output = ()> + Send + 'static) {
        let done = subject.clone();
        let push = push.map(move |()| Some(done)).boxed();
        match self.behind.get_mut(&subject) {
            Some(behind) => behind.push_back(push),
            None => {
                self.behind.insert(subject, VecDeque::new());
                self.under_way.push(push);
            }
        }
    }

    /// Waits until one more is done. Never returns while there is none. Safe to drop.
    pub(crate) async fn one_done(&mut self) {
        if !self.next().await {
            std::future::pending().await
        }
    }

    /// Waits until all are done.
    pub(crate) async fn all_done(&mut self) {
        while self.next().await {}
    }

    /// Whether none is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Waits until one is done and begins the one behind it; false if there is none.
    async fn next(&mut self) -> bool {
        let Some(done) = self.under_way.next().await else { return false };
        let Some(subject) = done else { return true };
        match self.behind.get_mut(&subject).and_then(VecDeque::pop_front) {
            Some(next) => self.under_way.push(next),
            None => drop(self.behind.remove(&subject)),
        }
        true
    }
}

fn answer_of(seq: u64, result: Result<v1::PushReport, Refusal>) -> v1::PushStreamResponse {
    let outcome = match result {
        Ok(report) => v1::push_stream_response::Outcome::Report(report),
        Err(refusal) => v1::push_stream_response::Outcome::Error(refusal.into()),
    };
    v1::PushStreamResponse { seq, outcome: Some(outcome) }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::sync::oneshot;

    use super::*;

    type Done = Arc<Mutex<Vec<&'static str>>>;

    /// A push that does not get far at first: it has handed nothing over when it is polled for the first time.
    fn push(done: &Done, name: &'static str) -> (oneshot::Sender<()>, impl Future<Output = ()> + Send + use<>) {
        let (let_go, waits) = oneshot::channel();
        let done = done.clone();
        let push = async move {
            waits.await.expect("let go");
            done.lock().push(name);
        };
        (let_go, push)
    }

    #[tokio::test]
    async fn a_push_that_is_held_up_is_not_overtaken_by_the_next_to_the_same_subject() {
        let done = Done::default();
        let mut window = Window::default();
        let (first_room, second_room) = (Subject::from_trusted("room.1"), Subject::from_trusted("room.2"));
        let (let_first, first) = push(&done, "first");
        let (let_second, second) = push(&done, "second");
        let (let_other, other) = push(&done, "other room");
        window.add(first_room.clone(), first);
        window.add(first_room.clone(), second);
        window.add(second_room, other);
        let_second.send(()).expect("waits");
        let_other.send(()).expect("waits");
        window.one_done().await;
        assert!(window.next().now_or_never().is_none(), "the second has to wait for the first");
        assert_eq!(*done.lock(), ["other room"]);
        let_first.send(()).expect("waits");
        window.all_done().await;
        assert_eq!(*done.lock(), ["other room", "first", "second"]);
        assert!(window.is_empty() && window.behind.is_empty());
    }

    #[tokio::test]
    async fn stored_pushes_are_polled_in_their_order_and_wait_for_none_before_them() {
        let (polled, done) = (Done::default(), Done::default());
        let mut window = Window::default();
        let mut waiting = Vec::new();
        for name in ["first", "second"] {
            let (let_go, push) = push(&done, name);
            let polled = polled.clone();
            window
                .start(async move {
                    polled.lock().push(name);
                    push.await;
                })
                .await;
            waiting.push(let_go);
        }
        assert_eq!(*polled.lock(), ["first", "second"]);
        waiting.pop().expect("the second").send(()).expect("waits");
        window.one_done().await;
        assert_eq!(*done.lock(), ["second"]);
        waiting.pop().expect("the first").send(()).expect("waits");
        window.all_done().await;
        assert_eq!(*done.lock(), ["second", "first"]);
    }

    #[tokio::test]
    async fn a_subject_that_was_done_can_be_pushed_to_again() {
        let done = Done::default();
        let mut window = Window::default();
        for name in ["one", "two"] {
            let (let_go, push) = push(&done, name);
            let_go.send(()).expect("waits");
            window.add(Subject::from_trusted("room.1"), push);
            window.one_done().await;
        }
        assert_eq!(*done.lock(), ["one", "two"]);
    }
}
