//! The proof of the product: Lateen, installed from its charts into a real Kubernetes, makes a
//! mesh of Istio's bookinfo as it is published.
//!
//! Everything is done as a user does it, with kubectl and helm, and looked at from outside.

mod endurance;
mod install;
mod joining;
mod redirection;
mod refusals;
mod security;
mod speed;
mod stage;
mod traffic;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use lateen_cli::claims::{Claim, Figure, Report};

use crate::progress::say;
use speed::Unmeshed;
use stage::Stage;

/// What is asked of a run.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Settings {
    /// Write the claims as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Leave cluster and mesh running and say how to look around
    #[arg(long)]
    pub keep: bool,
    /// Cargo profile of the images
    #[arg(long, default_value = "release", value_name = "NAME")]
    pub profile: String,
    /// Folder of static programs that were built already, for the images
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    /// A cluster that exists (kind, k3s, a cloud) instead of one made here; images must be there
    #[arg(long, env = "E2E_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Folder with `samples/bookinfo` as Istio publishes it
    #[arg(long, env = "LATEEN_CONFORMANCE", value_name = "DIR")]
    pub samples: PathBuf,
}

/// Runs everything; the exit status is 0 only when every claim holds.
///
/// # Errors
/// When there is no cluster, or no mesh in it to look at.
pub async fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut report = Report::default();
    let stage = Stage::up(settings).await?;
    let done = tokio::select! {
        looked = look(&stage, &mut report) => looked,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(error) = &done {
        say(&format!("{error:#}"));
        stage.tell().await;
    }
    report.seconds = started.elapsed().as_secs_f64();
    println!("{}", report.table());
    let held = report.claims.iter().filter(|claim| claim.ok).count();
    println!("{held} of {} claims hold, {:.0} s", report.claims.len(), report.seconds);
    if let Some(path) = &settings.report {
        report.write(path)?;
    }
    stage.down(settings.keep).await?;
    done?;
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks, tells what was seen, and how long it took.
macro_rules! claim {
    ($stage:ident, $report:ident, $id:literal, $text:literal, $look:expr) => {
        say(concat!("  ", $text, " ..."));
        let since = Instant::now();
        $report.claims.push(Claim::from_look($id, $text, $look($stage).await));
        say(&format!("    {:.0} s", since.elapsed().as_secs_f64()));
        tell($report, $stage).await;
    };
}

/// All claims, in order. What ends the looking is that there is nothing to look at.
async fn look(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let (unmeshed, before) = prepare(stage).await?;
    join(stage, report).await;
    // Before anything is taken away: what waits for it would be counted too.
    measure(stage, &unmeshed, &mut report.figures).await?;
    endure(stage, report).await;
    if stage.is_own() {
        suffer(stage, report).await;
    }
    claim!(stage, report, "upgrade", "a second upgrade changes nothing", install::upgrade);
    let uninstall = |stage| install::uninstall(stage, &before);
    claim!(stage, report, "uninstall", "the cluster is as before", uninstall);
    Ok(())
}

/// What a mesh is for.
async fn join(stage: &Stage, report: &mut Report) {
    claim!(
        stage,
        report,
        "two-containers",
        "unedited pods of bookinfo run with two containers",
        joining::containers
    );
    claim!(
        stage,
        report,
        "versions",
        "productpage reaches reviews v1, v2 and v3",
        traffic::versions
    );
    claim!(stage, report, "encrypted", "packets between pods are TLS", security::encrypted);
    claim!(
        stage,
        report,
        "identity",
        "the server learns the client's SPIFFE ID",
        security::identity
    );
    claim!(stage, report, "all-v1", "the sample VirtualService sends all to v1", traffic::all_v1);
    claim!(stage, report, "by-header", "then the user jason to v2", traffic::by_header);
    claim!(stage, report, "denied", "an AuthorizationPolicy denies", security::denied);
    claim!(
        stage,
        report,
        "stranger",
        "a pod outside the mesh is refused (STRICT)",
        security::stranger
    );
    claim!(
        stage,
        report,
        "job",
        "a Job asks from an init container, then ends, its sidecar with it",
        joining::job
    );
    claim!(
        stage,
        report,
        "library",
        "a gRPC library finds bootstrap, certificates and socket of the agent",
        joining::library
    );
    claim!(
        stage,
        report,
        "annotation",
        "a pod with an invalid annotation is refused, and kubectl says why",
        refusals::annotation
    );
}

/// What must hold while parts are missing.
async fn endure(stage: &Stage, report: &mut Report) {
    claim!(
        stage,
        report,
        "rolling",
        "a rolling restart under load loses no request",
        endurance::rolling
    );
    claim!(
        stage,
        report,
        "churn",
        "no pod is uncaptured while the node agent restarts",
        endurance::agent_churn
    );
    claim!(
        stage,
        report,
        "bare-pods",
        "pods outside the mesh start while the node agent is dead; meshed ones wait",
        endurance::agent_dead
    );
    claim!(
        stage,
        report,
        "control-plane",
        "the control plane is deleted and comes back under load",
        endurance::control_plane
    );
    claim!(
        stage,
        report,
        "webhook-down",
        "with the webhook down pods are refused",
        refusals::webhook_down
    );
    claim!(
        stage,
        report,
        "fallback",
        "with the fallback they are injected all the same",
        refusals::fallback
    );
}

/// What only a cluster that was made for it may suffer.
async fn suffer(stage: &Stage, report: &mut Report) {
    claim!(
        stage,
        report,
        "tampered",
        "rules that somebody deletes come back",
        redirection::tampered
    );
    claim!(
        stage,
        report,
        "rewritten",
        "rules are written again and again under load",
        redirection::rewritten
    );
    claim!(
        stage,
        report,
        "api-server",
        "the API server restarts under load",
        endurance::api_server
    );
}

/// What the mesh costs.
async fn measure(
    stage: &Stage,
    unmeshed: &Unmeshed,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    figures.push(speed::start(stage, unmeshed).await?);
    figures.push(speed::webhook(stage).await?);
    if stage.is_own() {
        figures.push(speed::network(stage).await?);
    }
    figures.push(speed::memory(stage).await?);
    Ok(())
}

/// Looks at the cluster without a mesh, then brings the mesh and bookinfo in.
async fn prepare(stage: &Stage) -> anyhow::Result<(Unmeshed, BTreeSet<String>)> {
    let unmeshed = speed::unmeshed(stage).await?;
    let before = stage.inventory().await?;
    install::install(stage).await?;
    install::bookinfo(stage).await?;
    Ok((unmeshed, before))
}

/// Says at once what did not hold, while the cluster can still be asked about it.
async fn tell(report: &Report, stage: &Stage) {
    let Some(claim) = report.claims.last().filter(|claim| !claim.ok) else { return };
    say(&format!("  FAIL {}: {}", claim.id, claim.measured));
    stage.tell().await;
}
