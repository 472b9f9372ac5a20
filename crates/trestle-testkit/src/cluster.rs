//! Three real nats-servers that are one cluster with JetStream, so that a stream can have three replicas.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use anyhow::{Context, bail, ensure};
use tokio::time::{sleep, timeout};

use crate::{
    cut::Cut,
    nats::{LOOK_EVERY, NatsServer},
    process::PATIENCE,
};

/// How often a cluster is tried to be started: another process may take a port between our look and the server's bind.
const STARTS_MAX: usize = 3;

/// Three nats-servers of one cluster, on ports of the loopback that they keep. Killed when dropped.
///
/// No server tells clients of the others: a client knows those of [`NatsCluster::url`], and one behind a [`Cut`] finds no
/// way round it.
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

impl NatsCluster {
    /// How many servers it has.
    pub const SERVERS: usize = 3;

    /// Starts the servers and waits until they have a leader and all are healthy.
    ///
    /// # Errors
    /// If there is no nats-server to be had, or the cluster does not come about.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with("").await
    }

    /// As [`NatsCluster::start`], with `more` lines in each server's configuration file (accounts, limits).
    ///
    /// # Errors
    /// As [`NatsCluster::start`].
    pub async fn start_with(more: &str) -> anyhow::Result<Self> {
        let mut tries = 1;
        loop {
            match Self::try_start(more).await {
                Err(error) if tries < STARTS_MAX && format!("{error:#}").contains("address already in use") => {
                    tries += 1
                }
                other => return other,
            }
        }
    }

    async fn try_start(more: &str) -> anyhow::Result<Self> {
        let ports = quiet_ports(2 * Self::SERVERS)?;
        let (clients, routes) = ports.split_at(Self::SERVERS);
        let all: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let mut servers = Vec::new();
        for (at, (client, route)) in clients.iter().zip(routes).enumerate() {
            let config = format!(
                "server_name: \"{}\"\ncluster {{ name: \"trestle-test\", listen: \"127.0.0.1:{route}\", \
                 no_advertise: true, routes: [{}] }}\n{more}",
                name(at),
                all.join(", ")
            );
            servers.push(NatsServer::prepare(*client, &config).await?);
        }
        for server in &mut servers {
            server.launch().await?;
        }
        let cluster = Self { servers };
        cluster.settled().await?;
        Ok(cluster)
    }

    /// Where clients connect: all three, separated by commas.
    #[must_use]
    pub fn url(&self) -> String {
        self.servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    /// One of the servers, to look at it.
    ///
    /// # Panics
    /// If `at` is not below [`NatsCluster::SERVERS`].
    #[must_use]
    pub fn server(&self, at: usize) -> &NatsServer {
        &self.servers[at]
    }

    /// Kills one in the middle of whatever it does (SIGKILL).
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        self.servers[at].kill().await
    }

    /// Lets one do nothing until [`NatsCluster::resume`]; the others go on without it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn pause(&mut self, at: usize) -> anyhow::Result<()> {
        self.servers[at].pause()
    }

    /// Lets one go on, behind the others.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn resume(&mut self, at: usize) -> anyhow::Result<()> {
        self.servers[at].resume()
    }

    /// Starts one again on the same port with the same data, and waits until the cluster is whole as far as it runs.
    ///
    /// # Errors
    /// If it does not start, or does not catch up.
    pub async fn restart(&mut self, at: usize) -> anyhow::Result<()> {
        self.servers[at].stop().await?;
        self.servers[at].launch().await?;
        self.settled().await
    }

    /// Waits until all servers that run are healthy (caught up), and agree on a leader of JetStream that runs.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`], as it does when fewer than two run.
    pub async fn settled(&self) -> anyhow::Result<()> {
        let settled = async {
            loop {
                let leaders = self.leaders().await?;
                let one = leaders.first().filter(|_| leaders.len() == 1).and_then(|leader| self.named(leader));
                if one.is_some_and(|at| self.servers[at].runs()) {
                    break;
                }
                sleep(LOOK_EVERY).await;
            }
            for server in self.servers.iter().filter(|server| server.runs()) {
                server.healthy().await?;
            }
            Ok(())
        };
        timeout(PATIENCE, settled).await.context("the NATS cluster has no leader")?
    }

    /// Who leads JetStream in the eyes of each that runs.
    async fn leaders(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut leaders = BTreeSet::new();
        for server in self.servers.iter().filter(|server| server.runs()) {
            let said = said(server, "/jsz").await?;
            leaders.insert(said["meta_cluster"]["leader"].as_str().unwrap_or_default().to_owned());
        }
        Ok(leaders)
    }

    /// Which server leads the stream of this name, in whatever account; waits until one that runs does.
    ///
    /// # Errors
    /// If none does in time, or nobody knows the stream.
    pub async fn leader_of(&self, stream: &str) -> anyhow::Result<usize> {
        let led = async {
            loop {
                for (at, server) in self.servers.iter().enumerate().filter(|(_, server)| server.runs()) {
                    if leads(&said(server, "/jsz?streams=true").await?, stream, &name(at)) {
                        return Ok(at);
                    }
                }
                sleep(LOOK_EVERY).await;
            }
        };
        match timeout(PATIENCE, led).await {
            Ok(leader) => leader,
            Err(_) => bail!("nobody leads stream {stream}"),
        }
    }

    /// A [`Cut`] before all three, for one client.
    ///
    /// # Errors
    /// If no door can be opened.
    pub async fn cut(&self) -> anyhow::Result<Cut> {
        Cut::before(&self.servers.iter().map(NatsServer::address).collect::<Vec<_>>()).await
    }

    fn named(&self, leader: &str) -> Option<usize> {
        (0..self.servers.len()).find(|at| name(*at) == leader)
    }
}

fn name(at: usize) -> String {
    format!("n{at}")
}

async fn said(server: &NatsServer, path: &str) -> anyhow::Result<serde_json::Value> {
    let (status, body) = server.monitored(path).await?;
    ensure!(status == 200, "nats-server answers {status} at {path}: {body}");
    serde_json::from_str(&body).with_context(|| format!("at {path}"))
}

fn leads(said: &serde_json::Value, stream: &str, server: &str) -> bool {
    let accounts = said["account_details"].as_array().into_iter().flatten();
    let mut streams = accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
    streams.any(|detail| detail["name"] == stream && detail["cluster"]["leader"] == server)
}

/// Ports of the loopback that are free and that the system gives to nobody by itself, so that a server that is away for a
/// while finds its own free again, and a client that knocks meanwhile cannot meet itself: systems give ports from 32768 on.
pub(crate) fn quiet_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    const TRIES_MAX: usize = 1_000;
    let mut held: Vec<TcpListener> = Vec::new();
    for _ in 0..TRIES_MAX {
        if held.len() == count {
            break;
        }
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(20_000..32_000))));
    }
    ensure!(held.len() == count, "no {count} free ports between 20000 and 32000");
    held.iter().map(|listener| Ok(listener.local_addr().map(|address: SocketAddr| address.port())?)).collect()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt, BufReader},
        net::TcpStream,
    };

    use super::*;

    /// What a server says first to a client.
    async fn info(address: SocketAddr) -> serde_json::Value {
        let mut line = String::new();
        let stream = TcpStream::connect(address).await.expect("connects");
        BufReader::new(stream).read_line(&mut line).await.expect("says something");
        serde_json::from_str(line.strip_prefix("INFO ").expect("INFO")).expect("JSON")
    }

    #[tokio::test]
    async fn a_cluster_outlives_any_one_of_its_servers() {
        let mut cluster = NatsCluster::start().await.expect("starts");
        for at in 0..NatsCluster::SERVERS {
            cluster.kill(at).await.expect("is killed");
            assert!(TcpStream::connect(cluster.server(at).address()).await.is_err());
            cluster.settled().await.expect("the others agree");
            cluster.restart(at).await.expect("starts again");
        }
        for at in 0..NatsCluster::SERVERS {
            let info = info(cluster.server(at).address()).await;
            assert_eq!(info["server_name"], name(at), "{info}");
            assert!(info.get("connect_urls").is_none(), "it tells clients of others: {info}");
        }
        assert_eq!(cluster.url().split(',').count(), NatsCluster::SERVERS);
    }
}
