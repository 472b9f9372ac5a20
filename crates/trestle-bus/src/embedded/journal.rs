//! The thread that puts one log's changes on disk.
//!
//! In: changes, from many tasks. Out: each one's answer, after its group has been flushed. Always: one flush serves all
//! the changes that came while the one before it was running, so a slow disk makes larger groups, not longer queues.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{
    clock::millis,
    disk::{Disk, Place, Segment},
    record::Record,
    stream::{Change, Staged, Stream},
};
use crate::{Appended, BusError};

/// Changes that wait for the thread; those who bring more wait too. 4 Ki x a message of 1 KiB = 4 MiB.
const WAITING_MAX: usize = 4 << 10;
/// Bytes of one group: at 100 MB/s a flush of 80 ms.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// How often dead segments are looked for while much is written.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// After so long no further segment is moved in one go: writers wait meanwhile.
const TIDY_BUDGET: Duration = Duration::from_millis(50);

struct Pending {
    change: Change,
    answer: oneshot::Sender<Result<Appended, BusError>>,
}

/// What the thread is woken for.
enum Job {
    Change(Pending),
    Tidy,
}

/// The way to a log's thread.
pub(super) struct Journal {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// Whether some file may be given back one day.
    untidy: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The thread's end, before it runs.
pub(super) struct Writer {
    jobs: mpsc::Receiver<Job>,
    disk: Disk,
    untidy: Arc<AtomicBool>,
    failed: bool,
}

impl Journal {
    pub(super) fn new(disk: Disk) -> (Self, Writer) {
        let (sender, jobs) = mpsc::channel(WAITING_MAX);
        let untidy = Arc::new(AtomicBool::new(disk.is_untidy()));
        let journal = Self { jobs: Mutex::new(Some(sender)), untidy: untidy.clone(), thread: Mutex::new(None) };
        (journal, Writer { jobs, disk, untidy, failed: false })
    }

    /// Starts the thread for `stream`, which it does not keep alive.
    pub(super) fn run(&self, stream: &Arc<Stream>, mut writer: Writer) -> io::Result<()> {
        let stream_held = Arc::downgrade(stream);
        let name = format!("log {}", stream.name.to_ascii_lowercase());
        let thread = std::thread::Builder::new().name(name).spawn(move || writer.run(&stream_held))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Makes the change and returns once it is on disk.
    pub(super) async fn change(&self, change: Change) -> Result<Appended, BusError> {
        let sender = self.jobs.lock().clone().ok_or(BusError::Away)?;
        let (answer, answered) = oneshot::channel();
        // In the queue at the first poll, also when the caller's task has used up its turn.
        let sent = tokio::task::coop::unconstrained(sender.send(Job::Change(Pending { change, answer }))).await;
        sent.map_err(|_| BusError::Away)?;
        answered.await.map_err(|_| BusError::Away)?
    }

    /// Wakes the thread if there are files to look through, also when nobody writes.
    pub(super) fn tidy(&self) {
        if self.untidy.load(Ordering::Relaxed)
            && let Some(jobs) = &*self.jobs.lock()
        {
            let _ = jobs.try_send(Job::Tidy); // no room: it is awake
        }
    }

    /// Lets the thread finish what it was given and waits for that. Blocks.
    pub(super) fn close(&self) {
        self.jobs.lock().take();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("a log's thread has panicked");
        }
    }
}

impl Writer {
    fn run(&mut self, stream: &Weak<Stream>) {
        let mut tidied = Instant::now();
        while let Some(first) = self.jobs.blocking_recv() {
            let (mut bytes, mut group, mut tidy) = (0, Vec::new(), false);
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Change(pending) => {
                        bytes += pending.change.bytes();
                        group.push(pending);
                    }
                    Job::Tidy => tidy = true,
                }
                next = if bytes < GROUP_BYTES_MAX { self.jobs.try_recv().ok() } else { None };
            }
            let Some(stream) = stream.upgrade() else { return };
            if !group.is_empty() {
                self.commit(&stream, group);
            }
            if tidy || tidied.elapsed() >= TIDY_EVERY {
                if let Err(error) = self.tidy(&stream) {
                    tracing::warn!(log = stream.name, %error, "could not remove what is not needed any more");
                }
                self.look_at_disk(&stream);
                tidied = Instant::now();
            }
            self.untidy.store(self.disk.is_untidy(), Ordering::Relaxed);
        }
    }

    /// Says once that the disk has failed, and that the bus is not to be used.
    fn look_at_disk(&mut self, stream: &Stream) {
        if self.disk.has_failed() && !self.failed {
            self.failed = true;
            tracing::error!(
                log = stream.name,
                "the disk has failed while the log was written: nothing is stored any more and this node is not ready; \
                 look at the disk, then restart the node, which finds again all that was acknowledged"
            );
            stream.live.fail();
        }
    }

    fn commit(&mut self, stream: &Stream, group: Vec<Pending>) {
        let now_ms = stream.clock.now_ms();
        let mut staged = Vec::with_capacity(group.len());
        let (next, work_queue) = {
            let mut state = stream.state();
            for Pending { change, answer } in group {
                staged.push((state.stage(change, now_ms), answer));
            }
            (state.next(), state.spec.work_queue)
        };
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(staged.len()));
        for (staged, _) in &staged {
            let start = bytes.len();
            staged.write(&mut bytes, now_ms, work_queue);
            ends.push((start, bytes.len()));
        }
        let written = if bytes.is_empty() { Ok(None) } else { self.disk.write(&bytes, next, now_ms).map(Some) };
        if let Err(error) = &written {
            tracing::error!(log = stream.name, %error, "the log cannot be written");
            self.look_at_disk(stream);
        }
        let mut state = stream.state();
        for ((staged, answer), (start, end)) in staged.into_iter().zip(ends) {
            // Who asked may have gone; what was asked is done all the same.
            let _ = answer.send(match &written {
                Ok(Some((segment, base))) => {
                    let payload_bytes = staged.payload_bytes();
                    let place = Place {
                        segment: segment.clone(),
                        record: base + start as u64,
                        payload: base + (end - payload_bytes) as u64,
                        payload_bytes,
                    };
                    state.land(staged, Some(place), stream)
                }
                Ok(None) => state.land(staged, None, stream),
                Err(error) => {
                    state.unstage(&staged);
                    Err(BusError::Refused(format!("log {} cannot be written: {error}", stream.name)))
                }
            });
        }
    }

    /// Removes dead segments, and moves what is left of the oldest ones when little is.
    fn tidy(&mut self, stream: &Stream) -> io::Result<()> {
        let began = Instant::now();
        loop {
            let now_ms = stream.clock.now_ms();
            let (since_ms, live_bytes) = {
                let state = stream.state();
                (now_ms.saturating_sub(millis(state.spec.dedup_window)), state.kept.bytes())
            };
            self.disk.drop_dead(since_ms)?;
            let Some(oldest) = self.disk.worth_moving(live_bytes) else { return Ok(()) };
            self.rewrite(stream, &oldest, now_ms)?;
            drop(oldest);
            if began.elapsed() >= TIDY_BUDGET {
                return Ok(());
            }
        }
    }

    /// Writes what is still needed of the oldest segment into the newest one.
    fn rewrite(&mut self, stream: &Stream, oldest: &Arc<Segment>, now_ms: u64) -> io::Result<()> {
        let (kept, next) = {
            let state = stream.state();
            (state.kept_in(oldest), state.next())
        };
        let mut bytes = Vec::new();
        let mut moved = Vec::new();
        for (offset, place, done) in kept {
            let start = bytes.len() as u64;
            bytes.extend_from_slice(&place.read_record()?);
            moved.push((offset, start, place));
            done.iter().for_each(|consumer| Record::Done { offset, consumer }.write(&mut bytes));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let (segment, base) = self.disk.write(&bytes, next, now_ms)?;
        let mut state = stream.state();
        for (offset, start, old) in moved {
            let (record, segment) = (base + start, segment.clone());
            let payload = record + (old.payload - old.record);
            state.kept.moved(offset, Place { segment, record, payload, payload_bytes: old.payload_bytes });
        }
        Ok(())
    }
}

impl Change {
    fn bytes(&self) -> usize {
        match self {
            Change::Append { payload, .. } => payload.len(),
            Change::Done { .. } => 0,
        }
    }
}

impl Staged {
    fn payload_bytes(&self) -> usize {
        if let Staged::Append { payload, .. } = self { payload.len() } else { 0 }
    }

    fn write(&self, out: &mut Vec<u8>, time_ms: u64, work_queue: bool) {
        match self {
            Staged::Duplicate(_) | Staged::Full(_) => {}
            Staged::Append { offset, subject, dedup, payload } => {
                let (subject, dedup) = (subject.as_str(), dedup.as_deref().unwrap_or(""));
                Record::Message { offset: *offset, time_ms, subject, dedup, payload }.write(out);
            }
            Staged::Done { offset, .. } if work_queue => Record::Gone { offset: *offset }.write(out),
            Staged::Done { offset, consumer } => Record::Done { offset: *offset, consumer }.write(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use trestle_wire::Subject;

    use super::*;
    use crate::{
        BusState,
        embedded::{
            EmbeddedConfig,
            clock::Clock,
            live::Live,
            stream::{Found, State},
        },
        logs,
    };

    #[tokio::test]
    async fn a_failed_disk_makes_the_bus_count_as_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut disk = Disk::open(folder.path(), 1 << 20, |_, _| ()).expect("opens");
        disk.spoil().expect("begins a file");
        let (journal, writer) = Journal::new(disk);
        let state = State::new(logs::work(&trestle_wire::Subjects::new("t")), Found::default());
        let live = Live::new(EmbeddedConfig::default());
        let stream = Arc::new(Stream::new(state, Some(journal), live.clone(), Clock::start()));
        let journal = stream.journal.as_ref().expect("it has one");
        journal.run(&stream, writer).expect("starts");
        for _ in 0..2 {
            let subject = Subject::from_trusted("t.work.a");
            let stored = stream.change(Change::Append { subject, dedup: None, payload: "x".into() }).await;
            assert!(matches!(stored, Err(BusError::Refused(_))), "{stored:?}");
            assert_eq!(*live.state().borrow(), BusState::Away);
        }
        journal.close();
    }
}
