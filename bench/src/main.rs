//! Measures the promises of `SPECIFICATION.md` on this machine and prints them beside what was
//! promised. Peers run in the same run, on the same machine, with the same configuration.

mod cni;
mod envoy;
mod figure;
mod hop;
mod lists;
mod process;
mod rules;
mod sandbox;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use figure::Report;

/// Measure what SPECIFICATION.md promises.
#[derive(Debug, Parser)]
#[command(name = "lateen-bench", version)]
struct Settings {
    /// Folder of the release binaries.
    #[arg(long)]
    bin: PathBuf,
    /// Only benchmarks whose name begins with this: cni, rules, injection, sidecar, http.
    #[arg(long, default_value = "")]
    only: String,
    /// A stock Envoy; without it the ratio to Envoy is not measured.
    #[arg(long, env = "LATEEN_ENVOY")]
    envoy: Option<PathBuf>,
    /// Requests for each measurement of a hop.
    #[arg(long, default_value_t = 40_000)]
    requests: u64,
    /// Write the figures as JSON.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Be the webhook that is measured, and say in this folder where.
    #[arg(long, hide = true)]
    webhook: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let mut settings = Settings::parse();
    if let Some(folder) = &settings.webhook {
        return webhook::serve_alone(folder);
    }
    settings.bin = settings.bin.canonicalize().context("--bin")?;
    if !sandbox::inside() {
        return sandbox::enter();
    }
    let mut report = Report::default();
    let wanted = |name: &str| name.starts_with(&settings.only);
    if wanted("cni") {
        report.add(cni::measure(&settings.bin));
    }
    if wanted("rules") {
        report.add(rules::measure(&settings.bin));
        report.add(lists::measure(&settings.bin));
    }
    if wanted("injection") {
        report.add(webhook::measure());
    }
    if wanted("sidecar") || wanted("http") {
        report.add(hop::measure(&settings.bin, settings.envoy.as_deref(), settings.requests));
    }
    println!("{}", report.table());
    if let Some(path) = &settings.report {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    Ok(if report.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
