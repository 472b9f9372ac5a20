//! Measures what spilling costs: `cargo run --release -p trestle-spill --example measure [folder]`.
//!
//! Each row: all frames are put, until they are on the disk, then all are read back. CPU is the kernel's count for each
//! thread (Linux), the kernel's own work included.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use trestle_codec::{Encoded, Encoding};
use trestle_session::{Finished, Label, Spill, Spills};
use trestle_spill::{Disk, SpillConfig};
use trestle_wire::{ChannelName, v1::Overflow};

/// Sessions, frames for each, bytes of a frame.
const ROWS: [(usize, usize, usize); 4] =
    [(1, 1_000_000, 200), (1000, 1000, 200), (20_000, 50, 200), (100, 200, 16_384)];
/// More than any row needs: what is measured is not how a refusal looks.
const BYTES_MAX: u64 = 8 << 30;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn main() {
    let dir = std::env::args_os().nth(1).map(PathBuf::from);
    println!("sessions  frames  bytes | put ns/frame  MB/s to disk  MB/s back | CPU ns/frame: put  write  read  take");
    for (sessions, frames, bytes) in ROWS {
        row(dir.clone(), sessions, frames, bytes);
    }
}

fn row(dir: Option<PathBuf>, sessions: usize, frames: usize, bytes: usize) {
    let config = SpillConfig { dir, bytes_per_session_max: BYTES_MAX, bytes_max: BYTES_MAX, ..SpillConfig::default() };
    let disk = Disk::start(config, &mut Registry::default()).expect("two threads more");
    let channel = ChannelName::parse("room:1").expect("it is a channel's name");
    let label = Label { channel: Some(channel), offset: 1, overflow: Overflow::Spill, ..Label::default() };
    let mut spills: Vec<_> = (0..sessions).map(|_| disk.open().expect("nothing is taken yet")).collect();
    let frame = Finished::labelled(Encoded::from_payload(Encoding::Protobuf, &vec![b'x'; bytes]), label);
    let all = (sessions * frames) as u64;
    let (start, before) = (Instant::now(), Cpu::now());
    // How long a put takes that finds room; memory is full when the disk does not keep up.
    let mut busy = Duration::ZERO;
    for _ in 0..frames {
        let mut round = Instant::now();
        for spill in &mut spills {
            while spill.put(&frame).is_err() {
                busy += round.elapsed();
                thread::yield_now();
                round = Instant::now();
            }
        }
        busy += round.elapsed();
    }
    let (filled, full) = (start.elapsed(), Cpu::now());
    let start = Instant::now();
    let read: u64 = spills.iter_mut().map(|spill| drain(&mut **spill)).sum();
    assert_eq!(read, all, "all of it comes back");
    let (drained, end) = (start.elapsed(), Cpu::now());
    let rate = |time: Duration| (all * bytes as u64) as f64 / 1e6 / time.as_secs_f64();
    let each = |after: u64, before: u64| (after - before) / all;
    println!(
        "{sessions:8} {frames:7} {bytes:6} | {:12} {:13.0} {:10.0} | {:17} {:6} {:5} {:5}",
        busy.as_nanos() as u64 / all,
        rate(filled),
        rate(drained),
        each(full.own, before.own),
        each(end.write, before.write),
        each(end.read, before.read),
        each(end.own, full.own),
    );
    drop((spills, disk));
    // The next row's threads have the same names.
    while Cpu::now().write > 0 {
        thread::yield_now();
    }
}

fn drain(spill: &mut dyn Spill) -> u64 {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut count, mut taken) = (0, Vec::new());
    while !spill.is_empty() {
        match spill.poll_read(&mut Context::from_waker(&waker), 64, &mut taken) {
            Poll::Ready(read) => read.expect("the disk works"),
            Poll::Pending => thread::park(),
        }
        count += taken.drain(..).count() as u64;
    }
    count
}

/// Nanoseconds of CPU that threads have had.
struct Cpu {
    own: u64,
    write: u64,
    read: u64,
}

impl Cpu {
    fn now() -> Self {
        let mut cpu = Self { own: 0, write: 0, read: 0 };
        let threads = fs::read_dir("/proc/self/task").expect("this is Linux").flatten();
        for thread in threads.map(|entry| entry.path()) {
            // One that ends meanwhile is not there any more.
            let Ok(name) = fs::read_to_string(thread.join("comm")) else { continue };
            let Ok(stat) = fs::read_to_string(thread.join("schedstat")) else { continue };
            let spent = stat.split(' ').next().and_then(|spent| spent.parse::<u64>().ok()).unwrap_or_default();
            match name.trim() {
                "spill-write" => cpu.write = cpu.write.max(spent),
                "spill-read" => cpu.read = cpu.read.max(spent),
                _ => cpu.own += spent,
            }
        }
        cpu
    }
}
