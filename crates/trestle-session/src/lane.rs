//! The frames of one priority, in their order, from which some may be dropped.
//!
//! What always holds: what was dropped leaves a gap at its place; a lane from which nothing was dropped is a plain queue.

use std::collections::VecDeque;

use trestle_wire::{ChannelName, v1::GapReason};

use crate::{Finished, Label, Taken, losses::Losses};

/// Dropped places that a lane holds on to before it closes up: as long as there are fewer, that is not worth the walk.
const GONE_MIN: usize = 16;

/// One place of a lane.
#[derive(Debug)]
enum Slot {
    Frame(Finished),
    Empty(Empty),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Empty {
    /// The frame that was here is dropped.
    Gone,
    /// What is newer than this may wait behind what is spilled.
    Mark,
}

/// What was taken out of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    /// Marks that were passed.
    pub(crate) marks: usize,
}

/// One lane.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    slots: VecDeque<Slot>,
    /// The number of the first slot; the others follow.
    first: u64,
    /// No frame before this number may be dropped.
    cursor: u64,
    /// Whether a frame that may be dropped has come since the lane was empty.
    droppable: bool,
    /// Slots that are [`Empty::Gone`].
    gone: usize,
    /// Since something was dropped.
    losses: Option<Box<Losses>>,
}

impl Lane {
    /// A lane in which that waits.
    pub(crate) fn of(plain: VecDeque<Finished>) -> Self {
        let droppable = plain.iter().any(|frame| frame.label().is_some_and(Label::droppable));
        let slots = plain.into_iter().map(Slot::Frame).collect();
        Self { slots, droppable, ..Self::default() }
    }

    /// Puts a frame at the end.
    pub(crate) fn push(&mut self, frame: Finished) {
        self.droppable |= frame.label().is_some_and(Label::droppable);
        if self.losses.is_some() {
            self.note(frame.label());
        }
        self.slots.push_back(Slot::Frame(frame));
    }

    /// Marks the end, for [`Freed::marks`]; `false` if nothing waits that is not marked already.
    pub(crate) fn mark(&mut self) -> bool {
        if matches!(self.slots.back(), None | Some(Slot::Empty(Empty::Mark))) && self.gaps() == 0 {
            return false;
        }
        self.slots.push_back(Slot::Empty(Empty::Mark));
        true
    }

    fn note(&mut self, label: Option<&Label>) {
        if self.gone > GONE_MIN && self.gone > self.slots.len() / 2 {
            self.close_up();
        }
        let number = self.end();
        if let (Some(losses), Some(label)) = (&mut self.losses, label) {
            losses.came(number, label);
        }
    }

    /// Whether nothing waits, not even a gap.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.losses.is_none()
    }

    /// Gaps that wait.
    pub(crate) fn gaps(&self) -> usize {
        self.losses.as_ref().map_or(0, |losses| losses.gaps())
    }

    /// Moves up to `most` frames and gaps to the end of `into`.
    pub(crate) fn take(&mut self, most: usize, into: &mut Vec<Taken>) -> Freed {
        let mut freed = Freed::default();
        let end = into.len().saturating_add(most);
        while into.len() < end {
            if let Some(gap) = self.losses.as_mut().and_then(|losses| losses.gap_before(self.first)) {
                into.push(Taken::Gap(Box::new(gap)));
                continue;
            }
            let Some(slot) = self.slots.pop_front() else { break };
            match &slot {
                Slot::Frame(frame) => {
                    if let (Some(losses), Some(label)) = (&mut self.losses, frame.label()) {
                        losses.went(self.first, label);
                    }
                }
                Slot::Empty(Empty::Gone) => self.gone -= 1,
                Slot::Empty(Empty::Mark) => {}
            }
            self.first += 1;
            freed.take(slot, into);
        }
        if self.slots.is_empty() && self.gaps() == 0 {
            // What a burst once needed is not held on to.
            *self = Self::default();
        }
        freed
    }

    /// Drops the oldest frame of `channel` that may be dropped.
    pub(crate) fn drop_oldest_of(&mut self, channel: &Option<ChannelName>) -> Option<Freed> {
        let number = self.droppable.then(|| self.losses().oldest_of(channel)).flatten()?;
        Some(self.drop_at(number))
    }

    /// Drops the oldest frame of `channel` with that key.
    pub(crate) fn drop_same(&mut self, channel: &Option<ChannelName>, key: u64) -> Option<Freed> {
        let number = self.droppable.then(|| self.losses().same_key(channel, key)).flatten()?;
        Some(self.drop_at(number))
    }

    /// Drops the oldest frame that may be dropped, whatever its channel.
    pub(crate) fn drop_oldest(&mut self) -> Option<Freed> {
        if !self.droppable {
            return None;
        }
        self.cursor = self.cursor.max(self.first);
        // Amortized: what was passed once is not looked at again.
        while let Some(slot) = self.slots.get(self.place(self.cursor)) {
            if matches!(slot, Slot::Frame(frame) if frame.label().is_some_and(Label::droppable)) {
                return Some(self.drop_at(self.cursor));
            }
            self.cursor += 1;
        }
        None
    }

    /// Leaves a gap at the end for a frame that is not taken.
    pub(crate) fn refuse(&mut self, label: &Label, reason: GapReason) {
        let end = self.end();
        self.losses().refused(end, label, reason);
    }

    /// The number of the next slot.
    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn place(&self, number: u64) -> usize {
        usize::try_from(number - self.first).expect("a lane has fewer slots than the address space")
    }

    /// The losses, begun if need be: from here on the lane's frames are known by their channels.
    fn losses(&mut self) -> &mut Losses {
        let Self { losses, slots, first, .. } = self;
        losses.get_or_insert_with(|| {
            let mut losses = Box::<Losses>::default();
            for (number, slot) in (*first..).zip(slots.iter()) {
                if let Some(label) = slot.label() {
                    losses.came(number, label);
                }
            }
            losses
        })
    }

    fn drop_at(&mut self, number: u64) -> Freed {
        self.losses();
        let place = self.place(number);
        let mut freed = Freed::default();
        let slot = std::mem::replace(&mut self.slots[place], Slot::Empty(Empty::Gone));
        self.gone += 1;
        if let (Slot::Frame(frame), Some(losses)) = (slot, &mut self.losses)
            && let Some(label) = frame.label()
        {
            losses.dropped(number, label, GapReason::Slow);
            freed = Freed { frames: 1, bytes: frame.len(), marks: 0 };
        }
        while let Some(Slot::Empty(Empty::Gone)) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
            self.gone -= 1;
        }
        freed
    }

    /// Takes out the slots that are gone, and gives the others new numbers.
    fn close_up(&mut self) {
        let Some(losses) = self.losses.take() else { return };
        let gone = |slot: &Slot| matches!(slot, Slot::Empty(Empty::Gone));
        let left = (self.first..).zip(&self.slots).filter(|(_, slot)| !gone(slot));
        let labels = left.map(|(number, slot)| (number, slot.label()));
        self.losses = Some(Box::new(losses.renumber(self.first, labels)));
        self.slots.retain(|slot| !gone(slot));
        (self.cursor, self.gone) = (self.first, 0);
    }
}

impl Slot {
    fn label(&self) -> Option<&Label> {
        match self {
            Self::Frame(frame) => frame.label(),
            Self::Empty(_) => None,
        }
    }
}

impl Freed {
    /// Counts what stood in `slot`, and moves it to the end of `into`.
    fn take(&mut self, slot: Slot, into: &mut Vec<Taken>) {
        match slot {
            Slot::Frame(frame) => {
                self.frames += 1;
                self.bytes += frame.len();
                into.push(Taken::Frame(frame));
            }
            Slot::Empty(Empty::Mark) => self.marks += 1,
            Slot::Empty(Empty::Gone) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_costs_what_the_config_says() {
        assert_eq!(size_of::<Slot>(), 16);
    }
}
