//! The command line: one file per command.

mod api;
mod check;
mod client;
mod nodes;
mod push;
mod serve;
mod sessions;
mod target;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{self, Config},
    output,
};

/// Realtime gateway between WebSocket clients and gRPC services.
#[derive(Parser)]
#[command(version, arg_required_else_help = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default command). Without --schemas: the demo, with example schemas and services.
    Serve(serve::Serve),
    /// Say everything that is wrong with a schema set and a configuration; exit code 1 if anything is.
    Check(check::Check),
    /// Print the routing table: type, version, service, transport, destination, ack.
    Routes(check::Routes),
    /// The configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the table of errors (docs/errors.md).
    Errors,
    /// Listen to channels and print what comes, a JSON frame a line.
    Sub(client::Sub),
    /// Send a message to its service, or publish it with --channel; print the answer.
    Send(client::Send),
    /// Send a message to its service and print the reply.
    Request(client::Request),
    /// Push a message to clients, as a service would, by HTTP.
    Push(push::Push),
    /// List the nodes that live.
    Nodes(nodes::Nodes),
    /// List sessions of all nodes: state, user, node, queue, channels, groups, tags.
    Sessions(sessions::Sessions),
    /// List who is on a channel.
    Presence(sessions::Presence),
    /// Put sessions into groups, take them out, and set their tags.
    Update(sessions::Update),
    /// End sessions for good: their connections are closed and cannot be resumed.
    Kick(sessions::Kick),
    /// Make a node leave in order, as SIGTERM does.
    Drain(nodes::Drain),
    /// Ask clients of nodes that have more than their share to connect again.
    Rebalance(nodes::Rebalance),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print the default configuration, every key with its comment.
    Print,
}

/// Where schemas and configuration are, for several commands.
#[derive(Args, Default)]
struct Sources {
    /// Folder of .proto files or a descriptor set [default: the demo's]
    #[arg(long, value_name = "DIR|FILE")]
    schemas: Option<PathBuf>,
    /// Configuration file (`trestle config print` shows all keys)
    #[arg(long, value_name = "FILE", env = "TRESTLE_CONFIG")]
    config: Option<PathBuf>,
}

impl Sources {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::read(self.config.as_deref())?;
        if self.schemas.is_some() {
            config.schemas.clone_from(&self.schemas);
        }
        Ok(config)
    }
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command.unwrap_or_else(|| Command::Serve(serve::Serve::default())) {
        Command::Serve(serve) => serve.run()?,
        Command::Check(check) => return check.run(),
        Command::Routes(routes) => routes.run()?,
        Command::Config(ConfigCommand::Print) => page(&config::commented())?,
        Command::Errors => page(&trestle_wire::refusal::markdown())?,
        Command::Sub(sub) => return runtime()?.block_on(sub.run()),
        Command::Send(send) => return runtime()?.block_on(send.run()),
        Command::Request(request) => return runtime()?.block_on(request.run()),
        Command::Push(push) => return runtime()?.block_on(push.run()),
        Command::Nodes(nodes) => return runtime()?.block_on(nodes.run()),
        Command::Sessions(sessions) => return runtime()?.block_on(sessions.run()),
        Command::Presence(presence) => return runtime()?.block_on(presence.run()),
        Command::Update(update) => return runtime()?.block_on(update.run()),
        Command::Kick(kick) => return runtime()?.block_on(kick.run()),
        Command::Drain(drain) => return runtime()?.block_on(drain.run()),
        Command::Rebalance(rebalance) => return runtime()?.block_on(rebalance.run()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a whole page; a reader that has seen enough is no fault.
fn page(text: &str) -> anyhow::Result<()> {
    let _reader = output::print(text.trim_end())?;
    Ok(())
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
