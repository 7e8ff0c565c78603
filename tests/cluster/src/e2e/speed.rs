//! What the mesh costs: time until a pod is ready, time of admission and of the network's plugins,
//! memory. All of it is told and decides nothing: the machine may be busy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use lateen_cli::claims::Figure;
use serde_json::{Value, json};

use super::stage::{BOOKINFO, SYSTEM, Stage};

/// Pods that are started for each median.
const STARTS: usize = 7;
const IMAGE: &str = "--image=example.test/client:1";
/// What injection is promised to add at most.
const PROMISED: Duration = Duration::from_millis(300);

/// Times from `kubectl run` to Ready without a mesh, of pods that are bare and of pods that have
/// the shape of a meshed one.
#[derive(Debug)]
pub(super) struct Unmeshed {
    bare: Duration,
    shaped: Duration,
}

/// Measures the cluster before there is a mesh in it.
pub(super) async fn unmeshed(stage: &Stage) -> anyhow::Result<Unmeshed> {
    crate::progress::say("timing pods without a mesh ...");
    let bare = median(stage, "default", None).await?;
    let shaped = median(stage, "default", Some(&shape().to_string())).await?;
    Ok(Unmeshed { bare, shaped })
}

/// What the kubelet has to do for a meshed pod, with programs that take no time: a container that
/// ends at once, and after it a native sidecar that answers as soon as it is asked.
fn shape() -> Value {
    let image = "example.test/client:1";
    let serve = ["lateen-echo", "serve", "--port", "8080"];
    let probe = json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1});
    json!({"spec": {"initContainers": [
        {"name": "first", "image": image, "command": ["true"]},
        {
            "name": "beside", "image": image, "command": serve, "restartPolicy": "Always",
            "startupProbe": probe,
        },
    ]}})
}

/// The median of pods that are started one after the other.
async fn median(stage: &Stage, namespace: &str, shape: Option<&str>) -> anyhow::Result<Duration> {
    let shape = shape.map(|shape| format!("--overrides={shape}"));
    let mut times = Vec::new();
    for number in 0..STARTS {
        let name = format!("timed-{number}");
        let run = ["run", &name, "-n", namespace, IMAGE];
        let since = Instant::now();
        stage.kubectl.run(run.into_iter().chain(shape.as_deref())).await?;
        let pod = format!("pod/{name}");
        let wait = ["wait", "--for=condition=Ready", &pod, "-n", namespace, "--timeout=60s"];
        stage.kubectl.run(wait).await?;
        times.push(since.elapsed());
        stage.kubectl.run(["delete", &pod, "-n", namespace, "--grace-period=1"]).await?;
    }
    times.sort_unstable();
    times.get(STARTS / 2).copied().context("no pod was timed")
}

/// What injection adds to the start of a pod, and how much of that is the kubelet's.
pub(super) async fn start(stage: &Stage, without: &Unmeshed) -> anyhow::Result<Figure> {
    let with = median(stage, BOOKINFO, None).await?;
    let added = with.saturating_sub(without.bare);
    Ok(Figure {
        id: "start",
        figure: "kubectl run to Ready, p50: what injection adds",
        measured: format!(
            "{} ms: {} ms with a sidecar, {} ms without; {} ms of a pod with two such containers \
             that do nothing",
            added.as_millis(),
            with.as_millis(),
            without.bare.as_millis(),
            without.shaped.as_millis()
        ),
        promise: Some("<= 300 ms"),
        kept: Some(added <= PROMISED),
    })
}

/// A figure for which nothing is promised.
fn plain(id: &'static str, figure: &'static str, measured: String) -> Figure {
    Figure { id, figure, measured, promise: None, kept: None }
}

/// The webhook's latency as the API server counts it.
pub(super) async fn webhook(stage: &Stage) -> anyhow::Result<Figure> {
    let text = stage.kubectl.run(["get", "--raw", "/metrics"]).await?;
    let metric = "apiserver_admission_webhook_admission_duration_seconds_bucket";
    let text = quantiles(&text, metric, "sidecar-injector.istio.io")?;
    Ok(plain("webhook-time", "the webhook, as the API server counts it", text))
}

/// The time of the whole chain of network plugins, for all pods so far, as containerd counts it.
pub(super) async fn network(stage: &Stage) -> anyhow::Result<Figure> {
    let text = stage.own()?.container_metrics().await?;
    let metric = "containerd_cri_network_plugin_operations_duration_seconds";
    let text = quantiles(&text, metric, "\"set_up_pod\"")?;
    Ok(plain("network-time", "all network plugins of a pod, as containerd counts it", text))
}

/// How long half and nearly all of the counted calls took.
fn quantiles(text: &str, metric: &str, name: &str) -> anyhow::Result<String> {
    let buckets = buckets(text, metric, name);
    let all = buckets.values().copied().fold(0.0, f64::max);
    let p50 = quantile(&buckets, 0.5).with_context(|| format!("{metric} has counted nothing"))?;
    let p99 = quantile(&buckets, 0.99).with_context(|| format!("{metric} has counted nothing"))?;
    Ok(format!("of {all} calls half took at most {p50} s, 99 % at most {p99} s"))
}

/// Sums of a histogram's buckets by their upper bound in microseconds, over all series that name
/// `name`.
fn buckets(text: &str, metric: &str, name: &str) -> BTreeMap<u64, f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with(metric) && line.contains(name)) {
        let bound = line.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
        let (Some(bound), Some(count)) = (bound, count) else { continue };
        let bound = bound.parse::<f64>().unwrap_or(f64::INFINITY);
        let micros = Duration::try_from_secs_f64(bound).map_or(u128::MAX, |it| it.as_micros());
        *sums.entry(u64::try_from(micros).unwrap_or(u64::MAX)).or_insert(0.0) += count;
    }
    sums
}

/// The upper bound, in seconds, of the bucket that holds the quantile.
fn quantile(buckets: &BTreeMap<u64, f64>, part: f64) -> Option<f64> {
    let all = buckets.values().copied().fold(0.0, f64::max);
    let (bound, _) = buckets.iter().find(|(_, count)| all > 0.0 && **count >= all * part)?;
    Some(Duration::from_micros(*bound).as_secs_f64())
}

/// Memory of each component as the kubelet counts it.
pub(super) async fn memory(stage: &Stage) -> anyhow::Result<Figure> {
    let nodes = stage.kubectl.json(&["get", "nodes"]).await?;
    let mut largest: BTreeMap<&str, u64> = BTreeMap::new();
    for node in nodes["items"].as_array().into_iter().flatten() {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("/api/v1/nodes/{name}/proxy/stats/summary");
        let text = stage.kubectl.run(["get", "--raw", &path]).await?;
        let summary: Value = serde_json::from_str(&text)?;
        for pod in summary["pods"].as_array().into_iter().flatten() {
            for container in pod["containers"].as_array().into_iter().flatten() {
                let Some(component) = component(pod, container) else { continue };
                let bytes = container["memory"]["rssBytes"].as_u64().unwrap_or_default();
                let entry = largest.entry(component).or_default();
                *entry = (*entry).max(bytes);
            }
        }
    }
    let text: Vec<_> = largest
        .iter()
        .map(|(name, bytes)| format!("{name} {:.1} MiB", *bytes as f64 / 1_048_576.0))
        .collect();
    Ok(plain("memory", "largest resident set, as the kubelet counts it", text.join(", ")))
}

fn component(pod: &Value, container: &Value) -> Option<&'static str> {
    let namespace = pod["podRef"]["namespace"].as_str()?;
    let name = pod["podRef"]["name"].as_str()?;
    match container["name"].as_str()? {
        "istio-proxy" => Some("sidecar"),
        _ if namespace == SYSTEM && name.starts_with("istiod") => Some("lateend"),
        _ if namespace == SYSTEM && name.starts_with("istio-cni-node") => Some("node agent"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{buckets, quantile};

    #[test]
    fn quantiles_are_upper_bounds_of_buckets() {
        let text = "d_bucket{name=\"x\",le=\"0.005\"} 3\nd_bucket{name=\"x\",le=\"0.025\"} 9\n\
                    d_bucket{name=\"x\",le=\"+Inf\"} 10\nd_bucket{name=\"y\",le=\"+Inf\"} 99\n";
        let buckets = buckets(text, "d_bucket", "\"x\"");
        assert_eq!(quantile(&buckets, 0.5), Some(0.025));
        assert_eq!(quantile(&buckets, 0.2), Some(0.005));
        assert_eq!(quantile(&Default::default(), 0.5), None);
    }
}
