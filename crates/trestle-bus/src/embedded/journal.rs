//! The thread that puts one log's changes on disk.
//!
//! In: changes, from many tasks. Out: each one's answer, after its group has been flushed. Always: one flush serves all
//! the changes that came while the one before it was running, so a slow disk makes larger groups, not longer queues.

use std::{
    io,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{
    clock::millis,
    disk::{Disk, Place},
    record::Record,
    stream::{Change, Staged, Stream},
};
use crate::{Appended, BusError};

/// Changes that wait for the thread; those who bring more wait too. 4 Ki x a message of 1 KiB = 4 MiB.
const WAITING_MAX: usize = 4 << 10;
/// Bytes of one group: at 100 MB/s a flush of 80 ms.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// How often dead segments are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(1);

struct Pending {
    change: Change,
    answer: oneshot::Sender<Result<Appended, BusError>>,
}

/// The way to a log's thread.
pub(super) struct Journal {
    changes: Mutex<Option<mpsc::Sender<Pending>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// The thread's end, before it runs.
pub(super) struct Writer {
    changes: mpsc::Receiver<Pending>,
    disk: Disk,
}

impl Journal {
    pub(super) fn new(disk: Disk) -> (Self, Writer) {
        let (sender, changes) = mpsc::channel(WAITING_MAX);
        (Self { changes: Mutex::new(Some(sender)), thread: Mutex::new(None) }, Writer { changes, disk })
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
        let sender = self.changes.lock().clone().ok_or(BusError::Away)?;
        let (answer, answered) = oneshot::channel();
        sender.send(Pending { change, answer }).await.map_err(|_| BusError::Away)?;
        answered.await.map_err(|_| BusError::Away)?
    }

    /// Lets the thread finish what it was given and waits for that. Blocks.
    pub(super) fn close(&self) {
        self.changes.lock().take();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("a log's thread has panicked");
        }
    }
}

impl Writer {
    fn run(&mut self, stream: &Weak<Stream>) {
        let mut tidied = std::time::Instant::now();
        while let Some(first) = self.changes.blocking_recv() {
            let mut bytes = first.change.bytes();
            let mut group = vec![first];
            while bytes < GROUP_BYTES_MAX
                && let Ok(next) = self.changes.try_recv()
            {
                bytes += next.change.bytes();
                group.push(next);
            }
            let Some(stream) = stream.upgrade() else { return };
            self.commit(&stream, group);
            if tidied.elapsed() >= TIDY_EVERY {
                if let Err(error) = self.tidy(&stream) {
                    tracing::warn!(log = stream.name, %error, "could not remove what is not needed any more");
                }
                tidied = std::time::Instant::now();
            }
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
                    Ok(state.land(staged, Some(place), stream))
                }
                Ok(None) => Ok(state.land(staged, None, stream)),
                Err(error) => {
                    state.unstage(&staged);
                    Err(BusError::Refused(format!("log {} cannot be written: {error}", stream.name)))
                }
            });
        }
    }

    /// Removes dead segments, and moves what is left of the oldest one when little is.
    fn tidy(&mut self, stream: &Stream) -> io::Result<()> {
        let now_ms = stream.clock.now_ms();
        let (since_ms, live_bytes) = {
            let state = stream.state();
            (now_ms.saturating_sub(millis(state.spec.dedup_window)), state.kept.bytes())
        };
        self.disk.drop_dead(since_ms)?;
        let Some(oldest) = self.disk.worth_moving(live_bytes) else { return Ok(()) };
        let (kept, next) = {
            let state = stream.state();
            (state.kept_in(&oldest), state.next())
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
            Staged::Duplicate(_) => {}
            Staged::Append { offset, subject, dedup, payload } => {
                let (subject, dedup) = (subject.as_str(), dedup.as_deref().unwrap_or(""));
                Record::Message { offset: *offset, time_ms, subject, dedup, payload }.write(out);
            }
            Staged::Done { offset, .. } if work_queue => Record::Gone { offset: *offset }.write(out),
            Staged::Done { offset, consumer } => Record::Done { offset: *offset, consumer }.write(out),
        }
    }
}
