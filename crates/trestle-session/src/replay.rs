//! The last frames that were written to a client, until it is known that they have come: what a resume goes on with.
//!
//! What always holds: frames are counted without a hole, and at most [`ReplayLimits`] are kept.

use std::collections::VecDeque;

use crate::Finished;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Bytes of frames.
    pub bytes_max: usize,
    /// Frames.
    pub frames_max: usize,
}

/// The ring of one session. Owned by the client's task, so without a lock.
#[derive(Debug)]
pub struct Replay {
    limits: ReplayLimits,
    frames: VecDeque<Finished>,
    bytes: usize,
    /// Frames that were written before the first of `frames`.
    first: u64,
}

impl Replay {
    /// Nothing written, nothing kept.
    #[must_use]
    pub fn new(limits: ReplayLimits) -> Self {
        Self { limits, frames: VecDeque::new(), bytes: 0, first: 0 }
    }

    /// Counts a frame that is written now, and keeps it. The oldest go when there is no room.
    pub fn wrote(&mut self, frame: Finished) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.frames.len() > self.limits.frames_max || self.bytes > self.limits.bytes_max {
            self.forget();
        }
        self.shrink();
    }

    /// The client has the first `received` frames. A number that cannot be is not believed.
    pub fn acked(&mut self, received: u64) {
        if received > self.count() {
            return;
        }
        while self.first < received {
            self.forget();
        }
        self.shrink();
    }

    /// Frames that were written.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// The smallest count from which a client can go on.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// What a client that has `received` frames still needs, oldest first; `None` if some of it is gone, or was never
    /// written.
    pub fn since(&self, received: u64) -> Option<impl Iterator<Item = &Finished>> {
        let skip = usize::try_from(received.checked_sub(self.first)?).ok()?;
        (skip <= self.frames.len()).then(|| self.frames.range(skip..))
    }

    /// Forgets everything, and counts on from `count`.
    pub fn restart(&mut self, count: u64) {
        self.frames = VecDeque::new();
        self.bytes = 0;
        self.first = count;
    }

    fn forget(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.len();
            self.first += 1;
        }
    }

    /// An idle client holds no ring: what a burst once needed x every session adds up.
    fn shrink(&mut self) {
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trestle_codec::{Encoded, Encoding};

    use super::*;

    const LIMITS: ReplayLimits = ReplayLimits { bytes_max: 100, frames_max: 4 };

    /// A frame that says its number, as long as asked.
    fn frame(number: u64, bytes: usize) -> Finished {
        let mut body = vec![b'x'; bytes];
        body[..8].copy_from_slice(&number.to_be_bytes());
        Encoded::from_payload(Encoding::Protobuf, &body).into()
    }

    fn number(frame: &Finished) -> u64 {
        u64::from_be_bytes(frame.payload()[..8].try_into().unwrap())
    }

    fn since(replay: &Replay, received: u64) -> Option<Vec<u64>> {
        replay.since(received).map(|frames| frames.map(number).collect())
    }

    #[test]
    fn a_client_goes_on_after_what_it_has() {
        let mut replay = Replay::new(LIMITS);
        (0..3).for_each(|number| replay.wrote(frame(number, 8)));
        assert_eq!(since(&replay, 1), Some(vec![1, 2]));
        assert_eq!(since(&replay, 3), Some(vec![]));
        assert_eq!(since(&replay, 4), None, "it was never written");
        replay.acked(2);
        assert_eq!((replay.first(), replay.count()), (2, 3));
        assert_eq!(since(&replay, 1), None, "it is gone");
        assert_eq!(since(&replay, 2), Some(vec![2]));
    }

    #[test]
    fn a_frame_larger_than_the_ring_is_counted_and_not_kept() {
        let mut replay = Replay::new(LIMITS);
        replay.wrote(frame(0, 8));
        replay.wrote(frame(1, 101));
        assert_eq!((replay.first(), replay.count()), (2, 2));
    }

    #[test]
    fn counting_goes_on_from_where_another_node_was() {
        let mut replay = Replay::new(LIMITS);
        replay.wrote(frame(0, 8));
        replay.restart(41);
        replay.wrote(frame(41, 8));
        assert_eq!((since(&replay, 41), replay.count()), (Some(vec![41]), 42));
    }

    #[test]
    fn an_ack_of_what_was_never_written_is_not_believed() {
        let mut replay = Replay::new(LIMITS);
        replay.wrote(frame(0, 8));
        replay.acked(2);
        assert_eq!(since(&replay, 0), Some(vec![0]));
    }

    proptest! {
        #[test]
        fn whatever_is_kept_is_whole_and_within_its_limits(steps in proptest::collection::vec((0..3_u8, 8..60_usize), 0..80)) {
            let mut replay = Replay::new(LIMITS);
            let mut sizes = Vec::new();
            for (kind, size) in steps {
                if kind == 0 {
                    replay.acked(replay.first() + size as u64 % 4);
                } else {
                    replay.wrote(frame(sizes.len() as u64, size));
                    sizes.push(size);
                }
                let written = sizes.len() as u64;
                prop_assert_eq!(replay.count(), written);
                let kept = since(&replay, replay.first()).unwrap();
                prop_assert_eq!(&kept, &(replay.first()..written).collect::<Vec<_>>());
                let bytes: usize = kept.iter().map(|number| sizes[*number as usize]).sum();
                prop_assert!(kept.len() <= LIMITS.frames_max && bytes <= LIMITS.bytes_max);
                prop_assert_eq!(bytes, replay.bytes);
            }
        }
    }
}
