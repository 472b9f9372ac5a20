//! Resumes that are under way on this node.
//!
//! What always holds: of one session one goes on at a time; a client that has come again, here or on another node, is not
//! overtaken by a resume that it has given up.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use trestle_wire::SessionId;

/// The resumes that are under way, by their sessions.
#[derive(Default)]
pub(crate) struct Coming(Mutex<HashMap<SessionId, Way>>);

/// The latest resume of a session.
struct Way {
    epoch: u64,
    given_up: CancellationToken,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// One of them; dropping it ends it.
pub(crate) struct Comes<'a> {
    coming: &'a Coming,
    session: SessionId,
    epoch: u64,
    given_up: CancellationToken,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Coming {
    /// The session is claimed in `epoch`: what is under way of earlier ones is given up. `None` if there is a later one.
    pub(crate) fn begin(&self, session: &SessionId, epoch: u64) -> Option<Comes<'_>> {
        let mut ways = self.0.lock();
        let mut turn = Arc::default();
        if let Some(before) = ways.get(session) {
            if before.epoch > epoch {
                return None;
            }
            before.given_up.cancel();
            turn = Arc::clone(&before.turn);
        }
        let given_up = CancellationToken::new();
        ways.insert(session.clone(), Way { epoch, given_up: given_up.clone(), turn: Arc::clone(&turn) });
        Some(Comes { coming: self, session: session.clone(), epoch, given_up, turn })
    }

    /// Another node has claimed the session in `epoch`: what is under way of earlier ones is given up.
    pub(crate) fn give_up(&self, session: &SessionId, epoch: u64) {
        if let Some(way) = self.0.lock().get(session).filter(|way| way.epoch < epoch) {
            way.given_up.cancel();
        }
    }

    /// Whether one is under way: then its client is not welcomed yet.
    pub(crate) fn has(&self, session: &SessionId) -> bool {
        self.0.lock().contains_key(session)
    }
}

impl Comes<'_> {
    /// Does `doing` after those before have ended; `None` if it is given up meanwhile, and dropped.
    pub(crate) async fn run<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        let in_turn = async {
            let _turn = self.turn.lock().await;
            doing.await
        };
        self.given_up.run_until_cancelled(in_turn).await
    }
}

impl Drop for Comes<'_> {
    fn drop(&mut self) {
        let mut ways = self.coming.0.lock();
        if ways.get(&self.session).is_some_and(|way| way.epoch == self.epoch) {
            ways.remove(&self.session);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use trestle_wire::NodeId;

    use super::*;

    #[tokio::test]
    async fn a_later_resume_ends_the_one_before_and_goes_on_after_it() {
        let (coming, session) = (Coming::default(), SessionId::new(&NodeId::parse("n").unwrap(), 1));
        let first = coming.begin(&session, 2).expect("the first");
        let (ended, gone) = tokio::sync::oneshot::channel::<()>();
        let held = async {
            let _ended = ended;
            pending::<()>().await;
        };
        let later = async {
            tokio::task::yield_now().await; // the first has its turn by now
            let second = coming.begin(&session, 3).expect("a later one");
            assert!(coming.begin(&session, 2).is_none(), "an earlier one comes too late");
            let mut gone = gone;
            assert_eq!(second.run(async { gone.try_recv().is_err() }).await, Some(true));
            coming.give_up(&session, 3);
            assert_eq!(second.run(async { 7 }).await, Some(7), "a claim of its own epoch is its own");
            coming.give_up(&session, 4);
            assert_eq!(second.run(async { 7 }).await, None);
        };
        let (first_ended, ()) = tokio::join!(first.run(held), later);
        assert_eq!(first_ended, None);
        drop(first);
        assert!(!coming.has(&session));
    }
}
