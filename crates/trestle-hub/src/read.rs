//! Reads the logs of channels.
//!
//! What always holds: what was read has no hole in it, also if the log lost messages between two reads; a log that ends
//! before a message that is known to be stored is asked again before that message is called lost.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use trestle_bus::{BusError, Stored};
use trestle_wire::v1;

use crate::{listen::Core, room::Past};

/// Messages read at once: 256 x 1 KiB is a default outbox.
pub(crate) const PAGE: usize = 256;
/// How long a log that is behind is given to catch up, 3.2 s in all: a follower of a JetStream leader lags for less.
const LAGS_MS: [u64; 7] = [25, 50, 100, 200, 400, 800, 1600];
/// How often a log that cannot be read is asked again before a gap is told instead: an election of a JetStream leader takes
/// 4 to 10 s.
pub(crate) const TRIES_MAX: u32 = 5;
pub(crate) const PAUSE: Duration = Duration::from_secs(3);
/// Offsets looked through at first when the last messages of a channel are wanted, and how much farther each time. A
/// channel that shares its log with 1,000 others is found in three steps.
const REACH: u64 = 4 * PAGE as u64;
const FARTHER: u64 = 8;

/// What was read.
#[derive(Default)]
pub(crate) struct Read {
    /// Messages up to the one that was asked for.
    pub(crate) stored: Vec<Stored>,
    /// Whether that is all the log has up to there.
    pub(crate) complete: bool,
    /// Messages that were seen, also after that.
    pub(crate) seen: usize,
    /// Whether the log had more than were seen.
    pub(crate) more: bool,
}

impl Core {
    /// One page of a log.
    async fn read_page(&self, past: &Past, from: u64) -> Result<Vec<Stored>, BusError> {
        self.metrics.log_reads.inc();
        self.fabric.log.read(&past.log, &past.subject, from.max(1), PAGE).await
    }

    /// Offset of the channel's last message; 0 if none is kept.
    pub(crate) async fn last(&self, past: &Past) -> Result<u64, BusError> {
        self.fabric.log.last(&past.log, &past.subject).await
    }

    /// Reads from the message at `from` on up to the one at `until`, which was stored; less if that is more than
    /// `messages_max` or `bytes_max`.
    pub(crate) async fn read(
        &self,
        past: &Past,
        from: u64,
        until: u64,
        (messages_max, bytes_max): (usize, usize),
    ) -> Result<Read, BusError> {
        let (mut read, mut bytes) = (Read::default(), 0);
        let mut lags = LAGS_MS.into_iter().map(Duration::from_millis);
        if until < from.max(1) {
            return Ok(Read { complete: true, ..read });
        }
        loop {
            // The last one again: as long as it is there, nothing between it and the next was removed.
            let last = read.stored.last().map(|last| last.offset);
            let page = self.read_page(past, last.unwrap_or(from)).await?;
            read.more = page.len() == PAGE;
            let fresh = match (last, page.first()) {
                (Some(last), first) if first.is_none_or(|first| first.offset != last) => return Ok(read),
                (last, _) => usize::from(last.is_some()),
            };
            read.seen += page.len().saturating_sub(fresh);
            let end = page.last().map(|last| last.offset);
            let wanted = page.into_iter().skip(fresh).take_while(|one| one.offset <= until);
            read.stored.extend(wanted.inspect(|one| bytes += one.payload.len()));
            if end.is_some_and(|end| end >= until) {
                read.complete = true;
                return Ok(read);
            }
            if read.stored.len() >= messages_max || bytes >= bytes_max {
                return Ok(read);
            }
            if read.more {
                continue;
            }
            // The oldest are removed first: if anything before `until` is there, then so is that, or the log has lost it.
            let last = self.last(past).await?;
            if last < until && read.stored.is_empty() {
                read.complete = true;
                return Ok(read);
            }
            if last < until && last > 0 {
                past.want_more();
                return Ok(read);
            }
            match lags.next() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Ok(read),
            }
        }
    }

    /// The envelopes in `stored`, each with its offset and that of the one before, which for the first is `previous`.
    pub(crate) fn envelopes(&self, stored: Vec<Stored>, mut previous: u64) -> impl Iterator<Item = v1::Envelope> {
        stored.into_iter().filter_map(move |one| {
            let before = std::mem::replace(&mut previous, one.offset);
            match v1::Envelope::decode(one.payload) {
                Ok(envelope) => Some(v1::Envelope { offset: one.offset, prev_offset: before, ..envelope }),
                Err(error) => {
                    self.unreadable(one.offset, &error);
                    None
                }
            }
        })
    }

    /// Shows `each` all messages of a channel from the one at `from` on that are before `end`, oldest first.
    async fn scan(
        &self,
        past: &Past,
        mut from: u64,
        end: u64,
        mut each: impl FnMut(Stored) + Send,
    ) -> Result<(), BusError> {
        while from < end {
            let page = self.read_page(past, from).await?;
            let (full, last) = (page.len() == PAGE, page.last().map_or(end, |last| last.offset));
            page.into_iter().filter(|one| one.offset < end).for_each(&mut each);
            if !full {
                break;
            }
            from = last + 1;
        }
        Ok(())
    }

    /// The last messages before `end`, oldest first, at most `most` of them.
    pub(crate) async fn read_back(&self, past: &Past, end: u64, most: usize) -> Result<VecDeque<Stored>, BusError> {
        self.look_back(past, end, most, |one| one).await
    }

    /// What `keep` takes of each of the last messages before `end`, oldest first, at most `most` of them.
    async fn look_back<T: Send>(
        &self,
        past: &Past,
        end: u64,
        most: usize,
        keep: fn(Stored) -> T,
    ) -> Result<VecDeque<T>, BusError> {
        let mut reach = REACH;
        loop {
            let from = back(past, end, reach);
            let mut found = VecDeque::new();
            self.scan(past, from, end, |one| {
                found.push_back(keep(one));
                if found.len() > most {
                    found.pop_front();
                }
            })
            .await?;
            if found.len() >= most || from == 1 {
                return Ok(found);
            }
            reach = reach.saturating_mul(FARTHER);
        }
    }

    /// Offset after which the last `count` messages up to `until` come.
    pub(crate) async fn before_last(&self, past: &Past, until: u64, count: u32) -> Result<u64, BusError> {
        let count = u64::from(count).min(past.size) as usize;
        // Offsets alone: as many as the history has is bounded by its size.
        let found = self.look_back(past, until + 1, count, |one| one.offset).await?;
        Ok(found.front().map_or(until, |first| first - 1))
    }

    /// Offset after which the messages up to `until` come that were accepted at `time` or later, and whether an older one
    /// is there, so that none of them was removed.
    pub(crate) async fn before_time(&self, past: &Past, until: u64, time: SystemTime) -> Result<(u64, bool), BusError> {
        let mut reach = REACH;
        loop {
            let from = back(past, until + 1, reach);
            let (mut older, mut first) = (false, None);
            self.scan(past, from, until + 1, |one| {
                if first.is_none() {
                    match accepted(&one) {
                        Some(sent) if sent >= time => first = Some(one.offset),
                        _ => older = true,
                    }
                }
            })
            .await?;
            if older || from == 1 {
                return Ok((first.map_or(until, |first| first - 1), older));
            }
            reach = reach.saturating_mul(FARTHER);
        }
    }
}

/// `reach` offsets before `end`, or the beginning, which a small history is looked through from at once.
fn back(past: &Past, end: u64, reach: u64) -> u64 {
    if past.size <= REACH { 1 } else { end.saturating_sub(reach).max(1) }
}

/// When the gateway accepted the message.
fn accepted(stored: &Stored) -> Option<SystemTime> {
    let envelope = v1::Envelope::decode(stored.payload.clone()).ok()?;
    SystemTime::try_from(envelope.time?).ok()
}
