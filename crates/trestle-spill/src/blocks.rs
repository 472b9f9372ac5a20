//! Which parts of the file are taken.

use std::collections::BTreeSet;

/// Bytes of a block: what a session takes at least, and a write or read of a size that a disk likes. A node's 1 GiB are
/// 65,536 of them.
pub(crate) const BLOCK_BYTES: usize = 16 * 1024;

/// The blocks of the file. The lowest is given out first, so that the file's end can be cut off.
#[derive(Default)]
pub(crate) struct Blocks {
    /// Those below the end that nobody has.
    free: BTreeSet<u32>,
    end: u32,
}

impl Blocks {
    /// A block that nobody has. How many there may be is kept by whoever reserves them.
    pub(crate) fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.end += 1;
            self.end - 1
        })
    }

    /// Takes a block back.
    pub(crate) fn give(&mut self, block: u32) {
        self.free.insert(block);
        while self.end > 0 && self.free.remove(&(self.end - 1)) {
            self.end -= 1;
        }
    }

    /// Bytes of file that are needed.
    pub(crate) fn file_bytes(&self) -> u64 {
        u64::from(self.end) * BLOCK_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_given_out_first_and_the_end_shrinks() {
        let mut blocks = Blocks::default();
        let taken: Vec<_> = (0..4).map(|_| blocks.take()).collect();
        assert_eq!(taken, [0, 1, 2, 3]);
        blocks.give(2);
        blocks.give(1);
        assert_eq!((blocks.file_bytes(), blocks.take()), (4 * BLOCK_BYTES as u64, 1));
        blocks.give(3);
        assert_eq!(blocks.file_bytes(), 2 * BLOCK_BYTES as u64, "2 was free as well");
        blocks.give(0);
        blocks.give(1);
        assert_eq!((blocks.file_bytes(), blocks.free.len()), (0, 0));
    }
}
