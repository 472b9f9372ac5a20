//! Servers as processes of their own, and what they cost.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::floor::Role;

/// How long a server may take to say that it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    pid: u32,
    /// What it said when it was ready.
    pub(crate) ready: serde_json::Value,
}

impl Server {
    /// The gateway, with the bench's own schemas.
    pub(crate) async fn gateway(binary: &Path, bus: &str) -> anyhow::Result<Self> {
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--bus", bus]);
        command.args(["--log-format", "json", "--log-level", "warn"]);
        command.arg("--schemas").arg(schemas);
        Self::start(command).await.with_context(|| format!("{} did not start", binary.display()))
    }

    /// This program as one of the minimal ones.
    pub(crate) async fn floor(role: Role, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("no path to this program")?);
        command.args(["--role", role.name()]).args(arguments);
        Self::start(command).await.with_context(|| format!("the floor {} did not start", role.name()))
    }

    async fn start(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let pid = child.id().context("ended at once")?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let first = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await.context("said nothing in time")??;
        let first = first.context("ended without a word")?;
        let ready = serde_json::from_str(&first).with_context(|| format!("said {first:?}, not a JSON object"))?;
        // Whatever else it says is read, so that it never waits for us.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, pid, ready })
    }

    /// An address it named when it was ready.
    pub(crate) fn address(&self, key: &str) -> anyhow::Result<String> {
        let address = self.ready.get(key).and_then(serde_json::Value::as_str);
        Ok(address.with_context(|| format!("no address {key:?} in {}", self.ready))?.to_owned())
    }

    /// CPU time of all its threads so far, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).context("the server is gone")? {
            // The scheduler's own account: nanoseconds, where utime and stime count ticks of 10 ms.
            let account = fs::read_to_string(task?.path().join("schedstat"))?;
            sum +=
                account.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).context("schedstat has no number")?;
        }
        Ok(sum)
    }

    /// Resident memory, in bytes.
    pub(crate) fn rss_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).context("the server is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
        Ok(kib * 1024)
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot be killed")
    }
}

/// Builds the gateway in release and says where it is. Nothing to do if it is up to date.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("bench/ lies in the workspace")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = std::process::Command::new(cargo)
        .args(["build", "--release", "--quiet", "--package", "trestle", "--bin", "trestle"])
        .current_dir(root)
        .status()
        .context("cargo cannot be run")?;
    ensure!(status.success(), "the gateway does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/trestle"))
}

/// Refuses a load that would run out of file descriptors half-way.
pub(crate) fn need_descriptors(count: usize) -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits").context("no limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no limit of open files")?;
    let soft = line.split_whitespace().nth(3).unwrap_or_default();
    if soft.parse::<usize>().is_ok_and(|soft| soft < count) {
        bail!("needs {count} open files and may have {soft}: raise it with `ulimit -n {count}`");
    }
    Ok(())
}
