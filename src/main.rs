//! The realtime gateway, and the tools around it: flags in, exit code out. Composition only.

mod app;
mod cli;
mod cluster;
mod config;
mod console;
mod demo;
mod drain;
mod http_api;
mod output;
mod server;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            output::remark(format!("trestle: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
