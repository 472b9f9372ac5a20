//! Asking clients to connect again, elsewhere: at a drain, to rebalance, for their age.
//!
//! In: how many, and within what time. Out: notices, as far apart as the other nodes take clients in. What always holds:
//! nobody is asked to leave when there is no other node to go to.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use trestle_hub::Member;
use trestle_session::State;
use trestle_wire::v1;

use crate::{Edge, wish::Wish};

/// How often notices go out: batches of a tenth of a second are too small to be a storm, and cost few wakeups.
const BATCH: Duration = Duration::from_millis(100);

impl Edge {
    /// Asks every client to go on elsewhere, within `time`, and returns when all have had their time for it.
    ///
    /// At once if there is no other node.
    pub(crate) async fn ask_all_to_leave(self: &Arc<Self>, time: Duration) {
        let members = self.connected();
        if members.is_empty() || !self.has_elsewhere() {
            return;
        }
        // The last of them needs its grace too.
        let spread = time.saturating_sub(self.config.drain_grace);
        self.ask_to_leave(&members, spread).await;
        drop(members);
        let last = Instant::now() + BATCH + self.config.drain_grace;
        // Those who have moved are not waited for.
        while self.metrics.connections.get() > 0 && Instant::now() < last {
            sleep(BATCH).await;
        }
    }

    /// Asks `surplus` clients, chosen at random, to connect again; returns how many were asked.
    pub(crate) fn shed(self: &Arc<Self>, surplus: usize) -> usize {
        if !self.has_elsewhere() {
            return 0;
        }
        let mut members = self.connected();
        fastrand::shuffle(&mut members);
        members.truncate(surplus);
        let (edge, asked) = (Arc::clone(self), members.len());
        let spread = self.paced(asked);
        self.background.spawn(async move { edge.ask_to_leave(&members, spread).await });
        asked
    }

    /// The sessions that have a connection, in the same order each time a seed is played.
    fn connected(&self) -> Vec<Arc<Member>> {
        let mut members = self.hub.members();
        members.retain(|member| member.facts.lock().state == State::Active);
        members.sort_unstable_by(|a, b| a.session.cmp(&b.session));
        members
    }

    /// Sends the notices, at most within `spread`.
    async fn ask_to_leave(&self, members: &[Arc<Member>], spread: Duration) {
        let spread = spread.min(self.paced(members.len()));
        let batches = (spread.as_millis() / BATCH.as_millis()).max(1) as usize;
        let size = members.len().div_ceil(batches).max(1);
        for batch in members.chunks(size) {
            let endpoint = self.elsewhere();
            for member in batch {
                // A client that reads nothing now is parted from at the end.
                let _sent = Wish::Leave(self.notice(endpoint.clone())).send(member);
            }
            sleep(BATCH).await;
        }
    }

    /// How long `clients` take to come in elsewhere.
    fn paced(&self, clients: usize) -> Duration {
        Duration::from_secs_f64(clients as f64 / f64::from(self.config.leave_rate))
    }

    /// What a client is told that is to go on elsewhere, at `endpoint` if that is known.
    pub(crate) fn notice(&self, endpoint: Option<String>) -> v1::DrainNotice {
        let wait = BATCH.mul_f64(fastrand::f64());
        v1::DrainNotice {
            endpoint: endpoint.unwrap_or_default(),
            reconnect_after: prost_types::Duration::try_from(wait).ok(),
            deadline: prost_types::Duration::try_from(self.config.drain_grace).ok(),
        }
    }

    fn has_elsewhere(&self) -> bool {
        self.others().next().is_some()
    }

    /// Where the other node with the fewest sessions is reached; `None` if nobody says.
    pub(crate) fn elsewhere(&self) -> Option<String> {
        let least = self.others().filter(|node| !node.endpoint.is_empty());
        least.min_by_key(|node| node.active).map(|node| node.endpoint)
    }

    /// The other nodes that take clients.
    fn others(&self) -> impl Iterator<Item = v1::NodeInfo> + use<'_> {
        self.nodes
            .alive()
            .into_iter()
            .filter(move |node| node.is_edge() && !node.draining && node.node != self.node.as_str())
    }
}
