//! What waits on this node's disk because a client's outbox is full.
//!
//! In: frames of clients whose policy is `spill`, from the fan-out, without ever waiting. Out: the same frames with the
//! same labels, in the same order, to each client's writer. [`Disk`] keeps the promise of [`trestle_session::Spills`].
//!
//! A frame on its way:
//! ```text
//! put -> tail (memory) -> the writing thread -> blocks of the node's one file -> the reading thread -> head (memory) -> poll_read
//! ```
//! A tail goes to the disk once it is a block, or at once when memory is short; a client that catches up before that never
//! touches the disk. All clients share one file, in blocks that are given out and taken back, since a file for each of
//! 100,000 slow clients would be 100,000 open files. It has no name, so the kernel takes it away with the process, however
//! that ends. A disk that fails costs nothing that was taken: what it did not take stays in memory, and no more is taken.

mod blocks;
mod channels;
mod complaints;
mod config;
mod disk;
mod file;
mod jobs;
mod metrics;
mod place;
mod read;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod write;

pub use config::SpillConfig;
pub use disk::Disk;
