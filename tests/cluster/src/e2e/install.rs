//! Images, charts and bookinfo: what a user brings into a cluster, and takes out again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use xtask::apps::{self, Parts};
use xtask::images::{self, Request};
use xtask::statics::Statics;

use super::Settings;
use super::stage::{BOOKINFO, LIMIT, SYSTEM, Stage, until};
use crate::binaries;
use crate::progress::say;
use crate::settings::{cargo_home, cargo_target, root};

const AROUND: &str = include_str!("../../manifests/around.yaml");
const JOB: &str = include_str!("../../manifests/job.yaml");
const HUB: &str = "lateen.test/e2e";
/// Charts in the order in which they are installed: release and folder.
pub(super) const CHARTS: [(&str, &str); 3] =
    [("base", "base"), ("cni", "cni"), ("lateend", "lateend")];

/// Archives of images, ours and those of the applications.
#[derive(Debug)]
pub(super) struct Images {
    archives: Vec<PathBuf>,
    tag: String,
}

impl Images {
    /// Builds all images.
    pub(super) async fn build(settings: &Settings, samples: &Path) -> anyhow::Result<Self> {
        say("building images ...");
        let Settings { profile, programs, .. } = settings.clone();
        let bookinfo = samples.join("bookinfo/platform/kube/bookinfo.yaml");
        let bookinfo =
            std::fs::read_to_string(&bookinfo).with_context(|| bookinfo.display().to_string())?;
        tokio::task::spawn_blocking(move || {
            let statics =
                Statics { root: root(), target: cargo_target(), cargo_home: cargo_home(), profile };
            let out = cargo_target().join("e2e-images");
            std::fs::create_dir_all(&out)?;
            let (hub, tag) = (HUB.to_owned(), format!("e2e-{}", env!("CARGO_PKG_VERSION")));
            let all = [&images::BINARIES[..], &["lateen-echo"]].concat();
            let programs = programs.map_or_else(|| statics.build(&all), Ok)?;
            let request = Request { statics, out: out.clone(), hub, tag: tag.clone(), epoch: 0 };
            let built = images::assemble(&request, &programs)?;
            let parts = Parts {
                etc: root().join("images/etc"),
                programs,
                busybox: binaries::machine("busybox")?,
                epoch: 0,
            };
            let samples = out.join("samples.tar");
            apps::write(&parts, &[&bookinfo, AROUND], &samples)?;
            let mut archives: Vec<_> = built.into_iter().map(|built| built.archive).collect();
            archives.push(samples);
            Ok(Self { archives, tag })
        })
        .await?
    }

    /// The archives.
    pub(super) fn archives(&self) -> Vec<PathBuf> {
        self.archives.clone()
    }
}

/// Runs helm and gives what it prints.
pub(super) async fn helm(stage: &Stage, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(&stage.helm);
    command.args(arguments).arg("--kubeconfig").arg(stage.kubectl.kubeconfig());
    let output = command.kill_on_drop(true).output().await.context("helm")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm {}: {}", arguments.join(" "), error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Installs or upgrades a chart with the images of this run.
pub(super) async fn chart(
    stage: &Stage,
    (release, folder): (&str, &str),
    more: &[&str],
) -> anyhow::Result<()> {
    let path = root().join("charts").join(folder);
    let path = path.to_string_lossy();
    let (hub, tag) = (format!("global.hub={HUB}"), format!("global.tag={}", stage.images.tag));
    let wait = format!("{}s", LIMIT.as_secs());
    let fixed = [
        "upgrade",
        "--install",
        release,
        &path,
        "-n",
        SYSTEM,
        "--create-namespace",
        "--set",
        &hub,
        "--set-string",
        &tag,
        "--wait",
        "--timeout",
        &wait,
    ];
    // By default the definitions outlive the chart, as Istio's do; here nothing is to be left over.
    let all: &[&str] = if folder == "base" { &["--set", "base.keepCRDs=false"] } else { &[] };
    helm(stage, &[&fixed[..], all, more].concat()).await.map(drop)
}

/// Installs the mesh.
pub(super) async fn install(stage: &Stage) -> anyhow::Result<()> {
    for it in CHARTS {
        say(&format!("helm install {} ...", it.0));
        chart(stage, it, &[]).await?;
    }
    Ok(())
}

/// Brings bookinfo into a namespace that is labelled, and nothing else.
pub(super) async fn bookinfo(stage: &Stage) -> anyhow::Result<()> {
    say("applying bookinfo ...");
    stage.kubectl.run(["create", "namespace", BOOKINFO]).await?;
    stage.kubectl.run(["label", "namespace", BOOKINFO, "istio-injection=enabled"]).await?;
    stage.sample("bookinfo/platform/kube/bookinfo.yaml").await?;
    stage.kubectl.apply(AROUND).await?;
    stage.rolled_out(BOOKINFO).await?;
    stage.rolled_out("outside").await?;
    stage.sample("bookinfo/networking/destination-rule-all.yaml").await
}

/// The Job of this proof.
pub(super) fn job() -> &'static str {
    JOB
}

/// A second upgrade and a re-application of what the charts say change no object.
pub(super) async fn upgrade(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let ours =
        ["mutatingwebhookconfigurations", "deployments", "daemonsets", "configmaps", "services"];
    let ours = ours.join(",");
    let generations = async || {
        let list = stage.kubectl.json(&["get", &ours, "-n", SYSTEM]).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let of = |item: &serde_json::Value| {
            let meta = &item["metadata"];
            let at = if meta["generation"].is_null() { "resourceVersion" } else { "generation" };
            format!("{}/{} {}", item["kind"], meta["name"], meta[at])
        };
        anyhow::Ok(items.iter().map(of).collect::<BTreeSet<_>>())
    };
    let before = generations().await?;
    for it in CHARTS {
        chart(stage, it, &[]).await?;
    }
    let after = generations().await?;
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    Ok((changed.is_empty(), format!("{} objects, changed: {changed:?}", after.len())))
}

/// Takes everything out; the objects that are left over are those of before.
pub(super) async fn uninstall(
    stage: &Stage,
    before: &BTreeSet<String>,
) -> anyhow::Result<(bool, String)> {
    let delete = ["delete", "namespace", BOOKINFO, "outside", "wiretap", "--wait"];
    stage.kubectl.run(delete).await?;
    for (release, _) in CHARTS.iter().rev() {
        helm(stage, &["uninstall", release, "-n", SYSTEM, "--wait"]).await?;
    }
    // What stays on purpose, until its owner says so.
    let definitions = "app.kubernetes.io/part-of=istio";
    stage.kubectl.run(["delete", "customresourcedefinitions", "-l", definitions]).await?;
    stage.kubectl.run(["delete", "namespace", SYSTEM, "--wait"]).await?;
    let mut over = Vec::new();
    let clean = until("nothing is left over", Duration::from_secs(60), async || {
        over = stage.inventory().await?.difference(before).cloned().collect();
        Ok(over.is_empty().then_some(()))
    });
    let clean = clean.await;
    let node = node_files(stage).await?;
    let text = match &clean {
        Ok((_, time)) => {
            format!("no object is left over after {:.0} s; {}", time.as_secs_f64(), node.1)
        }
        Err(_) => format!("left over: {}; {}", over.join(", "), node.1),
    };
    Ok((clean.is_ok() && node.0, text))
}

/// Whether the node's folders for CNI are without us.
async fn node_files(stage: &Stage) -> anyhow::Result<(bool, String)> {
    if !stage.is_own() {
        return Ok((true, "the node's files cannot be seen".to_owned()));
    }
    let search = "grep -rl lateen /etc/cni/net.d; find /opt/cni/bin /run/istio-cni -name '*lateen*' -o -name '*.sock'";
    let found =
        stage.own()?.output(1, &["sh", "-c", &format!("({search}) 2>/dev/null || true")]).await?;
    let found = found.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = if found.is_empty() {
        "none of our files is on the node".to_owned()
    } else {
        found.clone()
    };
    Ok((found.is_empty(), text))
}
