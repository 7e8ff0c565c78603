//! `cargo xtask`: chores of the repository. `cargo xtask tidy` checks the rules of the house
//! that neither the compiler nor clippy knows; `cargo xtask programs` builds what ships,
//! `cargo xtask images` container images of it, `cargo xtask crds` the resource definitions of the chart;
//! `cargo xtask fuzz` feeds every parser with anything.

mod arrows;
mod budgets;
mod settings;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use xtask::{crds, fuzz, images};

use crate::settings::{Cli, Command, FuzzArgs, ImagesArgs};

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().context("the checkout this was built in is not there")?;
    match Cli::parse().command {
        Command::Tidy => tidy::run(&root),
        Command::Programs(args) => {
            println!("{}", args.statics(&root).install()?.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Images(args) => make_images(args, &root),
        Command::Crds => {
            println!("{} definitions written", crds::write(&root)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Fuzz(args) => feed(args, &root),
    }
}

fn feed(args: FuzzArgs, root: &Path) -> anyhow::Result<ExitCode> {
    let passed = fuzz::run(&args.request(root), |outcome| {
        let state = if outcome.passed { "ok" } else { "FAILED" };
        println!(
            "{:<14} {:>10} inputs  {state}  {}",
            outcome.name,
            outcome.inputs,
            outcome.log.display()
        );
    })?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn make_images(args: ImagesArgs, root: &Path) -> anyhow::Result<ExitCode> {
    let built = images::build(&args.request(root))?;
    println!("{}", images::table(&built));
    Ok(ExitCode::SUCCESS)
}
