//! Fills what the bus did not bring to a room from the channel's log.
//!
//! What always holds: what the log has is fanned out in its order, each once; what it no longer has is told in a gap.

use prost::Message as _;
use trestle_bus::{BusError, Place, Stored};
use trestle_wire::v1::{self, GapReason};

use crate::{
    listen::Core,
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
                return self.tell_gap(room, lost, 0);
            }
            tries += 1;
            tracing::warn!(%channel, %error, tries, "a gap could not be read from the history; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn fill_once(&self, room: &Room, past: &Past, until: Option<u64>, count: u64) -> Result<(), BusError> {
        let until = match until {
            Some(until) => until,
            None => self.last(past).await?,
        };
        loop {
            let heard = room.inside(|inside| inside.offset);
            if until <= heard {
                // An empty log may have had something in the meantime, and does not say.
                if until == 0 && heard > 0 {
                    self.tell_gap(room, Lost { from: heard + 1, to: 0, reason: GapReason::Retention }, count);
                }
                return Ok(());
            }
            // The last message heard is read again: if it is still there, so is everything after it.
            let read = self.read(past, heard, until, (PAGE, READ_BYTES_MAX)).await?;
            let (complete, last) = (read.complete, read.stored.last().map_or(heard, |last| last.offset));
            if let Some(to) = removed(&read, past, heard, until) {
                self.tell_gap(room, Lost { from: heard + 1, to, reason: GapReason::Retention }, 0);
            }
            room.inside(|inside| self.replay(room, read.stored, inside));
            if complete {
                return Ok(());
            }
            if last <= heard {
                tracing::warn!(channel = %past.channel, heard, until, "the log does not show what it has stored");
                self.tell_gap(room, Lost { from: heard + 1, to: until, reason: GapReason::Failover }, 0);
                return Ok(());
            }
        }
    }

    /// Fans out stored messages after the last one heard.
    fn replay(&self, room: &Room, stored: Vec<Stored>, inside: &mut Inside) {
        for one in stored {
            if one.offset <= inside.offset {
                continue;
            }
            let place = Place { offset: one.offset, previous: inside.offset };
            match v1::Envelope::decode(one.payload) {
                Ok(envelope) => {
                    self.fan_out(room, envelope, Some(place), inside);
                }
                Err(error) => {
                    inside.pass(one.offset);
                    self.unreadable(one.offset, &error);
                }
            }
        }
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
    /// Goes past a message that cannot be read.
    pub(crate) fn pass(&mut self, offset: u64) {
        self.offset = self.offset.max(offset);
        self.recall.passed(self.offset);
    }
}
