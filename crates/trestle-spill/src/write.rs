//! The thread that writes.

use std::{io, sync::Arc};

use crate::{
    blocks::BLOCK_BYTES,
    disk::Node,
    jobs::Job,
    place::Place,
    record::{self, Found},
    state::Batch,
};

/// What the buffer keeps between two writes: one of an ordinary size.
const BUFFER_BYTES_KEPT: usize = 2 << 20;

/// Writes what is asked for, and looks after the whole, until the disk is let go of.
pub(crate) fn run(node: &Arc<Node>) {
    let mut buffer = Vec::new();
    while let Some(job) = node.writes.next() {
        if let Job::Place(place) = job {
            place.write(&mut buffer);
            buffer.clear();
            buffer.shrink_to(BUFFER_BYTES_KEPT);
        }
        node.look_after();
    }
}

impl Place {
    fn write(self: &Arc<Self>, buffer: &mut Vec<u8>) {
        let Some(batch) = self.state.lock().begin_write() else { return };
        let mut channels = self.channels.lock();
        batch.frames.iter().for_each(|waiting| record::write(waiting, &mut channels, buffer));
        drop(channels);
        match self.write_batch(&batch, buffer) {
            Ok(fresh) => self.wrote(batch, fresh),
            Err(failure) => self.not_written(batch, buffer, &failure),
        }
    }

    /// Writes into the block that is not full yet, and into new ones, which are returned. There is one for each that was
    /// reserved when the frames were put.
    fn write_batch(&self, batch: &Batch, bytes: &[u8]) -> io::Result<Vec<u32>> {
        let mut blocks: Vec<_> = batch.block.into_iter().collect();
        let (old, all) = (blocks.len(), (batch.at + bytes.len()).div_ceil(BLOCK_BYTES));
        let mut free = self.node.blocks.lock();
        blocks.extend((old..all).map(|_| free.take()));
        drop(free);
        let written = self.node.file.write(&blocks, batch.at, bytes);
        let fresh = blocks.split_off(old);
        match written {
            Ok(()) => Ok(fresh),
            Err(failure) => {
                self.node.give_back(fresh, 0);
                Err(failure)
            }
        }
    }

    fn wrote(self: &Arc<Self>, batch: Batch, fresh: Vec<u32>) {
        let node = &self.node;
        node.metrics.written.inc_by(batch.frames.len() as u64);
        let mut state = self.state.lock();
        state.wrote(node, batch.bytes, fresh);
        let reads = state.has_reader() && state.ask_read();
        let writes = state.ask_write(node.is_pressed());
        drop(state);
        if reads {
            node.reads.post(Arc::clone(self));
        }
        if writes {
            node.writes.post(Arc::clone(self));
        }
    }

    fn not_written(&self, batch: Batch, mut records: &[u8], failure: &io::Error) {
        let mut channels = self.channels.lock();
        while let Found::Record(_, bytes) = record::read(records, &mut channels) {
            records = &records[bytes..];
        }
        drop(channels);
        self.node.failed(failure);
        let reader = self.state.lock().not_written(&self.node, batch);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}
