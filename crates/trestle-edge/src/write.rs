//! Write: frames from the outbox in, WebSocket messages out, several frames to a message under load.
//!
//! What always holds: what is written is counted, and kept for a resume.

use smallvec::SmallVec;
use trestle_codec::join;
use trestle_session::Finished;

use crate::{
    connection::Connection,
    websocket::{Piece, Stream, WebSocket},
};

/// Frames that share one WebSocket message under load. JSON arrays and their parsers cope well with that many; more would
/// only delay the first of them.
pub(crate) const BATCH_FRAMES_MAX: usize = 64;
/// Bytes after which a batch ends: what one write can hand to the kernel's default send buffer.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// Frames that need no allocation on their way: most batches.
const FRAMES_INLINE: usize = 16;
/// Slots that an idle connection keeps between two writes: 8 x 16 B.
const TAKEN_KEPT: usize = 8;

impl Connection {
    /// Counts, keeps for a resume and writes what was taken from the outbox.
    pub(crate) fn write_taken<S: Stream>(&mut self, socket: &mut WebSocket<S>) {
        let mut taken = std::mem::take(&mut self.taken);
        self.stay.retain_wanted(&mut taken);
        let frames: SmallVec<[_; FRAMES_INLINE]> = taken.drain(..).map(|one| self.stay.finished(one)).collect();
        if taken.capacity() <= TAKEN_KEPT {
            self.taken = taken;
        }
        self.write(socket, &frames);
        // Moved, not cloned: all receivers of a message share one count of its owners.
        frames.into_iter().for_each(|frame| self.stay.replay.wrote(frame));
    }

    /// Hands frames to the socket, several to a message.
    pub(crate) fn write<S: Stream>(&self, socket: &mut WebSocket<S>, mut rest: &[Finished]) {
        let metrics = &self.edge.metrics;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch(rest));
            let (message, bytes): (Piece, _) = match batch {
                [frame] => (frame.clone().into(), frame.len()),
                frames => {
                    let joined = join(self.hello.encoding, frames);
                    let bytes = joined.len();
                    (joined.into(), bytes)
                }
            };
            metrics.messages_out.inc();
            metrics.frames_out.inc_by(batch.len() as u64);
            metrics.bytes_out.inc_by(bytes as u64);
            socket.write(message);
            rest = after;
        }
    }
}

/// How many of the frames share the next message.
fn batch(frames: &[Finished]) -> usize {
    let mut bytes = 0;
    let fits = frames.iter().take(BATCH_FRAMES_MAX).take_while(|frame| {
        bytes += frame.len();
        bytes <= BATCH_BYTES_MAX
    });
    fits.count().max(1)
}
