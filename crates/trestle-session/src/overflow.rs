//! What happens to a frame for which there is no room, by its policy and priority.
//!
//! What always holds: whatever is dropped leaves a gap; an answer of the gateway is never dropped; nothing goes for a
//! frame of a lower priority.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Context,
};

use trestle_wire::v1::{GapReason, Overflow};

use crate::{
    Finished, Full, Label, OutboxLimits, Pushed, Spills, Taken,
    label::{HIGH, LANES, LOW, NORMAL},
    lane::{Freed, Lane},
    spill::Spilled,
};

/// Gaps that may wait beyond one for each frame: one for each channel of a session, four times
/// `session.subscriptions_max`, for those that were left in the meantime.
const GAPS_BEYOND_FRAMES_MAX: usize = 1024;

/// Where the next outbox's chance begins, so that a sample is another one for each client.
static CHANCE: AtomicU64 = AtomicU64::new(0);
/// The step of SplitMix64 (Steele, Lea, Flood 2014): odd, and its bits are spread.
const CHANCE_STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// What waits for one client when a plain queue will not do: something had no room, or has a priority.
pub(crate) struct Crowd {
    lanes: [Lane; LANES],
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    /// Frames that were dropped and not yet counted by the outbox.
    pub(crate) dropped: u64,
    pub(crate) spilled: Option<Box<Spilled>>,
    chance: u64,
}

impl Crowd {
    /// What waits in a plain queue, of `bytes` together.
    pub(crate) fn of(plain: VecDeque<Finished>, bytes: usize) -> Self {
        let mut lanes = <[Lane; LANES]>::default();
        let frames = plain.len();
        lanes[NORMAL] = Lane::of(plain);
        let chance = CHANCE.fetch_add(CHANCE_STEP, Ordering::Relaxed);
        Self { lanes, frames, bytes, dropped: 0, spilled: None, chance }
    }

    fn has_room(&self, limits: &OutboxLimits, bytes: usize) -> bool {
        limits.have_room(self.frames, self.bytes, bytes)
    }

    fn queue(&mut self, lane: usize, frame: Finished) -> Pushed {
        self.frames += 1;
        self.bytes += frame.len();
        self.lanes[lane].push(frame);
        Pushed::Queued
    }

    /// Takes a frame, or does with it what its policy says.
    ///
    /// # Errors
    /// [`Full`] if it found no room and may not be dropped.
    pub(crate) fn push(
        &mut self,
        limits: &OutboxLimits,
        spills: Option<&Arc<dyn Spills>>,
        frame: Finished,
    ) -> Result<Pushed, Full> {
        let Some(label) = frame.label() else { return self.must_queue(limits, NORMAL, frame) };
        let (lane, overflow) = (label.lane(), label.overflow);
        if let Some(spilled) = &mut self.spilled
            && lane == NORMAL
            && (overflow == Overflow::Spill || spilled.holds(&label.channel))
        {
            return self.spill(&frame, label);
        }
        let fits = self.has_room(limits, frame.len())
            || match overflow {
                Overflow::DropOldest | Overflow::Conflate => self.replace(limits, lane, frame.len(), label),
                _ => false,
            };
        match overflow {
            Overflow::Disconnect | Overflow::Unspecified => self.must_queue(limits, lane, frame),
            Overflow::Spill if !fits => self.spill_first(spills, &frame, label),
            Overflow::Sample if !fits || !self.has_luck(limits) => self.refuse(lane, limits, label, GapReason::Sampled),
            _ if !fits => self.refuse(lane, limits, label, GapReason::Slow),
            _ => Ok(self.queue(lane, frame)),
        }
    }

    /// Queues what may not be dropped: others go for it, those of the last lane first.
    fn must_queue(&mut self, limits: &OutboxLimits, lane: usize, frame: Finished) -> Result<Pushed, Full> {
        while !self.has_room(limits, frame.len()) {
            let freed = (HIGH..LANES).rev().find_map(|lane| self.lanes[lane].drop_oldest());
            match freed {
                Some(freed) => self.count_dropped(freed),
                None => return Err(Full::Overflow),
            }
        }
        Ok(self.queue(lane, frame))
    }

    /// Drops others for a frame of `lane` until there is room; whether there is. Of lanes that go before it, nothing goes.
    fn replace(&mut self, limits: &OutboxLimits, lane: usize, bytes: usize, label: &Label) -> bool {
        if label.overflow == Overflow::Conflate {
            // All of them: the oldest of a key are what the client needs least.
            while let Some(freed) = self.lanes[lane].drop_same(&label.channel, label.key) {
                self.count_dropped(freed);
            }
        }
        // Nothing is to go for a frame that would not fit then.
        if bytes > limits.bytes_max {
            return self.has_room(limits, bytes);
        }
        while !self.has_room(limits, bytes) {
            let lanes = || (lane..=LOW).rev();
            let freed = lanes().find_map(|lane| self.lanes[lane].drop_oldest_of(&label.channel));
            let Some(freed) = freed.or_else(|| lanes().find_map(|lane| self.lanes[lane].drop_oldest())) else {
                return false;
            };
            self.count_dropped(freed);
        }
        true
    }

    fn count_dropped(&mut self, freed: Freed) {
        self.frames -= freed.frames;
        self.bytes -= freed.bytes;
        self.dropped += freed.frames as u64;
    }

    /// Drops the frame that came.
    fn refuse(&mut self, lane: usize, limits: &OutboxLimits, label: &Label, reason: GapReason) -> Result<Pushed, Full> {
        let gaps: usize = self.lanes.iter().map(Lane::gaps).sum();
        if gaps > limits.frames_max + GAPS_BEYOND_FRAMES_MAX {
            return Err(Full::Overflow);
        }
        self.dropped += 1;
        self.lanes[lane].refuse(label, reason);
        Ok(Pushed::Dropped)
    }

    /// Spills the first frame.
    fn spill_first(
        &mut self,
        spills: Option<&Arc<dyn Spills>>,
        frame: &Finished,
        label: &Label,
    ) -> Result<Pushed, Full> {
        let Some(Ok(spill)) = spills.map(|spills| spills.open()) else { return Err(Full::Overflow) };
        self.spilled = Some(Box::new(Spilled::new(spill)));
        self.spill(frame, label)
    }

    fn spill(&mut self, frame: &Finished, label: &Label) -> Result<Pushed, Full> {
        let Some(spilled) = &mut self.spilled else { return Err(Full::Overflow) };
        // The first of its channel: what is in memory now is older, and goes before all that is spilled.
        if !spilled.holds(&label.channel) && self.lanes[NORMAL].mark() {
            spilled.marks += 1;
        }
        match spilled.put(frame, label) {
            Ok(()) => Ok(Pushed::Queued),
            Err(_) => Err(Full::Overflow),
        }
    }

    /// From half full on, the fuller the less: certain at the half, hopeless at the end.
    fn has_luck(&mut self, limits: &OutboxLimits) -> bool {
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let fill = share(self.frames, limits.frames_max).max(share(self.bytes, limits.bytes_max));
        if fill < 0.5 {
            return true;
        }
        self.chance = self.chance.wrapping_add(CHANCE_STEP);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        // 53 bits are what an f64 holds.
        let draw = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        draw < 2.0 * (1.0 - fill)
    }

    /// Whether nothing waits, not even a gap.
    pub(crate) fn is_empty(&self) -> bool {
        self.spilled.is_none() && self.lanes.iter().all(Lane::is_empty)
    }

    /// Whether something is spilled that goes before what is newer in memory.
    fn is_due(&self) -> bool {
        self.spilled.as_ref().is_some_and(|spilled| spilled.marks == 0)
    }

    /// Moves up to `most` from memory to the end of `into`.
    pub(crate) fn take(&mut self, most: usize, into: &mut Vec<Taken>) {
        let end = into.len().saturating_add(most);
        for lane in HIGH..LANES {
            self.take_lane(lane, end - into.len(), into);
        }
    }

    /// Moves up to `most` to the end of `into`, also from the spill, whose turn it is as often as that of the memory that is
    /// newer: what comes without a policy is not to wait for all of a disk.
    ///
    /// # Errors
    /// [`Full`] if what is spilled is lost.
    pub(crate) fn take_all(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
        into: &mut Vec<Taken>,
    ) -> Result<(), Full> {
        if self.spilled.is_none() {
            self.take(most, into);
            return Ok(());
        }
        let end = into.len().saturating_add(most);
        self.take_lane(HIGH, end - into.len(), into);
        if self.is_due() {
            self.read_spill(context, (end - into.len()).div_ceil(2), into)?;
        }
        self.take_lane(NORMAL, end - into.len(), into);
        if self.is_due() {
            self.read_spill(context, end - into.len(), into)?;
        }
        self.take_lane(LOW, end - into.len(), into);
        Ok(())
    }

    fn read_spill(&mut self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Result<(), Full> {
        let Some(spilled) = &mut self.spilled else { return Ok(()) };
        let read = spilled.read(context, most, into);
        if spilled.spill.is_empty() {
            self.spilled = None;
        }
        read.map_err(|_| Full::Overflow)
    }

    fn take_lane(&mut self, lane: usize, most: usize, into: &mut Vec<Taken>) {
        let freed = self.lanes[lane].take(most, into);
        self.frames -= freed.frames;
        self.bytes -= freed.bytes;
        if let Some(spilled) = &mut self.spilled {
            spilled.marks -= freed.marks;
        }
    }
}
