//! `trestle nodes`, `drain` and `rebalance`.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::api::{Gateway, Shown};
use crate::output::{count, table};

/// `trestle.v1.NodeInfo` in JSON.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    node: String,
    roles: Vec<String>,
    version: String,
    started: String,
    heartbeat: String,
    endpoint: String,
    active: u32,
    pending: u32,
    draining: bool,
}

/// Flags of `trestle nodes`.
#[derive(Args)]
pub(crate) struct Nodes {
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Deserialize)]
struct NodeList {
    nodes: Vec<Node>,
}

impl Nodes {
    /// Prints a row for each node that lives.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let answer = self.gateway.get("/v1/nodes").await?;
        let now = SystemTime::now();
        answer.show(&self.shown, |list: NodeList| {
            let head = ["NODE", "STATE", "ROLES", "ACTIVE", "PENDING", "UP", "HEARTBEAT", "VERSION", "ENDPOINT"];
            table(head, list.nodes.iter().map(|node| row(node, now)))
        })
    }
}

fn row(node: &Node, now: SystemTime) -> [String; 9] {
    [
        node.node.clone(),
        if node.draining { "draining".into() } else { "serving".into() },
        node.roles.join(","),
        node.active.to_string(),
        node.pending.to_string(),
        ago(&node.started, now),
        ago(&node.heartbeat, now),
        node.version.clone(),
        node.endpoint.clone(),
    ]
}

/// How long ago a time was, in whole seconds; clocks of two machines may disagree, and then it is none.
fn ago(time: &str, now: SystemTime) -> String {
    let Ok(time) = humantime::parse_rfc3339(time) else { return String::new() };
    let seconds = now.duration_since(time).unwrap_or_default().as_secs();
    humantime::format_duration(Duration::from_secs(seconds)).to_string().replace(' ', "")
}

/// Flags of `trestle drain`.
#[derive(Args)]
pub(crate) struct Drain {
    /// Name of the node, as `trestle nodes` shows it
    node: String,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Deserialize)]
struct Drained {
    node: Node,
}

impl Drain {
    /// Makes a node leave; says what it had when it began.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let answer = self.gateway.post("/v1/drain", &json!({"node": self.node})).await?;
        answer.show(&self.shown, |Drained { node }: Drained| {
            let (clients, sessions) = (count(node.active, "client"), count(node.pending, "session"));
            format!("{} drains: {clients} connected, {sessions} waiting for theirs", node.node)
        })
    }
}

/// Flags of `trestle rebalance`.
#[derive(Args)]
pub(crate) struct Rebalance {
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    gateway: Gateway,
}

#[derive(Deserialize)]
struct Rebalanced {
    nodes: Vec<Share>,
}

#[derive(Deserialize)]
struct Share {
    node: String,
    sessions: u32,
    asked: u32,
}

impl Rebalance {
    /// Asks clients of nodes that have too many to connect again; says how many.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let answer = self.gateway.post("/v1/rebalance", &json!({})).await?;
        answer.show(&self.shown, |Rebalanced { nodes }: Rebalanced| {
            if nodes.iter().all(|share| share.asked == 0) {
                return "no node has more than its share: nobody was asked to move".into();
            }
            let rows = nodes.into_iter().map(|share| [share.node, share.sessions.to_string(), share.asked.to_string()]);
            table(["NODE", "CLIENTS", "ASKED TO MOVE"], rows)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_is_known_of_a_node() {
        let json = r#"{"node":"edge-1","roles":["edge","bridge"],"version":"0.1.0","started":"2026-01-01T00:00:00Z",
            "heartbeat":"2026-01-01T01:00:01.500Z","active":7,"pending":2,"draining":true}"#;
        let node: Node = serde_json::from_str(json).expect("valid");
        let now = humantime::parse_rfc3339("2026-01-01T01:00:03Z").expect("valid");
        let row = row(&node, now);
        assert_eq!(row, ["edge-1", "draining", "edge,bridge", "7", "2", "1h3s", "1s", "0.1.0", ""].map(str::to_owned));
    }

    #[test]
    fn a_clock_that_is_ahead_is_no_age() {
        let now = humantime::parse_rfc3339("2026-01-01T00:00:00Z").expect("valid");
        assert_eq!(ago("2026-01-01T00:00:05Z", now), "0s");
        assert_eq!(ago("", now), "");
    }
}
