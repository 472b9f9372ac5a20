//! Whoever waits for the disk is woken, whatever becomes of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::place::Spilling;

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(spill: &mut Spilling, woken: &Arc<Woken>) -> Poll<Result<(), Full>> {
    let waker = Waker::from(Arc::clone(woken));
    spill.poll_read(&mut Context::from_waker(&waker), 100, &mut Vec::new())
}

/// A reader that came while the first frames are on their way to the disk, and then what becomes of it.
fn comes_while_it_is_written(house: &House, then: impl FnOnce(&mut Spilling)) {
    let mut spill = house.disk.place();
    let woken = Arc::new(Woken::default());
    // The writing thread gets no block, so that it does not end before the reader has come.
    let still = house.disk.node().blocks.lock();
    (0..20).for_each(|number| put(&mut spill, number, 1000).unwrap());
    until("it is being written", || spill.place.state.lock().is_moving());
    assert!(poll(&mut spill, &woken).is_pending());
    assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    drop(still);
    until("the reader is woken", || woken.0.load(Ordering::SeqCst) == 1);
    then(&mut spill);
    drop(spill);
    until("all is given back", || house.disk.node().held() == (0, 0));
}

#[test]
fn a_reader_that_comes_while_it_is_written_is_woken() {
    let house = House::new(SpillConfig::default());
    comes_while_it_is_written(&house, |spill| assert_eq!(drain(spill), expected(0..20, 1000)));
    house.until_empty();
}

#[test]
fn a_reader_that_comes_while_it_is_written_is_woken_if_that_fails() {
    let house = House::on(File::options().read(true).write(true).open("/dev/full").unwrap());
    comes_while_it_is_written(&house, |spill| {
        assert_eq!(drain(spill), expected(0..20, 1000));
        assert_eq!(put(spill, 20, 10), Err(Full::Overflow));
    });
}

#[test]
fn a_reader_of_what_cannot_be_read_back_is_woken() {
    let house = House::on(File::options().read(true).write(true).open("/dev/null").unwrap());
    comes_while_it_is_written(&house, |spill| {
        assert_eq!(read(spill, 10).err(), Some(Full::Overflow));
    });
}

/// A session that goes while its first frames are on their way to the disk.
fn goes_while_it_is_written(house: &House) {
    let mut spill = house.disk.place();
    let still = house.disk.node().blocks.lock();
    (0..50).for_each(|number| put(&mut spill, number, 1000).unwrap());
    until("it is being written", || spill.place.state.lock().is_moving());
    drop(spill);
    assert!(house.disk.node().held().0 > 0, "what is on its way is still held");
    drop(still);
    house.until_empty();
}

#[test]
fn a_session_that_goes_while_it_is_written_gives_all_back() {
    goes_while_it_is_written(&House::new(SpillConfig::default()));
}

#[test]
fn a_session_that_goes_while_a_write_fails_gives_all_back() {
    goes_while_it_is_written(&House::on(File::options().read(true).write(true).open("/dev/full").unwrap()));
}

#[test]
fn the_threads_end_with_the_last_of_disk_and_sessions() {
    let house = House::new(SpillConfig::default());
    let mut spill = house.open();
    (0..1000).for_each(|number| put(&mut *spill, number, 1000).unwrap());
    let node = Arc::downgrade(house.disk.node());
    drop(house);
    assert_eq!(drain(&mut *spill), expected(0..1000, 1000), "a session keeps the disk going");
    (0..1000).for_each(|number| put(&mut *spill, number, 1000).unwrap());
    drop(spill);
    until("both threads have let go", || node.strong_count() == 0);
}
