//! ARCHITECTURE.md and README.md against what is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::tree::{files, none, read, root};

/// Endings by which a word without a slash is known as a file.
const FILES: &[&str] =
    &[".rs", ".md", ".toml", ".proto", ".yaml", ".yml", ".json", ".sh", ".html", ".ts", ".py", ".go"];

/// A row of ARCHITECTURE.md: `| crate | one sentence | may depend on |`.
struct Row {
    sentence: String,
    may: BTreeSet<String>,
}

/// The rows, by crate. Names are in backticks; `trestle-` may be left out of the third cell.
fn drawn() -> BTreeMap<String, Row> {
    let page = read("ARCHITECTURE.md");
    let mut table = page
        .lines()
        .skip_while(|line| cells(line).is_none_or(|cells| cells != ["crate", "one sentence", "may depend on"]))
        .skip(2)
        .map_while(cells)
        .peekable();
    assert!(table.peek().is_some(), "ARCHITECTURE.md has no table `| crate | one sentence | may depend on |`");
    let row = |cells: Vec<&str>| {
        let [name, sentence, may] = cells[..] else { panic!("not three cells: {cells:?}") };
        let may =
            quoted(may).map(|name| if name.starts_with("trestle") { name.into() } else { format!("trestle-{name}") });
        (name.trim_matches('`').to_owned(), Row { sentence: sentence.to_owned(), may: may.collect() })
    };
    table.map(row).collect()
}

/// The cells of a row of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn workspace() -> Metadata {
    MetadataCommand::new().no_deps().other_options(vec!["--offline".into()]).exec().expect("cargo metadata runs")
}

/// The workspace's own packages that `package` is built from. What only tests use is no arrow.
fn arrows<'a>(package: &'a Package, names: &'a BTreeSet<&str>) -> impl Iterator<Item = &'a str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| &*dependency.name)
        .filter(|name| names.contains(name))
}

#[test]
fn every_arrow_is_drawn() {
    let (drawn, workspace) = (drawn(), workspace());
    let names: BTreeSet<&str> = workspace.packages.iter().map(|package| &**package.name).collect();
    let mut faults = Vec::new();
    for package in &workspace.packages {
        let Some(row) = drawn.get(&**package.name) else { continue };
        let undrawn = arrows(package, &names).filter(|name| !row.may.contains(*name));
        faults.extend(undrawn.map(|name| format!("{} -> {name}", package.name)));
    }
    none("arrows that ARCHITECTURE.md does not draw", faults);
}

#[test]
fn every_drawn_arrow_leads_somewhere() {
    let (drawn, workspace) = (drawn(), workspace());
    let names: BTreeSet<&str> = workspace.packages.iter().map(|package| &**package.name).collect();
    let rows = drawn.keys().filter(|name| !names.contains(&***name)).map(|name| format!("row {name}"));
    let unknown = drawn.iter().flat_map(|(from, row)| row.may.iter().map(move |to| (from, to)));
    let unknown = unknown.filter(|(_, to)| !names.contains(&***to)).map(|(from, to)| format!("{from} -> {to}"));
    let missing = names.iter().filter(|name| !drawn.contains_key(**name)).map(|name| format!("no row for {name}"));
    none("ARCHITECTURE.md and the workspace disagree", rows.chain(unknown).chain(missing).collect());
}

#[test]
fn a_crate_begins_with_its_sentence() {
    let (drawn, workspace) = (drawn(), workspace());
    let mut faults = Vec::new();
    for package in &workspace.packages {
        let Some(row) = drawn.get(&**package.name) else { continue };
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder");
        let code = ["src/lib.rs", "src/main.rs"].map(|file| folder.join(file));
        let code = code.iter().find(|path| path.exists()).expect("a package has code");
        let text = read(code.as_std_path());
        let first = text.lines().next().unwrap_or_default();
        if first != format!("//! {}", row.sentence) {
            faults.push(format!("{}: {first:?}, not {:?}", package.name, row.sentence));
        }
    }
    none("crates whose first line is not their sentence in ARCHITECTURE.md", faults);
}

#[test]
fn every_path_that_is_named_is_there() {
    let names: BTreeSet<String> =
        files("").iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
    let mut faults = Vec::new();
    for page in ["ARCHITECTURE.md", "README.md"] {
        let mut example = false;
        for (number, line) in read(page).lines().enumerate() {
            example ^= line.starts_with("```");
            let words = line.split(|c: char| c.is_whitespace() || "`()[]|\"',;".contains(c));
            let missing = words.filter(|word| !there(word, example, &names));
            faults.extend(missing.map(|word| format!("{page}:{} {word}", number + 1)));
        }
    }
    none("paths that are not there", faults);
}

/// Whether `word` is no path, or one that exists: from the root, from `crates/`, or a file's name anywhere. In an example
/// the reader has files of their own, so only what begins like one of ours counts.
fn there(word: &str, example: bool, names: &BTreeSet<String>) -> bool {
    let word = word.trim_end_matches(['.', ':']).trim_start_matches("./");
    // Addresses, places outside the checkout, what is built, and patterns that stand for many.
    if word.is_empty()
        || word.contains("://")
        || word.starts_with(['/', '~', '$', '<', '-', '@'])
        || word.starts_with("target/")
    {
        return true;
    }
    let word =
        &word[..word.find(['*', '{', '<']).map_or(word.len(), |at| word[..at].rfind('/').map_or(0, |slash| slash + 1))];
    let has_ending = FILES.iter().any(|ending| word.ends_with(ending));
    let Some((first, _)) = word.split_once('/') else {
        return !has_ending || example || FILES.contains(&word) || names.contains(word);
    };
    let places = [root().to_owned(), root().join("crates")];
    let is_path =
        (!example && (has_ending || word.ends_with('/'))) || places.iter().any(|place| place.join(first).exists());
    !is_path || places.iter().any(|place| place.join(Path::new(word)).exists())
}

#[test]
fn a_path_that_is_not_there_is_seen() {
    let names = BTreeSet::from(["main.rs".to_owned()]);
    for path in ["Cargo.toml/x", "crates/trestle-none", "trestle-wire/src/nothing.rs", "nowhere.rs", "docs2/page.md"] {
        assert!(!there(path, false, &names), "{path}");
    }
    for path in
        ["crates/trestle-wire", "trestle-wire/src/lib.rs", "proto/trestle/v1/*.proto", "main.rs", "/v1/push", "and/or"]
    {
        assert!(there(path, false, &names), "{path}");
    }
    assert!(there("protos/", true, &names) && !there("protos/", false, &names), "a reader's own folder");
    assert!(!there("crates/trestle-none", true, &names), "not theirs");
}

#[test]
fn cargo_run_is_the_gateway() {
    let workspace = workspace();
    let named = workspace.packages.iter().filter_map(|package| package.default_run.as_deref());
    assert_eq!(named.collect::<Vec<_>>(), ["trestle"], "the README's first command names no program");
}
