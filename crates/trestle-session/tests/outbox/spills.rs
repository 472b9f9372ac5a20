//! What waits outside of memory.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use trestle_session::{Finished, Full, Outbox, Pushed, Spill, Spills, Taken};
use trestle_wire::v1::Overflow;

use crate::boxes::{Count, LIMITS, Out, frame, gap, label, poll, short};

/// A disk that is not one: what is put can be read when the test says so.
#[derive(Default)]
pub(crate) struct Disk {
    frames: VecDeque<Finished>,
    /// Frames that have come back from the disk.
    ready: usize,
    most: usize,
    broken: bool,
    reader: Option<Waker>,
}

/// All disks of a node, and how many there are now.
#[derive(Clone)]
pub(crate) struct Disks {
    disk: Arc<Mutex<Disk>>,
    open: Arc<AtomicUsize>,
}

struct Place(Disks);

impl Disks {
    pub(crate) fn of(most: usize) -> Self {
        let disk = Disk { most, ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)), open: Arc::default() }
    }

    /// So many more have been read.
    pub(crate) fn ready(&self, count: usize) {
        let mut disk = self.disk.lock();
        disk.ready += count;
        if let Some(reader) = disk.reader.take() {
            reader.wake();
        }
    }
}

impl Spills for Disks {
    fn open(&self) -> Result<Box<dyn Spill>, Full> {
        if self.disk.lock().most == 0 {
            return Err(Full::Closed);
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Place(self.clone())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Spill for Place {
    fn put(&mut self, frame: &Finished) -> Result<(), Full> {
        let mut disk = self.0.disk.lock();
        if disk.frames.len() >= disk.most {
            return Err(Full::Overflow);
        }
        disk.frames.push_back(frame.clone());
        Ok(())
    }

    fn poll_read(&mut self, context: &mut Context<'_>, most: usize, into: &mut Vec<Taken>) -> Poll<Result<(), Full>> {
        let mut disk = self.0.disk.lock();
        if disk.broken {
            return Poll::Ready(Err(Full::Closed));
        }
        let count = most.min(disk.ready).min(disk.frames.len());
        if count == 0 {
            disk.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        disk.ready -= count;
        into.extend(disk.frames.drain(..count).map(Taken::Frame));
        Poll::Ready(Ok(()))
    }

    fn len(&self) -> usize {
        self.0.disk.lock().frames.len()
    }

    fn bytes(&self) -> usize {
        self.0.disk.lock().frames.iter().map(|frame| frame.len()).sum()
    }
}

fn outbox(most: usize) -> (Outbox, Disks) {
    let disks = Disks::of(most);
    (Outbox::with_spills(LIMITS, Arc::new(disks.clone())), disks)
}

fn push(outbox: &Outbox, channel: &str, overflow: Overflow, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        let label = label(channel, overflow, number.into());
        assert_eq!(outbox.push(Finished::labelled(frame(number), label.clone())), Ok(Pushed::Queued), "{number}");
    }
}

fn frames(numbers: impl IntoIterator<Item = u32>) -> Option<Result<Vec<Out>, Full>> {
    Some(Ok(numbers.into_iter().map(Out::Frame).collect()))
}

#[test]
fn what_finds_no_room_waits_outside_and_comes_back_in_order() {
    let (outbox, disks) = outbox(100);
    push(&outbox, "room:1", Overflow::Spill, 1..=9);
    assert_eq!((outbox.len(), outbox.spilled()), (4, (5, 20)));
    assert_eq!(poll(&outbox, 3), frames(1..=3));
    push(&outbox, "room:1", Overflow::Spill, 10..=10);
    assert_eq!(outbox.len(), 1, "it waits behind what is spilled");
    disks.ready(4);
    assert_eq!(poll(&outbox, 9), frames(4..=8));
    assert_eq!(poll(&outbox, 9), None);
    disks.ready(2);
    assert_eq!(poll(&outbox, 9), frames(9..=10));
    assert_eq!(disks.open.load(Ordering::Relaxed), 0, "its place is given back");
    push(&outbox, "room:1", Overflow::Spill, 11..=11);
    assert_eq!((outbox.len(), outbox.spilled()), (1, (0, 0)));
}

#[test]
fn the_writer_is_woken_when_the_disk_has_read() {
    let (outbox, disks) = outbox(100);
    push(&outbox, "room:1", Overflow::Spill, 1..=5);
    assert_eq!(poll(&outbox, 9), frames(1..=4));
    let (count, waker) = Count::new();
    let mut taken = Vec::new();
    assert!(outbox.poll_take(&mut Context::from_waker(&waker), 9, &mut taken).is_pending());
    disks.ready(1);
    assert_eq!(count.get(), 1);
    assert!(outbox.poll_take(&mut Context::from_waker(&waker), 9, &mut taken).is_ready());
    assert_eq!(short(taken), [Out::Frame(5)]);
}

#[test]
fn other_types_of_a_spilled_channel_wait_behind_it_and_other_channels_do_not() {
    let (outbox, disks) = outbox(100);
    push(&outbox, "room:1", Overflow::Spill, 1..=5);
    assert_eq!(poll(&outbox, 9), frames(1..=4));
    push(&outbox, "room:1", Overflow::Disconnect, 6..=6);
    push(&outbox, "room:2", Overflow::Disconnect, 7..=7);
    outbox.push(frame(8).into()).unwrap();
    assert_eq!(poll(&outbox, 9), frames([7, 8]));
    disks.ready(2);
    assert_eq!(poll(&outbox, 9), frames([5, 6]));
}

#[test]
fn a_channel_of_which_nothing_is_spilled_any_more_waits_in_memory() {
    let (outbox, disks) = outbox(100);
    push(&outbox, "room:1", Overflow::Spill, 1..=5);
    push(&outbox, "room:2", Overflow::Spill, 6..=6);
    assert_eq!(poll(&outbox, 9), frames(1..=4));
    disks.ready(1);
    assert_eq!(poll(&outbox, 9), frames([5]));
    push(&outbox, "room:1", Overflow::Disconnect, 7..=7);
    assert_eq!((outbox.len(), outbox.spilled().0), (1, 1));
    assert_eq!(poll(&outbox, 9), frames([7]));
}

#[test]
fn a_gap_that_is_older_comes_before_what_is_spilled() {
    let (outbox, disks) = outbox(100);
    (1..=4).for_each(|number| _ = outbox.push(frame(number).into()).unwrap());
    push(&outbox, "room:2", Overflow::Spill, 1..=1);
    for channel in ["room:1", "room:3"] {
        assert_eq!(
            outbox.push(Finished::labelled(frame(9), label(channel, Overflow::DropNewest, 1))),
            Ok(Pushed::Dropped)
        );
    }
    push(&outbox, "room:3", Overflow::Spill, 2..=2);
    disks.ready(2);
    assert_eq!(poll(&outbox, 4), frames(1..=4));
    assert_eq!(poll(&outbox, 1), Some(Ok(vec![gap("room:1", 1, 1, 1)])));
    assert_eq!(poll(&outbox, 1), Some(Ok(vec![gap("room:3", 1, 1, 1)])));
    assert_eq!(poll(&outbox, 9), frames(1..=2));
}

#[test]
fn what_is_spilled_and_what_is_newer_have_their_turns() {
    let (outbox, disks) = outbox(100);
    push(&outbox, "room:1", Overflow::Spill, 1..=12);
    assert_eq!(poll(&outbox, 4), frames(1..=4));
    disks.ready(8);
    (21..=24).for_each(|number| _ = outbox.push(frame(number).into()).unwrap());
    assert_eq!(poll(&outbox, 4), frames(21..=24), "its turn comes after what was before it");
    (31..=34).for_each(|number| _ = outbox.push(frame(number).into()).unwrap());
    assert_eq!(poll(&outbox, 4), frames([5, 6, 31, 32]));
    assert_eq!(poll(&outbox, 4), frames([7, 8, 33, 34]));
    assert_eq!(poll(&outbox, 9), frames(9..=12));
}

#[test]
fn a_full_or_broken_disk_closes_the_outbox() {
    let (full, _) = outbox(1);
    push(&full, "room:1", Overflow::Spill, 1..=5);
    assert_eq!(full.push(Finished::labelled(frame(6), label("room:1", Overflow::Spill, 6))), Err(Full::Overflow));
    let (none, _) = outbox(0);
    push(&none, "room:1", Overflow::Spill, 1..=4);
    assert_eq!(none.push(Finished::labelled(frame(5), label("room:1", Overflow::Spill, 5))), Err(Full::Overflow));
    let (broken, disks) = outbox(100);
    push(&broken, "room:1", Overflow::Spill, 1..=5);
    assert_eq!(poll(&broken, 4), frames(1..=4));
    disks.disk.lock().broken = true;
    assert_eq!(poll(&broken, 4), Some(Err(Full::Overflow)));
    assert_eq!(broken.push(frame(7).into()), Err(Full::Closed));
}

#[test]
fn the_rest_of_a_closed_outbox_is_also_on_the_disk() {
    let (outbox, disks) = outbox(100);
    push(&outbox, "room:1", Overflow::Spill, 1..=6);
    outbox.close();
    let (count, waker) = Count::new();
    let (mut context, mut taken) = (Context::from_waker(&waker), Vec::new());
    assert_eq!(outbox.poll_rest(&mut context, 9, &mut taken), Poll::Ready(Ok(())));
    assert!(outbox.poll_rest(&mut context, 9, &mut taken).is_pending());
    disks.ready(2);
    assert_eq!(count.get(), 1);
    assert_eq!(outbox.poll_rest(&mut context, 9, &mut taken), Poll::Ready(Ok(())));
    let before = taken.len();
    assert_eq!(outbox.poll_rest(&mut context, 9, &mut taken), Poll::Ready(Ok(())));
    assert_eq!((taken.len(), before), (6, 6), "nothing is left");
    assert!(outbox.is_empty());
}
