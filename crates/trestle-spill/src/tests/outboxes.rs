//! Together with the outboxes that it is for.

use trestle_session::{Outbox, OutboxLimits, Pushed};

use super::*;

const LIMITS: OutboxLimits = OutboxLimits { bytes_max: 16 * 1024, frames_max: 100 };

fn spilled(number: usize) -> Label {
    Label { overflow: Overflow::Spill, ..label(number) }
}

fn take(outbox: &Outbox) -> Result<Vec<Taken>, Full> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (start, mut taken) = (Instant::now(), Vec::new());
    loop {
        match outbox.poll_take(&mut Context::from_waker(&waker), 64, &mut taken) {
            Poll::Ready(read) => return read.map(|()| taken),
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
        assert!(start.elapsed() < PATIENCE, "nobody wakes the writer");
    }
}

#[test]
fn a_client_that_stood_still_gets_all_of_it_in_order() {
    let house = House::new(SpillConfig::default());
    let outbox = Outbox::with_spills(LIMITS, Arc::<Disk>::clone(&house.disk));
    for number in 0..10_000 {
        assert_eq!(outbox.push(Finished::labelled(frame(number, 200), spilled(number))), Ok(Pushed::Queued));
    }
    assert!(outbox.bytes() <= LIMITS.bytes_max);
    assert_eq!(outbox.len() + outbox.spilled().0, 10_000);
    assert_eq!(house.metric("sessions"), 1);
    let mut next = 0;
    while !outbox.is_empty() {
        for taken in take(&outbox).unwrap().into_iter().map(plain) {
            assert!(taken == Finished::labelled(frame(next, 200), spilled(next)), "{next}");
            next += 1;
        }
    }
    assert_eq!(next, 10_000);
    house.until_empty();
}

#[test]
fn a_client_whose_spill_is_full_is_parted_from_and_gets_what_was_before() {
    let house = House::new(SpillConfig { bytes_per_session_max: 200_000, ..SpillConfig::default() });
    let outbox = Outbox::with_spills(LIMITS, Arc::<Disk>::clone(&house.disk));
    let taken =
        (0..10_000).take_while(|number| outbox.push(Finished::labelled(frame(*number, 200), spilled(*number))).is_ok());
    let taken = taken.count();
    assert!((850..950).contains(&taken), "{taken}");
    assert_eq!(take(&outbox).err(), Some(Full::Overflow));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut rest = Vec::new();
    loop {
        let before = rest.len();
        match outbox.poll_rest(&mut Context::from_waker(&waker), 64, &mut rest) {
            Poll::Ready(read) => read.unwrap(),
            Poll::Pending => {
                thread::park_timeout(PATIENCE);
                continue;
            }
        }
        if rest.len() == before {
            break;
        }
    }
    let rest: Vec<_> = rest.into_iter().map(plain).collect();
    let put = (0..taken).map(|number| Finished::labelled(frame(number, 200), spilled(number)));
    assert_eq!(rest, put.collect::<Vec<_>>());
    house.until_empty();
}

#[test]
fn a_client_that_goes_gives_its_place_back() {
    let house = House::new(SpillConfig::default());
    let outbox = Outbox::with_spills(LIMITS, Arc::<Disk>::clone(&house.disk));
    for number in 0..10_000 {
        outbox.push(Finished::labelled(frame(number, 200), spilled(number))).unwrap();
    }
    assert!(house.disk.node().held().1 > 100);
    drop(outbox);
    house.until_empty();
}
