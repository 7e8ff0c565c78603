//! `lateen-cni-node`: the node agent as a process. Ends with status 0 on SIGTERM.

use std::process::ExitCode;

use clap::Parser;
use lateen_cni::node::run;
use lateen_cni::settings::AgentSettings;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    // The client's own warnings are raw answers of the API server; we say what they mean.
    let spoken = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_targets([("kube_runtime", LevelFilter::ERROR), ("kube_client", LevelFilter::ERROR)]);
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    log.finish().with(spoken).init();
    match run(&AgentSettings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}
