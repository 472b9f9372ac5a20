//! Fills what the bus did not bring to a room from the channel's log.
//!
//! What always holds: what the log has is fanned out in its order, each once; what it no longer has is told in a gap; a log
//! that has lost its data, or came in the place of another, is gone on with from where it ends.

use prost::Message as _;
use trestle_bus::{BusError, Place, Stored};
use trestle_wire::v1::{self, GapReason, server_frame::Frame};

use crate::{
    listen::{Core, Said},
    read::{PAGE, PAUSE, Read, TRIES_MAX},
    recall::{Lost, READ_BYTES_MAX},
    room::{Inside, Past, Room},
};

impl Core {
    /// Fans out what the log has after the last offset heard, up to `until` or to its end, and tells what it has not.
    /// `count` messages are known to be missing.
    pub(crate) async fn fill(&self, room: &Room, past: &Past, until: Option<u64>, count: u64) {
        let mut tries = 0;
        while let Err(error) = self.fill_once(room, past, until, count).await {
            let channel = &past.channel;
            if tries == TRIES_MAX {
                tracing::error!(%channel, %error, "a gap could not be read from the history; telling the clients");
                let heard = room.inside(|inside| inside.offset);
                let lost = Lost { from: heard + 1, to: until.unwrap_or(0), reason: GapReason::Failover };
                return self.tell_gap(room, lost, 0).await;
            }
            tries += 1;
            tracing::warn!(%channel, %error, tries, "a gap could not be read from the history; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn fill_once(&self, room: &Room, past: &Past, until: Option<u64>, count: u64) -> Result<(), BusError> {
        let until = match until {
            Some(until) => until,
            None => {
                let (last, heard) = (self.last(past).await?, room.inside(|inside| inside.offset));
                if self.has_lost(past, heard, last).await? {
                    self.begin_anew(room, past, last, count).await;
                    return Ok(());
                }
                last
            }
        };
        loop {
            let heard = room.inside(|inside| inside.offset);
            if until <= heard {
                // An empty log may have had something in the meantime, and does not say.
                if until == 0 && heard > 0 {
                    self.tell_gap(room, Lost { from: heard + 1, to: 0, reason: GapReason::Retention }, count).await;
                }
                return Ok(());
            }
            // The last message heard is read again: if it is still there, so is everything after it.
            let read = self.read(past, heard, until, (PAGE, READ_BYTES_MAX)).await?;
            let (complete, last) = (read.complete, read.stored.last().map_or(heard, |last| last.offset));
            if let Some(to) = removed(&read, past, heard, until) {
                self.tell_gap(room, Lost { from: heard + 1, to, reason: GapReason::Retention }, 0).await;
            }
            self.replay(room, read.stored).await;
            if complete {
                return Ok(());
            }
            if last <= heard {
                tracing::warn!(channel = %past.channel, heard, until, "the log does not show what it has stored");
                self.tell_gap(room, Lost { from: heard + 1, to: until, reason: GapReason::Failover }, 0).await;
                return Ok(());
            }
        }
    }

    /// Whether the log, whose last message of the channel is at `last`, has lost the one at `known`, which it had stored. What
    /// goes by its limits goes from the beginning, and offsets are not given again.
    pub(crate) async fn has_lost(&self, past: &Past, known: u64, last: u64) -> Result<bool, BusError> {
        Ok(last < known && (last > 0 || self.fabric.log.reached(&past.log).await? < known))
    }

    /// Whether the log has lost what the room has heard, as the first message of its channel has come though the room is
    /// further. If so, the members were told, and that message is the next.
    pub(crate) async fn begins_anew(&self, room: &Room, past: &Past) -> bool {
        let before = room.inside(|inside| inside.begun);
        self.fill(room, past, None, 0).await;
        room.inside(|inside| {
            let anew = inside.begun != before;
            if anew {
                inside.offset = 0;
            }
            anew
        })
    }

    /// The log has lost what the room has heard: the members are told, and go on with what comes after `last`. What is
    /// there up to it may be what they have had, as a log that was copied back, or may not.
    async fn begin_anew(&self, room: &Room, past: &Past, last: u64, count: u64) {
        let channel = &past.channel;
        self.metrics.missing.inc_by(count.max(1));
        let word = |inside: &mut Inside| {
            let heard = inside.offset;
            tracing::warn!(%channel, heard, last, "the history has lost what it had stored; telling the clients");
            let lost = Lost { from: heard + 1, to: 0, reason: GapReason::Failover };
            let gap = v1::Gap { count, ..lost.gap(channel.as_str()) };
            inside.begin_anew(last);
            self.word(Frame::Gap(gap))
        };
        self.spread(room, word).await.end(&self.metrics).for_each(drop);
    }

    /// Fans out stored messages after the last one heard.
    async fn replay(&self, room: &Room, mut stored: Vec<Stored>) {
        let mut heard = room.inside(|inside| inside.offset);
        stored.retain(|one| {
            let before = heard;
            heard = before.max(one.offset);
            one.offset > before
        });
        let said = |one: Stored| {
            let envelope = v1::Envelope::decode(one.payload);
            let envelope = envelope.inspect_err(|error| self.unreadable(one.offset, error)).ok();
            // What comes before it is what the room has heard then.
            Said { envelope, place: Some(Place { offset: one.offset, previous: 0 }), reply_to: None }
        };
        let said = stored.into_iter().map(said).collect();
        self.fan_out(room, said).await.end(&self.metrics).for_each(drop);
    }

    /// Notes a stored message that is no envelope.
    pub(crate) fn unreadable(&self, offset: u64, error: &prost::DecodeError) {
        self.metrics.malformed.inc();
        tracing::warn!(offset, %error, "a stored message is not an envelope");
    }
}

/// The last offset that the log had lost before it was read, if it had lost anything after `heard`.
fn removed(read: &Read, past: &Past, heard: u64, until: u64) -> Option<u64> {
    let first = read.stored.first().map(|first| first.offset);
    // A room that has heard nothing began with an empty log: until that is full, nothing was removed.
    let young = heard == 0 && first.is_some() && !read.more && (read.seen as u64) < past.size;
    if young || first == Some(heard) {
        return None;
    }
    let to = match first {
        Some(first) => first - 1,
        None if read.complete => until,
        None => return None,
    };
    (to > heard).then_some(to)
}

impl Inside {
    /// Goes on after `last` in a log that is not the one that was heard so far.
    fn begin_anew(&mut self, last: u64) {
        (self.offset, self.fresh) = (last, true);
        self.begun += 1;
        self.recall.clear();
    }

    /// The offset before a message that the bus says comes after `previous`: the room knows also what has expired since.
    /// The first that is heard of a log follows on nothing.
    pub(crate) fn previous(&mut self, previous: u64) -> u64 {
        if std::mem::take(&mut self.fresh) { 0 } else { previous.max(self.offset) }
    }

    /// Goes past a message that cannot be read.
    pub(crate) fn pass(&mut self, offset: u64) {
        self.offset = self.offset.max(offset);
        self.recall.passed(self.offset);
    }
}
