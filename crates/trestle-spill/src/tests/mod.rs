//! The disk as outboxes use it.

mod bounds;
mod failures;
mod order;
mod outboxes;
mod waiting;

use std::{
    fs::File,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use tempfile::TempDir;
use trestle_codec::{Encoded, Encoding};
use trestle_session::{Finished, Full, Label, Spill, Spills, Taken};
use trestle_wire::{
    ChannelName,
    v1::{Overflow, Priority},
};

use crate::{Disk, SpillConfig, file::SpillFile};

/// Long enough for any disk, short enough for a test that hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk of a test.
struct House {
    disk: Arc<Disk>,
    registry: Registry,
    folder: TempDir,
}

impl House {
    fn new(config: SpillConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let config = SpillConfig { dir: Some(folder.path().into()), ..config };
        let disk = Arc::new(Disk::start(config, &mut registry).unwrap());
        Self { disk, registry, folder }
    }

    /// On a file that fails in its own way.
    fn on(file: File) -> Self {
        let mut registry = Registry::default();
        let disk = Arc::new(Disk::on(SpillFile::of(file), SpillConfig::default(), &mut registry).unwrap());
        Self { disk, registry, folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Box<dyn Spill> {
        self.disk.open().unwrap()
    }

    /// What a metric is now, as it is scraped.
    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("trestle_spill_{name} ")));
        value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    fn refused(&self) -> [u64; 4] {
        ["session", "node", "memory", "disk"]
            .map(|reason| self.metric(&format!("refused_total{{reason=\"{reason}\"}}")))
    }

    /// Waits until nothing is held any more, in memory or in the file.
    fn until_empty(&self) {
        let node = self.disk.node();
        until("all is given back", || node.held() == (0, 0) && node.file.bytes() == 0);
        until("it is seen", || self.metric("file_bytes") == 0);
        assert_eq!((self.metric("bytes"), self.metric("sessions")), (0, 0));
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for what another thread does.
fn until(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::yield_now();
    }
}

/// Reads as a client's writer does: woken when there is something.
fn read(spill: &mut dyn Spill, most: usize) -> Result<Vec<Taken>, Full> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (start, mut taken) = (Instant::now(), Vec::new());
    loop {
        match spill.poll_read(&mut Context::from_waker(&waker), most, &mut taken) {
            Poll::Ready(read) => return read.map(|()| taken),
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
        assert!(start.elapsed() < PATIENCE, "nobody wakes the reader");
    }
}

/// Reads all of it.
fn drain(spill: &mut dyn Spill) -> Vec<Finished> {
    let mut all = Vec::new();
    while !spill.is_empty() {
        all.extend(read(spill, 100).unwrap().into_iter().map(plain));
    }
    assert_eq!((spill.len(), spill.bytes()), (0, 0));
    all
}

fn plain(taken: Taken) -> Finished {
    match taken {
        Taken::Frame(frame) => frame,
        other => panic!("{other:?} was never put"),
    }
}

/// The frame with this number: its bytes tell it, and there are `size` of them.
fn frame(number: usize, size: usize) -> Encoded {
    Encoded::from_payload(Encoding::Protobuf, &(0..size).map(|at| (number * 31 + at) as u8).collect::<Vec<_>>())
}

/// The label of the frame with this number, each field another.
fn label(number: usize) -> Label {
    let channel = (!number.is_multiple_of(5)).then(|| ChannelName::parse(&format!("room:{}", number % 3)).unwrap());
    let number = number as u64;
    let overflow = if number.is_multiple_of(2) { Overflow::Spill } else { Overflow::DropOldest };
    Label {
        channel,
        offset: number,
        id: number << 32,
        publisher: number << 16,
        overflow,
        key: !number,
        priority: Priority::Low,
    }
}

fn put(spill: &mut dyn Spill, number: usize, size: usize) -> Result<(), Full> {
    spill.put(&whole(number, size))
}

fn whole(number: usize, size: usize) -> Finished {
    Finished::labelled(frame(number, size), label(number))
}

fn expected(numbers: impl IntoIterator<Item = usize>, size: usize) -> Vec<Finished> {
    numbers.into_iter().map(|number| whole(number, size)).collect()
}
