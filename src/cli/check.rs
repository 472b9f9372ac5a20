//! `trestle check` and `trestle routes`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use trestle_schema::{Catalogue, route};
use trestle_wire::{Subjects, v1};

use super::{Sources, page};
use crate::{app::schema_source, output};

/// Flags of `trestle check`.
#[derive(Args)]
pub(crate) struct Check {
    /// Folder of .proto files or a descriptor set [default: the configuration's, else the demo's]
    #[arg(value_name = "DIR|FILE")]
    schemas: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE", env = "TRESTLE_CONFIG")]
    config: Option<PathBuf>,
}

impl Check {
    /// Prints everything that is wrong.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let sources = Sources { schemas: self.schemas, config: self.config };
        let mut faults = Vec::new();
        // A configuration that cannot be read is no reason to keep quiet about the schemas.
        let config = sources.config().unwrap_or_else(|error| {
            faults.push(format!("{error:#}"));
            let schemas = sources.schemas.clone();
            crate::config::Config { schemas, ..crate::config::Config::default() }
        });
        faults.extend(config.faults());
        let loaded = schema_source(&config).map(|source| Catalogue::load(&source));
        match loaded {
            Ok(Ok(catalogue)) if faults.is_empty() => {
                let types = catalogue.types().count();
                let routed = catalogue.types().filter(|kind| kind.route().is_some()).count();
                page(&format!("ok: {types} message types, {routed} with a route"))?;
                return Ok(ExitCode::SUCCESS);
            }
            Ok(Ok(_)) => {}
            Ok(Err(wrong)) => faults.extend(wrong.iter().map(ToString::to_string)),
            Err(error) => faults.push(format!("{error:#}")),
        }
        let count = format!("{} fault{}", faults.len(), if faults.len() == 1 { "" } else { "s" });
        page(&format!("{}\n{count}", faults.join("\n")))?;
        Ok(ExitCode::FAILURE)
    }
}

/// Flags of `trestle routes`.
#[derive(Args)]
pub(crate) struct Routes {
    #[command(flatten)]
    sources: Sources,
}

impl Routes {
    /// Prints the routing table.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = self.sources.config()?;
        let catalogue = Catalogue::load(&schema_source(&config)?)?;
        let head = ["TYPE", "ALIAS", "VERSION", "SERVICE", "TRANSPORT", "DESTINATION", "ACK"];
        let routes = route::table(&catalogue, &Subjects::new(&config.subject_prefix));
        page(&output::table(head, routes.iter().map(row)))
    }
}

fn row(entry: &v1::RouteEntry) -> [String; 7] {
    [
        entry.message_type.clone(),
        entry.alias.clone(),
        entry.version.clone(),
        entry.service.clone(),
        entry.transport().as_str_name().to_lowercase(),
        entry.destination.clone(),
        entry.ack().as_str_name().to_owned(),
    ]
}
