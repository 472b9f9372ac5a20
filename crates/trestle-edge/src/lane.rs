//! The order of one client's doings: what it subscribes to, publishes and sends is done one after the other, as it came,
//! while its requests and waits for services go on beside.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream as _, stream::FuturesUnordered};
use tokio::sync::oneshot;
use trestle_hub::Seat;
use trestle_session::Event;
use trestle_wire::{ChannelName, GroupName, Refusal};

use crate::seats::Listening;

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
    /// A channel is listened to; the client's task keeps that, and the session is told.
    Seated(ChannelName, Listening, Event),
    /// A channel is listened to again, as it was before; the session knows.
    Resumed(ChannelName, Result<Listening, Refusal>),
    /// A seat is given up, and then the session is told.
    Unseat(ChannelName, Event),
    /// Groups were joined and are to be left; whoever asked is told.
    Groups(Regrouped),
    /// The session is on its channels again, as others see it; if not on all, after which pause that is to be tried again.
    Present(Vec<(ChannelName, trestle_cluster::Seat)>, Option<Duration>),
    /// The first part is done; the rest goes on beside the lane.
    Beside(Doing),
}

/// What a change of groups has come to.
pub(crate) struct Regrouped {
    pub(crate) joined: Vec<(GroupName, Result<Seat, Refusal>)>,
    pub(crate) left: Vec<GroupName>,
    /// Whether the groups should have been joined before.
    pub(crate) late: bool,
    pub(crate) done: Option<oneshot::Sender<()>>,
}

/// One client's doings.
#[derive(Default)]
pub(crate) struct Lane {
    current: Option<Doing>,
    queue: VecDeque<(Doing, usize)>,
    /// Bytes of payload in the queue.
    bytes: usize,
    /// On the heap, and only while there is some: the set alone is 100 bytes and more.
    beside: Option<Box<FuturesUnordered<Doing>>>,
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
        self.beside.get_or_insert_default().push(doing);
    }

    /// Whether the client may be read from.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < LANE_MAX && self.bytes < LANE_BYTES_MAX
    }

    /// Whether nothing is being done.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none() && self.beside.is_none()
    }

    /// Does what is to be done in order to its end, and drops the rest: the client is gone, and what it sent before counts.
    pub(crate) async fn finish(&mut self) {
        self.beside = None;
        while self.current.is_some() {
            // What came of it, nobody is there to be told.
            drop(self.next().await);
        }
    }

    /// The next thing done. Pending for ever while idle. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Done {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Lane::next`].
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Done> {
        if let Some(doing) = &mut self.current
            && let Poll::Ready(done) = doing.as_mut().poll(context)
        {
            self.current = self.queue.pop_front().map(|(next, size)| {
                self.bytes -= size;
                next
            });
            return Poll::Ready(done);
        }
        let Some(beside) = &mut self.beside else { return Poll::Pending };
        match Pin::new(&mut **beside).poll_next(context) {
            Poll::Ready(Some(done)) => {
                if beside.is_empty() {
                    self.beside = None;
                }
                Poll::Ready(done)
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
