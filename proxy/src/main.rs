//! The binary: reads the command line, sets up logs, and runs what was asked for.

use anyhow::{Context, bail};
use clap::Parser;
use lateen_proxy::app;
use lateen_proxy::ask;
use lateen_proxy::bootstrap;
use lateen_proxy::settings::{Cli, Command, ProxyArgs, Settings, environment};
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::filter::LevelFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match (cli.bootstrap, cli.command) {
        (Some(path), _) => fixed(&path),
        (None, Some(Command::Proxy(args))) => proxy(&args),
        (None, Some(Command::Request(args))) => ask::request(&args).map_err(Into::into),
        (None, Some(Command::Wait(args))) => ask::wait(&args).map_err(Into::into),
        (None, None) => Ok(()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last words of the process")]
            {
                eprintln!("lateen-proxy: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Logs go to stderr.
fn log(level: LevelFilter) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn fixed(path: &Path) -> anyhow::Result<()> {
    log(LevelFilter::INFO);
    let bootstrap = bootstrap::read(path)?;
    app::run_fixed(Settings::fixed(cores()).context("settings")?, bootstrap)?;
    Ok(())
}

fn proxy(args: &ProxyArgs) -> anyhow::Result<()> {
    log(level(args)?);
    let cores = cores();
    let settings = Settings::new(args, &environment(), cores).context("settings")?;
    app::run(settings)?;
    Ok(())
}

/// The level of `--log_output_level=default:info,...`.
fn level(args: &ProxyArgs) -> anyhow::Result<LevelFilter> {
    let scopes = args.log_output_level.split(',').filter(|scope| !scope.is_empty());
    let mut found = LevelFilter::INFO;
    for scope in scopes {
        let (name, level) = scope.split_once(':').unwrap_or(("default", scope));
        let level = match level.trim() {
            "none" => LevelFilter::OFF,
            "fatal" | "error" => LevelFilter::ERROR,
            "warn" | "warning" => LevelFilter::WARN,
            "info" => LevelFilter::INFO,
            "debug" => LevelFilter::DEBUG,
            other => bail!("--log_output_level: `{other}` is not a level"),
        };
        if matches!(name.trim(), "default" | "all") {
            found = level;
        }
    }
    Ok(found)
}
