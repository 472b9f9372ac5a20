//! The bounded queue of finished frames between whoever has something for a client and the client's socket.
//!
//! In: frames, from any task, without ever waiting. Out: all that is there, to the one task that writes. What always
//! holds: at most [`OutboxLimits`] wait; what is dropped is told in a gap at its place; a frame that finds no room and may not be
//! dropped closes the outbox for good, so that a client never gets what comes after a loss without being told.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::{Mutex, MutexGuard};
use trestle_wire::v1;

use crate::{Finished, Spills, label::NORMAL, overflow::Crowd};

/// Slots of the queue that an idle client keeps: the least there is, 4 x 8 B, so that one message now and then needs no
/// allocation.
const SLOTS_KEPT: usize = 4;

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
    /// A frame.
    Frame(Finished),
    /// What was dropped at this place, to be told the client.
    Gap(Box<v1::Gap>),
}

impl OutboxLimits {
    /// Whether a frame of `more` bytes has room beside `frames` of `bytes`. A single frame larger than the limit still goes
    /// into an empty queue, since the limit is there to stop growth, not to forbid a message that the bus has let through.
    pub(crate) fn have_room(&self, frames: usize, bytes: usize, more: usize) -> bool {
        frames == 0 || (frames < self.frames_max && bytes + more <= self.bytes_max)
    }

    /// Whether less than half is taken.
    fn are_roomy(&self, frames: usize, bytes: usize) -> bool {
        frames == 0 || (frames < self.frames_max / 2 && bytes < self.bytes_max / 2)
    }
}

/// The queue of one client.
pub struct Outbox {
    limits: OutboxLimits,
    spills: Option<Arc<dyn Spills>>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// All that waits, as long as it has room and one priority: the way of nearly every frame. Empty beside a crowd.
    plain: VecDeque<Finished>,
    /// Bytes in `plain`.
    bytes: usize,
    crowd: Option<Box<Crowd>>,
    /// Frames that were dropped since the beginning.
    dropped: u64,
    closed: Option<Full>,
    /// The writer, when it waits.
    writer: Option<Waker>,
    /// Those who wait for room.
    room: Vec<Waker>,
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

    /// Puts `frame` at the end of its lane, or does what its label's policy says when there is no room. An answer of the
    /// gateway is never dropped.
    ///
    /// Never waits: the caller is the fan-out loop, and other clients are behind it. What comes on a channel of which
    /// something is spilled waits behind that, whatever its own policy.
    ///
    /// # Errors
    /// [`Full`]. A single frame larger than the limit still goes into an empty queue.
    pub fn push(&self, frame: Finished) -> Result<Pushed, Full> {
        let mut queue = self.queue.lock();
        if queue.closed.is_some() {
            return Err(Full::Closed);
        }
        if !queue.is_plain(&self.limits, &frame) {
            return self.push_among(queue, frame);
        }
        queue.bytes += frame.len();
        queue.plain.push_back(frame);
        let writer = queue.writer.take();
        drop(queue);
        // Outside the lock: the writer may run on this very thread.
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(Pushed::Queued)
    }

    /// Puts a frame among others that have no room, or another priority.
    fn push_among(&self, mut queue: MutexGuard<'_, Queue>, frame: Finished) -> Result<Pushed, Full> {
        let crowd = queue.crowd();
        let pushed = crowd.push(&self.limits, self.spills.as_ref(), frame);
        let dropped = std::mem::take(&mut crowd.dropped);
        queue.dropped += dropped;
        let writer = queue.writer.take();
        let mut room = Vec::new();
        if pushed.is_err() {
            queue.closed = Some(Full::Overflow);
            room = std::mem::take(&mut queue.room);
        }
        drop(queue);
        wake(writer.into_iter().chain(room));
        pushed
    }

    /// Moves up to `most` frames and gaps to the end of `into`, or waits for one. High priority comes first, low last.
    ///
    /// Only one task may wait.
    ///
    /// # Errors
    /// [`Full::Overflow`] when a frame was refused, [`Full::Closed`] after [`close`](Self::close); what was queued before is
    /// still in [`take`](Self::take) and [`poll_rest`](Self::poll_rest).
    pub fn poll_take(&self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Poll<Result<(), Full>> {
        let queue = self.queue.lock();
        match queue.closed {
            Some(closed) => Poll::Ready(Err(closed)),
            None => self.poll_any(queue, context, most, into),
        }
    }

    /// As [`poll_take`](Self::poll_take), also from a closed outbox, in which nothing is left when it adds nothing.
    ///
    /// # Errors
    /// [`Full`] if what was spilled is lost.
    pub fn poll_rest(&self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Poll<Result<(), Full>> {
        let queue = self.queue.lock();
        if queue.closed.is_some() && queue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.poll_any(queue, context, most, into)
    }

    fn poll_any(
        &self,
        mut queue: MutexGuard<'_, Queue>,
        context: &mut Context<'_>,
        most: usize,
        into: &mut Vec<Taken>,
    ) -> Poll<Result<(), Full>> {
        let before = into.len();
        let taken = queue.take(Some(context), most, into);
        if taken.is_ok() && into.len() == before && most > 0 {
            queue.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        if taken.is_err() {
            queue.closed.get_or_insert(Full::Overflow);
        }
        self.wake_room(queue);
        Poll::Ready(taken)
    }

    /// Moves up to `most` to the end of `into`, also from a closed outbox. What is [spilled](Self::spilled) is not
    /// reached.
    pub fn take(&self, most: usize, into: &mut Vec<Taken>) {
        let mut queue = self.queue.lock();
        let taken = queue.take(None, most, into);
        debug_assert!(taken.is_ok(), "only what is spilled can be lost");
        self.wake_room(queue);
    }

    fn wake_room(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.room.is_empty() || !(queue.closed.is_some() || queue.is_roomy(&self.limits)) {
            return;
        }
        let room = std::mem::take(&mut queue.room);
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

    /// Whether nothing is taken in any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.lock().closed.is_some()
    }

    /// Frames that wait in memory, beside gaps.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.lock().size().0
    }

    /// Bytes of the frames that wait in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.queue.lock().size().1
    }

    /// Frames that wait outside of memory, and their bytes.
    #[must_use]
    pub fn spilled(&self) -> (usize, usize) {
        let queue = self.queue.lock();
        let spilled = queue.crowd.as_ref().and_then(|crowd| crowd.spilled.as_ref());
        spilled.map_or((0, 0), |spilled| (spilled.spill.len(), spilled.spill.bytes()))
    }

    /// Frames that were dropped since the beginning.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// Whether nothing waits, in memory or outside of it, not even a gap.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }
}

impl Queue {
    /// Whether a frame only goes to the end.
    fn is_plain(&self, limits: &OutboxLimits, frame: &Finished) -> bool {
        let (frames, held) = (self.plain.len(), self.bytes);
        self.crowd.is_none()
            && limits.have_room(frames, held, frame.len())
            && frame
                .label()
                .is_none_or(|label| label.is_plain() || (label.lane() == NORMAL && limits.are_roomy(frames, held)))
    }

    /// The crowd, which takes what waits if it is new.
    fn crowd(&mut self) -> &mut Crowd {
        let Self { plain, bytes, crowd, .. } = self;
        crowd.get_or_insert_with(|| Box::new(Crowd::of(std::mem::take(plain), std::mem::take(bytes))))
    }

    /// Moves up to `most` to the end of `into`, also from the spill if there is a context to wait for it in.
    fn take(&mut self, context: Option<&mut Context<'_>>, most: usize, into: &mut Vec<Taken>) -> Result<(), Full> {
        if let Some(crowd) = &mut self.crowd {
            let taken = match context {
                Some(context) => crowd.take_all(context, most, into),
                None => {
                    crowd.take(most, into);
                    Ok(())
                }
            };
            if crowd.is_empty() {
                self.crowd = None;
            }
            return taken;
        }
        let count = most.min(self.plain.len());
        let taken = self.plain.drain(..count).inspect(|frame| self.bytes -= frame.len());
        into.extend(taken.map(Taken::Frame));
        if self.plain.is_empty() && self.plain.capacity() > SLOTS_KEPT {
            // An idle client holds hardly a queue: what a burst once needed x every session adds up.
            self.plain = VecDeque::new();
        }
        Ok(())
    }

    /// Frames in memory, and their bytes.
    fn size(&self) -> (usize, usize) {
        self.crowd.as_ref().map_or((self.plain.len(), self.bytes), |crowd| (crowd.frames, crowd.bytes))
    }

    fn is_roomy(&self, limits: &OutboxLimits) -> bool {
        let (frames, bytes) = self.size();
        limits.are_roomy(frames, bytes)
    }

    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.crowd.is_none()
    }
}

fn wake(waiting: impl IntoIterator<Item = Waker>) {
    waiting.into_iter().for_each(Waker::wake);
}
