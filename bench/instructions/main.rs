//! Counts instructions of fixed work, which are the same on any day, and compares them with those that are kept.
//!
//! ```text
//! cargo run --profile instructions -p trestle-bench --example instructions -- [WORK... | --update]
//! ```
//! The exit code is 1 if a count is further from the kept one than it may be, in whichever direction.

mod callgrind;
mod client;
mod codec;
mod edge;
mod fanout;
mod kept;
mod node;
mod sample;
mod session;
mod work;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;

use kept::{Kept, UPDATE};
use work::{WORKS, Work};

#[derive(Parser)]
#[command(about = "Counts instructions of fixed work")]
struct Arguments {
    /// What to count. Default: everything.
    works: Vec<String>,
    /// Counts everything, and keeps it in bench/instructions.toml.
    #[arg(long, conflicts_with = "works")]
    update: bool,
    /// Does the one work so often, and counts nothing; valgrind starts this program with it.
    #[arg(long, hide = true, requires = "works")]
    times: Option<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let works = chosen(&arguments.works)?;
    if let Some(times) = arguments.times {
        works.iter().try_for_each(|work| (work.run)(times))?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(cfg!(target_arch = "x86_64"), "the counts are of x86-64; on another processor they say nothing");
    let (mut kept, rustc) = (Kept::read()?, kept::rustc()?);
    println!("{:<18} {:>12} {:>12} {:>8}  unit", "work", "instructions", "kept", "");
    let counted = works.iter().map(|work| callgrind::count(work).inspect(|counted| print(work, *counted, &kept)));
    let counted = counted.collect::<anyhow::Result<Vec<_>>>()?;
    let counted: Vec<_> = works.iter().map(|work| work.name).zip(counted).collect();
    if arguments.update {
        kept.update(rustc, &counted);
        kept.write()?;
        return Ok(ExitCode::SUCCESS);
    }
    if rustc != kept.rustc {
        // Another compiler makes other instructions of the same work.
        eprintln!(
            "not compared: the kept counts are of rustc {}, and this is {rustc}; keep these:\n  {UPDATE}",
            kept.rustc
        );
        return Ok(ExitCode::SUCCESS);
    }
    let forbidden = counted.iter().filter(|(name, counted)| kept.forbids(name, *counted)).count();
    if forbidden == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{forbidden} counts are not the kept ones; if that is meant, keep them:\n  {UPDATE}");
    Ok(ExitCode::FAILURE)
}

/// The works of these names, or all.
fn chosen(names: &[String]) -> anyhow::Result<Vec<&'static Work>> {
    if names.is_empty() {
        return Ok(WORKS.iter().collect());
    }
    let find = |name: &String| {
        let known = || WORKS.iter().map(|work| work.name).collect::<Vec<_>>().join(", ");
        WORKS.iter().find(|work| work.name == name).with_context(|| format!("no work {name:?}; there are: {}", known()))
    };
    names.iter().map(find).collect()
}

/// Prints a line.
fn print(work: &Work, counted: u64, kept: &Kept) {
    let was = kept.works.get(work.name);
    let (was, off) = was.map_or(("none".to_owned(), String::new()), |was| {
        (was.instructions.to_string(), format!("{:+.1} %", was.off(counted)))
    });
    let mark = if kept.forbids(work.name, counted) { "  <-- too far off" } else { "" };
    println!("{:<18} {counted:>12} {was:>12} {off:>8}  {}{mark}", work.name, work.unit);
}
