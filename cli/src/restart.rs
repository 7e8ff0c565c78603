//! `lateen restart --stale`: restarts the workloads whose pods would be other ones if they were created
//! today, one after the other.
//!
//! What may be taken down is decided in [`plan`]; the cluster is asked and changed in [`rollout`].

mod plan;
mod rollout;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use crate::cluster::{Connection, Live};
use crate::ps::{self, Row};
use rollout::Workload;

/// What `lateen restart` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    lateen restart --stale --dry-run       say what would be restarted, and why\n  \
    lateen restart --stale -n shop         the workloads of a namespace\n\n\
    Deployments, StatefulSets and DaemonSets are restarted as by kubectl rollout restart. Each is\n\
    waited for before the next begins; the first that fails ends it. A workload whose rollout\n\
    takes away more pods at once than a PodDisruptionBudget allows is waited for or left out.\n\
    Which pods these are: lateen ps --wrong.")]
pub(crate) struct Settings {
    /// Those whose pods have a stale sidecar, none where one is due, or one that is not
    #[arg(long, required = true)]
    stale: bool,
    /// Namespace; without it all of them
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Only say what would be restarted
    #[arg(long)]
    dry_run: bool,
    /// Longest wait for a disruption budget and for a rollout, each
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = lateen_api::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors
/// The cluster cannot be asked.
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    ensure!(settings.stale, "say which: --stale");
    let live = settings.connection.open().await?;
    let mut rows = ps::rows(&live, settings.namespace.as_deref(), None).await?;
    rows.retain(|row| row.audit.state.differs());
    let (workloads, others) = workloads(&live, &rows).await?;
    for (row, why) in &others {
        println!("not restarted: pod {}/{}: {why}", row.text("namespace"), row.text("name"));
    }
    if workloads.is_empty() {
        println!("no workload is to be restarted");
        return Ok(if others.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let mut complete = others.is_empty();
    let count = workloads.len();
    for (index, workload) in workloads.iter().enumerate() {
        println!("{}/{count} {workload}", index + 1);
        match rollout::restart(&live, workload, settings.timeout, settings.dry_run).await? {
            rollout::Outcome::Done(text) => println!("    {text}"),
            rollout::Outcome::LeftOut(why) => {
                println!("    not restarted: {why}");
                complete = false;
            }
            rollout::Outcome::Failed(why) => {
                println!("    failed: {why}");
                println!(
                    "the others are not restarted; look: kubectl describe {}/{} -n {}",
                    workload.kind.kind.to_lowercase(),
                    workload.name,
                    workload.namespace
                );
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The workloads of some pods, each once, and the pods that have none that can be restarted.
async fn workloads<'a>(
    live: &Live,
    rows: &'a [Row],
) -> anyhow::Result<(Vec<Workload>, Vec<(&'a Row, String)>)> {
    let (mut found, mut others) = (BTreeMap::<_, Workload>::new(), Vec::new());
    for row in rows {
        match rollout::workload_of(live, &row.pod).await? {
            Ok(mut workload) => {
                let key = (workload.namespace.clone(), workload.kind.kind, workload.name.clone());
                workload.states.insert(row.audit.state);
                let known = found.entry(key).or_insert(workload);
                known.states.insert(row.audit.state);
                known.pods += 1;
            }
            Err(why) => others.push((row, why)),
        }
    }
    Ok((found.into_values().collect(), others))
}
