//! What the tests of what is on disk share: its files, a copy of them, and a process that is killed.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// The files of one `folder` of the data, the oldest first.
pub(crate) fn files(dir: &Path, folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join(folder)).expect("a folder");
    let mut files: Vec<_> = files.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// A copy of that folder as it is now: what another process would find after this one's sudden death.
pub(crate) fn as_after_a_crash(dir: &Path, folder: &str) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(copy.path().join(folder)).expect("a folder");
    for file in files(dir, folder) {
        let name = file.file_name().expect("a name");
        fs::copy(&file, copy.path().join(folder).join(name)).expect("copies");
    }
    copy
}

/// Runs the test `name` of this program as a process that is told its folder by a variable, and kills it when it has said
/// `enough`. Gives `take` the two words of each line in which it says what was acknowledged.
pub(crate) fn run_and_kill(
    name: &str,
    (variable, dir): (&str, &Path),
    enough: usize,
    mut take: impl FnMut(&str, &str) -> Option<()>,
) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(variable, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut take = |line: std::io::Result<String>| {
        let line = line.ok()?;
        let (one, other) = line.strip_prefix("acked ")?.split_once(' ')?;
        take(one, other)
    };
    let mut before = 0;
    while before < enough {
        before += usize::from(take(lines.next().expect("it goes on")).is_some());
    }
    child.kill().expect("is killed");
    child.wait().expect("ends");
    // What it had said and we had not read. A line without its end may be half a number.
    let rest: Vec<_> = lines.collect();
    for line in rest.into_iter().rev().skip(1) {
        take(line);
    }
}
