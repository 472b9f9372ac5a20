//! What may not stand in a source file.

use crate::tree::{files, none, read, rust};

/// Most lines of a file of code: one that grows past it is usually two stations.
const LINES_MAX: usize = 500;
/// Files that may be longer, each with its reason.
const LONGER: &[(&str, &str)] = &[];

/// Written in two halves, so that this file does not break its own rule.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!"),
    concat!("unimpl", "emented!"),
    concat!("#[", "ignore"),
];
/// Kinds of file in which work could be left undone.
const SOURCES: &[&str] =
    &["rs", "proto", "toml", "sh", "ts", "js", "mjs", "cjs", "html", "css", "py", "go", "yaml", "yml", "md"];

/// Ends of names that say nothing.
const EMPTY_NAMES: &[&str] = &["Manager", "Helper", "Helpers", "Util", "Utils"];

#[test]
fn a_file_is_no_longer_than_one_station() {
    let code = rust("crates").into_iter().chain(rust("src"));
    let long = code.filter_map(|(path, text)| {
        let (path, lines) = (path.to_string_lossy().into_owned(), text.lines().count());
        let excused = LONGER.iter().any(|(file, _)| *file == path);
        (lines > LINES_MAX && !excused).then(|| format!("{path} has {lines} lines"))
    });
    none(&format!("files of more than {LINES_MAX} lines"), long.collect());
}

#[test]
fn a_file_that_may_be_long_is_there_and_is_long() {
    let idle = LONGER.iter().filter(|(file, _)| read(file).lines().count() <= LINES_MAX);
    none("excuses that are not needed", idle.map(|(file, reason)| format!("{file} ({reason})")).collect());
}

#[test]
fn nothing_is_left_to_be_done() {
    let mut left = Vec::new();
    for path in files("") {
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if !SOURCES.contains(&&*extension) {
            continue;
        }
        for (number, line) in read(&path).lines().enumerate() {
            if let Some(word) = UNFINISHED.iter().find(|word| line.contains(**word)) {
                left.push(format!("{}:{} {word}", path.display(), number + 1));
            }
        }
    }
    none("work left undone, or tests left out", left);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut empty = Vec::new();
    for (path, text) in ["crates", "src", "examples", "bench"].into_iter().flat_map(rust) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| says_nothing(word)) {
                empty.push(format!("{}:{} {word}", path.display(), number + 1));
            }
        }
    }
    none("names that say nothing", empty);
}

fn says_nothing(name: &str) -> bool {
    EMPTY_NAMES.iter().any(|end| name.ends_with(end)) || matches!(name, "util" | "utils" | "helper" | "helpers")
}

#[test]
fn an_empty_name_is_seen() {
    for name in ["SessionManager", "Utils", "StringUtil", "helpers"] {
        assert!(says_nothing(name), "{name}");
    }
    for name in ["Session", "utility", "manage", "Outbox"] {
        assert!(!says_nothing(name), "{name}");
    }
}
