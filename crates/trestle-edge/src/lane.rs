//! The order of one client's doings: what it subscribes to, publishes and sends is done one after the other, as it came,
//! while its requests and waits for services go on beside.

use std::{
    collections::VecDeque,
    future::{pending, poll_fn},
    pin::Pin,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use trestle_hub::Seat;
use trestle_session::Event;
use trestle_wire::ChannelName;

/// Doings that may wait for their turn before no more is read from the client: 64 frames of one message, and another.
const LANE_MAX: usize = 128;
/// Bytes of payload that may: beyond them one more message of a client, 64 KiB by default, is still taken.
const LANE_BYTES_MAX: usize = 256 * 1024;

/// Something that is being done, owning all it needs.
pub(crate) type Doing = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What came of it.
pub(crate) enum Done {
    /// The session is told.
    Tell(Event),
    /// A seat was taken; the connection keeps it, and the session is told.
    Seated(ChannelName, Seat, Event),
    /// A seat is given up, and then the session is told.
    Unseat(ChannelName, Event),
    /// The first part is done; the rest goes on beside the lane.
    Beside(Doing),
}

/// One client's doings.
#[derive(Default)]
pub(crate) struct Lane {
    current: Option<Doing>,
    queue: VecDeque<(Doing, usize)>,
    /// Bytes of payload in the queue.
    bytes: usize,
    beside: FuturesUnordered<Doing>,
}

impl Lane {
    /// To be done after all that was given before; `bytes` of payload wait for it.
    pub(crate) fn in_order(&mut self, doing: Doing, bytes: usize) {
        if self.current.is_none() {
            self.current = Some(doing);
        } else {
            self.bytes += bytes;
            self.queue.push_back((doing, bytes));
        }
    }

    /// To be done at once.
    pub(crate) fn beside(&mut self, doing: Doing) {
        self.beside.push(doing);
    }

    /// Whether the client may be read from.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < LANE_MAX && self.bytes < LANE_BYTES_MAX
    }

    /// Whether nothing is being done.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && self.beside.is_empty()
    }

    /// Does what is to be done in order to its end, and drops the rest: the client is gone, and what it sent before counts.
    pub(crate) async fn finish(&mut self) {
        self.beside.clear();
        while self.current.is_some() {
            // What came of it, nobody is there to be told.
            drop(self.next().await);
        }
    }

    /// The next thing done. Pending for ever while idle. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Done {
        let Self { current, queue, bytes, beside } = self;
        let in_order = async {
            let Some(doing) = current.as_mut() else { return pending().await };
            let done = poll_fn(|context| doing.as_mut().poll(context)).await;
            *current = queue.pop_front().map(|(next, size)| {
                *bytes -= size;
                next
            });
            done
        };
        let at_once = async {
            match beside.next().await {
                Some(done) => done,
                None => pending().await,
            }
        };
        tokio::select! {
            done = in_order => done,
            done = at_once => done,
        }
    }
}
