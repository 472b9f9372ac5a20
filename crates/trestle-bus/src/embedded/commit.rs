//! How a log's changes get to its disk.
//!
//! In: groups of changes, on the journal's thread. Out: the same on disk, then in the log's state, then answered. Always:
//! the order of a group is the order of the log.

use std::{io, sync::Arc};

use super::{
    clock::millis,
    disk::{Disk, Place, Segment},
    journal::{Journaled, Pending},
    record::Record,
    stream::{Change, Staged, Stream},
};
use crate::{Appended, BusError};

impl Journaled for Stream {
    type Change = Change;
    type Answer = Appended;

    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(change: &Change) -> usize {
        match change {
            Change::Append { payload, .. } => payload.len(),
            Change::Done { .. } => 0,
        }
    }

    fn commit(&self, disk: &mut Disk, group: Vec<Pending<Self>>) {
        let now_ms = self.clock.now_ms();
        let mut staged = Vec::with_capacity(group.len());
        let (next, work_queue) = {
            let mut state = self.state();
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
        let written = if bytes.is_empty() { Ok(None) } else { disk.write(&bytes, next, now_ms).map(Some) };
        if let Err(error) = &written {
            tracing::error!(log = self.name, %error, "the log cannot be written");
            if disk.has_failed() {
                self.fail(); // before anybody is answered
            }
        }
        let mut state = self.state();
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
                    state.land(staged, Some(place), self)
                }
                Ok(None) => state.land(staged, None, self),
                Err(error) => {
                    state.unstage(&staged);
                    Err(BusError::Refused(format!("log {} cannot be written: {error}", self.name)))
                }
            });
        }
    }

    fn needs(&self) -> (u64, u64) {
        let state = self.state();
        (self.clock.now_ms().saturating_sub(millis(state.spec.dedup_window)), state.kept.bytes())
    }

    fn rewrite(&self, disk: &mut Disk, oldest: &Arc<Segment>) -> io::Result<()> {
        let (kept, next) = {
            let state = self.state();
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
        let (segment, base) = disk.write(&bytes, next, self.clock.now_ms())?;
        let mut state = self.state();
        for (offset, start, old) in moved {
            let (record, segment) = (base + start, segment.clone());
            let payload = record + (old.payload - old.record);
            state.kept.moved(offset, Place { segment, record, payload, payload_bytes: old.payload_bytes });
        }
        Ok(())
    }

    fn fail(&self) {
        self.live.fail();
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
