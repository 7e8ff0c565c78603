//! `lateen`: the command line.

mod check_inject;
mod cluster;
mod demo;
mod explain;
mod inject;
mod lab;
mod output;
mod ps;
mod registry;
mod restart;
mod surroundings;
mod validate;

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
    /// What the mesh knows: services, ports, endpoints, and where each was defined
    Registry(registry::Settings),
    /// Run a mesh on this machine: pods of plain Kubernetes YAML, without Kubernetes
    #[command(subcommand)]
    Lab(lab::Command),
    /// Whether pods are injected, by which revision, why, and what that changes
    CheckInject(Box<check_inject::Settings>),
    /// The pods of a cluster, and whether each has the sidecar that it would get today
    Ps(ps::Settings),
    /// Restart the workloads whose pods would be other ones if they were created today
    Restart(restart::Settings),
    /// Why the mesh does what it does
    #[command(subcommand)]
    Explain(explain::Topic),
    /// Add sidecars to manifests, as the webhook would
    Inject(inject::Settings),
    /// Say what the mesh would refuse, before it reaches the mesh
    Validate(validate::Settings),
}

/// Exit status of wrong usage (`EX_USAGE` of sysexits).
const USAGE: u8 = 64;
/// The same for `inject`, whose callers know it from istioctl.
const INJECT_USAGE: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let result = match cli.command {
        Command::Demo(settings) => demo::run(settings).await,
        Command::Registry(settings) => registry::run(&settings),
        Command::Lab(command) => lab::run(command).await,
        Command::CheckInject(settings) => check_inject::run(&settings).await,
        Command::Ps(settings) => ps::run(&settings).await,
        Command::Restart(settings) => restart::run(&settings).await,
        Command::Explain(topic) => explain::run(topic).await,
        Command::Inject(settings) => inject::run(&settings),
        Command::Validate(settings) => validate::run(&settings),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Tells what is wrong with the arguments; help and version are no mistakes.
fn refuse(error: &clap::Error) -> ExitCode {
    // Where nobody reads there is nobody to tell.
    drop(error.print());
    let inject = std::env::args_os().nth(1).is_some_and(|command| command == "inject");
    match (error.use_stderr(), inject) {
        (false, _) => ExitCode::SUCCESS,
        (true, true) => ExitCode::from(INJECT_USAGE),
        (true, false) => ExitCode::from(USAGE),
    }
}
