//! A disk that fails, and a node that is killed.

use std::{fs, process::Command};

use super::*;

/// Set for the process that is killed: where it spills.
const KILLED_IN: &str = "TRESTLE_SPILL_KILLED_IN";

/// Whatever the disk did not take is told and counted, and what was accepted before comes back.
fn nothing_that_was_taken_is_lost(house: &House) {
    let mut spill = house.open();
    let mut count = 0;
    let start = Instant::now();
    while spill.put(&whole(count, 100_000)).is_ok() {
        count += 1;
        assert!(start.elapsed() < PATIENCE && count < 160, "the failure is never seen");
        thread::yield_now();
    }
    assert_eq!(drain(&mut *spill), expected(0..count, 100_000));
    assert_eq!(house.metric("frames_written_total"), 0);
    drop(spill);
    until("all is given back", || house.disk.node().held() == (0, 0));
    assert_eq!(house.disk.node().blocks.lock().file_bytes(), 0, "blocks that were not written are free");
}

#[test]
fn a_full_disk_costs_nothing_that_was_taken() {
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    nothing_that_was_taken_is_lost(&House::on(full));
}

#[test]
fn a_read_only_file_costs_nothing_that_was_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"").unwrap();
    nothing_that_was_taken_is_lost(&House::on(File::open(path).unwrap()));
}

#[test]
fn a_folder_that_is_not_there_costs_nothing_that_was_taken_and_may_come_back() {
    let house = House::new(SpillConfig::default());
    let path = house.folder.path().to_owned();
    fs::remove_dir(&path).unwrap();
    nothing_that_was_taken_is_lost(&house);
    fs::create_dir(&path).unwrap();
    let mut spill = house.open();
    (0..100).for_each(|number| put(&mut *spill, number, 1000).unwrap());
    until("it is written", || house.metric("frames_written_total") > 80);
    assert_eq!(drain(&mut *spill), expected(0..100, 1000));
}

#[test]
fn a_folder_that_is_removed_meanwhile_changes_nothing() {
    let house = House::new(SpillConfig::default());
    let mut spill = house.open();
    (0..100).for_each(|number| put(&mut *spill, number, 1000).unwrap());
    until("it is written", || house.metric("frames_written_total") > 80);
    fs::remove_dir(house.folder.path()).expect("nothing is in it that has a name");
    (100..1000).for_each(|number| put(&mut *spill, number, 1000).unwrap());
    assert_eq!(drain(&mut *spill), expected(0..1000, 1000));
}

#[test]
fn what_cannot_be_read_back_is_told() {
    // It takes everything and gives nothing back.
    let hole = File::options().read(true).write(true).open("/dev/null").unwrap();
    let house = House::on(hole);
    let mut spill = house.open();
    (0..100).for_each(|number| put(&mut *spill, number, 1000).unwrap());
    until("it is written", || house.metric("frames_written_total") > 80);
    assert_eq!(read(&mut *spill, 10).err(), Some(Full::Overflow));
    assert_eq!(put(&mut *spill, 100, 10), Err(Full::Overflow), "nothing comes after a loss");
    assert_eq!(house.refused(), [0, 0, 0, 1]);
    drop(spill);
    until("all is given back", || house.disk.node().held() == (0, 0));
}

#[test]
fn what_is_read_back_wrong_is_told() {
    // It gives back zeros, as a file does that has lost a part.
    let zeros = File::options().read(true).write(true).open("/dev/zero").unwrap();
    let house = House::on(zeros);
    let mut spill = house.open();
    (0..100).for_each(|number| put(&mut *spill, number, 1000).unwrap());
    until("it is written", || house.metric("frames_written_total") > 80);
    assert_eq!(read(&mut *spill, 10).err(), Some(Full::Overflow));
}

#[test]
fn a_node_that_is_killed_leaves_nothing_behind() {
    if let Some(folder) = std::env::var_os(KILLED_IN) {
        let config = SpillConfig { dir: Some(folder.into()), ..SpillConfig::default() };
        let mut registry = Registry::default();
        let disk = Disk::start(config, &mut registry).unwrap();
        let mut spill = disk.open().unwrap();
        (0..1000).for_each(|number| put(&mut *spill, number, 1000).unwrap());
        until("the file is there", || disk.node().file.bytes() > 500_000);
        println!("{}", disk.node().file.bytes());
        std::process::abort();
    }
    let folder = tempfile::tempdir().unwrap();
    let name = "tests::failures::a_node_that_is_killed_leaves_nothing_behind";
    let mut itself = Command::new(std::env::current_exe().unwrap());
    let output = itself.args(["--exact", name, "--nocapture"]).env(KILLED_IN, folder.path()).output().unwrap();
    assert!(!output.status.success(), "it was killed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.lines().any(|line| line.parse::<u64>().is_ok_and(|bytes| bytes > 500_000)), "it had spilled: {said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
