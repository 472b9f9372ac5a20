//! The segment files of one log, or of the keys.
//!
//! In: groups of records. Out: the same on disk, and where each stands. Always: a group is on disk before it counts;
//! segments go from the oldest on, once nothing in them is needed any more; only the journal's thread writes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::record::Record;

/// A segment is closed when a group would make it larger. 16 MiB x the 8 that are left alone = 128 MiB a log.
pub(super) const SEGMENT_BYTES_MAX: u64 = 16 << 20;

/// One file of a log. Every stored message in it holds it, so nobody holding it means nothing in it is needed.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: File,
}

/// Where a message's record and its payload stand.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) segment: Arc<Segment>,
    pub(super) record: u64,
    pub(super) payload: u64,
    pub(super) payload_bytes: usize,
}

impl Place {
    /// Reads the payload. Blocks for as long as the disk does. An error names the file.
    pub(super) fn read(&self) -> io::Result<Bytes> {
        self.read_at(self.payload, self.payload_bytes).map(Bytes::from)
    }

    /// Reads the whole record.
    pub(super) fn read_record(&self) -> io::Result<Vec<u8>> {
        self.read_at(self.record, (self.payload - self.record) as usize + self.payload_bytes)
    }

    fn read_at(&self, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.segment.file.read_exact_at(&mut bytes, at);
        let named = |error: io::Error| {
            let path = self.segment.path.display();
            io::Error::new(error.kind(), format!("{length} bytes of {path} at byte {at}: {error}"))
        };
        read.map(|()| bytes).map_err(named)
    }

    pub(super) fn is_in(&self, segment: &Arc<Segment>) -> bool {
        Arc::ptr_eq(&self.segment, segment)
    }
}

/// The files of one log, oldest first; the last one is written.
pub(super) struct Disk {
    dir: PathBuf,
    segment_bytes_max: u64,
    segments: Vec<Held>,
    failed: bool,
}

struct Held {
    segment: Arc<Segment>,
    bytes: u64,
    newest_ms: u64,
}

impl Disk {
    /// Opens the log under `dir`, gives every record that was written to `found`, in order, and cuts off a last group
    /// that was not written to its end.
    pub(super) fn open(
        dir: &Path,
        segment_bytes_max: u64,
        mut found: impl FnMut(Record<'_>, Place),
    ) -> io::Result<Self> {
        make_dirs(dir)?;
        let mut names: Vec<(u64, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let first = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let Some(first) = first.filter(|_| path.extension().is_some_and(|extension| extension == "segment")) {
                names.push((first, path));
            }
        }
        names.sort();
        let mut disk = Self { dir: dir.into(), segment_bytes_max, segments: Vec::new(), failed: false };
        let last = names.len().saturating_sub(1);
        for (at, (_, path)) in names.into_iter().enumerate() {
            let held = read_segment(&path, at == last, &mut found)?;
            disk.segments.push(held);
        }
        Ok(disk)
    }

    /// The offset in the name of the newest segment: no offset below it is free.
    pub(super) fn first_of_newest(&self) -> u64 {
        let newest = self.segments.last().and_then(|held| held.segment.path.file_stem()?.to_str()?.parse().ok());
        newest.unwrap_or(1)
    }

    /// Writes a group of whole records and returns once it is on disk: in which segment, and where it begins there.
    /// `next` is the lowest offset that is not in use.
    ///
    /// After an error that leaves in doubt what is on disk, every later call is an error: the kernel may have dropped
    /// what it could not write, and a second flush would report success.
    pub(super) fn write(&mut self, group: &[u8], next: u64, now_ms: u64) -> io::Result<(Arc<Segment>, u64)> {
        if self.failed {
            return Err(io::Error::other("an earlier write failed; restart to recover"));
        }
        let full = |held: &Held| held.bytes > 0 && held.bytes + group.len() as u64 > self.segment_bytes_max;
        if self.segments.last().is_none_or(full) {
            self.begin(next)?;
        }
        let held = self.segments.last_mut().expect("one was begun");
        let start = held.bytes;
        let mut mark = Vec::new();
        Record::Flushed { at: start }.write(&mut mark);
        let file = &held.segment.file;
        let base = start + mark.len() as u64;
        if let Err(error) = file.write_all_at(&mark, start).and_then(|()| file.write_all_at(group, base)) {
            self.failed = file.set_len(start).is_err();
            return Err(error);
        }
        if let Err(error) = held.segment.file.sync_data() {
            self.failed = true;
            return Err(error);
        }
        held.bytes = base + group.len() as u64;
        held.newest_ms = now_ms;
        Ok((held.segment.clone(), base))
    }

    /// Lets nothing be written any more, as after a disk's failure.
    #[cfg(test)]
    pub(super) fn spoil(&mut self) -> io::Result<()> {
        self.begin(1)?;
        for held in &mut self.segments {
            let path = held.segment.path.clone();
            held.segment = Arc::new(Segment { file: File::open(&path)?, path });
        }
        Ok(())
    }

    /// Whether an error has left in doubt what is on disk.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    fn begin(&mut self, next: u64) -> io::Result<()> {
        // Two segments can begin at the same offset when the first holds no message.
        let first = self.segments.last().map_or(next, |_| next.max(self.first_of_newest() + 1));
        let path = self.dir.join(format!("{first:020}.segment"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        if let Err(error) = sync_dir(&self.dir) {
            fs::remove_file(&path)?;
            return Err(error);
        }
        self.segments.push(Held { segment: Arc::new(Segment { path, file }), bytes: 0, newest_ms: 0 });
        Ok(())
    }

    /// Removes the oldest segments that nothing needs: no message in them is kept, and no dedup id since `since_ms`.
    /// Says how many went.
    pub(super) fn drop_dead(&mut self, since_ms: u64) -> io::Result<usize> {
        let before = self.segments.len();
        while let [oldest, _, ..] = &self.segments[..]
            && Arc::strong_count(&oldest.segment) == 1
            && oldest.newest_ms < since_ms
        {
            fs::remove_file(&oldest.segment.path)?;
            self.segments.remove(0);
            // Before the next one goes: that a message is done may stand in a file after its own, never before.
            sync_dir(&self.dir)?;
        }
        Ok(before - self.segments.len())
    }

    /// Whether some file may be given back one day.
    pub(super) fn is_untidy(&self) -> bool {
        self.segments.len() > 1
    }

    /// The oldest segment, if the files hold much more than the `live_bytes` that are needed.
    pub(super) fn worth_moving(&self, live_bytes: u64) -> Option<Arc<Segment>> {
        let bytes: u64 = self.segments.iter().map(|held| held.bytes).sum();
        let slack = 8 * self.segment_bytes_max;
        let oldest = self.segments.first().filter(|_| self.segments.len() > 1)?;
        (bytes > slack + 4 * live_bytes && Arc::strong_count(&oldest.segment) > 1).then(|| oldest.segment.clone())
    }
}

/// Makes `path` and what is missing above it, each lasting in the directory above. Says in which it was made to last.
fn make_dirs(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_dir() {
        return Ok(Vec::new());
    }
    let above = match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(Vec::new()),
    };
    let mut synced = make_dirs(above)?;
    fs::create_dir(path).or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })?;
    sync_dir(above)?;
    synced.push(above.into());
    Ok(synced)
}

/// Makes what was made and removed in a directory last.
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The place of the first mark in `bytes` from `from` on that says that all before it had been flushed.
fn flushed_later(bytes: &[u8], from: usize) -> Option<usize> {
    (from..bytes.len()).find(|at| Record::says_flushed_at(&bytes[*at..], *at as u64))
}

/// Reads a segment from its start. What is not whole is cut off the `last` one if it was never flushed: if no mark of a
/// later write says that it was. Anything else that is not whole is damage, and an error.
fn read_segment(path: &Path, last: bool, found: &mut impl FnMut(Record<'_>, Place)) -> io::Result<Held> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = fs::read(path)?;
    let segment = Arc::new(Segment { path: path.into(), file });
    let (mut at, mut newest_ms) = (0, 0);
    while let Some((record, length)) = Record::read(&bytes[at..]) {
        let end = at + length;
        if let Record::Flushed { .. } = record {
            at = end;
            continue;
        }
        let payload_bytes = if let Record::Message { payload, time_ms, .. } = record {
            newest_ms = newest_ms.max(time_ms);
            payload.len()
        } else {
            0
        };
        let payload = (end - payload_bytes) as u64;
        found(record, Place { segment: segment.clone(), record: at as u64, payload, payload_bytes });
        at = end;
    }
    if at < bytes.len() {
        let cut = bytes.len() - at;
        if !last || flushed_later(&bytes, at).is_some() {
            let path = path.display();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{path} is damaged at byte {at} of {}; restore it from a backup, or give up what follows in it by \
                     `truncate -s {at} {path}`, and start again",
                    bytes.len()
                ),
            ));
        }
        tracing::warn!(segment = %path.display(), at, cut, "cut off what was not written to its end");
        segment.file.set_len(at as u64)?;
        segment.file.sync_all()?;
    }
    Ok(Held { segment, bytes: at as u64, newest_ms })
}

/// A data directory that no other process uses meanwhile.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    lock: File,
}

impl DataDir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = path.join("bus");
        make_dirs(&path)?;
        let mut lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join("lock"))?;
        if lock.try_lock().is_err() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"));
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path, lock })
    }

    /// Where the keys are kept.
    pub(super) fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// Where a log is kept.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.path.join("logs").join(name)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is being started holds a copy of it for a moment.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "the data directory cannot be given back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_given_back_though_a_copy_of_its_lock_is_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = DataDir::open(folder.path()).expect("opens");
        let _copy = data.lock.try_clone().expect("is copied, as by a fork");
        drop(data);
        DataDir::open(folder.path()).expect("opens again");
    }

    #[test]
    fn each_directory_that_is_made_is_made_to_last_in_the_one_above() {
        let folder = tempfile::tempdir().expect("a folder");
        let (a, b) = (folder.path().join("a"), folder.path().join("a/b"));
        assert_eq!(make_dirs(&b.join("c")).expect("makes"), [folder.path(), &a, &b]);
        assert_eq!(make_dirs(&b.join("d")).expect("makes"), [&*b]);
        assert!(make_dirs(&b.join("d")).expect("is there").is_empty());
        fs::write(folder.path().join("file"), "").expect("writes");
        assert!(make_dirs(&folder.path().join("file/x")).is_err());
    }
}
