//! Where the figures were taken.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::{bench::Bench, process};

/// The machine, and what ran on it.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) cores: usize,
    pub(super) memory_gib: u64,
    pub(super) kernel: String,
    pub(super) system: String,
    /// The commit of the workspace, with `+` if files differ from it.
    pub(super) commit: String,
    pub(super) descriptors: usize,
    /// Name and version of each server.
    pub(super) versions: Vec<(String, String)>,
    /// Of compilers and run times.
    pub(super) tools: Vec<String>,
    /// Peers that cannot be had, and why.
    pub(super) missing: Vec<String>,
    /// Whether it was a short run, that shows no more than that it works.
    pub(super) quick: bool,
}

impl Machine {
    /// This one.
    pub(super) fn here(bench: &Bench) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: String, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned();
            line.trim_matches([' ', '\t', ':', '=', '"']).to_owned()
        };
        let kib: u64 = after(read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
        let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        Ok(Self {
            processor: after(read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: kib.div_ceil(1024 * 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: after(read("/etc/os-release"), "PRETTY_NAME"),
            commit: said("git", &["rev-parse", "--short=12", "HEAD"]) + if changed { "+" } else { "" },
            descriptors: bench.descriptors,
            versions: bench.versions(),
            tools: [("rustc", "--version"), ("go", "version"), ("node", "--version")]
                .map(|(tool, ask)| format!("{tool} {}", said(tool, &[ask]).trim_start_matches(tool).trim()))
                .into(),
            missing: bench.missing.clone(),
            quick: bench.quick,
        })
    }
}

/// What a program says in its first line; nothing if it is not there.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(root) = process::root() else { return String::new() };
    let output = std::process::Command::new(program).args(arguments).current_dir(root).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}
