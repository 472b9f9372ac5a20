//! A child process that does not outlive the test, and the gateway as one.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    time::timeout,
};

/// How long a process may take to say or do what a test waits for. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long the output of a process that has ended may stay open.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Lines of output that are kept, of each process; later ones are dropped.
const LINES_MAX: usize = 100_000;

/// A running program and what it says. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    pid: u32,
    output: Output,
}

#[derive(Clone)]
struct Output {
    lines: Arc<Mutex<Vec<String>>>,
    /// How many lines there are; ends when the program has closed its output.
    count: watch::Receiver<usize>,
}

impl Process {
    /// Starts `command`; `name` is what messages call it.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn start(name: &str, mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot run {name}: {command:?}"))?;
        let pid = child.id().context("it has just been started")?;
        let (count, counted) = watch::channel(0);
        let output = Output { lines: Arc::default(), count: counted };
        let count = Arc::new(count);
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            tokio::spawn(collect(stdout, output.lines.clone(), count.clone()));
            tokio::spawn(collect(stderr, output.lines.clone(), count));
        }
        Ok(Self { name: name.into(), child, pid, output })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// All it has said so far, on both outputs.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// The first line, said before or yet to come, that `is` what is looked for.
    ///
    /// # Errors
    /// If it ends or [`PATIENCE`] is over before it says so; the message holds what it said instead.
    pub async fn line(&self, what: &str, is: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let mut output = self.output.clone();
        output.count.mark_changed(); // so that the first look sees what was said before
        let found = async {
            let mut seen = 0;
            loop {
                let ended = output.count.changed().await.is_err();
                {
                    let lines = output.lines.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(line) = lines[seen..].iter().find(|line| is(line)) {
                        return Some(line.clone());
                    }
                    seen = lines.len();
                }
                if ended {
                    return None;
                }
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(Some(line)) => Ok(line),
            Ok(None) => bail!("{} has ended and never said {what}; it said:\n{}", self.name, self.output()),
            Err(_) => bail!("{} has not said {what} in {PATIENCE:?}; it said:\n{}", self.name, self.output()),
        }
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// If it has not ended after [`PATIENCE`].
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.ended().await
    }

    /// Sends it a signal. One that has ended already is left in peace.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.child.try_wait()?.is_none() {
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a process id")?;
            kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))?;
        }
        Ok(())
    }

    /// Waits until it has ended by itself, and all it said has been read.
    ///
    /// # Errors
    /// If it has not after [`PATIENCE`]; the message holds what it said.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => {
                // A child of its own may hold its output open for longer; that one is not waited for.
                let mut count = self.output.count.clone();
                let _ = timeout(LAST_WORDS, async { while count.changed().await.is_ok() {} }).await;
                Ok(status?)
            }
            Err(_) => bail!("{} has not ended after {PATIENCE:?}; it said:\n{}", self.name, self.output()),
        }
    }
}

async fn collect(from: impl AsyncRead + Unpin, lines: Arc<Mutex<Vec<String>>>, count: Arc<watch::Sender<usize>>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).await.is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < LINES_MAX {
            lines.push(text);
            count.send_replace(lines.len());
        }
    }
}

/// A real `trestle serve` on free ports of the loopback. Killed when dropped.
pub struct Gateway {
    process: Process,
    ready: serde_json::Value,
}

impl Gateway {
    /// Runs `binary` (a test of the root package passes `env!("CARGO_BIN_EXE_trestle")`) as `serve` with `args`, and
    /// waits until it says that it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time; the message holds what it said.
    pub async fn start<A: AsRef<OsStr>>(
        binary: impl AsRef<Path>,
        args: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary.as_ref());
        command.args(["serve", "--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--log-format", "json"]).args(args);
        let process = Process::start("trestle", command)?;
        let ready =
            |line: &str| serde_json::from_str(line).ok().filter(|said: &serde_json::Value| said["event"] == "ready");
        let line = process.line("that it is ready", |line| ready(line).is_some()).await?;
        let ready = ready(&line).context("the line was found by this")?;
        Ok(Self { process, ready })
    }

    /// Its one JSON line, with the addresses it listens on.
    #[must_use]
    pub fn ready(&self) -> &serde_json::Value {
        &self.ready
    }

    /// Where clients connect, and the page and the metrics are.
    ///
    /// # Panics
    /// If it has no such listener.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.address("listen")
    }

    /// Where services connect.
    ///
    /// # Panics
    /// If it has no such listener.
    #[must_use]
    pub fn grpc(&self) -> SocketAddr {
        self.address("grpc")
    }

    fn address(&self, of: &str) -> SocketAddr {
        let address = self.ready[of].as_str().and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("the gateway names no address for {of}: {}", self.ready))
    }

    /// The process itself, for its output and for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// All it has said so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Asks it to leave in order (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// If it has not ended after [`PATIENCE`].
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.terminate().await
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.kill().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("the shell", command).expect("starts")
    }

    #[tokio::test]
    async fn lines_are_found_whether_said_before_or_after() {
        let process = shell("echo one; echo two >&2; read never </dev/zero");
        assert_eq!(process.line("two", |line| line == "two").await.expect("said"), "two");
        assert_eq!(process.line("one", |line| line == "one").await.expect("said"), "one");
        assert_eq!(process.line("two", |line| line == "two").await.expect("still there"), "two");
    }

    #[tokio::test]
    async fn one_that_ends_without_the_word_is_an_error_with_what_it_said() {
        let process = shell("echo sorry");
        let error = process.line("hello", |line| line == "hello").await.expect_err("never said").to_string();
        assert!(error.contains("sorry"), "{error}");
    }

    #[tokio::test]
    async fn it_is_ended_by_term_and_by_kill() {
        let mut process = shell("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done");
        process.line("up", |line| line == "up").await.expect("said");
        assert_eq!(process.terminate().await.expect("ends").code(), Some(3));
        assert!(process.output().contains("bye"));
        let mut stubborn = shell("trap '' TERM; echo up; while :; do sleep 0.05; done");
        stubborn.line("up", |line| line == "up").await.expect("said");
        assert_eq!(stubborn.kill().await.expect("ends").code(), None);
    }
}
