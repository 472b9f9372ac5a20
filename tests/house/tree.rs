//! The files of this checkout.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Folders that are made, fetched, or somebody else's.
const NOT_OURS: &[&str] = &["target", ".git", "node_modules", "third_party", "__pycache__"];

/// Where the workspace begins.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file that has to be there.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of ours below `folder`, by its path from the root, in order.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !NOT_OURS.contains(&&*name) {
                folders.push(path);
            } else if path.is_file() {
                found.push(path.strip_prefix(root()).expect("below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The Rust files of ours below `folder`, with their text.
pub(crate) fn rust(folder: &str) -> Vec<(PathBuf, String)> {
    let files = files(folder).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.map(|path| (path.clone(), read(path))).collect()
}

/// Fails with `what` and all `faults`, unless there are none.
pub(crate) fn none(what: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{what}:\n  {}", faults.join("\n  "));
}
