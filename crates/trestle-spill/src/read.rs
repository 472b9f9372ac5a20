//! The thread that reads.

use std::{io, sync::Arc};

use trestle_session::Finished;

use crate::{
    disk::Node,
    jobs::Job,
    place::Place,
    record::{self, Found},
};

/// Bytes that are read at once, or one record: what a session that is written to has in memory beside its outbox.
const READ_BYTES: usize = 32 * 1024;

/// Reads what is asked for until the disk is let go of.
pub(crate) fn run(node: &Arc<Node>) {
    let mut buffer = Vec::new();
    while let Some(job) = node.reads.next() {
        if let Job::Place(place) = job {
            place.read(&mut buffer);
            buffer.shrink_to(READ_BYTES);
        }
    }
}

impl Place {
    fn read(&self, buffer: &mut Vec<u8>) {
        let reader = match self.read_some(READ_BYTES, buffer) {
            Ok(Some((bytes, frames))) => self.state.lock().was_read(&self.node, bytes, frames),
            Ok(None) => None,
            Err(failure) => {
                self.node.failed(&failure);
                self.state.lock().not_read()
            }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// The records within the next `most` bytes, or the first one if that is larger; and their bytes. `None` if nobody wants them.
    fn read_some(&self, most: usize, buffer: &mut Vec<u8>) -> io::Result<Option<(usize, Vec<Finished>)>> {
        let Some(span) = self.state.lock().begin_read(most) else { return Ok(None) };
        buffer.resize(span.bytes, 0);
        self.node.file.read(&span.blocks, span.at, buffer)?;
        let (mut frames, mut read) = (Vec::new(), 0);
        let mut channels = self.channels.lock();
        loop {
            match record::read(&buffer[read..], &mut channels) {
                Found::Record(waiting, bytes) => {
                    frames.push(waiting);
                    read += bytes;
                }
                Found::Part(_) if read > 0 => return Ok(Some((read, frames))),
                Found::Part(bytes) if bytes > span.bytes && bytes <= span.all => {
                    drop(channels);
                    return self.read_some(bytes, buffer);
                }
                Found::Part(_) | Found::Garbage => return Err(garbage()),
            }
        }
    }
}

fn garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what was read back is not what was written")
}
