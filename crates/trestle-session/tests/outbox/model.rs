//! What holds whatever is pushed and however slowly it is taken: all that was pushed comes out, or is in a gap.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Waker},
};

use proptest::prelude::*;
use trestle_session::{Finished, Full, Label, Outbox, OutboxLimits, Pushed, Taken};
use trestle_wire::{
    ChannelName,
    v1::{Gap, Overflow, Priority},
};

use crate::{
    boxes::{number, sized},
    spills::Disks,
};

const LIMITS: OutboxLimits = OutboxLimits { bytes_max: 600, frames_max: 12 };
/// Those that begin with `room` keep a history.
const CHANNELS: [&str; 4] = ["", "live:1", "room:1", "room:2"];
const POLICIES: [Overflow; 6] = [
    Overflow::Disconnect,
    Overflow::DropOldest,
    Overflow::DropNewest,
    Overflow::Conflate,
    Overflow::Sample,
    Overflow::Spill,
];
const PRIORITIES: [Priority; 4] = [Priority::Normal, Priority::High, Priority::Low, Priority::Unspecified];

/// An outbox and all that is known of it from outside.
struct Model {
    outbox: Outbox,
    disks: Disks,
    labels: HashMap<u32, Option<Label>>,
    next: u32,
    /// Messages that were pushed, by channel; the offset of the last one.
    pushed: HashMap<String, u64>,
    /// Messages that came out or were told in gaps, by channel.
    told: HashMap<String, u64>,
    gaps: u64,
    /// The last frame that came out of each channel and lane.
    last: HashMap<(String, usize), u32>,
    answers: Vec<u32>,
}

/// The lane, by what the protocol says of priorities.
fn lane(label: &Label) -> usize {
    match label.priority {
        _ if label.offset != 0 || label.overflow == Overflow::Spill => 1,
        Priority::High => 0,
        Priority::Normal | Priority::Unspecified => 1,
        Priority::Low => 2,
    }
}

fn droppable(label: &Label) -> bool {
    !matches!(label.overflow, Overflow::Disconnect | Overflow::Spill)
}

impl Model {
    fn new() -> Self {
        let disks = Disks::of(40);
        Self {
            outbox: Outbox::with_spills(LIMITS, Arc::new(disks.clone())),
            disks,
            labels: HashMap::new(),
            next: 0,
            pushed: HashMap::new(),
            told: HashMap::new(),
            gaps: 0,
            last: HashMap::new(),
            answers: Vec::new(),
        }
    }

    /// Pushes a message; `false` once the outbox has closed.
    fn push(&mut self, channel: usize, policy: usize, more: usize, bytes: usize) -> bool {
        self.next += 1;
        let name = CHANNELS[channel];
        let pushed = self.pushed.entry(name.into()).or_default();
        let label = Label {
            channel: ChannelName::parse(name).ok(),
            offset: if name.starts_with("room") { *pushed + 1 } else { 0 },
            id: self.next.into(),
            publisher: 0,
            overflow: POLICIES[policy],
            key: more as u64 % 3,
            priority: PRIORITIES[more % PRIORITIES.len()],
        };
        self.labels.insert(self.next, Some(label.clone()));
        match self.outbox.push(Finished::labelled(sized(self.next, bytes), label.clone())) {
            Ok(Pushed::Queued) => *pushed += 1,
            Ok(Pushed::Dropped) => {
                *pushed += 1;
                assert!(droppable(&label), "{label:?} was dropped");
            }
            Err(full) => {
                assert_eq!(full, Full::Overflow);
                // What comes behind something spilled waits there too, and the disk may be full.
                let spilled = self.outbox.spilled().0 > 0;
                assert!(spilled || !droppable(&label), "{label:?} has closed the outbox");
                self.check_overflow(label.overflow == Overflow::Spill);
                return false;
            }
        }
        true
    }

    fn answer(&mut self) -> bool {
        self.next += 1;
        self.labels.insert(self.next, None);
        match self.outbox.push(sized(self.next, 20).into()) {
            Ok(pushed) => {
                assert_eq!(pushed, Pushed::Queued, "an answer was dropped");
                self.answers.push(self.next);
                true
            }
            Err(full) => {
                assert_eq!(full, Full::Overflow);
                self.check_overflow(false);
                false
            }
        }
    }

    /// The outbox closes only when nothing is left that may go; or when the disk is full.
    fn check_overflow(&self, spilled: bool) {
        let mut left = Vec::new();
        self.outbox.take(usize::MAX, &mut left);
        let may_go = |taken: &Taken| matches!(taken, Taken::Frame(frame) if frame.label().is_some_and(droppable));
        assert!(spilled || self.outbox.spilled().0 > 0 || !left.iter().any(may_go), "{left:?}");
    }

    fn check_bounds(&self) {
        let (frames, bytes) = (self.outbox.len(), self.outbox.bytes());
        assert!(frames <= LIMITS.frames_max && (bytes <= LIMITS.bytes_max || frames == 1), "{frames} {bytes}");
    }

    /// Takes up to `most`; how much that was.
    fn take(&mut self, most: usize) -> usize {
        let mut taken = Vec::new();
        let polled = self.outbox.poll_take(&mut Context::from_waker(Waker::noop()), most, &mut taken);
        assert!(polled.is_pending() || most == 0 || !taken.is_empty(), "ready with nothing");
        assert!(taken.len() <= most);
        let count = taken.len();
        let (mut highest, mut gap_of) = (0, None);
        for taken in taken {
            match taken {
                Taken::Frame(frame) => {
                    let at = self.came(number(&frame), frame.label());
                    assert!(highest <= at, "lane {at} came behind lane {highest}");
                    highest = at;
                    gap_of = None;
                }
                Taken::Gap(gap) => {
                    assert!(
                        !gap.channel.starts_with("room") || gap_of.as_ref() != Some(&gap.channel),
                        "two gaps as one"
                    );
                    gap_of = Some(gap.channel.clone());
                    self.missed(&gap);
                }
            }
        }
        count
    }

    /// A frame came out; of which lane.
    fn came(&mut self, number: u32, label: Option<&Label>) -> usize {
        assert_eq!(self.labels[&number].as_ref(), label, "it has another label than it came with");
        let Some(label) = label else {
            assert_eq!(self.answers.remove(0), number, "answers come in order, each once");
            return 1;
        };
        let channel = label.channel.as_ref().map(ToString::to_string).unwrap_or_default();
        let told = self.told.entry(channel.clone()).or_default();
        *told += 1;
        if label.offset != 0 {
            assert_eq!(label.offset, *told, "of {channel} something is missing, or comes twice");
        }
        let lane = lane(label);
        let last = self.last.insert((channel.clone(), lane), number);
        // What may be spilled stands still while others of its channel go by, where there is no history.
        if label.offset != 0 || lane != 1 {
            assert!(last < Some(number), "{channel} is out of order");
        }
        lane
    }

    fn missed(&mut self, gap: &Gap) {
        self.gaps += gap.count;
        assert!(gap.count > 0);
        let told = self.told.entry(gap.channel.clone()).or_default();
        if gap.channel.starts_with("room") {
            assert_eq!((gap.from, gap.to), (*told + 1, *told + gap.count), "{gap:?} is not what is missing");
        } else {
            assert_eq!((gap.from, gap.to), (0, 0));
        }
        *told += gap.count;
    }

    /// All that was pushed comes out, or is in a gap.
    fn end(mut self) {
        self.disks.ready(usize::MAX / 2);
        while self.take(usize::MAX) > 0 {}
        self.pushed.retain(|_, count| *count > 0);
        assert_eq!(self.told, self.pushed);
        assert_eq!((self.answers.len(), self.outbox.dropped()), (0, self.gaps));
        assert!(self.outbox.is_empty());
        assert_eq!((self.outbox.len(), self.outbox.bytes(), self.outbox.spilled()), (0, 0, (0, 0)));
    }
}

type Step = (u8, usize, usize, usize, usize);

/// Random steps; each channel with policies of its own, or one for each message.
fn run(script: Vec<Step>, mixed: bool, policies: usize) {
    let mut model = Model::new();
    for (kind, channel, policy, more, bytes) in script {
        let open = match kind {
            0 => {
                model.take(more);
                true
            }
            1 => {
                model.disks.ready(more);
                true
            }
            2 => model.answer(),
            _ => {
                let policy = if mixed { policy % policies } else { (channel + more / 12 + 1) % policies };
                model.push(channel, policy, more, bytes)
            }
        };
        if !open {
            return;
        }
        model.check_bounds();
    }
    model.end();
}

fn script() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0..24_u8, 0..4_usize, 0..6_usize, 0..14_usize, 4..120_usize), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn all_that_was_pushed_comes_out_or_is_in_a_gap(script in script()) {
        // Without those that close a full outbox or wait on disk, lives are long.
        let script = script.into_iter().map(|(kind, channel, policy, more, bytes)| {
            (if kind == 2 { 0 } else { kind }, channel, policy % 4 + 1, more, bytes)
        });
        run(script.collect(), true, 5);
    }

    #[test]
    fn answers_and_lossless_messages_come_among_the_others(script in script(), mixed: bool) {
        run(script, mixed, 5);
    }

    #[test]
    fn nothing_changes_by_what_waits_on_disk(script in script(), mixed: bool) {
        run(script, mixed, 6);
    }
}
