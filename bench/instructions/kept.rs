//! The counts that are kept in the repository, and how far one may be from them.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::Context as _;
use serde::Deserialize;

/// Percent that a count may be off, where nothing else is kept.
const TOLERANCE: f64 = 3.0;
/// How the counts are renewed.
pub(crate) const UPDATE: &str = "cargo run --profile instructions -p trestle-bench --example instructions -- --update";

/// `bench/instructions.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    /// The compiler that the counts are of.
    pub(crate) rustc: String,
    /// By the works' names.
    pub(crate) works: BTreeMap<String, Count>,
}

/// What is kept of a work.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    /// Of the work done once.
    pub(crate) instructions: u64,
    /// Percent that a count may be more or less.
    pub(crate) tolerance: f64,
}

impl Count {
    /// How many percent `counted` is more.
    pub(crate) fn off(self, counted: u64) -> f64 {
        100.0 * (counted as f64 / self.instructions.max(1) as f64 - 1.0)
    }
}

impl Kept {
    /// Reads the file; one that is not there keeps nothing.
    pub(crate) fn read() -> anyhow::Result<Self> {
        match fs::read_to_string(path()) {
            Ok(text) => toml::from_str(&text).context("bench/instructions.toml cannot be read"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self { rustc: String::new(), works: BTreeMap::new() })
            }
            Err(error) => Err(error).context("bench/instructions.toml cannot be read"),
        }
    }

    /// Whether `counted` is further from what is kept of the work than it may be, or nothing is.
    pub(crate) fn forbids(&self, name: &str, counted: u64) -> bool {
        self.works.get(name).is_none_or(|kept| kept.off(counted).abs() > kept.tolerance)
    }

    /// Keeps `counted` and nothing else, each with the tolerance that it had.
    pub(crate) fn update(&mut self, rustc: String, counted: &[(&str, u64)]) {
        let count = |(name, instructions): &(&str, u64)| {
            let tolerance = self.works.get(*name).map_or(TOLERANCE, |kept| kept.tolerance);
            ((*name).to_owned(), Count { instructions: *instructions, tolerance })
        };
        *self = Self { rustc, works: counted.iter().map(count).collect() };
    }

    /// Writes the file.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        fs::write(path(), self.text()).context("bench/instructions.toml cannot be written")
    }

    fn text(&self) -> String {
        let line = |(name, Count { instructions, tolerance }): (&String, &Count)| {
            format!("{name} = {{ instructions = {instructions}, tolerance = {tolerance:?} }}\n")
        };
        let works: String = self.works.iter().map(line).collect();
        format!(
            "# How many instructions each work of `instructions/` takes done once, on x86-64, and the percent that a count may be \
             off.\n# Written by: {UPDATE}\n\nrustc = \"{}\"\n\n[works]\n{works}",
            self.rustc
        )
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

/// The compiler in use: `1.95.0`.
pub(crate) fn rustc() -> anyhow::Result<String> {
    let said = Command::new("rustc").arg("--version").output().context("rustc does not start")?;
    let said = String::from_utf8(said.stdout)?;
    said.split(' ').nth(1).map(str::to_owned).with_context(|| format!("rustc says no version: {said:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, instructions: u64, tolerance: f64) -> Kept {
        let works = [(name.to_owned(), Count { instructions, tolerance })].into();
        Kept { rustc: "1.2.3".to_owned(), works }
    }

    #[test]
    fn a_count_may_be_off_a_little_in_either_direction() {
        let kept = kept("fan-out", 1000, 3.0);
        let forbidden = [960, 971, 1000, 1029, 1040].map(|counted| kept.forbids("fan-out", counted));
        assert_eq!(forbidden, [true, false, false, false, true]);
        assert!(kept.forbids("own-json", 1000), "nothing is kept of it");
    }

    #[test]
    fn an_update_keeps_tolerances_and_is_read_as_it_is_written() {
        let mut kept = kept("own-json", 7, 2.5);
        kept.works.insert("gone".to_owned(), Count { instructions: 1, tolerance: 1.0 });
        kept.update("1.2.4".to_owned(), &[("own-json", 8), ("fan-out", 9)]);
        let read: Kept = toml::from_str(&kept.text()).expect("it is TOML");
        let works = read.works.iter().map(|(name, count)| (&**name, count.instructions, count.tolerance));
        assert_eq!(read.rustc, "1.2.4");
        assert_eq!(works.collect::<Vec<_>>(), [("fan-out", 9, TOLERANCE), ("own-json", 8, 2.5)]);
    }
}
