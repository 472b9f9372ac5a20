//! Servers as processes of their own, and what they cost.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::floor::Role;

/// How long a server may take to say that it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a port is tried until it accepts; nothing tells of it.
const PORT_INTERVAL: Duration = Duration::from_millis(5);

/// A running server. Killed when dropped.
pub(crate) struct Server {
    /// The process; none in a test of the bench itself.
    child: Option<Child>,
    pid: u32,
    /// What it said when it was ready.
    ready: serde_json::Value,
    /// Where it keeps what is to be gone with it.
    folder: Option<PathBuf>,
}

impl Server {
    /// The gateway, with the bench's own schemas.
    pub(crate) async fn gateway(binary: &Path, bus: &str) -> anyhow::Result<Self> {
        let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
        let mut command = Command::new(binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--bus", bus]);
        command.args(["--log-format", "json", "--log-level", "warn"]);
        command.arg("--schemas").arg(schemas);
        Self::told(command).await.with_context(|| format!("{} did not start", binary.display()))
    }

    /// This program as one of the minimal ones.
    pub(crate) async fn floor(role: Role, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe().context("no path to this program")?);
        command.args(["--role", role.name()]).args(arguments);
        Self::told(command).await.with_context(|| format!("the floor {} did not start", role.name()))
    }

    /// A peer, by the command that `provide.sh` printed.
    pub(crate) async fn peer(command: &str) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command}")]);
        Self::on_a_port(shell, |shell, port| shell.env("PORT", port.to_string())).await
    }

    /// A NATS server with JetStream, for the gateway's bus.
    pub(crate) async fn nats(binary: &str) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("trestle-bench-nats-{}", std::process::id()));
        let mut command = Command::new(binary);
        command.args(["-js", "-a", "127.0.0.1", "-sd"]).arg(&folder).stderr(Stdio::null());
        let mut server = Self::on_a_port(command, |nats, port| nats.args(["-p", &port.to_string()])).await?;
        server.folder = Some(folder);
        Ok(server)
    }

    /// A server that prints one JSON line when it is ready.
    async fn told(mut command: Command) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let pid = child.id().context("ended at once")?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let first = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await.context("said nothing in time")??;
        let first = first.context("ended without a word")?;
        let ready = serde_json::from_str(&first).with_context(|| format!("said {first:?}, not a JSON object"))?;
        // Whatever else it says is read, so that it never waits for us.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child: Some(child), pid, ready, folder: None })
    }

    /// A server that is ready when its port accepts.
    async fn on_a_port(mut command: Command, say: fn(&mut Command, u16) -> &mut Command) -> anyhow::Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port();
        say(&mut command, port).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().context("ended at once")?;
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("ended before it listened: {status}");
            }
            ensure!(begun.elapsed() < START_TIMEOUT, "does not listen on port {port}");
            tokio::time::sleep(PORT_INTERVAL).await;
        }
        let ready = serde_json::json!({ "listen": format!("127.0.0.1:{port}") });
        Ok(Self { child: Some(child), pid, ready, folder: None })
    }

    /// An address it named when it was ready.
    pub(crate) fn address(&self, key: &str) -> anyhow::Result<String> {
        let address = self.ready.get(key).and_then(serde_json::Value::as_str);
        Ok(address.with_context(|| format!("no address {key:?} in {}", self.ready))?.to_owned())
    }

    /// CPU time of all threads so far, also of its children, in nanoseconds.
    pub(crate) fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in family(self.pid)?.into_iter().map(tasks).collect::<anyhow::Result<Vec<_>>>()?.concat() {
            // The scheduler's own account: nanoseconds, where utime and stime count ticks of 10 ms.
            let Ok(account) = fs::read_to_string(task.join("schedstat")) else { continue };
            sum +=
                account.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).context("schedstat has no number")?;
        }
        Ok(sum)
    }

    /// Resident memory, also of its children, in bytes.
    pub(crate) fn rss_bytes(&self) -> anyhow::Result<u64> {
        family(self.pid)?.into_iter().map(rss_bytes).sum()
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        match &mut self.child {
            Some(child) => child.kill().await.context("cannot be killed"),
            None => Ok(()),
        }
    }

    /// This process, for tests.
    #[cfg(test)]
    pub(crate) fn this() -> Self {
        Self { child: None, pid: std::process::id(), ready: serde_json::Value::Null, folder: None }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(folder) = self.folder.take() {
            // Before it is gone it may still write there; what is left is in the folder for temporary files.
            let _ = self.child.as_mut().map(Child::start_kill);
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// The process and its children, and theirs.
fn family(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&pid) = all.get(next) {
        for task in tasks(pid)? {
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        next += 1;
    }
    Ok(all)
}

/// The folder of each thread of a process.
fn tasks(pid: u32) -> anyhow::Result<Vec<PathBuf>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("the server is gone")?;
    Ok(tasks.map(|task| task.map(|task| task.path())).collect::<Result<_, _>>()?)
}

fn rss_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the server is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib * 1024)
}

/// Builds the gateway in release and says where it is. Nothing to do if it is up to date.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let root = root()?;
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

/// What a script of the workspace says in its last line.
///
/// # Errors
/// The first line that it said on stderr, if it fails.
pub(crate) fn provide(script: &str, name: &str) -> anyhow::Result<String> {
    let output = std::process::Command::new(root()?.join(script)).arg(name).output().context(script.to_owned())?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}", complained.lines().next().unwrap_or("failed without a word"));
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

/// The workspace.
pub(crate) fn root() -> anyhow::Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("bench/ lies in the workspace")
}

/// Asks for as many open files as this process may have; its servers get the same. Says how many those are.
pub(crate) fn raise_descriptors() -> anyhow::Result<usize> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("no more open files")?;
    Ok(maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_of_its_own_family_with_its_memory() {
        let pid = std::process::id();
        assert!(family(pid).expect("lives").contains(&pid));
        assert!(rss_bytes(pid).expect("lives") > 0);
    }
}
