//! The one file of the node, in blocks.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::blocks::BLOCK_BYTES;

/// A file without a name, made when it is first written to. Whatever ends the process, the kernel takes it away; so
/// nothing is to be cleaned at the next start. (Where the file system cannot make a file without a name, it has one for the
/// moment until it is taken off again, and a process that is killed in that moment leaves an empty file.)
pub(crate) struct SpillFile {
    folder: PathBuf,
    file: OnceLock<File>,
    bytes: AtomicU64,
}

impl SpillFile {
    /// The file in `folder`, not made yet.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, file: OnceLock::new(), bytes: AtomicU64::new(0) }
    }

    /// A file that is there: a device that fails, as a test wants it.
    #[cfg(test)]
    pub(crate) fn of(file: File) -> Self {
        Self { folder: PathBuf::new(), file: file.into(), bytes: AtomicU64::new(0) }
    }

    /// Where it lies.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// How long it is. Only the writing thread changes it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes `bytes` at `at` of the row of `blocks`. Only the writing thread does.
    pub(crate) fn write(&self, blocks: &[u32], at: usize, bytes: &[u8]) -> io::Result<()> {
        let file = match self.file.get() {
            Some(file) => file,
            None => {
                let made = tempfile::tempfile_in(&self.folder)?;
                self.file.get_or_init(|| made)
            }
        };
        let mut written = 0;
        for piece in pieces(blocks, at, bytes.len()) {
            let length = (piece.end - piece.start) as usize;
            file.write_all_at(&bytes[written..written + length], piece.start)?;
            self.bytes.fetch_max(piece.end, Ordering::Relaxed);
            written += length;
        }
        Ok(())
    }

    /// Fills `into` from `at` of the row of `blocks`.
    pub(crate) fn read(&self, blocks: &[u32], at: usize, into: &mut [u8]) -> io::Result<()> {
        let file = self.file.get().ok_or(io::ErrorKind::NotFound)?;
        let mut read = 0;
        for piece in pieces(blocks, at, into.len()) {
            let length = (piece.end - piece.start) as usize;
            file.read_exact_at(&mut into[read..read + length], piece.start)?;
            read += length;
        }
        Ok(())
    }

    /// Cuts off what lies beyond `bytes`. Only the writing thread does, which is the only one that takes blocks.
    pub(crate) fn cut(&self, bytes: u64) -> io::Result<()> {
        if let Some(file) = self.file.get() {
            file.set_len(bytes)?;
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Where `length` bytes from `at` of the row of `blocks` lie in the file; neighbours in one piece.
fn pieces(blocks: &[u32], at: usize, length: usize) -> Vec<Range<u64>> {
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let (mut at, end) = (at, at + length);
    while at < end {
        let (index, within) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
        let some = (BLOCK_BYTES - within).min(end - at);
        let start = u64::from(blocks[index]) * BLOCK_BYTES as u64 + within as u64;
        match pieces.last_mut() {
            Some(last) if last.end == start => last.end += some as u64,
            _ => pieces.push(start..start + some as u64),
        }
        at += some;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;

    #[test]
    fn neighbours_are_one_piece() {
        let found = pieces(&[3, 4, 9], 100, 2 * BLOCK_BYTES);
        assert_eq!(found, [3 * BLOCK + 100..5 * BLOCK, 9 * BLOCK..9 * BLOCK + 100]);
        assert_eq!(pieces(&[0], 0, 0), []);
    }

    #[test]
    fn it_has_no_name_and_can_be_cut() {
        let folder = tempfile::tempdir().unwrap();
        let file = SpillFile::new(folder.path().into());
        assert!(file.read(&[0], 0, &mut [0; 4]).is_err(), "it is not made before it is needed");
        file.write(&[1, 0], BLOCK_BYTES - 2, b"abcd").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut back = [0; 4];
        file.read(&[1, 0], BLOCK_BYTES - 2, &mut back).unwrap();
        assert_eq!((&back, file.bytes()), (b"abcd", 2 * BLOCK));
        file.cut(BLOCK).unwrap();
        assert_eq!(file.bytes(), BLOCK);
        assert!(file.read(&[1], 0, &mut back).is_err(), "it is shorter");
    }
}
