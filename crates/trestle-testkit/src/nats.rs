//! A real nats-server with JetStream, on a free port of the loopback, in a folder of its own.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use crate::{
    process::{PATIENCE, Process, Signal},
    provide::provided,
};

/// Between two looks at what a server says of itself; there is no event for it.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running nats-server. Killed, and its data removed, when dropped.
pub struct NatsServer {
    process: Option<Process>,
    folder: TempDir,
    binary: PathBuf,
    more: String,
    port: u16,
    monitor: SocketAddr,
}

impl NatsServer {
    /// Starts a server with JetStream and waits until it is healthy.
    ///
    /// # Errors
    /// If there is no nats-server to be had, or it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with("").await
    }

    /// As [`NatsServer::start`], with `more` lines in its configuration file (TLS, users, limits). Paths in it are
    /// relative to [`NatsServer::folder`], which begins empty.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn start_with(more: &str) -> anyhow::Result<Self> {
        let mut server = Self::prepare(0, more).await?;
        server.launch().await?;
        server.healthy().await?;
        Ok(server)
    }

    /// A server that has not been started. Port 0 asks for a free one.
    pub(crate) async fn prepare(port: u16, more: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("trestle-nats-").tempdir()?;
        let (binary, monitor) = (provided("nats").await?, SocketAddr::from(([127, 0, 0, 1], 0)));
        Ok(Self { process: None, folder, binary, more: more.into(), port, monitor })
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The same as an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Whether it runs: neither stopped nor killed.
    #[must_use]
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// The folder with its data and its configuration.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Stops it in order (SIGTERM).
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate().await?;
        }
        Ok(())
    }

    /// Kills it in the middle of whatever it does (SIGKILL).
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Lets it do nothing until [`NatsServer::resume`], as if its machine were starved: it stands behind by then.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.process.iter_mut().try_for_each(|process| process.signal(Signal::STOP))
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.process.iter_mut().try_for_each(|process| process.signal(Signal::CONT))
    }

    /// Starts it again on the same port with the same data, after stopping it if it runs.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        self.launch().await?;
        self.healthy().await
    }

    /// Starts it and waits until clients can connect, healthy or not.
    pub(crate) async fn launch(&mut self) -> anyhow::Result<()> {
        let folder = self.folder.path().display();
        // -1 asks for a free port; a server that comes back must be where its clients look for it.
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:-1\"\nports_file_dir: \"{folder}\"\n\
             jetstream {{ store_dir: \"{folder}/data\", max_mem: 256MB, max_file: 2GB }}\n{}\n",
            self.more
        );
        let file = self.folder.path().join("nats.conf");
        tokio::fs::write(&file, config).await?;
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(&file).current_dir(self.folder.path());
        let process = Process::start("nats-server", command)?;
        process.line("that it is ready", |line| line.contains("Server is ready")).await?;
        // Named after this process, as a killed one leaves its own behind.
        let ports = self.folder.path().join(format!("nats-server_{}.ports", process.pid()));
        let ports = timeout(PATIENCE, read_ports(ports)).await.context("nats-server did not say its ports")??;
        self.port = port_of(&ports["nats"]).context("nats-server named no port")?;
        let monitor = port_of(&ports["monitoring"]).context("nats-server named no monitoring port")?;
        self.monitor = SocketAddr::from(([127, 0, 0, 1], monitor));
        self.process = Some(process);
        Ok(())
    }

    /// Waits until it says of itself that it is healthy: in a cluster, that it has a leader and has caught up.
    pub(crate) async fn healthy(&self) -> anyhow::Result<()> {
        let healthy = async {
            loop {
                let (status, answer) = self.monitored("/healthz").await?;
                match status {
                    200 => return Ok(()),
                    404 => bail!("nats-server has no health check: {answer}"),
                    _ => tokio::time::sleep(LOOK_EVERY).await,
                }
            }
        };
        timeout(PATIENCE, healthy).await.context("nats-server is not healthy")?
    }

    /// What its monitoring answers at `path`: the status and the body.
    pub(crate) async fn monitored(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.monitor).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("nats-server closed its monitoring port")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no HTTP status")?;
        Ok((status, body.to_owned()))
    }
}

fn port_of(urls: &serde_json::Value) -> Option<u16> {
    urls[0].as_str()?.rsplit(':').next()?.trim_end_matches('/').parse().ok()
}

/// The file is written just after the line that says ready; there is no event for it.
async fn read_ports(file: PathBuf) -> anyhow::Result<serde_json::Value> {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    loop {
        look.tick().await;
        if let Some(ports) = tokio::fs::read(&file).await.ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(ports);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_where_it_was() {
        let mut server = NatsServer::start().await.expect("starts");
        let url = server.url();
        server.kill().await.expect("is killed");
        assert!(TcpStream::connect(("127.0.0.1", server.port)).await.is_err());
        server.restart().await.expect("starts again");
        assert_eq!(server.url(), url);
        TcpStream::connect(("127.0.0.1", server.port)).await.expect("listens");
        server.stop().await.expect("stops");
        assert!(TcpStream::connect(("127.0.0.1", server.port)).await.is_err());
    }
}
