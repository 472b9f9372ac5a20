//! The bounded queue of finished frames between whoever has something for a client and the client's socket.
//!
//! In: frames, from any task, without ever waiting. Out: all that is there, to the one task that writes. What always
//! holds: at most [`OutboxLimits`] wait, and a frame that finds no room closes the outbox for good, so that a client
//! never gets what comes after a loss without being told.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use trestle_codec::Encoded;

/// How much may wait.
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

/// The queue of one client.
pub struct Outbox {
    limits: OutboxLimits,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Encoded>,
    bytes: usize,
    closed: Option<Full>,
    /// The writer, when it waits.
    writer: Option<Waker>,
}

impl Outbox {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Self {
        Self { limits, queue: Mutex::default() }
    }

    /// Puts `frame` at the end.
    ///
    /// Never waits: the caller is the fan-out loop, and other clients are behind it.
    ///
    /// # Errors
    /// [`Full`]. A single frame larger than the limit still goes into an empty queue, since the limit is there to stop
    /// growth, not to forbid a message that the bus has let through.
    pub fn push(&self, frame: Encoded) -> Result<(), Full> {
        let writer = {
            let mut queue = self.queue.lock();
            if queue.closed.is_some() {
                return Err(Full::Closed);
            }
            let bytes = queue.bytes + frame.len();
            let full = queue.frames.len() >= self.limits.frames_max || bytes > self.limits.bytes_max;
            if full && !queue.frames.is_empty() {
                queue.closed = Some(Full::Overflow);
                let writer = queue.writer.take();
                drop(queue);
                wake(writer);
                return Err(Full::Overflow);
            }
            queue.bytes = bytes;
            queue.frames.push_back(frame);
            queue.writer.take()
        };
        // Outside the lock: the writer may run on this very thread.
        wake(writer);
        Ok(())
    }

    /// Moves up to `most` frames to the end of `into`, or waits for one. `Ready(Err)` once the outbox has overflowed.
    ///
    /// Only one task may wait.
    ///
    /// # Errors
    /// [`Full::Overflow`] when a frame was refused; frames that were queued before it are still in [`Outbox::take`].
    pub fn poll_take(&self, context: &mut Context<'_>, most: usize, into: &mut Vec<Encoded>) -> Poll<Result<(), Full>> {
        let mut queue = self.queue.lock();
        if let Some(closed) = queue.closed {
            return Poll::Ready(Err(closed));
        }
        if queue.frames.is_empty() {
            queue.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        queue.take(most, into);
        Poll::Ready(Ok(()))
    }

    /// Moves up to `most` frames to the end of `into`, also from a closed outbox.
    pub fn take(&self, most: usize, into: &mut Vec<Encoded>) {
        self.queue.lock().take(most, into);
    }

    /// Ready once the outbox has overflowed.
    pub fn poll_overflow(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.closed == Some(Full::Overflow) {
            return Poll::Ready(());
        }
        queue.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Takes nothing more. What waits can still be taken.
    pub fn close(&self) {
        self.queue.lock().closed.get_or_insert(Full::Closed);
    }

    /// Frames that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.lock().frames.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Queue {
    fn take(&mut self, most: usize, into: &mut Vec<Encoded>) {
        let count = most.min(self.frames.len());
        into.extend(self.frames.drain(..count).inspect(|frame| self.bytes -= frame.len()));
        if self.frames.is_empty() {
            // An idle client holds no queue: 32 bytes a slot x what a burst once needed x every session adds up.
            self.frames = VecDeque::new();
        }
    }
}

fn wake(writer: Option<Waker>) {
    if let Some(writer) = writer {
        writer.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use bytes::Bytes;

    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { bytes_max: 100, frames_max: 3 };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn frame(bytes: usize) -> Encoded {
        Encoded::from_finished(Bytes::from(vec![b'x'; bytes]))
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let outbox = Outbox::new(LIMITS);
        for bytes in [1, 2, 3] {
            outbox.push(frame(bytes)).unwrap();
        }
        let mut taken = Vec::new();
        outbox.take(2, &mut taken);
        outbox.take(2, &mut taken);
        assert_eq!(taken.iter().map(Encoded::len).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_frame_without_room_closes_the_outbox_and_wakes_the_writer() {
        for (fill, over) in [(vec![1, 1, 1], 1), (vec![60], 41)] {
            let (outbox, count) = (Outbox::new(LIMITS), Arc::new(Count::default()));
            fill.into_iter().for_each(|bytes| outbox.push(frame(bytes)).unwrap());
            let waker = Waker::from(Arc::clone(&count));
            assert!(outbox.poll_overflow(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!(outbox.push(frame(over)), Err(Full::Overflow));
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
            assert_eq!(outbox.push(frame(1)), Err(Full::Closed));
            assert!(outbox.poll_overflow(&mut Context::from_waker(&waker)).is_ready());
        }
    }

    #[test]
    fn one_large_frame_goes_into_an_empty_outbox() {
        let outbox = Outbox::new(LIMITS);
        assert_eq!(outbox.push(frame(1000)), Ok(()));
        assert_eq!(outbox.push(frame(1)), Err(Full::Overflow));
    }

    #[test]
    fn the_writer_is_woken_once_per_wait() {
        let (outbox, count) = (Outbox::new(LIMITS), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        let mut taken = Vec::new();
        assert!(outbox.poll_take(&mut Context::from_waker(&waker), 9, &mut taken).is_pending());
        outbox.push(frame(1)).unwrap();
        outbox.push(frame(1)).unwrap();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(outbox.poll_take(&mut Context::from_waker(&waker), 9, &mut taken).is_ready());
        assert_eq!(taken.len(), 2);
    }
}
