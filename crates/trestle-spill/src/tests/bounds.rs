//! What is more than there may be is refused, and what goes makes room.

use super::*;
use crate::{blocks::BLOCK_BYTES, record::RECORD_BYTES};

const REFUSED: Result<(), Full> = Err(Full::Overflow);
/// Of a frame whose record is 1,000 bytes.
const SIZE: usize = 1000 - RECORD_BYTES;

#[test]
fn a_session_has_no_more_than_it_may() {
    let house = House::new(SpillConfig { bytes_per_session_max: 100_000, ..SpillConfig::default() });
    let (mut spill, mut other) = (house.open(), house.open());
    (0..100).for_each(|number| put(&mut *spill, number, SIZE).unwrap());
    assert_eq!(put(&mut *spill, 100, SIZE), REFUSED);
    assert_eq!(put(&mut *other, 0, SIZE), Ok(()), "that is its own affair");
    assert_eq!(house.refused(), [1, 0, 0, 0]);
    let taken = read(&mut *spill, 7).unwrap().len();
    (0..taken).for_each(|number| put(&mut *spill, 100 + number, SIZE).unwrap());
    assert_eq!(put(&mut *spill, 107, SIZE), REFUSED, "what was read made room, and no more");
    assert_eq!(drain(&mut *spill), expected(taken..100 + taken, SIZE));
}

#[test]
fn the_node_has_no_more_blocks_than_it_may() {
    let bytes_max = 4 * BLOCK_BYTES as u64;
    let house = House::new(SpillConfig { bytes_max, ..SpillConfig::default() });
    let (mut spill, mut other) = (house.open(), house.open());
    // 16 x 1,000 bytes are in the first block, and as many as 49 in three.
    (0..49).for_each(|number| put(&mut *spill, number, SIZE).unwrap());
    put(&mut *other, 0, SIZE).unwrap();
    assert_eq!(put(&mut *spill, 49, SIZE), REFUSED);
    assert!(house.disk.open().is_err(), "a third one has no block");
    assert_eq!(house.refused(), [0, 2, 0, 0]);
    (1..16).for_each(|number| put(&mut *other, number, SIZE).unwrap());
    until("what is a block is written", || house.metric("frames_written_total") > 16);
    assert!(house.metric("file_bytes") <= bytes_max);
    drop(spill);
    until("its blocks are free", || house.disk.node().held().1 == 1);
    (16..65).for_each(|number| put(&mut *other, number, SIZE).unwrap());
    assert_eq!(drain(&mut *other), expected(0..65, SIZE));
    drop(other);
    house.until_empty();
}

#[test]
fn what_a_slow_disk_does_not_take_is_bounded_in_memory() {
    let house = House::new(SpillConfig { memory_bytes_max: 100_000, ..SpillConfig::default() });
    let mut spill = house.open();
    let node = house.disk.node();
    // The writing thread gets no block, as if the disk stood still.
    let still = node.blocks.lock();
    (0..100).for_each(|number| put(&mut *spill, number, SIZE).unwrap());
    assert_eq!(put(&mut *spill, 100, SIZE), REFUSED);
    assert_eq!(house.refused(), [0, 0, 1, 0]);
    drop(still);
    until("the disk keeps up again", || node.held().0 <= 50_000);
    put(&mut *spill, 100, SIZE).unwrap();
    assert_eq!(drain(&mut *spill), expected(0..101, SIZE));
}

#[test]
fn small_frames_share_blocks_when_memory_is_short() {
    let house = House::new(SpillConfig { memory_bytes_max: 10_000, ..SpillConfig::default() });
    let (mut spill, mut idle) = (house.open(), house.open());
    // Half of the memory is taken by who gets nothing more.
    (0..6).for_each(|number| put(&mut *idle, number, SIZE).unwrap());
    let before = house.metric("frames_written_total");
    for number in 0..20 {
        put(&mut *idle, number, 10).unwrap();
        put(&mut *spill, number, SIZE).unwrap();
        until("memory is free", || house.disk.node().held().0 < 8000);
    }
    assert!(house.metric("frames_written_total") > before + 10, "they do not wait for a block");
    assert!(house.metric("file_bytes") <= 4 * BLOCK_BYTES as u64, "{}", house.metric("file_bytes"));
    assert_eq!(drain(&mut *spill), expected(0..20, SIZE));
}

#[test]
fn a_long_life_does_not_make_the_file_grow() {
    let house = House::new(SpillConfig::default());
    let mut spill = house.open();
    (0..200).for_each(|number| put(&mut *spill, number, SIZE).unwrap());
    // Never empty: 200 KB wait all the time, and 20 MB go through.
    for (next, number) in (200..20_000).enumerate() {
        put(&mut *spill, number, SIZE).unwrap();
        let taken: Vec<_> = read(&mut *spill, 1).unwrap().into_iter().map(plain).collect();
        assert!(taken == expected([next], SIZE), "{next}");
    }
    assert!(house.metric("file_bytes") < 1 << 20, "{}", house.metric("file_bytes"));
    let needed = (spill.len() * 1000).div_ceil(BLOCK_BYTES);
    until("blocks that are read are given back", || house.disk.node().held().1 <= needed + 1);
    drop(spill);
    house.until_empty();
}
