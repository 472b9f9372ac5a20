//! Which nodes there are, and what operators ask of them.

use std::time::Duration;

use bytes::Bytes;
use trestle_bus::{BusError, Subject};
use trestle_wire::{
    NodeId, Reason, Refusal,
    v1::{self, node_answer::Answer, node_ask::Ask},
};

use crate::{Shared, target::Target};

/// What a bridge is told about nodes.
pub trait Nodes: Send + Sync + 'static {
    /// Those that live, this one included, each as it last said.
    fn alive(&self) -> Vec<v1::NodeInfo>;
}

impl Shared {
    /// The nodes that live, in the order of their names.
    pub(crate) fn nodes(&self) -> Vec<v1::NodeInfo> {
        let mut nodes = self.nodes.alive();
        nodes.sort_unstable_by(|a, b| a.node.cmp(&b.node));
        nodes
    }

    /// How many nodes can answer for their sessions; when so many have answered, none is waited for.
    pub(crate) fn edges_max(&self) -> usize {
        if let Some(most) = self.fabric.bus.nodes_max() {
            return most;
        }
        match self.nodes.alive().iter().filter(|node| node.is_edge()).count() {
            // This node itself has not been heard yet, so others may not have been either.
            0 => usize::MAX,
            edges => edges,
        }
    }

    /// Hands `body` to the nodes that hold the target's sessions, and adds up what they count; each next answer may take
    /// `quiet`.
    ///
    /// # Errors
    /// Those of the bus.
    pub(crate) async fn counts(
        &self,
        target: &Target,
        subject: &Subject,
        body: Bytes,
        quiet: Duration,
    ) -> Result<v1::PushCount, BusError> {
        // A session is on one node; anybody else may be on any. Nodes without a session of the target need not answer.
        let most = if matches!(target, Target::Session(_)) { 1 } else { self.edges_max() };
        self.counts_of(subject, body, most, quiet).await
    }

    /// The same of all nodes that may hold sessions.
    ///
    /// # Errors
    /// Those of the bus.
    pub(crate) async fn counts_of_all(
        &self,
        subject: &Subject,
        body: Bytes,
        quiet: Duration,
    ) -> Result<v1::PushCount, BusError> {
        self.counts_of(subject, body, self.edges_max(), quiet).await
    }

    async fn counts_of(
        &self,
        subject: &Subject,
        body: Bytes,
        most: usize,
        quiet: Duration,
    ) -> Result<v1::PushCount, BusError> {
        let mut total = v1::PushCount::default();
        for answer in self.fabric.bus.gather(subject, body, most, quiet).await? {
            let count: v1::PushCount = match prost::Message::decode(answer) {
                Ok(count) => count,
                Err(error) => {
                    tracing::warn!(%subject, %error, "a node's count could not be read");
                    continue;
                }
            };
            total.delivered = total.delivered.saturating_add(count.delivered);
            total.dropped = total.dropped.saturating_add(count.dropped);
            total.queued = total.queued.saturating_add(count.queued);
        }
        Ok(total)
    }

    /// Asks one node, and waits for its answer.
    ///
    /// # Errors
    /// [`Reason::InvalidName`], [`Reason::UnknownNode`], [`Reason::Timeout`], what the node itself refused, and those of
    /// the bus.
    pub(crate) async fn ask(&self, node: &str, ask: Ask) -> Result<Option<Answer>, Refusal> {
        let node =
            NodeId::parse(node).map_err(|error| Refusal::new(Reason::InvalidName, error.to_string()).field("node"))?;
        let nodes = self.nodes();
        if !nodes.iter().any(|known| known.node == node.as_str()) {
            let names: Vec<_> = nodes.into_iter().map(|node| node.node).collect();
            let sentence = format!("no node {node} lives; those that do: {}", names.join(", "));
            return Err(Refusal::new(Reason::UnknownNode, sentence).field("node"));
        }
        let body = prost::Message::encode_to_vec(&v1::NodeAsk { ask: Some(ask) });
        let wait = self.config.ask_wait;
        let answer = self.fabric.bus.request(&self.subjects.ask(&node), body.into(), wait).await;
        let answer = answer.map_err(|error| match error {
            BusError::NoResponders(_) => {
                Refusal::new(Reason::UnknownNode, format!("node {node} does not listen; it may just be going"))
                    .field("node")
            }
            BusError::Timeout(_) => {
                Refusal::new(Reason::Timeout, format!("node {node} did not answer within {wait:?}"))
            }
            error => Refusal::from(error),
        })?;
        let answer: v1::NodeAnswer = prost::Message::decode(answer).map_err(|error| {
            tracing::error!(%node, %error, "a node's answer could not be read");
            Refusal::new(Reason::Internal, format!("the answer of node {node} could not be read"))
        })?;
        match answer.answer {
            Some(Answer::Error(error)) => Err(refusal_of(error)),
            answer => Ok(answer),
        }
    }

    /// Makes a node leave; returns what it had when it began.
    ///
    /// # Errors
    /// As [`Shared::ask`].
    pub(crate) async fn drain_node(&self, request: v1::DrainRequest) -> Result<v1::NodeInfo, Refusal> {
        let node = request.node.clone();
        match self.ask(&node, Ask::Drain(request)).await? {
            Some(Answer::Info(info)) => {
                tracing::info!(node, active = info.active, pending = info.pending, "node told to drain");
                Ok(info)
            }
            answer => {
                tracing::error!(node, ?answer, "a node answered a drain with something else");
                Err(Refusal::new(Reason::Internal, format!("node {node} did not say what it does")))
            }
        }
    }
}

/// What another node refused, in its own words.
pub(crate) fn refusal_of(error: v1::Error) -> Refusal {
    // A reason that a newer node has and this one does not is a fault to this one.
    let refusal = Refusal::new(Reason::of_word(&error.reason).unwrap_or(Reason::Internal), error.message);
    if error.field.is_empty() { refusal } else { refusal.field(error.field) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_reason_between_nodes() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(*reason, "said").field("target.user");
            assert_eq!(refusal_of(refusal.clone().into()), refusal);
        }
        let newer = v1::Error { reason: "not_yet_known".into(), ..v1::Error::default() };
        assert_eq!(refusal_of(newer).reason, Reason::Internal);
    }
}
