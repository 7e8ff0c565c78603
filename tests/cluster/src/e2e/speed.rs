//! What the mesh costs: time until a pod is ready, time of admission, memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::stage::{BOOKINFO, SYSTEM, Stage};

/// Pods that are started for each median.
const STARTS: usize = 7;
const IMAGE: &str = "--image=example.test/client:1";
/// What injection is promised to add at most. It is measured and told, and is no claim: a busy
/// machine must not decide whether the proof holds.
const PROMISED: Duration = Duration::from_millis(300);

/// Times from `kubectl run` to Ready without a mesh.
pub(super) async fn bare(stage: &Stage) -> anyhow::Result<Vec<Duration>> {
    crate::progress::say("timing pods without a mesh ...");
    starts(stage, "default").await
}

/// Starts pods one after the other.
async fn starts(stage: &Stage, namespace: &str) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for number in 0..STARTS {
        let name = format!("timed-{number}");
        let since = Instant::now();
        stage.kubectl.run(["run", &name, "-n", namespace, IMAGE]).await?;
        let pod = format!("pod/{name}");
        let wait = ["wait", "--for=condition=Ready", &pod, "-n", namespace, "--timeout=60s"];
        stage.kubectl.run(wait).await?;
        times.push(since.elapsed());
        stage.kubectl.run(["delete", &pod, "-n", namespace, "--grace-period=1"]).await?;
    }
    times.sort_unstable();
    Ok(times)
}

fn median(times: &[Duration]) -> Duration {
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// What injection adds to the start of a pod.
pub(super) async fn start(stage: &Stage, bare: &[Duration]) -> anyhow::Result<String> {
    let meshed = starts(stage, BOOKINFO).await?;
    let (with, without) = (median(&meshed), median(bare));
    let added = with.saturating_sub(without);
    let verdict = if added <= PROMISED { "kept" } else { "NOT MET" };
    Ok(format!(
        "  start of a pod: p50 {} ms with, {} ms without a sidecar: {} ms more; the promise of {} ms \
         is {verdict}",
        with.as_millis(),
        without.as_millis(),
        added.as_millis(),
        PROMISED.as_millis()
    ))
}

/// The webhook's latency as the API server counts it.
pub(super) async fn webhook(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let text = stage.kubectl.run(["get", "--raw", "/metrics"]).await?;
    let metric = "apiserver_admission_webhook_admission_duration_seconds_bucket";
    let buckets = buckets(&text, metric, "sidecar-injector.istio.io");
    let all = buckets.values().copied().fold(0.0, f64::max);
    let p50 = quantile(&buckets, 0.5).context("the API server has counted no call")?;
    let p99 = quantile(&buckets, 0.99).context("the API server has counted no call")?;
    let text = format!("of {all} calls half took at most {p50} s, 99 % at most {p99} s");
    Ok((p50 <= 0.025 && p99 <= 0.5, text))
}

/// The time of the whole chain of network plugins, for all pods so far, as containerd counts it.
pub(super) async fn network(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let text = stage.own()?.container_metrics().await?;
    let metric = "containerd_cri_network_plugin_operations_duration_seconds";
    let buckets = buckets(&text, metric, "\"set_up_pod\"");
    let all = buckets.values().copied().fold(0.0, f64::max);
    let p50 = quantile(&buckets, 0.5).context("containerd has counted no pod")?;
    let p99 = quantile(&buckets, 0.99).context("containerd has counted no pod")?;
    let text = format!("of {all} pods half took at most {p50} s, 99 % at most {p99} s");
    Ok((p50 <= 0.5, text))
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
pub(super) async fn memory(stage: &Stage) -> anyhow::Result<(bool, String)> {
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
    let small = |name: &str, mib: u64| largest.get(name).is_some_and(|it| *it <= mib << 20);
    let ok = small("sidecar", 20) && small("node agent", 40) && small("lateend", 100);
    Ok((ok, format!("largest resident set: {}", text.join(", "))))
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
