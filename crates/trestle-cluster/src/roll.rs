//! Which nodes live, decided from what was heard and when. No I/O, no clock of its own.
//!
//! In: heartbeats, keys that are gone, moments. Out: [`NodeChange`]s. Always: a node that is `Down` was `Up` before, and
//! one that began anew is `Down` and `Up`; while the Kv takes no heartbeats, and right after, absence is not believed.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;
use trestle_wire::{NodeId, v1};

/// A node came, or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeChange {
    /// It lives. A node that began anew is down first.
    Up(NodeId),
    /// It has left, or has said nothing for too long.
    Down(NodeId),
}

/// The nodes that live.
pub(crate) type Lives = BTreeMap<NodeId, Birth>;

/// When a node that lives came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Birth {
    /// New whenever it comes or begins anew.
    pub(crate) number: u64,
    /// When it began, by its own clock, in nanoseconds of Unix time: what it says is stamped later.
    pub(crate) started: u64,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// A heartbeat that is older, by our own clock, is looked at in the Kv.
    pub(crate) silence: Duration,
    /// After a break, a node that is absent from the Kv has this long to come back: it had the same break.
    pub(crate) after_break: Duration,
}

struct Life {
    info: v1::NodeInfo,
    /// When `info` was last seen to change.
    changed: Instant,
    /// Whether its key is gone, and that is not believed yet.
    missing: bool,
    number: u64,
}

/// What a key that is gone means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// The node is gone.
    Believed,
    /// Nothing: nobody can say that he lives.
    Doubted,
    /// The node is gone if it is not back by then.
    DoubtedUntil(Instant),
}

/// The other nodes.
pub(crate) struct Roll {
    patience: Patience,
    nodes: BTreeMap<NodeId, Life>,
    absence: Absence,
    last: u64,
    changes: Vec<NodeChange>,
}

impl Roll {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, nodes: BTreeMap::new(), absence: Absence::Believed, last: 0, changes: Vec::new() }
    }

    /// A heartbeat.
    pub(crate) fn heard(&mut self, node: NodeId, info: v1::NodeInfo, now: Instant) {
        if self.nodes.get(&node).is_some_and(|life| life.info.started != info.started) {
            self.remove(&node);
        }
        match self.nodes.get_mut(&node) {
            Some(life) => {
                if life.info.heartbeat != info.heartbeat {
                    life.changed = now;
                }
                life.info = info;
                life.missing = false;
            }
            None => {
                self.last += 1;
                let life = Life { info, changed: now, missing: false, number: self.last };
                self.nodes.insert(node.clone(), life);
                self.changes.push(NodeChange::Up(node));
            }
        }
    }

    /// The key of a node is gone.
    pub(crate) fn gone(&mut self, node: &NodeId) {
        match (self.absence, self.nodes.get_mut(node)) {
            (Absence::Doubted | Absence::DoubtedUntil(_), Some(life)) => life.missing = true,
            _ => self.remove(node),
        }
    }

    /// All that the Kv holds.
    pub(crate) fn read(&mut self, there: Vec<(NodeId, v1::NodeInfo)>, now: Instant) {
        let absent = |node: &&NodeId| there.iter().all(|(other, _)| other != *node);
        let absent: Vec<_> = self.nodes.keys().filter(absent).cloned().collect();
        for (node, info) in there {
            self.heard(node, info, now);
        }
        for node in absent {
            self.gone(&node);
        }
    }

    /// The bus is away, or its Kv takes no heartbeats: what is not heard now means nothing.
    pub(crate) fn stalled(&mut self) {
        self.absence = Absence::Doubted;
    }

    /// The bus and its Kv are back: the others had the same break, and have a while to say that they live.
    pub(crate) fn recovered(&mut self, now: Instant) {
        self.absence = Absence::DoubtedUntil(now + self.patience.after_break);
        for life in self.nodes.values_mut() {
            life.changed = now;
        }
    }

    /// Lets go of those whose absence is to be believed now; gives those that are silent for too long, to be looked at.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<NodeId> {
        match self.absence {
            Absence::Doubted => return Vec::new(),
            Absence::DoubtedUntil(until) if until <= now => self.absence = Absence::Believed,
            Absence::DoubtedUntil(_) | Absence::Believed => {}
        }
        if self.absence == Absence::Believed {
            let missing = self.nodes.iter().filter(|(_, life)| life.missing);
            for node in missing.map(|(node, _)| node.clone()).collect::<Vec<_>>() {
                self.remove(&node);
            }
        }
        let silent = |life: &Life| now.duration_since(life.changed) > self.patience.silence;
        self.nodes.iter().filter(|(_, life)| silent(life)).map(|(node, _)| node.clone()).collect()
    }

    /// What the Kv holds of a node that was silent: if nothing new, it is gone.
    pub(crate) fn looked(&mut self, node: NodeId, there: Option<v1::NodeInfo>, now: Instant) {
        let known = self.nodes.get(&node).map(|life| &life.info);
        match there {
            Some(info)
                if known.is_some_and(|known| (known.started, known.heartbeat) != (info.started, info.heartbeat)) =>
            {
                self.heard(node, info, now);
            }
            _ => self.remove(&node),
        }
    }

    fn remove(&mut self, node: &NodeId) {
        if self.nodes.remove(node).is_some() {
            self.changes.push(NodeChange::Down(node.clone()));
        }
    }

    /// What has changed since this was asked last.
    pub(crate) fn changes(&mut self) -> Vec<NodeChange> {
        std::mem::take(&mut self.changes)
    }

    /// Those that live.
    pub(crate) fn lives(&self) -> Arc<Lives> {
        let birth = |life: &Life| Birth { number: life.number, started: started(&life.info) };
        Arc::new(self.nodes.iter().map(|(node, life)| (node.clone(), birth(life))).collect())
    }

    /// What they say of themselves.
    pub(crate) fn infos(&self) -> impl Iterator<Item = &v1::NodeInfo> {
        self.nodes.values().map(|life| &life.info)
    }

    pub(crate) fn contains(&self, node: &NodeId) -> bool {
        self.nodes.contains_key(node)
    }
}

/// When a node began, in nanoseconds of Unix time; 0 if it does not say.
pub(crate) fn started(info: &v1::NodeInfo) -> u64 {
    let since = info.started.and_then(|at| SystemTime::try_from(at).ok()?.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { silence: Duration::from_secs(12), after_break: Duration::from_secs(6) };

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    fn info(started: i64, heartbeat: i64) -> v1::NodeInfo {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        v1::NodeInfo { started: at(started), heartbeat: at(heartbeat), ..v1::NodeInfo::default() }
    }

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_comes_once_and_goes_once() {
        let (mut roll, t) = (Roll::new(PATIENCE), Instant::now());
        roll.heard(node("a"), info(1, 1), t);
        roll.heard(node("a"), info(1, 4), after(t, 3));
        assert_eq!(roll.changes(), [NodeChange::Up(node("a"))]);
        roll.gone(&node("a"));
        roll.gone(&node("a"));
        assert_eq!(roll.changes(), [NodeChange::Down(node("a"))]);
        assert!(!roll.contains(&node("a")));
    }

    #[test]
    fn a_node_that_began_anew_is_down_and_up_with_another_number() {
        let (mut roll, t) = (Roll::new(PATIENCE), Instant::now());
        roll.heard(node("a"), info(1, 1), t);
        let before = roll.lives();
        roll.changes();
        roll.heard(node("a"), info(2, 2), t);
        assert_eq!(roll.changes(), [NodeChange::Down(node("a")), NodeChange::Up(node("a"))]);
        assert_ne!(roll.lives(), before);
    }

    #[test]
    fn a_silent_node_is_looked_at_and_believed_if_the_kv_knows_more() {
        let (mut roll, t) = (Roll::new(PATIENCE), Instant::now());
        roll.heard(node("a"), info(1, 1), t);
        roll.heard(node("b"), info(1, 1), t);
        assert_eq!(roll.overdue(after(t, 12)), []);
        assert_eq!(roll.overdue(after(t, 13)), [node("a"), node("b")]);
        roll.changes();
        roll.looked(node("a"), Some(info(1, 12)), after(t, 13));
        roll.looked(node("b"), Some(info(1, 1)), after(t, 13));
        assert_eq!(roll.changes(), [NodeChange::Down(node("b"))], "a key that is there and does not move is no life");
        assert_eq!(roll.overdue(after(t, 14)), []);
    }

    #[test]
    fn the_same_heartbeat_twice_is_one_sign_of_life() {
        let (mut roll, t) = (Roll::new(PATIENCE), Instant::now());
        roll.heard(node("a"), info(1, 1), t);
        roll.heard(node("a"), info(1, 1), after(t, 10));
        assert_eq!(roll.overdue(after(t, 13)), [node("a")]);
    }

    #[test]
    fn after_a_break_a_node_has_time_to_come_back() {
        let (mut roll, t) = (Roll::new(PATIENCE), Instant::now());
        for name in ["a", "b"] {
            roll.heard(node(name), info(1, 1), t);
        }
        roll.changes();
        let back = after(t, 60);
        roll.recovered(back);
        assert_eq!(roll.overdue(back), [], "its silence was ours");
        roll.read(Vec::new(), back);
        assert_eq!(roll.changes(), []);
        roll.heard(node("a"), info(1, 61), after(back, 1));
        assert_eq!(roll.overdue(after(back, 5)), []);
        assert_eq!(roll.changes(), []);
        roll.overdue(after(back, 6));
        assert_eq!(roll.changes(), [NodeChange::Down(node("b"))]);
        roll.gone(&node("a"));
        assert_eq!(roll.changes(), [NodeChange::Down(node("a"))], "later the Kv's word counts at once");
    }

    #[test]
    fn while_no_heartbeat_is_taken_nobody_is_dead() {
        let (mut roll, t) = (Roll::new(PATIENCE), Instant::now());
        for name in ["a", "b"] {
            roll.heard(node(name), info(1, 1), t);
        }
        roll.changes();
        roll.stalled();
        roll.gone(&node("a"));
        roll.gone(&node("b"));
        assert_eq!(roll.overdue(after(t, 1000)), []);
        let back = after(t, 1000);
        roll.recovered(back);
        roll.heard(node("a"), info(1, 1001), back);
        roll.overdue(after(back, 6));
        assert_eq!(roll.changes(), [NodeChange::Down(node("b"))]);
    }

    #[test]
    fn what_is_read_replaces_what_was_known() {
        let (mut roll, t) = (Roll::new(PATIENCE), Instant::now());
        roll.heard(node("a"), info(1, 1), t);
        roll.heard(node("b"), info(1, 1), t);
        roll.changes();
        roll.read(vec![(node("b"), info(1, 4)), (node("c"), info(1, 4))], after(t, 4));
        assert_eq!(roll.changes(), [NodeChange::Up(node("c")), NodeChange::Down(node("a"))]);
        assert_eq!(roll.infos().count(), 2);
    }
}
