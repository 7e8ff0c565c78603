//! `lateen demo`: brings up the sample shop as a mesh on this machine and proves, claim by claim
//! and from outside, that it is one.

mod control_plane;
mod joining;
mod security;
mod stage;
mod traffic;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use lateen_cli::claims::{Claim, Report};
use stage::Stage;

/// The shop's manifests: they know nothing of a mesh.
const SHOP: &str = include_str!("../../samples/shop/shop.yaml");
/// What the shop asks of the mesh.
const MESH: &str = include_str!("../../samples/shop/mesh.yaml");
/// Access log on, names captured, and certificates so short-lived that renewal can be watched.
const MESH_CONFIG: &str = "accessLogFile: /dev/stdout
defaultConfig:
  proxyMetadata:
    ISTIO_META_DNS_CAPTURE: \"true\"
    SECRET_TTL: 12s
";

/// What `lateen demo` takes.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Write the claims as JSON to this file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leave the mesh running and say how to look around.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; the exit status is 0 only when every claim holds.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut report = Report::default();
    let name = format!("demo-{}", std::process::id());
    say(&format!("bringing up the shop (lab {name}) ..."));
    let files = write_manifests()?;
    let path = |file: &str| files.path().join(file).to_string_lossy().into_owned();
    let (shop, mesh, config) = (path("shop.yaml"), path("mesh.yaml"), path("mesh-config.yaml"));
    let arguments = ["-f", &shop, "-f", &mesh, "--mesh-config", &config];
    let up = Stage::up(&name, &arguments);
    let interrupted = tokio::signal::ctrl_c();
    tokio::select! {
        stage = up => {
            let stage = stage?;
            say(&format!("up after {:.1} s; looking ...", started.elapsed().as_secs_f64()));
            let done = tokio::select! {
                () = look(&stage, &mut report) => true,
                _ = tokio::signal::ctrl_c() => false,
            };
            end(&stage, settings.keep && done).await?;
        }
        _ = interrupted => anyhow::bail!("interrupted; run: lateen lab down --name {name}"),
    }
    report.seconds = started.elapsed().as_secs_f64();
    println!("{}", report.table());
    let held = report.claims.iter().filter(|claim| claim.ok).count();
    println!("{held} of {} claims hold, {:.1} s", report.claims.len(), report.seconds);
    if let Some(path) = &settings.report {
        report.write(path)?;
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All claims, in order.
async fn look(stage: &Stage, report: &mut Report) {
    macro_rules! claim {
        ($id:literal, $text:literal, $look:expr) => {
            say(concat!("  ", $text, " ..."));
            report.claims.push(Claim::from_look($id, $text, $look.await));
        };
    }
    claim!(
        "injected",
        "unedited pods of the shop got a sidecar, others not",
        joining::injected(stage)
    );
    claim!("rules", "redirect rules stand in every meshed pod", joining::rules(stage));
    claim!("encrypted", "packets between pods are TLS", security::encrypted(stage));
    claim!("identity", "the server learns the client's SPIFFE ID", security::identity(stage));
    claim!("protocols", "HTTP/2, gRPC, WebSocket and TCP pass", traffic::protocols(stage));
    claim!("split", "80/20 split of 1,000 requests", traffic::split(stage));
    claim!("header", "a header chooses the version", traffic::header(stage));
    claim!("denied", "a denied path gets 403", security::denied(stage));
    claim!("principal", "only the named principal reaches the ledger", security::principal(stage));
    claim!("stranger", "a pod outside the mesh is refused (STRICT)", security::stranger(stage));
    claim!("metrics", "metrics agree with what was sent", traffic::agree(stage));
    claim!("live-change", "an edited VirtualService takes effect", traffic::live_change(stage));
    claim!("rotation", "certificates rotate under load", control_plane::rotation(stage));
    claim!("outage", "the control plane may be away", control_plane::outage(stage));
}

async fn end(stage: &Stage, keep: bool) -> anyhow::Result<()> {
    if !keep {
        return stage.down().await;
    }
    let name = stage.name();
    println!(
        "The mesh is still up. Look around:\n\
         \x20 lateen lab ls --name {name}\n\
         \x20 lateen lab exec --name {name} -n shop {front} -- lateen-echo get http://catalog/\n\
         \x20 lateen lab logs --name {name} -n shop {front} -c istio-proxy\n\
         \x20 lateen lab down --name {name}",
        front = stage.pod("front")?.name,
    );
    Ok(())
}

fn write_manifests() -> anyhow::Result<tempfile::TempDir> {
    let files = tempfile::tempdir()?;
    let texts = [("shop.yaml", SHOP), ("mesh.yaml", MESH), ("mesh-config.yaml", MESH_CONFIG)];
    for (name, text) in texts {
        std::fs::write(files.path().join(name), text)?;
    }
    Ok(files)
}

/// Progress goes to standard error, so that standard output is the result.
fn say(text: &str) {
    let mut error = std::io::stderr().lock();
    // Nobody reads progress: nothing to do about it.
    drop(writeln!(error, "{text}"));
}
