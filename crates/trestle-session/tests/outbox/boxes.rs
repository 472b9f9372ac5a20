//! Outboxes and frames to put into them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use trestle_codec::{Encoded, Encoding};
use trestle_session::{Full, Label, Outbox, OutboxLimits, Taken};
use trestle_wire::{
    ChannelName,
    v1::{self, GapReason, Overflow, Priority},
};

/// Small enough to be filled by hand.
pub(crate) const LIMITS: OutboxLimits = OutboxLimits { bytes_max: 400, frames_max: 4 };

/// A waker that counts.
#[derive(Default)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (Arc::clone(&count), Waker::from(count))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A frame that says its number, as long as asked.
pub(crate) fn sized(number: u32, bytes: usize) -> Encoded {
    let mut body = vec![b'x'; bytes.max(4)];
    body[..4].copy_from_slice(&number.to_be_bytes());
    Encoded::from_payload(Encoding::Protobuf, &body)
}

pub(crate) fn frame(number: u32) -> Encoded {
    sized(number, 4)
}

pub(crate) fn number(frame: &Encoded) -> u32 {
    u32::from_be_bytes(frame.payload()[..4].try_into().unwrap())
}

/// A label of `channel`; an empty one is none.
pub(crate) fn label(channel: &str, overflow: Overflow, offset: u64) -> Label {
    Label { channel: ChannelName::parse(channel).ok(), offset, overflow, ..Label::default() }
}

pub(crate) fn of_priority(channel: &str, overflow: Overflow, priority: Priority) -> Label {
    let channel = ChannelName::parse(channel).ok();
    Label { channel, overflow, priority, ..Label::default() }
}

/// What came out, in short: the number of a frame, or a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Out {
    Frame(u32),
    Gap(String, u64, u64, u64, GapReason),
}

pub(crate) fn gap(channel: &str, from: u64, to: u64, count: u64) -> Out {
    Out::Gap(channel.into(), from, to, count, GapReason::Slow)
}

pub(crate) fn short(taken: Vec<Taken>) -> Vec<Out> {
    let short = |taken| match taken {
        Taken::Frame(frame) => Out::Frame(number(&frame)),
        Taken::Gap(gap) => {
            let v1::Gap { channel, from, to, count, reason } = *gap;
            Out::Gap(channel, from, to, count, GapReason::try_from(reason).unwrap())
        }
    };
    taken.into_iter().map(short).collect()
}

/// Everything that waits in memory.
pub(crate) fn all(outbox: &Outbox) -> Vec<Out> {
    let mut taken = Vec::new();
    outbox.take(usize::MAX, &mut taken);
    short(taken)
}

/// What can be had now; `None` if there is nothing.
pub(crate) fn poll(outbox: &Outbox, most: usize) -> Option<Result<Vec<Out>, Full>> {
    let mut taken = Vec::new();
    match outbox.poll_take(&mut Context::from_waker(Waker::noop()), most, &mut taken) {
        Poll::Ready(result) => Some(result.map(|()| short(taken))),
        Poll::Pending => None,
    }
}
