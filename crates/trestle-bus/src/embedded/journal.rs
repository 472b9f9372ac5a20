//! The thread that puts the changes of one log, or of the keys, on disk.
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

use super::disk::{Disk, Segment};
use crate::BusError;

/// Changes that wait for the thread; those who bring more wait too. 4 Ki x a message of 1 KiB = 4 MiB.
const WAITING_MAX: usize = 4 << 10;
/// Bytes of one group: at 100 MB/s a flush of 80 ms.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// How often dead segments are looked for while much is written.
const TIDY_EVERY: Duration = Duration::from_secs(1);
/// After so long no further segment is moved in one go: writers wait meanwhile.
const TIDY_BUDGET: Duration = Duration::from_millis(50);

/// What a journal is kept of.
pub(super) trait Journaled: Send + Sync + 'static {
    /// What happens to it.
    type Change: Send + 'static;
    /// What the one who asked for a change is told.
    type Answer: Send + 'static;

    /// What messages call it.
    fn name(&self) -> &str;

    /// The bulk of what the change brings to disk.
    fn bytes(change: &Self::Change) -> usize;

    /// Makes the changes in their order: on disk in one group, then seen, then answered.
    fn commit(&self, disk: &mut Disk, group: Vec<Pending<Self>>);

    /// Since when what was written is needed whatever became of it, in ms; and how many bytes are needed now.
    fn needs(&self) -> (u64, u64);

    /// Writes what is still needed of the oldest segment into the newest one.
    fn rewrite(&self, disk: &mut Disk, oldest: &Arc<Segment>) -> io::Result<()>;

    /// Its disk has failed: nothing is stored any more. Called more than once.
    fn fail(&self);
}

/// A change and who waits for it.
pub(super) struct Pending<S: Journaled + ?Sized> {
    pub(super) change: S::Change,
    pub(super) answer: oneshot::Sender<Result<S::Answer, BusError>>,
}

/// What the thread is woken for.
enum Job<S: Journaled> {
    Change(Pending<S>),
    Tidy,
}

/// The way to the thread.
pub(super) struct Journal<S: Journaled> {
    jobs: Mutex<Option<mpsc::Sender<Job<S>>>>,
    /// Whether some file may be given back one day.
    untidy: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The thread's end, before it runs.
pub(super) struct Writer<S: Journaled> {
    jobs: mpsc::Receiver<Job<S>>,
    disk: Disk,
    untidy: Arc<AtomicBool>,
    failed: bool,
}

impl<S: Journaled> Journal<S> {
    pub(super) fn new(disk: Disk) -> (Self, Writer<S>) {
        let (sender, jobs) = mpsc::channel(WAITING_MAX);
        let untidy = Arc::new(AtomicBool::new(disk.is_untidy()));
        let journal = Self { jobs: Mutex::new(Some(sender)), untidy: untidy.clone(), thread: Mutex::new(None) };
        (journal, Writer { jobs, disk, untidy, failed: false })
    }

    /// Starts the thread for `kept`, which it does not keep alive.
    pub(super) fn run(&self, kept: &Arc<S>, mut writer: Writer<S>) -> io::Result<()> {
        let held = Arc::downgrade(kept);
        let name = format!("disk {}", kept.name().to_ascii_lowercase());
        let thread = std::thread::Builder::new().name(name).spawn(move || writer.run(&held))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Makes the change and returns once it is on disk.
    pub(super) async fn change(&self, change: S::Change) -> Result<S::Answer, BusError> {
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
            tracing::error!("a journal's thread has panicked");
        }
    }
}

impl<S: Journaled> Writer<S> {
    fn run(&mut self, kept: &Weak<S>) {
        let mut tidied = Instant::now();
        while let Some(first) = self.jobs.blocking_recv() {
            let (mut bytes, mut group, mut tidy) = (0, Vec::new(), false);
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Change(pending) => {
                        bytes += S::bytes(&pending.change);
                        group.push(pending);
                    }
                    Job::Tidy => tidy = true,
                }
                next = if bytes < GROUP_BYTES_MAX { self.jobs.try_recv().ok() } else { None };
            }
            let Some(kept) = kept.upgrade() else { return };
            if !group.is_empty() {
                kept.commit(&mut self.disk, group);
                self.look_at_disk(&*kept);
            }
            if tidy || tidied.elapsed() >= TIDY_EVERY {
                if let Err(error) = self.tidy(&*kept) {
                    tracing::warn!(of = kept.name(), %error, "could not remove what is not needed any more");
                }
                self.look_at_disk(&*kept);
                tidied = Instant::now();
            }
            self.untidy.store(self.disk.is_untidy(), Ordering::Relaxed);
        }
    }

    /// Says once that the disk has failed, and that the bus is not to be used.
    fn look_at_disk(&mut self, kept: &S) {
        if self.disk.has_failed() && !self.failed {
            self.failed = true;
            tracing::error!(
                of = kept.name(),
                "the disk has failed while it was written: nothing is stored any more and this node is not ready; \
                 look at the disk, then restart the node, which finds again all that was acknowledged"
            );
            kept.fail();
        }
    }

    /// Removes dead segments, and moves what is left of the oldest ones when little is.
    fn tidy(&mut self, kept: &S) -> io::Result<()> {
        let began = Instant::now();
        loop {
            let (since_ms, live_bytes) = kept.needs();
            self.disk.drop_dead(since_ms)?;
            let Some(oldest) = self.disk.worth_moving(live_bytes) else { return Ok(()) };
            kept.rewrite(&mut self.disk, &oldest)?;
            drop(oldest);
            if began.elapsed() >= TIDY_BUDGET {
                return Ok(());
            }
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
            stream::{Change, Found, State, Stream},
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
