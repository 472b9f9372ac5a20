//! What is put comes back, as it was, in its order.

use std::{collections::VecDeque, thread};

use proptest::prelude::*;

use super::*;
use crate::{
    blocks::BLOCK_BYTES,
    record::{RECORD_BYTES, bytes_of},
};

#[test]
fn frames_come_back_in_order_with_their_labels() {
    let house = House::new(SpillConfig::default());
    let mut spill = house.open();
    (0..5000).for_each(|number| put(&mut *spill, number, 300).unwrap());
    assert_eq!((spill.len(), spill.bytes(), house.metric("bytes")), (5000, 1_500_000, 1_500_000));
    until("nearly all is written", || house.metric("frames_written_total") > 4900);
    assert!(house.metric("file_bytes") >= 1_500_000);
    assert_eq!(drain(&mut *spill), expected(0..5000, 300));
    drop(spill);
    house.until_empty();
}

#[test]
fn a_client_that_catches_up_never_touches_the_disk() {
    let house = House::new(SpillConfig::default());
    let mut spill = house.open();
    for round in 0..1000 {
        (0..10).for_each(|number| put(&mut *spill, round * 10 + number, 1000).unwrap());
        assert_eq!(drain(&mut *spill), expected(round * 10..round * 10 + 10, 1000));
    }
    assert_eq!((house.metric("frames_written_total"), house.metric("file_bytes")), (0, 0));
    assert_eq!(house.disk.node().held(), (0, 0));
}

#[test]
fn a_frame_may_be_larger_than_what_is_read_at_once() {
    let house = House::new(SpillConfig::default());
    let mut spill = house.open();
    let sizes = [100_000, 10, 2_000_000, 0, BLOCK_BYTES - RECORD_BYTES, 1];
    for (number, size) in sizes.into_iter().enumerate() {
        put(&mut *spill, number, size).unwrap();
    }
    let all: Vec<_> = sizes.into_iter().enumerate().flat_map(|(number, size)| expected([number], size)).collect();
    assert_eq!(drain(&mut *spill), all);
}

#[test]
fn it_can_be_read_while_it_is_written() {
    let house = House::new(SpillConfig { bytes_per_session_max: 1 << 30, ..SpillConfig::default() });
    let spill = std::sync::Arc::new(parking_lot::Mutex::new(house.open()));
    let writer = {
        let spill = Arc::clone(&spill);
        thread::spawn(move || (0..50_000).for_each(|number| put(&mut **spill.lock(), number, 200).unwrap()))
    };
    let mut next = 0;
    let start = Instant::now();
    while next < 50_000 {
        let mut taken = Vec::new();
        let mut locked = spill.lock();
        if !locked.is_empty() {
            // Never woken here: that is another test's.
            let polled = locked.poll_read(&mut Context::from_waker(Waker::noop()), 64, &mut taken);
            assert_ne!(polled, Poll::Ready(Err(Full::Overflow)));
        }
        drop(locked);
        let count = taken.len();
        let taken: Vec<_> = taken.into_iter().map(plain).collect();
        assert!(taken == expected(next..next + count, 200), "from {next} on");
        next += count;
        assert!(start.elapsed() < PATIENCE, "{next} were read");
    }
    writer.join().unwrap();
    drop(spill);
    house.until_empty();
}

#[test]
fn many_clients_at_once_get_each_their_own() {
    let house = House::new(SpillConfig { memory_bytes_max: 4 << 20, ..SpillConfig::default() });
    thread::scope(|scope| {
        for thread in 0..4 {
            let house = &house.disk;
            scope.spawn(move || {
                let mut spills: Vec<_> = (0..50).map(|_| house.open().unwrap()).collect();
                for number in 0..400 {
                    for (client, spill) in spills.iter_mut().enumerate() {
                        put_patiently(&mut **spill, thread * 1000 + client * 7 + number);
                    }
                }
                // Every other one goes without having read.
                for (client, mut spill) in spills.into_iter().enumerate().filter(|(client, _)| client % 2 == 0) {
                    let first = thread * 1000 + client * 7;
                    assert!(drain(&mut *spill) == expected(first..first + 400, 100), "client {client} of {thread}");
                }
            });
        }
    });
    house.until_empty();
}

/// Puts again as long as the disk does not keep up.
fn put_patiently(spill: &mut dyn Spill, number: usize) {
    let start = Instant::now();
    while put(spill, number, 100).is_err() {
        assert!(start.elapsed() < PATIENCE, "memory is never free again");
        thread::yield_now();
    }
}

/// Of several sessions, one does something.
#[derive(Clone, Debug)]
enum Step {
    Put {
        session: usize,
        size: usize,
    },
    /// Reads once, and waits for the disk.
    Read {
        session: usize,
        most: usize,
    },
    /// Asks once.
    Poll {
        session: usize,
        most: usize,
    },
    /// Goes, and comes back with nothing.
    Leave {
        session: usize,
    },
}

const SESSIONS: usize = 3;
const SESSION_BYTES_MAX: usize = 300_000;

fn step() -> impl Strategy<Value = Step> {
    let session = 0..SESSIONS;
    let size = prop_oneof![6 => 0..200_usize, 3 => 200..6000_usize, 1 => 6000..100_000_usize];
    prop_oneof![
        20 => (session.clone(), size).prop_map(|(session, size)| Step::Put { session, size }),
        4 => (session.clone(), 1..60_usize).prop_map(|(session, most)| Step::Read { session, most }),
        4 => (session.clone(), 1..60_usize).prop_map(|(session, most)| Step::Poll { session, most }),
        1 => session.prop_map(|session| Step::Leave { session }),
    ]
}

/// A session, and what it must be.
struct Pair {
    spill: Box<dyn Spill>,
    model: VecDeque<(usize, usize)>,
}

impl Pair {
    fn check(&mut self, taken: Vec<Taken>) {
        for taken in taken {
            let (number, size) = self.model.pop_front().expect("no more comes out than was put in");
            assert!(plain(taken) == expected([number], size)[0], "{number}");
        }
        assert_eq!(self.spill.len(), self.model.len());
        assert_eq!(self.spill.bytes(), self.model.iter().map(|(_, size)| size).sum::<usize>());
    }

    fn take(&mut self, step: &Step, number: usize) {
        match *step {
            Step::Put { size, .. } => {
                let held: usize = self.model.iter().map(|(_, size)| size + RECORD_BYTES).sum();
                let fits = held + bytes_of(&frame(number, size)) <= SESSION_BYTES_MAX;
                let put = put(&mut *self.spill, number, size);
                assert_eq!(put.is_ok(), fits, "{held} and {size}");
                if fits {
                    self.model.push_back((number, size));
                }
                self.check(Vec::new());
            }
            Step::Read { most, .. } if !self.model.is_empty() => {
                let taken = read(&mut *self.spill, most).unwrap();
                assert!((1..=most).contains(&taken.len()));
                self.check(taken);
            }
            Step::Poll { most, .. } if !self.model.is_empty() => {
                let mut taken = Vec::new();
                let polled = self.spill.poll_read(&mut Context::from_waker(Waker::noop()), most, &mut taken);
                assert_eq!(polled.is_pending(), taken.is_empty());
                self.check(taken);
            }
            Step::Read { .. } | Step::Poll { .. } | Step::Leave { .. } => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// With much memory tails are written by the block, with little as they come.
    #[test]
    fn it_is_a_queue_for_each_session(memory in prop_oneof![Just(2 << 20), Just(64 << 20)], steps in prop::collection::vec(step(), 1..400)) {
        let house = House::new(SpillConfig {
            bytes_per_session_max: SESSION_BYTES_MAX as u64,
            memory_bytes_max: memory,
            ..SpillConfig::default()
        });
        let pair = || Pair { spill: house.open(), model: VecDeque::new() };
        let mut pairs: Vec<_> = (0..SESSIONS).map(|_| pair()).collect();
        for (number, step) in steps.iter().enumerate() {
            match *step {
                Step::Leave { session } => pairs[session] = pair(),
                Step::Put { session, .. } | Step::Read { session, .. } | Step::Poll { session, .. } => {
                    pairs[session].take(step, number);
                }
            }
        }
        for pair in &mut pairs {
            while !pair.model.is_empty() {
                let taken = read(&mut *pair.spill, 50).unwrap();
                pair.check(taken);
            }
        }
        drop(pairs);
        house.until_empty();
    }
}
