//! The realtime gateway, and the tools around it: flags in, exit code out. Composition only.

mod app;
mod cli;
mod config;
mod console;
mod demo;
mod drain;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // Where the reader of our output has gone (`trestle routes | head`), there is nothing left to say.
    match cli::run(cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("trestle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
