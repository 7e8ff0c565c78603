//! The cluster the proof looks at, asked through the commands a person has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use lateen_lab::echo::load::Summary;
use serde_json::Value;

use super::Settings;
use super::install::Images;
use crate::cluster::{CLUSTERS, Cluster};
use crate::progress::say;
use crate::{Kubectl, binaries};

/// Namespace of bookinfo.
pub(super) const BOOKINFO: &str = "bookinfo";
/// Namespace of the control plane.
pub(super) const SYSTEM: &str = "istio-system";
/// How long anything may take to become ready.
pub(super) const LIMIT: Duration = Duration::from_secs(180);

/// A cluster and what is installed into it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) kubectl: Kubectl,
    pub(super) helm: PathBuf,
    pub(super) images: Images,
    pub(super) samples: PathBuf,
    cluster: Option<Cluster>,
}

/// A pod: namespace and name.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Stage {
    /// Brings up a cluster, or takes the one that is named, with all images in it.
    pub(super) async fn up(settings: &Settings) -> anyhow::Result<Self> {
        let samples = settings.samples.join("samples");
        if !samples.join("bookinfo").is_dir() {
            bail!(
                "{} has no samples/bookinfo: name Istio's files in LATEEN_CONFORMANCE",
                settings.samples.display()
            );
        }
        let helm = binaries::helm().await?;
        let images = Images::build(settings, &samples).await?;
        let (kubectl, cluster) = match &settings.kubeconfig {
            Some(file) => (Kubectl::new(&binaries::kubectl().await?, file), None),
            None => {
                let name = format!("e2e-{}", std::process::id());
                let cluster = Cluster::up(Path::new(CLUSTERS), &name, 1).await?;
                say("loading images ...");
                cluster.load(&images.archives()).await?;
                (cluster.kubectl().await?, Some(cluster))
            }
        };
        Ok(Self { kubectl, helm, images, samples, cluster })
    }

    /// Ends the cluster, if it is ours and not to be kept.
    pub(super) async fn down(self, keep: bool) -> anyhow::Result<()> {
        let kubeconfig = self.kubectl.kubeconfig().display().to_string();
        match self.cluster {
            Some(cluster) if keep => {
                println!("The cluster {} is kept. Look around:", cluster.name());
                println!("  KUBECONFIG={kubeconfig} kubectl get pods -A");
                println!("  make cluster-down NAME={}", cluster.name());
                Ok(())
            }
            Some(cluster) => Ok(cluster.down().await?),
            None => Ok(()),
        }
    }

    /// Whether the cluster was made here.
    pub(super) fn is_own(&self) -> bool {
        self.cluster.is_some()
    }

    /// The cluster that was made here.
    pub(super) fn own(&self) -> anyhow::Result<&Cluster> {
        self.cluster.as_ref().context("this needs a cluster of our own")
    }

    /// Says what stands in the way, for whoever reads the log of a failed run.
    pub(super) async fn tell(&self) {
        for arguments in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["get", "events", "-A", "--sort-by=.lastTimestamp", "--field-selector=type=Warning"],
            &["logs", "-n", SYSTEM, "-l", "app=istiod", "--tail=15", "--prefix"],
            &["logs", "-n", SYSTEM, "-l", "k8s-app=istio-cni-node", "--tail=15", "--prefix"],
        ] {
            match self.kubectl.run(arguments).await {
                Ok(text) => {
                    let lines: Vec<_> = text.lines().collect();
                    let from = lines.len().saturating_sub(40);
                    say(&lines.get(from..).unwrap_or_default().join("\n"));
                }
                Err(error) => say(&error.to_string()),
            }
        }
    }

    /// The pods that a label selector finds, running ones that are not about to end first.
    pub(super) async fn pods(&self, namespace: &str, selector: &str) -> anyhow::Result<Vec<Value>> {
        let list = self.kubectl.json(&["get", "pods", "-n", namespace, "-l", selector]).await?;
        let mut pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pods.sort_by_key(|pod| pod["status"]["phase"] != "Running");
        Ok(pods)
    }

    /// The first pod that a label selector finds.
    pub(super) async fn pod(&self, namespace: &str, selector: &str) -> anyhow::Result<Pod> {
        let pods = self.pods(namespace, selector).await?;
        let first = pods.first().with_context(|| format!("no pod {selector} in {namespace}"))?;
        let name = first["metadata"]["name"].as_str().context("a pod without a name")?;
        Ok(Pod { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The client in the mesh.
    pub(super) async fn client(&self) -> anyhow::Result<Pod> {
        self.pod(BOOKINFO, "app=client").await
    }

    /// Runs a command in the first container of `pod`.
    pub(super) async fn exec(&self, pod: &Pod, command: &[&str]) -> anyhow::Result<String> {
        let target = ["exec", "-n", &pod.namespace, &pod.name, "--"];
        Ok(self.kubectl.run(target.iter().chain(command)).await?)
    }

    /// Runs the sample client's `get` in `pod`.
    pub(super) async fn get(&self, pod: &Pod, arguments: &[&str]) -> anyhow::Result<Summary> {
        let text = self.exec(pod, &[&["lateen-echo", "get"], arguments].concat()).await?;
        serde_json::from_str(&text).context("the client's summary")
    }

    /// Applies a file of Istio's samples in the namespace of bookinfo.
    pub(super) async fn sample(&self, file: &str) -> anyhow::Result<()> {
        let path = self.samples.join(file);
        let path = path.to_string_lossy();
        self.kubectl.run(["apply", "-n", BOOKINFO, "-f", &path]).await?;
        Ok(())
    }

    /// Waits until every Deployment of a namespace is rolled out.
    pub(super) async fn rolled_out(&self, namespace: &str) -> anyhow::Result<()> {
        let limit = format!("--timeout={}s", LIMIT.as_secs());
        let wait = ["rollout", "status", "deployment", "-n", namespace, &limit];
        self.kubectl.run(wait).await?;
        Ok(())
    }

    /// Every object of the cluster, as `KIND NAMESPACE/NAME`, but what comes and goes by itself.
    pub(super) async fn inventory(&self) -> anyhow::Result<BTreeSet<String>> {
        let kinds = self.kubectl.run(["api-resources", "--verbs=list", "-o", "name"]).await?;
        let passing = ["events", "leases", "componentstatuses", "endpoints", "metrics.k8s.io"];
        let kinds: Vec<_> =
            kinds.lines().filter(|kind| !passing.iter().any(|it| kind.starts_with(it))).collect();
        let format = "-o=go-template={{range .items}}{{.kind}} {{.metadata.namespace}}/\
                      {{.metadata.name}}\n{{end}}";
        let kinds = kinds.join(",");
        let text = self.kubectl.run(["get", &kinds, "-A", "--ignore-not-found", format]).await?;
        Ok(text.lines().filter(|line| line.contains('/')).map(str::to_owned).collect())
    }
}

/// Looks until what is looked for is there; gives it, and how long it took.
pub(super) async fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<(T, Duration)> {
    let since = Instant::now();
    loop {
        let seen = look().await;
        if let Ok(Some(found)) = seen {
            return Ok((found, since.elapsed()));
        }
        if since.elapsed() > limit {
            let why = seen.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("not within {} s: {what}{why}", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Requests of a summary that were not answered 200.
pub(super) fn lost(summary: &Summary) -> u64 {
    summary.requests - summary.status.get(&200).copied().unwrap_or_default()
}

/// A load and what was lost of it, in words.
pub(super) fn told(summary: &Summary) -> String {
    let failures = summary.failures.first().map(|text| format!(" ({text})")).unwrap_or_default();
    let others: Vec<_> = summary.status.iter().filter(|(code, _)| **code != 200).collect();
    let others = if others.is_empty() { String::new() } else { format!(" {others:?}") };
    format!("{} of {} requests failed{others}{failures}", lost(summary), summary.requests)
}
