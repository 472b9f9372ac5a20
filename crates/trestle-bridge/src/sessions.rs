//! The sessions of all nodes, and who is on a channel: asked of every node, their answers put together.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use trestle_cluster::ask_presence;
use trestle_wire::{
    ChannelName, Reason, Refusal,
    v1::{self, node_answer::Answer, node_ask::Ask},
};

use crate::{NamespaceView, Shared, nodes::refusal_of, target, target::Target};

/// Sessions of an answer unless it is asked for more or fewer.
const LIMIT_DEFAULT: u32 = 100;
/// Most sessions of an answer; more is cut to it. 1000 sessions of 500 bytes are 500 KiB, of which the bus takes 1 MiB.
const LIMIT_MAX: u32 = 1000;
/// Most members of a channel that are listed, as for clients; above it they are only counted.
const MEMBERS_MAX: usize = 1000;
/// Whose sessions can be listed.
const LISTABLE: &str = "session, user, group, tags, everyone";

impl Shared {
    /// The sessions of all nodes, in the order of their ids, and which nodes did not answer.
    ///
    /// # Errors
    /// Those of the input, what a node refused, and those of the bus.
    pub(crate) async fn sessions(
        &self,
        mut request: v1::ListSessionsRequest,
    ) -> Result<v1::ListSessionsResponse, Refusal> {
        self.check_listing(&request)?;
        request.limit = if request.limit == 0 { LIMIT_DEFAULT } else { request.limit.min(LIMIT_MAX) };
        let limit = request.limit as usize;
        let body = v1::NodeAsk { ask: Some(Ask::Sessions(request)) }.encode_to_vec();
        let subject = self.subjects.ask_all();
        let answers = self.fabric.bus.gather(&subject, body.into(), self.edges_max(), self.config.ask_wait).await?;
        let mut pages = Vec::new();
        let mut heard = BTreeSet::new();
        for answer in answers {
            let v1::NodeAnswer { node, answer } = match v1::NodeAnswer::decode(answer) {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::warn!(%error, "a node's list of sessions could not be read");
                    continue;
                }
            };
            match answer {
                Some(Answer::Sessions(page)) => pages.push(page),
                Some(Answer::Error(error)) => return Err(refusal_of(error)),
                Some(Answer::Info(_)) | None => tracing::warn!(node, "a node answered without its sessions"),
            }
            heard.insert(node);
        }
        let silent: Vec<_> =
            self.nodes().into_iter().filter(|node| node.is_edge() && !heard.contains(&node.node)).collect();
        Ok(v1::ListSessionsResponse {
            silent_nodes: silent.into_iter().map(|node| node.node).collect(),
            ..merge(pages, limit)
        })
    }

    fn check_listing(&self, request: &v1::ListSessionsRequest) -> Result<(), Refusal> {
        if request.target.is_some() {
            Target::parse(request.target.clone(), LISTABLE)?.of_sessions(LISTABLE)?;
        }
        if !request.channel.is_empty() {
            self.channel_view(&request.channel, "channel")?;
        }
        if !request.after.is_empty() {
            target::session(&request.after, "after")?;
        }
        Ok(())
    }

    /// Who is on a channel.
    ///
    /// # Errors
    /// [`Reason::InvalidChannel`], [`Reason::UnknownNamespace`], [`Reason::NoPresence`], and those of the bus.
    pub(crate) async fn presence(&self, request: v1::GetPresenceRequest) -> Result<v1::PresenceState, Refusal> {
        let (channel, view) = self.channel_view(&request.channel, "channel")?;
        if !view.presence {
            let sentence = format!("the namespace {} has no presence", channel.namespace());
            return Err(Refusal::new(Reason::NoPresence, sentence).field("channel"));
        }
        Ok(ask_presence(&self.fabric, &self.subjects, &channel, MEMBERS_MAX).await?)
    }

    /// A channel whose namespace is configured, and what that says.
    ///
    /// # Errors
    /// [`Reason::InvalidChannel`], [`Reason::UnknownNamespace`].
    fn channel_view(&self, name: &str, field: &str) -> Result<(ChannelName, NamespaceView), Refusal> {
        let channel = target::channel(name, field)?;
        let view = self.namespace_view(&channel, field)?;
        Ok((channel, view))
    }

    /// What is configured for the namespace of a channel.
    ///
    /// # Errors
    /// [`Reason::UnknownNamespace`].
    pub(crate) fn namespace_view(&self, channel: &ChannelName, field: &str) -> Result<NamespaceView, Refusal> {
        self.channels.namespace(channel.namespace()).ok_or_else(|| {
            let sentence = format!("there is no channel namespace {:?}", channel.namespace());
            Refusal::new(Reason::UnknownNamespace, sentence).field(field)
        })
    }
}

/// One page of the nodes' pages. No I/O.
///
/// What always holds: nothing is left out between the first and the last of it, so that the next page can go on there. A
/// session that is moving may be on two nodes; the one whose connection lives counts, else the one heard of last.
fn merge(pages: Vec<v1::ListSessionsResponse>, limit: usize) -> v1::ListSessionsResponse {
    // What comes after the last one of a node that has more is not known yet.
    let known = pages.iter().filter(|page| page.more);
    let known = known.filter_map(|page| page.sessions.iter().map(|session| session.session_id.clone()).max()).min();
    let more_anywhere = pages.iter().any(|page| page.more);
    let mut sessions = BTreeMap::<String, v1::SessionInfo>::new();
    for session in pages.into_iter().flat_map(|page| page.sessions) {
        match sessions.get(&session.session_id) {
            Some(other) if liveliness(other) >= liveliness(&session) => {}
            _ => drop(sessions.insert(session.session_id.clone(), session)),
        }
    }
    let all = sessions.len();
    let sessions = sessions.into_values();
    let page = sessions.take_while(|session| known.as_ref().is_none_or(|known| session.session_id <= *known));
    let page: Vec<_> = page.take(limit).collect();
    v1::ListSessionsResponse { more: more_anywhere || page.len() < all, sessions: page, silent_nodes: Vec::new() }
}

/// Grows with how much of a session's life is at the node that tells of it.
fn liveliness(session: &v1::SessionInfo) -> (bool, std::cmp::Reverse<(i64, i32)>) {
    let age = session.heartbeat_age.unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 });
    (session.state() == v1::SessionState::Active, std::cmp::Reverse((age.seconds, age.nanos)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(ids: &[&str], more: bool) -> v1::ListSessionsResponse {
        let sessions = ids.iter().map(|id| v1::SessionInfo { session_id: (*id).into(), ..v1::SessionInfo::default() });
        v1::ListSessionsResponse { sessions: sessions.collect(), more, silent_nodes: Vec::new() }
    }

    fn ids(page: &v1::ListSessionsResponse) -> Vec<&str> {
        page.sessions.iter().map(|session| session.session_id.as_str()).collect()
    }

    #[test]
    fn pages_are_merged_in_the_order_of_ids() {
        let merged = merge(vec![page(&["b", "d"], false), page(&["a", "c"], false)], 10);
        assert_eq!((ids(&merged), merged.more), (vec!["a", "b", "c", "d"], false));
        let cut = merge(vec![page(&["b", "d"], false), page(&["a", "c"], false)], 3);
        assert_eq!((ids(&cut), cut.more), (vec!["a", "b", "c"], true));
    }

    #[test]
    fn a_node_that_could_not_say_all_ends_the_page_where_it_ends() {
        let merged = merge(vec![page(&["a", "c"], true), page(&["b", "d"], false)], 10);
        assert_eq!((ids(&merged), merged.more), (vec!["a", "b", "c"], true));
    }

    #[test]
    fn a_session_on_two_nodes_is_told_once_by_the_one_that_has_its_connection() {
        let told = |node: &str, state: v1::SessionState, seconds| v1::ListSessionsResponse {
            sessions: vec![v1::SessionInfo {
                session_id: "a".into(),
                node: node.into(),
                state: state.into(),
                heartbeat_age: Some(prost_types::Duration { seconds, nanos: 0 }),
                ..v1::SessionInfo::default()
            }],
            ..v1::ListSessionsResponse::default()
        };
        use v1::SessionState::{Active, Pending};
        for (pages, holder) in [
            (vec![told("one", Pending, 1), told("two", Active, 9)], "two"),
            (vec![told("one", Active, 9), told("two", Pending, 1)], "one"),
            (vec![told("one", Pending, 9), told("two", Pending, 1)], "two"),
        ] {
            let merged = merge(pages, 10);
            assert_eq!((merged.sessions.len(), merged.sessions[0].node.as_str(), merged.more), (1, holder, false));
        }
    }

    proptest! {
        /// Pages of any size from nodes that cut where they like: reading on after each page's last one finds every
        /// session, once.
        #[test]
        fn paging_leaves_nobody_out(
            nodes in prop::collection::vec(prop::collection::btree_set("[a-f]{3}", 0..30), 1..4),
            cuts in prop::collection::vec(1..5_usize, 4),
            limit in 1..8_usize,
        ) {
            let expected: BTreeSet<_> = nodes.iter().flatten().cloned().collect();
            let mut found = Vec::new();
            loop {
                let after = found.last().cloned().unwrap_or_default();
                let pages = nodes.iter().zip(&cuts).map(|(sessions, cut)| {
                    let left: Vec<_> = sessions.iter().filter(|id| **id > after).map(String::as_str).collect();
                    let most = (*cut).min(limit);
                    page(&left[..left.len().min(most)], left.len() > most)
                });
                let merged = merge(pages.collect(), limit);
                prop_assert!(merged.sessions.len() <= limit);
                found.extend(ids(&merged).into_iter().map(str::to_owned));
                if !merged.more {
                    break;
                }
                prop_assert!(!merged.sessions.is_empty(), "a page that says that there is more brings something");
            }
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
