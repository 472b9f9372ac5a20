//! The bounded queue of finished frames between whoever has something for a client and the client's socket.
//!
//! In: frames, from any task, without ever waiting. Out: all that is there, to the one task that writes. What always
//! holds: at most [`OutboxLimits`] wait; what is dropped is told in a gap at its place; a frame that finds no room and may not be
//! dropped closes the outbox for good, so that a client never gets what comes after a loss without being told.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use trestle_codec::Encoded;
use trestle_wire::v1;

use crate::{Label, Spills, overflow::Queue};

/// How much may wait in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes of frames.
    pub bytes_max: usize,
    /// Frames.
    pub frames_max: usize,
}

/// Why a frame was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// It found no room: the outbox is closed now, and the client must be parted from.
    Overflow,
    /// The outbox was closed before.
    Closed,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits.
    Queued,
    /// It was dropped, as its policy says; the client is told in a gap.
    Dropped,
}

/// What comes out of an outbox.
#[derive(Clone, Debug)]
pub enum Taken {
    /// A frame with the label it came with; `None`: an answer of the gateway.
    Frame(Encoded, Option<Arc<Label>>),
    /// What was dropped at this place, to be told the client.
    Gap(v1::Gap),
}

/// The queue of one client.
pub struct Outbox {
    limits: OutboxLimits,
    spills: Option<Arc<dyn Spills>>,
    queue: Mutex<Queue>,
}

impl Outbox {
    /// An empty queue. What is to be spilled closes it, as if its policy were to disconnect.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Self {
        Self { limits, spills: None, queue: Mutex::default() }
    }

    /// An empty queue that spills into a place of `spills`, opened when it is needed.
    #[must_use]
    pub fn with_spills(limits: OutboxLimits, spills: Arc<dyn Spills>) -> Self {
        Self { limits, spills: Some(spills), queue: Mutex::default() }
    }

    /// Puts `frame` at the end of its lane, or does what the label's policy says when there is no room. Without a label it
    /// is an answer of the gateway, which is never dropped.
    ///
    /// Never waits: the caller is the fan-out loop, and other clients are behind it.
    ///
    /// # Errors
    /// [`Full`]. A single frame larger than the limit still goes into an empty queue, since the limit is there to stop
    /// growth, not to forbid a message that the bus has let through.
    pub fn push(&self, frame: Encoded, label: Option<&Arc<Label>>) -> Result<Pushed, Full> {
        let mut queue = self.queue.lock();
        let pushed = queue.push(&self.limits, self.spills.as_ref(), frame, label);
        let writer = queue.writer.take();
        let room = if queue.closed.is_some() { std::mem::take(&mut queue.room) } else { Vec::new() };
        drop(queue);
        // Outside the lock: the writer may run on this very thread.
        wake(writer.into_iter().chain(room));
        pushed
    }

    /// Moves up to `most` frames and gaps to the end of `into`, or waits for one. High priority comes first, low last.
    ///
    /// Only one task may wait.
    ///
    /// # Errors
    /// [`Full::Overflow`] when a frame was refused, [`Full::Closed`] after [`close`](Self::close); what was queued before is
    /// still in [`take`](Self::take).
    pub fn poll_take(&self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Poll<Result<(), Full>> {
        if let Some(closed) = self.queue.lock().closed {
            return Poll::Ready(Err(closed));
        }
        self.poll_any(context, most, into)
    }

    /// As [`poll_take`](Self::poll_take), also from a closed outbox, in which nothing is left when it adds nothing.
    ///
    /// # Errors
    /// [`Full`] if what was spilled is lost.
    pub fn poll_rest(&self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Poll<Result<(), Full>> {
        let taken = self.poll_any(context, most, into);
        let queue = self.queue.lock();
        if queue.closed.is_some() && queue.is_empty() && queue.spilled.is_none() {
            return match taken {
                Poll::Ready(taken) => Poll::Ready(taken),
                Poll::Pending => Poll::Ready(Ok(())),
            };
        }
        taken
    }

    fn poll_any(&self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Poll<Result<(), Full>> {
        let before = into.len();
        let mut queue = self.queue.lock();
        let taken = loop {
            if let Err(full) = queue.take_all(context, most, into) {
                break Err(full);
            }
            if into.len() > before || most == 0 {
                break Ok(());
            }
            if queue.is_empty() {
                queue.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
        };
        let room = queue.wake_room(&self.limits);
        drop(queue);
        wake(room);
        Poll::Ready(taken)
    }

    /// Moves up to `most` to the end of `into`, also from a closed outbox. What is [spilled](Self::spilled) is not
    /// reached.
    pub fn take(&self, most: usize, into: &mut Vec<Taken>) {
        let mut queue = self.queue.lock();
        queue.take(most, into);
        let room = queue.wake_room(&self.limits);
        drop(queue);
        wake(room);
    }

    /// Ready once the outbox has overflowed. It waits in the place of [`poll_take`](Self::poll_take).
    pub fn poll_overflow(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.closed == Some(Full::Overflow) {
            return Poll::Ready(());
        }
        queue.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Ready when less than half of the limits is taken, or the outbox is closed. Any number of tasks may wait.
    pub fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.closed.is_some() || queue.is_roomy(&self.limits) {
            return Poll::Ready(());
        }
        if !queue.room.iter().any(|waiting| waiting.will_wake(context.waker())) {
            queue.room.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Takes nothing more. What waits can still be taken.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed.get_or_insert(Full::Closed);
        let room = std::mem::take(&mut queue.room);
        drop(queue);
        wake(room);
    }

    /// Frames that wait in memory, beside gaps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.lock().frames
    }

    /// Bytes of the frames that wait in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    /// Frames that wait outside of memory, and their bytes.
    #[must_use]
    pub fn spilled(&self) -> (usize, usize) {
        self.queue.lock().spilled.as_ref().map_or((0, 0), |spilled| (spilled.spill.len(), spilled.spill.bytes()))
    }

    /// Frames that were dropped since the beginning.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// Whether nothing waits, in memory or outside of it, not even a gap.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.is_empty() && queue.spilled.is_none()
    }
}

impl Queue {
    fn is_roomy(&self, limits: &OutboxLimits) -> bool {
        self.frames == 0 || (self.frames < limits.frames_max / 2 && self.bytes < limits.bytes_max / 2)
    }

    /// Those who wait for room, if there is some now.
    fn wake_room(&mut self, limits: &OutboxLimits) -> Vec<Waker> {
        if self.room.is_empty() || !self.is_roomy(limits) {
            return Vec::new();
        }
        std::mem::take(&mut self.room)
    }
}

fn wake(waiting: impl IntoIterator<Item = Waker>) {
    waiting.into_iter().for_each(Waker::wake);
}
