//! What waits for one session, and where it is: plain data, without a lock or a disk of its own.

use std::{collections::VecDeque, task::Waker};

use trestle_session::{Finished, Taken};

use crate::{
    blocks::BLOCK_BYTES,
    disk::Node,
    metrics::Refused,
    record::{RECORD_BYTES, bytes_of},
};

/// Most bytes that are written for one session before it is another's turn, beyond which it is one record.
const WRITE_BYTES: usize = 1 << 20;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// What waits for one session, the oldest first: `head`, `disk`, what the writing thread has, `tail`.
#[derive(Default)]
pub(crate) struct State {
    /// Read from the disk.
    head: VecDeque<Finished>,
    disk: OnDisk,
    /// Bytes of records that the writing thread has.
    moving: usize,
    /// Not written yet.
    tail: VecDeque<Finished>,
    tail_bytes: usize,
    /// Frames in all of these, and their bytes.
    frames: usize,
    bytes: usize,
    /// Blocks that are sure for this session.
    reserved: usize,
    write: Write,
    /// Whether the reading thread has been asked.
    reading: bool,
    /// The disk did not take something: it is in the tail again, and no more is taken.
    broken: bool,
    /// The disk did not give something back.
    lost: bool,
    /// Nobody will read it any more.
    gone: bool,
    reader: Option<Waker>,
}

/// Records on the disk: bytes `read..written` of a stream of which `blocks` are the part from `base` on.
#[derive(Default)]
struct OnDisk {
    blocks: VecDeque<u32>,
    base: u64,
    read: u64,
    written: u64,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Write {
    #[default]
    Idle,
    Asked,
    Busy,
}

/// What the writing thread takes.
pub(crate) struct Batch {
    pub(crate) frames: Vec<Finished>,
    /// Bytes of their records.
    pub(crate) bytes: usize,
    /// The block that is not full yet, and how much of it is.
    pub(crate) block: Option<u32>,
    pub(crate) at: usize,
}

/// What the reading thread reads.
pub(crate) struct Span {
    /// All blocks that are not read yet, and where to begin in the first of them.
    pub(crate) blocks: Vec<u32>,
    pub(crate) at: usize,
    /// Bytes that are there from there on, at most as many as were asked for.
    pub(crate) bytes: usize,
    /// Bytes that are there at all.
    pub(crate) all: usize,
}

impl OnDisk {
    fn is_empty(&self) -> bool {
        self.read == self.written
    }

    /// Bytes of file, from the beginning of the first block.
    fn span(&self) -> usize {
        (self.written - self.base) as usize
    }
}

impl State {
    /// Frames that wait.
    pub(crate) fn frames(&self) -> usize {
        self.frames
    }

    /// Bytes of the frames that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts a frame at the end, if it has room.
    pub(crate) fn put(&mut self, node: &Node, frame: Finished) -> Result<(), Refused> {
        let more = bytes_of(&frame);
        if self.broken || self.lost {
            return Err(Refused::Disk);
        }
        if (self.bytes + self.frames * RECORD_BYTES + more) as u64 > node.config.bytes_per_session_max {
            return Err(Refused::Session);
        }
        if !node.hold(more) {
            return Err(Refused::Memory);
        }
        let missing = (self.span() + more).div_ceil(BLOCK_BYTES).saturating_sub(self.reserved);
        if missing > 0 && !node.reserve(missing) {
            node.let_go(more);
            return Err(Refused::Node);
        }
        self.reserved += missing;
        self.frames += 1;
        self.bytes += frame.len();
        self.tail_bytes += more;
        self.tail.push_back(frame);
        Ok(())
    }

    /// Bytes from the beginning of the first block to the end of the tail, were it written.
    fn span(&self) -> usize {
        self.disk.span() + self.moving + self.tail_bytes
    }

    /// Whether the writing thread is to be asked; then it is taken as asked.
    pub(crate) fn ask_write(&mut self, pressed: bool) -> bool {
        let asks = self.write == Write::Idle
            && !self.broken
            && !self.tail.is_empty()
            && (pressed || self.tail_bytes >= BLOCK_BYTES);
        if asks {
            self.write = Write::Asked;
        }
        asks
    }

    /// Moves up to `most` of the oldest to the end of `into`, as far as they are in memory; how many bytes.
    pub(crate) fn take(&mut self, node: &Node, most: usize, into: &mut Vec<Taken>) -> usize {
        let (queue, from_tail) = if !self.head.is_empty() {
            (&mut self.head, false)
        } else if self.disk.is_empty() && self.write != Write::Busy {
            (&mut self.tail, true)
        } else {
            return 0;
        };
        let count = most.min(queue.len());
        let mut bytes = 0;
        let taken = queue.drain(..count).inspect(|frame| bytes += frame.len());
        into.extend(taken.map(Taken::Frame));
        self.frames -= count;
        self.bytes -= bytes;
        if from_tail {
            let records = bytes + count * RECORD_BYTES;
            self.tail_bytes -= records;
            node.let_go(records);
            self.settle(node);
        }
        bytes
    }

    /// Whether the reading thread is to be asked, since nothing that was read is left; then it is taken as asked.
    pub(crate) fn ask_read(&mut self) -> bool {
        let asks = self.head.is_empty() && !self.disk.is_empty() && !self.reading && !self.lost;
        self.reading |= asks;
        asks
    }

    /// Whether nothing more can be read, because something is lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Has `reader` woken when something is read.
    pub(crate) fn wait(&mut self, reader: &Waker) {
        self.reader = Some(reader.clone());
    }

    /// What is to be written now.
    pub(crate) fn begin_write(&mut self) -> Option<Batch> {
        if self.tail.is_empty() || self.broken || self.gone {
            self.write = Write::Idle;
            return None;
        }
        let (mut count, mut bytes) = (0, 0);
        for frame in &self.tail {
            if count > 0 && bytes + bytes_of(frame) > WRITE_BYTES {
                break;
            }
            count += 1;
            bytes += bytes_of(frame);
        }
        let frames: Vec<_> = self.tail.drain(..count).collect();
        self.tail_bytes -= bytes;
        self.moving = bytes;
        self.write = Write::Busy;
        let at = self.disk.span() % BLOCK_BYTES;
        let block = if at > 0 { self.disk.blocks.back().copied() } else { None };
        Some(Batch { frames, bytes, block, at })
    }

    /// A batch of `bytes` is on the disk, in new blocks as well. Who waits for it is asked about by [`ask_read`](Self::ask_read).
    pub(crate) fn wrote(&mut self, node: &Node, bytes: usize, fresh: Vec<u32>) {
        self.disk.blocks.extend(fresh);
        self.disk.written += bytes as u64;
        self.moving = 0;
        self.write = Write::Idle;
        node.let_go(bytes);
    }

    /// A batch was not taken by the disk; nothing that was accepted is lost by that.
    pub(crate) fn not_written(&mut self, node: &Node, batch: Batch) -> Option<Waker> {
        self.moving = 0;
        self.write = Write::Idle;
        self.broken = true;
        if self.gone {
            node.let_go(batch.bytes);
            return None;
        }
        self.tail_bytes += batch.bytes;
        for waiting in batch.frames.into_iter().rev() {
            self.tail.push_front(waiting);
        }
        self.settle(node);
        self.reader.take()
    }

    /// Whether somebody waits for what is read.
    pub(crate) fn has_reader(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether the writing thread has something of it.
    #[cfg(test)]
    pub(crate) fn is_moving(&self) -> bool {
        self.moving > 0
    }

    /// What is to be read now, up to `most` bytes.
    pub(crate) fn begin_read(&mut self, most: usize) -> Option<Span> {
        if self.gone || self.lost || self.disk.is_empty() {
            self.reading = false;
            return None;
        }
        let all = (self.disk.written - self.disk.read) as usize;
        let (at, bytes) = ((self.disk.read - self.disk.base) as usize, all.min(most));
        let blocks = self.disk.blocks.iter().copied().take((at + bytes).div_ceil(BLOCK_BYTES)).collect();
        Some(Span { blocks, at, bytes, all })
    }

    /// So many bytes were read, in which were these.
    pub(crate) fn was_read(&mut self, node: &Node, bytes: usize, frames: Vec<Finished>) -> Option<Waker> {
        self.reading = false;
        self.disk.read += bytes as u64;
        if !self.gone {
            self.head.extend(frames);
        }
        self.settle(node);
        self.reader.take()
    }

    /// What is on the disk cannot be read.
    pub(crate) fn not_read(&mut self) -> Option<Waker> {
        self.reading = false;
        self.lost = true;
        self.reader.take()
    }

    /// Gives back what is not needed any more: blocks that are read, and what was reserved beyond the rest.
    fn settle(&mut self, node: &Node) {
        let disk = &mut self.disk;
        let read = ((disk.read - disk.base) / BLOCK) as usize;
        let mut blocks: Vec<_> = disk.blocks.drain(..read.min(disk.blocks.len())).collect();
        disk.base += blocks.len() as u64 * BLOCK;
        if disk.is_empty() && self.write != Write::Busy {
            blocks.extend(disk.blocks.drain(..));
            *disk = OnDisk::default();
        }
        let surplus = self.reserved.saturating_sub(self.span().div_ceil(BLOCK_BYTES));
        self.reserved -= surplus;
        if surplus > 0 || !blocks.is_empty() {
            node.give_back(blocks, surplus);
        }
    }

    /// Nobody reads it any more: what is in memory goes at once, and is returned so that it goes outside of the lock.
    pub(crate) fn leave(&mut self, node: &Node) -> [VecDeque<Finished>; 2] {
        self.gone = true;
        self.reader = None;
        node.let_go(std::mem::take(&mut self.tail_bytes));
        [std::mem::take(&mut self.head), std::mem::take(&mut self.tail)]
    }

    /// Gives back all blocks, once neither a reader nor a thread has it.
    pub(crate) fn end(&mut self, node: &Node) {
        node.give_back(self.disk.blocks.drain(..), std::mem::take(&mut self.reserved));
    }
}
