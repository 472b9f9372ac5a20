//! What a thread of the disk has before it.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Condvar, Mutex};

use crate::place::Place;

/// What a thread is to do next.
pub(crate) enum Job {
    /// Something of a session.
    Place(Arc<Place>),
    /// To look after the whole: a refusal to tell of, a file to cut.
    Look,
}

/// The jobs of one thread, first in, first out. Its bound: a place is in it once at most, and has at least one block of
/// `spill.bytes_max`.
#[derive(Default)]
pub(crate) struct Jobs {
    queue: Mutex<Queue>,
    some: Condvar,
}

#[derive(Default)]
struct Queue {
    places: VecDeque<Arc<Place>>,
    look: bool,
    closed: bool,
}

impl Jobs {
    /// Puts `place` at the end. Whoever posts sees to it that it is not in here.
    pub(crate) fn post(&self, place: Arc<Place>) {
        self.queue.lock().places.push_back(place);
        self.some.notify_one();
    }

    /// Has the thread look after the whole, soon.
    pub(crate) fn look(&self) {
        self.queue.lock().look = true;
        self.some.notify_one();
    }

    /// Ends the thread after what it is doing.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.some.notify_one();
    }

    /// Waits for the next one; `None` once it is closed.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                // Outside the lock: a place that ends may want somebody to look after the file.
                let rest = std::mem::take(&mut queue.places);
                drop(queue);
                drop(rest);
                return None;
            }
            if std::mem::take(&mut queue.look) {
                return Some(Job::Look);
            }
            if let Some(place) = queue.places.pop_front() {
                return Some(Job::Place(place));
            }
            self.some.wait(&mut queue);
        }
    }
}
