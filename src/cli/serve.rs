//! `trestle serve`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use trestle_telemetry::LogFormat;

use super::{Sources, runtime};
use crate::{app, config::Role};

/// Flags of `trestle serve`; each overrides its key of the configuration.
#[derive(Args, Default)]
pub(crate) struct Serve {
    #[command(flatten)]
    sources: Sources,
    /// Address for clients and HTTP; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Address for services, by gRPC [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    grpc: Option<SocketAddr>,
    /// `embedded` or `nats://host:4222` [default: embedded]
    #[arg(long, value_name = "URL")]
    bus: Option<String>,
    /// Where the embedded bus keeps its logs [default: in memory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What this process does: edge, bridge, connector (nothing yet) [default: edge,bridge]
    #[arg(long, value_enum, value_delimiter = ',')]
    role: Vec<Role>,
    /// Name of this node [default: made up]
    #[arg(long)]
    node: Option<String>,
    /// `text` or `json`; with json the first line on stdout says where it listens
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Logging level: error, warn, info, debug, trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl Serve {
    /// Serves until told to stop.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut config = self.sources.config()?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.grpc = self.grpc.unwrap_or(config.grpc);
        config.bus = self.bus.unwrap_or(config.bus);
        config.data_dir = self.data_dir.or(config.data_dir);
        config.node = self.node.or(config.node);
        if !self.role.is_empty() {
            config.roles = self.role;
        }
        config.telemetry.log_format = self.log_format.unwrap_or(config.telemetry.log_format);
        config.telemetry.log_level = self.log_level.unwrap_or(config.telemetry.log_level);
        let json = config.telemetry.log_format == LogFormat::Json;
        let runtime = runtime()?;
        let ended = runtime.block_on(app::serve(config, json));
        // At the end nothing is left to be waited for; a second signal is not held up by work of another thread.
        runtime.shutdown_background();
        ended
    }
}
