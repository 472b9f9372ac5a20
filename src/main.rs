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

/// Messages are made on one thread and freed on another, and what many clients held is given back when they have left.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            output::remark(format!("trestle: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
