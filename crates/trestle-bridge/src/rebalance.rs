//! Evens out the connections after nodes came or left: those with more than their share ask some clients to come again.

use futures_util::future::join_all;
use trestle_wire::{
    Refusal,
    v1::{self, node_answer::Answer, node_ask::Ask},
};

use crate::Shared;

/// A node is left alone up to this much above the average, in percent: below it the moving costs more than it brings.
const TOLERATED_PERCENT: u64 = 5;
/// And up to this many sessions above it, so that small numbers do not swing.
const TOLERATED_SESSIONS: u64 = 10;

/// How many sessions each node has, and how many of them should go elsewhere. No I/O.
///
/// Nodes that drain or hold no sessions take no part. What always holds: no node is asked to go below the average.
pub(crate) fn shares(nodes: &[v1::NodeInfo]) -> Vec<v1::NodeShare> {
    let edges: Vec<_> = nodes.iter().filter(|node| node.is_edge() && !node.draining).collect();
    let count = edges.len() as u64;
    let total: u64 = edges.iter().map(|node| u64::from(node.active)).sum();
    let share = |node: &&v1::NodeInfo| {
        let active = u64::from(node.active);
        // In whole numbers: active > average * 1.05 and active > average + 10.
        let above_percent = active * count * 100 > total * (100 + TOLERATED_PERCENT);
        let above_sessions = active * count > total + TOLERATED_SESSIONS * count;
        let surplus = if above_percent && above_sessions { active - total.div_ceil(count) } else { 0 };
        let asked = u32::try_from(surplus).unwrap_or(u32::MAX);
        v1::NodeShare { node: node.node.clone(), sessions: node.active, asked }
    };
    edges.iter().map(share).collect()
}

impl Shared {
    /// Asks the nodes that have more than their share to send the surplus away; says what each has and was asked for.
    ///
    /// # Errors
    /// The first refusal of a node; others may have begun all the same.
    pub(crate) async fn rebalance(&self) -> Result<Vec<v1::NodeShare>, Refusal> {
        let shares = shares(&self.nodes());
        let shed = join_all(shares.into_iter().map(|share| self.shed(share))).await;
        shed.into_iter().collect()
    }

    /// Tells a node that has a surplus to send it away; returns its share with what it really asked.
    async fn shed(&self, share: v1::NodeShare) -> Result<v1::NodeShare, Refusal> {
        if share.asked == 0 {
            return Ok(share);
        }
        tracing::info!(node = share.node, sessions = share.sessions, asked = share.asked, "node told to shed");
        let asked = match self.ask(&share.node, Ask::Shed(share.asked)).await? {
            // It answers with the number of those that it could ask.
            Some(Answer::Info(info)) => info.active.min(share.asked),
            _ => share.asked,
        };
        Ok(v1::NodeShare { asked, ..share })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, active: u32) -> v1::NodeInfo {
        v1::NodeInfo {
            node: name.into(),
            roles: vec!["edge".into(), "bridge".into()],
            active,
            ..v1::NodeInfo::default()
        }
    }

    fn asked(nodes: &[v1::NodeInfo]) -> Vec<u32> {
        shares(nodes).into_iter().map(|share| share.asked).collect()
    }

    #[test]
    fn a_new_empty_node_gets_its_share() {
        assert_eq!(asked(&[node("a", 3000), node("b", 3000), node("c", 0)]), [1000, 1000, 0]);
    }

    #[test]
    fn small_differences_are_left_alone() {
        assert_eq!(asked(&[node("a", 1050), node("b", 1000), node("c", 950)]), [0, 0, 0], "5 % of 1000");
        assert_eq!(asked(&[node("a", 1051), node("b", 1000), node("c", 949)]), [51, 0, 0]);
        assert_eq!(asked(&[node("a", 20), node("b", 0)]), [0, 0], "10 sessions");
        assert_eq!(asked(&[node("a", 22), node("b", 0)]), [11, 0]);
    }

    #[test]
    fn who_drains_or_holds_no_sessions_takes_no_part() {
        let draining = v1::NodeInfo { draining: true, ..node("b", 0) };
        let bridge = v1::NodeInfo { roles: vec!["bridge".into()], ..node("c", 0) };
        assert_eq!(
            shares(&[node("a", 500), draining, bridge]),
            [v1::NodeShare { node: "a".into(), sessions: 500, asked: 0 }]
        );
        assert_eq!(shares(&[]), []);
    }

    proptest! {
        #[test]
        fn nobody_is_asked_below_the_average(active in prop::collection::vec(any::<u32>(), 1..8)) {
            let nodes: Vec<_> = active.iter().enumerate().map(|(n, active)| node(&n.to_string(), *active)).collect();
            let average = active.iter().map(|active| f64::from(*active)).sum::<f64>() / nodes.len() as f64;
            for share in shares(&nodes) {
                let left = f64::from(share.sessions) - f64::from(share.asked);
                prop_assert!(share.asked == 0 || left >= average.floor(), "{share:?} of an average of {average}");
                let tolerated = (average * 1.05).max(average + 10.0);
                prop_assert!(share.asked > 0 || f64::from(share.sessions) <= tolerated + 1.0);
            }
        }
    }
}
