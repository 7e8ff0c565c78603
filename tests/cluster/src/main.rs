//! `lateen-cluster`: clusters for tests, by hand.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use lateen_cluster::cluster::{self, Cluster};
use lateen_cluster::settings::{Cli, Verb};
use lateen_cluster::{ClusterError, e2e};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match begin(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lateen-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What must happen while there is one thread, then all else.
fn begin(cli: Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Verb::Enter { folder } => {
            cluster::enter(folder)?;
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Node { folder, node } => cluster::enter_node(folder, *node)?,
        _ => {}
    }
    let failed = |error| ClusterError::Other(format!("starting threads: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(failed)?.block_on(run(cli))
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let dir = &cli.dir;
    match cli.command {
        Verb::Up { name, nodes } => up(dir, &name, nodes).await?,
        Verb::Down { name } => Cluster::find(dir, &name)?.down().await?,
        Verb::Ls => list(dir),
        Verb::Kubectl { name, arguments } => {
            let kubectl = Cluster::find(dir, &name)?.kubectl().await?;
            return Ok(status(kubectl.command(arguments)).await?);
        }
        Verb::Exec { name, node, command } => {
            let Some((program, arguments)) = command.split_first() else {
                return Ok(ExitCode::SUCCESS);
            };
            let mut command = Cluster::find(dir, &name)?.exec(node, program)?;
            command.args(arguments);
            return Ok(status(command).await?);
        }
        Verb::Load { name, archives } => Cluster::find(dir, &name)?.load(&archives).await?,
        Verb::Kill { name, component } => Cluster::find(dir, &name)?.kill(&component).await?,
        Verb::E2e(settings) => return e2e::run(&settings).await,
        Verb::Hold { folder } => cluster::hold(&folder).await?,
        Verb::Node { folder, node } => cluster::run_node(&folder, node).await?,
        Verb::Enter { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C ends what was begun.
async fn up(dir: &Path, name: &str, nodes: u8) -> Result<(), ClusterError> {
    tokio::select! {
        cluster = Cluster::up(dir, name, nodes) => {
            let cluster = cluster?;
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
            Ok(())
        }
        _ = tokio::signal::ctrl_c() => {
            if let Ok(cluster) = Cluster::find(dir, name) {
                cluster.down().await?;
            }
            Err(ClusterError::Other("interrupted".to_owned()))
        }
    }
}

fn list(dir: &Path) {
    for cluster in Cluster::all(dir) {
        let state = if cluster.is_up() { "up" } else { "down" };
        let nodes = cluster.plan().nodes;
        println!(
            "{}\t{state}\t{nodes} node(s)\t{}",
            cluster.name(),
            cluster.kubeconfig().display()
        );
    }
}

/// Runs a command and ends as it does.
async fn status(mut command: tokio::process::Command) -> Result<ExitCode, ClusterError> {
    let program = command.as_std().get_program().display().to_string();
    let status = command.status().await;
    let status = status.map_err(|source| ClusterError::Start { program, source })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
