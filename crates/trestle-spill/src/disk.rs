//! The node's disk: what all its sessions share, and the two threads that write and read.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use trestle_session::{Full, Spill, Spills};

use crate::{
    SpillConfig,
    blocks::Blocks,
    complaints::Complaints,
    file::SpillFile,
    jobs::Jobs,
    metrics::{Metrics, Refused, signed, word},
    place::Spilling,
};

/// The file is cut when so much of its end is free, or all of it: cutting less, more often, is not worth the call.
const CUT_BYTES: u64 = 16 << 20;

/// A node's room for spilled messages on a disk.
pub struct Disk(Arc<Threads>);

/// What all sessions of a node share.
pub(crate) struct Node {
    pub(crate) config: SpillConfig,
    pub(crate) blocks: Mutex<Blocks>,
    /// Blocks that sessions have or are sure to get.
    reserved: AtomicUsize,
    /// Bytes of records that are not on the disk yet.
    memory: AtomicUsize,
    pub(crate) file: SpillFile,
    pub(crate) writes: Jobs,
    pub(crate) reads: Jobs,
    pub(crate) metrics: Metrics,
    complaints: Complaints,
}

/// Ends the threads when nobody needs them any more.
pub(crate) struct Threads(pub(crate) Arc<Node>);

impl Disk {
    /// Starts the two threads. The file is made when it is needed first.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub fn start(config: SpillConfig, registry: &mut Registry) -> io::Result<Self> {
        let file = SpillFile::new(config.folder());
        Self::on(file, config, registry)
    }

    /// Starts on `file`.
    pub(crate) fn on(file: SpillFile, config: SpillConfig, registry: &mut Registry) -> io::Result<Self> {
        let node = Arc::new(Node {
            config,
            blocks: Mutex::default(),
            reserved: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
            file,
            writes: Jobs::default(),
            reads: Jobs::default(),
            metrics: Metrics::register(registry),
            complaints: Complaints::default(),
        });
        let threads = Arc::new(Threads(Arc::clone(&node)));
        // A thread each, so that clients are read for while a full disk lets writes wait.
        let (writer, reader) = (Arc::clone(&node), node);
        thread::Builder::new().name("spill-write".into()).spawn(move || crate::write::run(&writer))?;
        thread::Builder::new().name("spill-read".into()).spawn(move || crate::read::run(&reader))?;
        Ok(Self(threads))
    }

    /// A place of which a test sees more than an outbox does.
    #[cfg(test)]
    pub(crate) fn place(&self) -> Spilling {
        Spilling::new(Arc::clone(&self.0))
    }

    #[cfg(test)]
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.0.0
    }
}

impl Spills for Disk {
    fn open(&self) -> Result<Box<dyn Spill>, Full> {
        let node = &self.0.0;
        if node.reserved.load(Ordering::Relaxed) >= node.config.blocks_max() {
            node.refuse(Refused::Node);
            return Err(Full::Overflow);
        }
        Ok(Box::new(Spilling::new(Arc::clone(&self.0))))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.writes.close();
        self.0.reads.close();
    }
}

impl Node {
    /// Whether `more` blocks are there for a session, which then has them.
    pub(crate) fn reserve(&self, more: usize) -> bool {
        grow(&self.reserved, more, self.config.blocks_max())
    }

    /// Whether `more` bytes have room in memory, which then is theirs.
    pub(crate) fn hold(&self, more: usize) -> bool {
        grow(&self.memory, more, self.config.memory_bytes_max)
    }

    /// Gives bytes of memory back.
    pub(crate) fn let_go(&self, bytes: usize) {
        self.memory.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether memory is short: tails go to the disk at once. What is left is for what comes until they are there.
    pub(crate) fn is_pressed(&self) -> bool {
        self.memory.load(Ordering::Relaxed) > self.config.memory_bytes_max / 2
    }

    /// Gives `blocks` of the file back, and then `reserved` of what was reserved: in this order, so that there is always a block
    /// for who has reserved it.
    pub(crate) fn give_back(&self, blocks: impl IntoIterator<Item = u32>, reserved: usize) {
        let mut all = self.blocks.lock();
        blocks.into_iter().for_each(|block| all.give(block));
        let needed = all.file_bytes();
        drop(all);
        self.reserved.fetch_sub(reserved, Ordering::Relaxed);
        if self.is_to_be_cut(needed) {
            self.writes.look();
        }
    }

    /// Counts a frame that was not taken, and has somebody told.
    pub(crate) fn refuse(&self, refused: Refused) {
        self.metrics.refused(refused);
        self.complaints.refused(refused);
        if refused != Refused::Session {
            self.writes.look();
        }
    }

    /// Notes what the disk said.
    pub(crate) fn failed(&self, failure: &io::Error) {
        self.complaints.failed(failure.to_string());
        self.writes.look();
    }

    fn is_to_be_cut(&self, needed: u64) -> bool {
        let unneeded = self.file.bytes().saturating_sub(needed);
        unneeded >= CUT_BYTES || (needed == 0 && unneeded > 0)
    }

    /// Cuts the file if its end is free, and tells what there is to be told. On the writing thread.
    pub(crate) fn look_after(&self) {
        let needed = self.blocks.lock().file_bytes();
        if self.is_to_be_cut(needed)
            && let Err(failure) = self.file.cut(needed)
        {
            self.complaints.failed(failure.to_string());
        }
        self.metrics.file_bytes.set(i64::try_from(self.file.bytes()).unwrap_or(i64::MAX));
        self.tell();
    }

    fn tell(&self) {
        let Some(told) = self.complaints.due(Instant::now()) else { return };
        let folder = self.file.folder().display();
        if let Some(failure) = told.failure {
            tracing::error!(
                folder = %folder,
                error = failure,
                "the disk of spilled messages fails; slow clients are parted from. Free some space there, or name another \
                 folder in spill.dir"
            );
        }
        for (refused, frames) in told.refused {
            let advice = match refused {
                Refused::Session | Refused::Disk => "the disk of spilled messages fails",
                Refused::Node => "spill.bytes_max is taken; raise it if the disk is larger",
                Refused::Memory => {
                    "the disk does not keep up; name a faster one in spill.dir, or raise spill.memory_bytes_max"
                }
            };
            tracing::warn!(reason = word(refused), frames, folder = %folder, "slow clients are parted from: {advice}");
        }
    }

    /// Bytes of records in memory, and blocks that are reserved.
    #[cfg(test)]
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.memory.load(Ordering::Relaxed), self.reserved.load(Ordering::Relaxed))
    }

    /// So many bytes of frames came, or went.
    pub(crate) fn count_bytes(&self, came: usize, went: usize) {
        self.metrics.bytes.inc_by(signed(came) - signed(went));
    }
}

/// Adds `more` to `taken` if that is no more than `most`.
fn grow(taken: &AtomicUsize, more: usize, most: usize) -> bool {
    let grown = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= most);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok()
}
