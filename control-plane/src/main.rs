//! `lateend`: the control plane of a Lateen mesh.

use std::io::IsTerminal as _;

use anyhow::Context;
use clap::Parser;
use lateen_control_plane::app::App;
use lateen_control_plane::settings::Settings;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    tracing_subscriber::fmt()
        .with_max_level(settings.log_level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(run(&settings))
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be awaited")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be awaited")?;
    let mut signalled = std::pin::pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    // What is waited for at the start may never come.
    let app = tokio::select! {
        app = App::start(settings) => app?,
        () = &mut signalled => return Ok(()),
    };
    tracing::info!(addresses = ?app.addresses(), "lateend serves");
    signalled.await;
    tracing::info!("lateend ends");
    app.shutdown().await;
    Ok(())
}
