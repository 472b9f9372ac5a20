//! What was dropped of one lane, and where it stood: made when the first frame of a lane has to go, gone when it is empty.
//!
//! What always holds: between two frames of a channel stands at most one gap, so there are never more gaps than frames
//! and channels that wait; finding what may go costs no walk through the lane.

use std::collections::{BTreeMap, HashMap, VecDeque};

use trestle_wire::{
    ChannelName,
    v1::{self, GapReason},
};

use crate::Label;

/// Something that was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    from: u64,
    to: u64,
    count: u64,
    reason: GapReason,
}

impl Loss {
    /// The message with that label.
    pub(crate) fn of(label: &Label, reason: GapReason) -> Self {
        Self { from: label.offset, to: label.offset, count: 1, reason }
    }

    /// This one and what was dropped after it.
    fn and(self, later: Self) -> Self {
        let from = if self.from == 0 { later.from } else { self.from };
        // Only a gap in which nothing but chance has chosen is a sample.
        let reason = if self.reason == later.reason { self.reason } else { GapReason::Slow };
        Self { from, to: self.to.max(later.to), count: self.count + later.count, reason }
    }

    /// What the client is told.
    pub(crate) fn told(self, channel: Option<&ChannelName>) -> v1::Gap {
        v1::Gap {
            channel: channel.map(ToString::to_string).unwrap_or_default(),
            from: self.from,
            to: self.to,
            count: self.count,
            reason: self.reason.into(),
        }
    }
}

/// The frames of one channel that wait in the lane, by their numbers.
#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<u64>,
    /// Those that may go.
    droppable: VecDeque<u64>,
    /// Those that have a key, by it.
    keys: HashMap<u64, VecDeque<u64>>,
    /// Where a gap stands behind the last of `frames`.
    tail: Option<u64>,
}

/// The gaps of one lane, and its frames by their channels.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    channels: HashMap<Option<ChannelName>, Waiting>,
    /// Before which number a gap stands: that of the channel's own next frame, or the end of the lane at that time.
    gaps: BTreeMap<(u64, Option<ChannelName>), Loss>,
}

impl Losses {
    /// A frame has come at the end of the lane.
    pub(crate) fn came(&mut self, number: u64, label: &Label) {
        let waiting = self.channels.entry(label.channel.clone()).or_default();
        waiting.frames.push_back(number);
        if label.droppable() {
            waiting.droppable.push_back(number);
        }
        if label.overflow == v1::Overflow::Conflate {
            waiting.keys.entry(label.key).or_default().push_back(number);
        }
        if let Some(tail) = waiting.tail.take()
            && let Some(loss) = self.gaps.remove(&(tail, label.channel.clone()))
        {
            self.gaps.insert((number, label.channel.clone()), loss);
        }
    }

    /// The oldest frame has gone to the client.
    pub(crate) fn went(&mut self, number: u64, label: &Label) {
        self.leave(number, label);
        self.forget(&label.channel);
    }

    /// A frame is dropped from among the others.
    pub(crate) fn dropped(&mut self, number: u64, label: &Label, reason: GapReason) {
        let before = self.gaps.remove(&(number, label.channel.clone()));
        let loss = before.into_iter().fold(Loss::of(label, reason), |loss, before| before.and(loss));
        match self.leave(number, label) {
            Some(next) => {
                let gap = self.gaps.entry((next, label.channel.clone()));
                gap.and_modify(|later| *later = loss.and(*later)).or_insert(loss);
            }
            None => self.lose_last(number, &label.channel, loss),
        }
    }

    /// A frame is dropped before it has come; `end` is the number it would have had.
    pub(crate) fn refused(&mut self, end: u64, label: &Label, reason: GapReason) {
        let loss = Loss::of(label, reason);
        let waiting = self.channels.entry(label.channel.clone()).or_default();
        let place = *waiting.tail.get_or_insert(end);
        let gap = self.gaps.entry((place, label.channel.clone()));
        gap.and_modify(|earlier| *earlier = earlier.and(loss)).or_insert(loss);
    }

    /// The last frame of its channel has gone: what stands behind it is one with it.
    fn lose_last(&mut self, number: u64, channel: &Option<ChannelName>, loss: Loss) {
        let waiting = self.channels.entry(channel.clone()).or_default();
        let later = waiting.tail.replace(number).and_then(|tail| self.gaps.remove(&(tail, channel.clone())));
        let loss = later.into_iter().fold(loss, Loss::and);
        self.gaps.insert((number, channel.clone()), loss);
    }

    /// The first gap, if it stands before the frame `number` or earlier.
    pub(crate) fn gap_before(&mut self, number: u64) -> Option<v1::Gap> {
        let first = self.gaps.first_entry().filter(|gap| gap.key().0 <= number)?;
        let ((place, channel), loss) = first.remove_entry();
        if let Some(waiting) = self.channels.get_mut(&channel)
            && waiting.tail == Some(place)
        {
            waiting.tail = None;
            self.forget(&channel);
        }
        Some(loss.told(channel.as_ref()))
    }

    /// The oldest frame of `channel` that may go.
    pub(crate) fn oldest_of(&self, channel: &Option<ChannelName>) -> Option<u64> {
        self.channels.get(channel)?.droppable.front().copied()
    }

    /// The oldest frame of `channel` with that key.
    pub(crate) fn same_key(&self, channel: &Option<ChannelName>, key: u64) -> Option<u64> {
        self.channels.get(channel)?.keys.get(&key)?.front().copied()
    }

    /// Gaps that wait.
    pub(crate) fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// Moves all gaps and frames to other numbers: `frames` are those that wait, each with its old number and its label.
    /// They get the numbers from `first` on.
    pub(crate) fn renumber<'a>(self, first: u64, frames: impl Iterator<Item = (u64, Option<&'a Label>)>) -> Self {
        let mut fresh = Self::default();
        let mut moved: Vec<((u64, Option<ChannelName>), Loss)> = Vec::with_capacity(self.gaps.len());
        let mut gaps = self.gaps.into_iter().peekable();
        let mut next = first;
        for (number, label) in frames {
            while let Some(((_, channel), loss)) = gaps.next_if(|((place, _), _)| *place <= number) {
                moved.push(((next, channel), loss));
            }
            if let Some(label) = label {
                fresh.came(next, label);
            }
            next += 1;
        }
        moved.extend(gaps.map(|((_, channel), loss)| ((next, channel), loss)));
        for ((place, channel), loss) in moved {
            let waiting = fresh.channels.entry(channel.clone()).or_default();
            if waiting.frames.binary_search(&place).is_err() {
                waiting.tail = Some(place);
            }
            fresh.gaps.insert((place, channel), loss);
        }
        fresh
    }

    /// Takes a frame out of its channel's lists; what its next one is, if there is one.
    fn leave(&mut self, number: u64, label: &Label) -> Option<u64> {
        let waiting = self.channels.get_mut(&label.channel)?;
        let at = remove(&mut waiting.frames, number);
        remove(&mut waiting.droppable, number);
        if label.overflow == v1::Overflow::Conflate
            && let Some(numbers) = waiting.keys.get_mut(&label.key)
        {
            remove(numbers, number);
            if numbers.is_empty() {
                waiting.keys.remove(&label.key);
            }
        }
        waiting.frames.get(at).copied()
    }

    /// Lets go of a channel of which nothing waits.
    fn forget(&mut self, channel: &Option<ChannelName>) {
        if self.channels.get(channel).is_some_and(|waiting| waiting.frames.is_empty() && waiting.tail.is_none()) {
            self.channels.remove(channel);
        }
    }
}

/// Takes `number` out of an ascending list; where it was, or would be.
fn remove(numbers: &mut VecDeque<u64>, number: u64) -> usize {
    // Most of the time it is the first.
    if numbers.front() == Some(&number) {
        numbers.pop_front();
        return 0;
    }
    match numbers.binary_search(&number) {
        Ok(at) => {
            numbers.remove(at);
            at
        }
        Err(at) => at,
    }
}
