//! What waits for one session: what its outbox holds, and the two threads have for a moment.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use trestle_session::{Finished, Full, Spill, Taken};

use crate::{
    channels::Channels,
    disk::{Node, Threads},
    state::State,
};

/// The place of one session. Its blocks go back when the last of outbox and threads lets go of it, so that no block is
/// another's while it is still being written or read for this one.
pub(crate) struct Place {
    pub(crate) node: Arc<Node>,
    /// Held for a moment only, never over a call to the disk: whoever puts or reads holds an outbox's lock.
    pub(crate) state: Mutex<State>,
    /// Of the records on the disk. Only the two threads use it.
    pub(crate) channels: Mutex<Channels>,
}

/// A place as an outbox has it.
pub(crate) struct Spilling {
    pub(crate) place: Arc<Place>,
    threads: Arc<Threads>,
}

impl Spilling {
    pub(crate) fn new(threads: Arc<Threads>) -> Self {
        let node = Arc::clone(&threads.0);
        node.metrics.sessions.inc();
        let place = Place { node, state: Mutex::default(), channels: Mutex::default() };
        Self { place: Arc::new(place), threads }
    }

    fn node(&self) -> &Node {
        &self.threads.0
    }
}

impl Spill for Spilling {
    fn put(&mut self, frame: &Finished) -> Result<(), Full> {
        let node = self.node();
        let mut state = self.place.state.lock();
        let put = state.put(node, frame.clone());
        let asks = put.is_ok() && state.ask_write(node.is_pressed());
        drop(state);
        if let Err(refused) = put {
            node.refuse(refused);
            return Err(Full::Overflow);
        }
        node.count_bytes(frame.len(), 0);
        if asks {
            node.writes.post(Arc::clone(&self.place));
        }
        Ok(())
    }

    fn poll_read(&mut self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Poll<Result<(), Full>> {
        let (node, before) = (self.node(), into.len());
        let mut state = self.place.state.lock();
        let bytes = state.take(node, most, into);
        // As soon as the last that was read is taken: the disk reads on while the socket writes.
        let asks = state.ask_read();
        let waits = into.len() == before && most > 0;
        let lost = waits && state.is_lost();
        if waits && !lost {
            state.wait(context.waker());
        }
        drop(state);
        node.count_bytes(0, bytes);
        if asks {
            node.reads.post(Arc::clone(&self.place));
        }
        match (lost, waits) {
            (true, _) => Poll::Ready(Err(Full::Overflow)),
            (false, true) => Poll::Pending,
            (false, false) => Poll::Ready(Ok(())),
        }
    }

    fn len(&self) -> usize {
        self.place.state.lock().frames()
    }

    fn bytes(&self) -> usize {
        self.place.state.lock().bytes()
    }
}

impl Drop for Spilling {
    fn drop(&mut self) {
        let node = self.node();
        let mut state = self.place.state.lock();
        let rest = state.leave(node);
        let bytes = state.bytes();
        drop(state);
        node.count_bytes(0, bytes);
        node.metrics.sessions.dec();
        drop(rest);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.state.get_mut().end(&self.node);
    }
}
