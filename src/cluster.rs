//! This node among the others: its heartbeat, the registry of sessions, presence.

use std::sync::{Arc, Weak};

use anyhow::Context as _;
use parking_lot::Mutex;
use prometheus_client::registry::Registry as Metrics;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use trestle_bus::{Fabric, Heard};
use trestle_cluster::{LeftParts, Nodes, NodesParts, Presence, PresenceParts, Registry, RegistryParts, look_after};
use trestle_hub::Hub;
use trestle_wire::{
    ChannelName, NodeId, Subjects,
    v1::{self, node_answer, node_ask},
};

use crate::config::{Config, Role};

/// What the parts of the cluster are made of.
#[derive(Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub(crate) config: &'a Config,
    pub(crate) node: &'a NodeId,
    pub(crate) subjects: &'a Subjects,
    pub(crate) fabric: &'a Fabric,
}

/// Who hears of presence: the hub, which is there only after the presence is.
#[derive(Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<Weak<Hub>>>);

impl Watchers {
    /// From now on `hub` hears it.
    pub(crate) fn tell(&self, hub: &Arc<Hub>) {
        *self.0.lock() = Arc::downgrade(hub);
    }
}

/// Hears of an operator's drain on a node without an edge; the edge of the others does by itself. Cancelled then.
pub(crate) async fn hear_drain(cluster: &Cluster<'_>, nodes: &Arc<Nodes>) -> anyhow::Result<CancellationToken> {
    let (bus, node) = (Arc::clone(&cluster.fabric.bus), cluster.node.clone());
    let mut asks = bus.subscribe(&cluster.subjects.ask(&node), None).await.context("the bus cannot be listened to")?;
    let (told, nodes) = (CancellationToken::new(), Arc::clone(nodes));
    let tell = told.clone();
    tokio::spawn(async move {
        while let Some(heard) = asks.next().await {
            // Whoever asked and was not heard asks again.
            let Heard::Message(message) = heard else { continue };
            let (Ok(ask), Some(reply_to)) = (v1::NodeAsk::decode(message.payload), message.reply_to) else { continue };
            if !matches!(ask.ask, Some(node_ask::Ask::Drain(_))) {
                continue;
            }
            let answer = node_answer::Answer::Info(nodes.info());
            let answer = v1::NodeAnswer { node: node.to_string(), answer: Some(answer) };
            if let Err(error) = bus.publish(&reply_to, answer.encode_to_vec().into()).await {
                tracing::warn!(%error, "an operator was not answered");
            }
            tell.cancel();
        }
    });
    Ok(told)
}

impl Cluster<'_> {
    /// Takes this node's place among the others.
    pub(crate) async fn nodes(&self, metrics: &mut Metrics) -> anyhow::Result<Arc<Nodes>> {
        let roles = self.config.roles.iter().map(|role| match role {
            Role::Edge => v1::NodeInfo::EDGE,
            Role::Bridge => "bridge",
            Role::Connector => "connector",
        });
        let nodes = Nodes::open(NodesParts {
            node: self.node.clone(),
            roles: roles.map(str::to_owned).collect(),
            version: env!("CARGO_PKG_VERSION").into(),
            endpoint: self.config.edge.endpoint.clone().unwrap_or_default(),
            subjects: self.subjects.clone(),
            fabric: self.fabric.clone(),
            config: self.config.cluster.clone(),
            registry: metrics,
        });
        Ok(nodes.await?)
    }

    /// Opens the registry of sessions, and looks after those of nodes that are gone.
    pub(crate) async fn registry(&self, nodes: &Arc<Nodes>, metrics: &mut Metrics) -> anyhow::Result<Arc<Registry>> {
        let registry = Registry::open(RegistryParts {
            node: self.node.clone(),
            fabric: self.fabric.clone(),
            subjects: self.subjects.clone(),
            config: self.config.cluster.clone(),
            resume_window: self.config.session.resume_window,
            inbox_ttl: self.config.inbox.ttl,
            registry: &mut *metrics,
        });
        let registry = registry.await?;
        let left = look_after(LeftParts {
            nodes: Arc::clone(nodes),
            registry: Arc::clone(&registry),
            fabric: self.fabric.clone(),
            subjects: self.subjects.clone(),
            resume_window: self.config.session.resume_window,
            record_ttl: self.config.cluster.record_ttl,
            node_timeout: self.config.cluster.node_timeout,
            metrics,
        });
        left.await.context("the bus cannot be listened to")?;
        Ok(registry)
    }

    /// Begins to know who is on which channel; what happens there goes to `watchers`.
    pub(crate) fn presence(&self, nodes: &Nodes, watchers: &Watchers, metrics: &mut Metrics) -> Arc<Presence> {
        let Watchers(hub) = watchers.clone();
        Presence::open(PresenceParts {
            nodes,
            subjects: self.subjects.clone(),
            fabric: self.fabric.clone(),
            config: self.config.cluster.clone(),
            sink: Arc::new(move |channel: ChannelName, event: v1::PresenceEvent| {
                let hub = hub.lock().upgrade();
                if let Some(hub) = hub {
                    hub.tell_watchers(&channel, v1::server_frame::Frame::PresenceEvent(event));
                }
            }),
            registry: metrics,
        })
    }
}
