//! `lateen-cni-node`: the node agent as a process. Ends with status 0 on SIGTERM.

use std::process::ExitCode;

use clap::Parser;
use lateen_cni::node::run;
use lateen_cni::settings::AgentSettings;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match run(&AgentSettings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
            ExitCode::FAILURE
        }
    }
}
