//! The whole configuration: composed of what each crate owns, read, checked, printed.

mod nats;
mod print;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trestle_auth::{AuthConfig, Channels, ChannelsConfig, Gate, InboxConfig};
use trestle_bus_nats::NatsConfig;
use trestle_cluster::{Beside, ClusterConfig};
use trestle_edge::EdgeConfig;
use trestle_session::SessionConfig;
use trestle_spill::SpillConfig;
use trestle_telemetry::TelemetryConfig;
use trestle_wire::NodeId;

use crate::http_api::HttpApi;

pub(crate) use nats::NatsOptions;
pub(crate) use print::commented;

/// Trestle's configuration. Every key has a default; `trestle check` says what is wrong with a file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Address for clients and for HTTP: `/ws`, `/v1/...`, `/metrics`, `/healthz`, `/readyz`, the page at `/`. Port 0
    /// takes a free one. Loopback by default: nothing is open to the network unless you say so.
    pub(crate) listen: SocketAddr,
    /// Address for services, by gRPC.
    pub(crate) grpc: SocketAddr,
    /// The fabric between nodes: `embedded`, or `nats://host:4222` (several, separated by commas).
    pub(crate) bus: String,
    /// First word or words of every subject on the bus, so that several installations can share one NATS.
    pub(crate) subject_prefix: String,
    /// Folder of `.proto` files, or a descriptor set as `buf build -o` writes it. Not set: the schemas of the demo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schemas: Option<PathBuf>,
    /// Where the embedded bus keeps its logs, and what outlives a connection of each session. Not set: in memory, and gone
    /// with the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Bytes of DURABLE and HANDLED messages that may wait for their services; beyond them a message is refused with
    /// `work_full`. NATS sets this much of its storage aside. 1 GiB: a million messages of 1 KiB.
    pub(crate) work_bytes_max: u64,
    /// Name of this node, unique among the nodes of one bus: lower-case letters, digits and `-`. Not set: made up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// What this process does: `edge` (clients), `bridge` (services), `connector` (brokers; none is part of this version,
    /// so it does nothing yet). On the embedded bus it has to be edge and bridge.
    pub(crate) roles: Vec<Role>,
    /// How long a stopping node lets what is in flight end, clients and services together. Orchestrators give 30 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub(crate) drain_timeout: Duration,
    /// Whether an edge serves the page at `/`, on which messages can be tried in a browser.
    pub(crate) page: bool,
    /// Whom the HTTP API (all paths below `/v1/`) answers: `loopback` (programs on this machine; others get 403),
    /// `everyone`, `off`. It asks for no token: whoever may call it can push to every client, end sessions and drain
    /// nodes. Behind a proxy on the same machine every peer is loopback; let it pass `/ws` only, or take `off`.
    pub(crate) http_api: HttpApi,
    /// Clients' sockets.
    pub(crate) edge: EdgeConfig,
    /// Clients' sessions.
    pub(crate) session: SessionConfig,
    /// Who may connect.
    pub(crate) auth: AuthConfig,
    /// Channels and who may use them.
    pub(crate) channels: ChannelsConfig,
    /// Users' inboxes: what was pushed to a user, kept until a device of the user acks it.
    pub(crate) inbox: InboxConfig,
    /// What waits on this node's disk, where `overflow` is `spill`.
    pub(crate) spill: SpillConfig,
    /// What nodes tell each other.
    pub(crate) cluster: ClusterConfig,
    /// Services.
    pub(crate) bridge: trestle_bridge::Config,
    /// The connection to NATS, where `bus` names one.
    pub(crate) nats: NatsOptions,
    /// Logs and traces.
    pub(crate) telemetry: TelemetryConfig,
}

/// A part of the gateway that a process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Clients on WebSocket.
    Edge,
    /// Services on gRPC.
    Bridge,
    /// Other brokers. No connector is part of this version: the role is taken, with a warning, and does nothing.
    Connector,
}

/// Where messages travel between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BusKind {
    /// In this process.
    Embedded,
    /// On NATS.
    Nats(String),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            grpc: SocketAddr::from(([127, 0, 0, 1], 9090)),
            bus: "embedded".into(),
            subject_prefix: "trestle".into(),
            schemas: None,
            data_dir: None,
            work_bytes_max: trestle_bus::logs::WORK_BYTES_MAX,
            node: None,
            roles: vec![Role::Edge, Role::Bridge],
            drain_timeout: Duration::from_secs(30),
            page: true,
            http_api: HttpApi::default(),
            edge: EdgeConfig::default(),
            session: SessionConfig::default(),
            auth: AuthConfig::default(),
            channels: ChannelsConfig::default(),
            inbox: InboxConfig::default(),
            spill: SpillConfig::default(),
            cluster: ClusterConfig::default(),
            bridge: trestle_bridge::Config::default(),
            nats: NatsOptions::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

impl Config {
    /// Reads `path`; the defaults where there is none.
    pub(crate) fn read(path: Option<&std::path::Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a configuration of trestle", path.display()))
    }

    /// Where messages travel.
    pub(crate) fn bus_kind(&self) -> anyhow::Result<BusKind> {
        match self.bus.as_str() {
            "embedded" => Ok(BusKind::Embedded),
            urls if urls.split(',').all(|url| url.starts_with("nats://") || url.starts_with("tls://")) => {
                Ok(BusKind::Nats(urls.to_owned()))
            }
            _ => bail!("bus: {:?} is neither `embedded` nor `nats://host:port`", self.shown_bus()),
        }
    }

    /// Where messages travel, without passwords.
    #[must_use]
    pub(crate) fn shown_bus(&self) -> String {
        NatsConfig::new(&self.bus).shown_url()
    }

    /// The node's name, made up if none is set.
    pub(crate) fn node_id(&self) -> anyhow::Result<NodeId> {
        let name = self.node.clone().unwrap_or_else(|| format!("node-{:08x}", fastrand::u32(..)));
        NodeId::parse(&name).context("node")
    }

    /// Everything that is wrong with it, a sentence each. Reads the files of keys that it names.
    #[must_use]
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |result: anyhow::Result<()>| faults.extend(result.err().map(|error| format!("{error:#}")));
        check(self.bus_kind().map(drop));
        check(self.node_id().map(drop));
        check(self.roles_fit());
        check(self.prefix_fits());
        if self.roles.contains(&Role::Edge) {
            check(Gate::open(&self.auth).map(drop).map_err(Into::into));
        }
        faults.extend(Channels::new(&self.channels, &self.inbox).err().unwrap_or_default());
        faults.extend(self.spill.faults(self.session.outbox_bytes_max));
        faults.extend(self.cluster.faults(&Beside {
            resume_window: self.session.resume_window,
            noticed_after: self.noticed_after(),
            outbox_bytes_max: self.session.outbox_bytes_max,
        }));
        faults.extend(self.windows_fit());
        faults.extend(self.edge.faults());
        faults.extend(self.session.faults());
        faults.extend(self.bridge.faults().into_iter().map(|fault| format!("bridge.{fault}")));
        faults.extend(self.nats.faults());
        faults.extend(self.telemetry.faults());
        if self.work_bytes_max < 1 << 20 {
            faults.push(format!("work_bytes_max ({}) must be at least 1048576", self.work_bytes_max));
        }
        if self.listen == self.grpc && self.listen.port() != 0 {
            faults.push(format!("listen and grpc are both {}; give them different ports", self.listen));
        }
        if self.session.outbox_bytes_max < self.edge.frame_bytes_max {
            faults.push(format!(
                "session.outbox_bytes_max ({}) must not be less than edge.frame_bytes_max ({}): one message of a client \
                 would fill another's outbox",
                self.session.outbox_bytes_max, self.edge.frame_bytes_max
            ));
        }
        if self.session.request_timeout_max > self.bridge.request_timeout_max {
            faults.push(format!(
                "session.request_timeout_max ({:?}) must not be more than bridge.request_timeout_max ({:?})",
                self.session.request_timeout_max, self.bridge.request_timeout_max
            ));
        }
        faults
    }

    /// How much later at most the loss of a connection is noticed.
    fn noticed_after(&self) -> Duration {
        self.session.ping_interval + self.session.pong_timeout
    }

    /// What a session can be resumed for must still be there then.
    fn windows_fit(&self) -> Vec<String> {
        let window = self.session.resume_window;
        // The client has heard nothing since before the loss was noticed.
        let away = window + self.noticed_after();
        let kept = self.channels.namespaces.iter().filter_map(|(name, namespace)| {
            Some((format!("channels.namespaces.{name}.history.ttl"), namespace.history.as_ref()?.ttl))
        });
        let kept = kept.chain([("inbox.ttl".to_owned(), self.inbox.ttl)]);
        let short = kept.filter(|(_, ttl)| !window.is_zero() && *ttl < away);
        let mut faults: Vec<_> = short
            .map(|(key, ttl)| {
                format!(
                    "{key} ({ttl:?}) must not be less than session.resume_window ({window:?}), session.ping_interval ({:?}) \
                     and session.pong_timeout ({:?}) together: a client that resumes late would miss messages",
                    self.session.ping_interval, self.session.pong_timeout
                )
            })
            .collect();
        let token = self.edge.resume_token_ttl;
        if token < window {
            faults.push(format!(
                "edge.resume_token_ttl ({token:?}) must not be less than session.resume_window ({window:?})"
            ));
        }
        // A connection lives up to a tenth longer.
        if let Some(age) = self.edge.connection_age_max.filter(|age| age.mul_f64(1.1) + window > token) {
            faults.push(format!(
                "edge.resume_token_ttl ({token:?}) must be more than edge.connection_age_max ({age:?}), a tenth of it and \
                 session.resume_window ({window:?}): a connection that is moved for its age could not go on"
            ));
        }
        let grace = self.edge.drain_grace;
        if grace * 3 >= self.drain_timeout {
            faults.push(format!(
                "edge.drain_grace ({grace:?}) must be less than a third of drain_timeout ({:?}): clients are asked to leave \
                 in the first third, less their grace",
                self.drain_timeout
            ));
        }
        faults
    }

    fn roles_fit(&self) -> anyhow::Result<()> {
        if self.roles.is_empty() {
            bail!("roles is empty; take `edge`, `bridge` or both");
        }
        let both = self.roles.contains(&Role::Edge) && self.roles.contains(&Role::Bridge);
        if self.bus == "embedded" && !both {
            bail!("roles: on the embedded bus one process has to be both edge and bridge; set `bus` to share the work");
        }
        Ok(())
    }

    fn prefix_fits(&self) -> anyhow::Result<()> {
        let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if self.subject_prefix.split('.').all(word) {
            return Ok(());
        }
        bail!("subject_prefix: {:?} is not lower-case letters and digits, with dots between words", self.subject_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_fault() {
        assert_eq!(Config::default().faults(), Vec::<String>::new());
    }

    #[test]
    fn keys_that_disagree_are_named_together() {
        let mut config = Config { bus: "kafka://x".into(), roles: vec![Role::Edge], ..Config::default() };
        config.subject_prefix = "a..b".into();
        config.session.request_timeout_max = Duration::from_secs(600);
        let faults = config.faults().join("\n");
        for part in ["bus: \"kafka://x\"", "subject_prefix: \"a..b\"", "bridge.request_timeout_max"] {
            assert!(faults.contains(part), "{part} is not in:\n{faults}");
        }
    }

    #[test]
    fn windows_that_do_not_fit_are_named_with_what_they_must_fit_to() {
        let faults = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.faults().join("\n")
        };
        let seconds = Duration::from_secs;
        let ttl = |config: &mut Config, ttl| {
            let room = config.channels.namespaces.get_mut("room").and_then(|room| room.history.as_mut());
            room.expect("the default has it").ttl = ttl;
        };
        // 60 s, and 35 s until the loss is noticed.
        assert_eq!(faults(&|config| ttl(config, seconds(95))), "");
        let short = faults(&|config| ttl(config, seconds(94)));
        assert!(short.starts_with("channels.namespaces.room.history.ttl (94s)"), "{short}");
        assert!(
            short.contains("session.resume_window (60s)") && short.contains("session.pong_timeout (10s)"),
            "{short}"
        );
        assert!(faults(&|config| config.inbox.ttl = seconds(94)).starts_with("inbox.ttl (94s)"));
        let unresumed = |config: &mut Config| {
            ttl(config, seconds(1));
            config.session.resume_window = Duration::ZERO;
        };
        assert_eq!(faults(&unresumed), "", "where nothing is resumed, nothing need be kept for it");

        let old = |config: &mut Config, age| config.edge.connection_age_max = Some(age);
        assert_eq!(faults(&|config| old(config, seconds(21 * 3600))), "");
        assert!(faults(&|config| old(config, seconds(22 * 3600))).starts_with("edge.resume_token_ttl (86400s)"));

        assert!(faults(&|config| config.edge.drain_grace = seconds(10)).starts_with("edge.drain_grace (10s)"));
        let crowd = faults(&|config| config.cluster.presence_members_max = 2000);
        assert!(crowd.contains("cluster.presence_members_max (2000)"), "{crowd}");
    }

    #[test]
    fn a_password_of_the_bus_is_in_no_fault() {
        let config = Config { bus: "amqp://u:hunter2@a".into(), ..Config::default() };
        let faults = config.faults().join("\n");
        assert!(faults.contains("bus: \"amqp://a\"") && !faults.contains("hunter2"), "{faults}");
    }

    #[test]
    fn an_edge_that_nobody_could_enter_is_a_fault_and_so_is_a_level_that_is_none() {
        let mut config = Config::default();
        config.auth.anonymous = false;
        config.telemetry.log_level = "trestle=loud".into();
        let faults = config.faults().join("\n");
        for part in ["auth.hs256_secret_file", "telemetry.log_level"] {
            assert!(faults.contains(part), "{part} is not in:\n{faults}");
        }
        // Who has no clients needs no gate.
        let bridge = Config { roles: vec![Role::Bridge], bus: "nats://a".into(), ..config };
        assert!(!bridge.faults().join("\n").contains("auth."));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = toml::from_str::<Config>("[edge]\nframe_byte_max = 1\n").expect_err("unknown key");
        assert!(error.to_string().contains("frame_byte_max"), "{error}");
    }

    #[test]
    fn the_printed_config_is_the_default_one() {
        let printed: Config = toml::from_str(&commented()).expect("what is printed can be read");
        assert_eq!(toml::to_string(&printed).ok(), toml::to_string(&Config::default()).ok());
    }
}
