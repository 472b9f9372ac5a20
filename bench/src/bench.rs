//! What every scenario is given: the servers that can be had here, and how much is to be done.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::{
    floor::Role,
    peer::{FLOOR, OTHERS, Peer, TRESTLE},
    process::{self, Server},
    turns::Rounds,
};

/// Rounds that are measured, and with `--quick`.
const ROUNDS: usize = 5;
const ROUNDS_QUICK: usize = 2;

/// One run of the bench.
pub(crate) struct Bench {
    pub(crate) gateway: PathBuf,
    pub(crate) quick: bool,
    /// Open files that a process may have here.
    pub(crate) descriptors: usize,
    rounds: Option<usize>,
    sides: Vec<Side>,
    /// Peers that cannot be had here, and why.
    pub(crate) missing: Vec<String>,
}

/// A server that takes part.
#[derive(Clone)]
pub(crate) struct Side {
    pub(crate) peer: &'static dyn Peer,
    start: Start,
}

#[derive(Clone)]
enum Start {
    Gateway(PathBuf),
    Floor,
    /// The command that starts it.
    Peer(String),
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) peer: &'static dyn Peer,
    pub(crate) server: Server,
    pub(crate) address: String,
}

impl Bench {
    /// Gets the peers that are wanted, all without a word.
    ///
    /// # Errors
    /// If a peer of that name is not known.
    pub(crate) fn prepare(
        gateway: PathBuf,
        quick: bool,
        rounds: Option<usize>,
        wanted: Option<&[String]>,
    ) -> anyhow::Result<Self> {
        let known = |name: &str| OTHERS.iter().any(|peer| peer.name() == name);
        if let Some(unknown) = wanted.unwrap_or_default().iter().find(|name| !known(name)) {
            let names: Vec<_> = OTHERS.iter().map(|peer| peer.name()).collect();
            anyhow::bail!("--peers names {unknown:?}; there are {}", names.join(", "));
        }
        let mut sides = vec![
            Side { peer: TRESTLE, start: Start::Gateway(gateway.clone()) },
            Side { peer: FLOOR, start: Start::Floor },
        ];
        let mut missing = Vec::new();
        for peer in
            OTHERS.into_iter().filter(|peer| wanted.is_none_or(|names| names.iter().any(|name| name == peer.name())))
        {
            match process::provide("bench/peers/provide.sh", peer.name()) {
                Ok(command) => sides.push(Side { peer, start: Start::Peer(command) }),
                Err(error) => missing.push(format!("{}: {error:#}", peer.name())),
            }
        }
        Ok(Self { gateway, quick, descriptors: process::raise_descriptors()?, rounds, sides, missing })
    }

    /// So many if all is measured, or fewer to see that it works.
    pub(crate) fn scaled(&self, whole: usize, quick: usize) -> usize {
        if self.quick { quick } else { whole }
    }

    /// Rounds of a scenario whose servers run through all of them.
    pub(crate) fn rounds(&self) -> Rounds {
        Rounds { warm: 1, ..self.cold_rounds() }
    }

    /// Rounds of a scenario whose servers are started anew each time.
    pub(crate) fn cold_rounds(&self) -> Rounds {
        Rounds { warm: 0, measured: self.rounds.unwrap_or(self.scaled(ROUNDS, ROUNDS_QUICK)) }
    }

    /// All servers that take part, the gateway first.
    pub(crate) fn sides(&self) -> Vec<(&'static str, Side)> {
        self.sides.iter().map(|side| (side.peer.name(), side.clone())).collect()
    }

    /// Name and version of each.
    pub(crate) fn versions(&self) -> Vec<(String, String)> {
        self.sides.iter().map(|side| (side.peer.name().to_owned(), version(side.peer))).collect()
    }

    /// One of the peers, if it takes part.
    pub(crate) fn side(&self, name: &str) -> Option<&Side> {
        self.sides.iter().find(|side| side.peer.name() == name)
    }

    /// The gateway and the floor alone.
    pub(crate) fn ours_and_floor(&self) -> Vec<(&'static str, Side)> {
        self.sides().into_iter().take(2).collect()
    }
}

/// The peer's version as its file says, or nothing.
fn version(peer: &dyn Peer) -> String {
    let (file, words) = peer.version();
    let text = process::root().ok().and_then(|root| std::fs::read_to_string(root.join(file)).ok()).unwrap_or_default();
    let begin = text.split_once(words).map_or("", |(_, version)| version);
    begin.split(|c: char| c.is_whitespace() || c == '"').next().unwrap_or_default().to_owned()
}

impl Side {
    /// Starts the server.
    pub(crate) async fn start(&self) -> anyhow::Result<Running> {
        let server = match &self.start {
            Start::Gateway(binary) => Server::gateway(binary, "embedded").await,
            Start::Floor => Server::floor(Role::Hub, &[]).await,
            Start::Peer(command) => Server::peer(command).await,
        };
        let server = server.with_context(|| self.peer.name())?;
        Ok(Running { peer: self.peer, address: server.address("listen")?, server })
    }
}

#[cfg(test)]
impl Running {
    /// The floor, in this process.
    pub(crate) async fn minimal() -> Self {
        let listener = crate::floor::hub::listen().expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(crate::floor::hub::serve(listener));
        Self { peer: FLOOR, server: Server::this(), address }
    }
}

/// Starts all of `sides`.
///
/// # Errors
/// If one does not start.
pub(crate) async fn start(sides: Vec<(&'static str, Side)>) -> anyhow::Result<Vec<(&'static str, Running)>> {
    let mut running = Vec::new();
    for (name, side) in sides {
        running.push((name, side.start().await?));
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_says_where_its_version_stands() {
        for peer in OTHERS.into_iter().chain([TRESTLE]) {
            let version = version(peer);
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{}: {version:?}", peer.name());
        }
    }
}
