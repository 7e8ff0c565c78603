//! `lateen`: the command line.

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Lateen, a service mesh: run one on this machine, look at it, prove what it does.
#[derive(Debug, Parser)]
#[command(name = "lateen", version, after_help = "Start with: lateen demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a sample shop as a mesh and prove each claim from outside
    Demo(demo::Settings),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(settings) => demo::run(settings).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
