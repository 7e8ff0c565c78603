//! Claims about pods joining the mesh, and leaving it.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use super::install;
use super::stage::{BOOKINFO, LIMIT, Stage, until};

/// A pod of a gRPC library, with the agent alone.
const LIBRARY: &str = include_str!("../../manifests/agent.yaml");

/// kubectl shows two containers in every pod of bookinfo, one of them a native sidecar.
pub(super) async fn containers(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let text = stage.kubectl.run(["get", "pods", "-n", BOOKINFO, "--no-headers"]).await?;
    let ready: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let pods = stage.pods(BOOKINFO, "app").await?;
    let native = pods.iter().filter(|pod| {
        let containers = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        let mut proxies = containers.filter(|it| it["name"] == "istio-proxy");
        proxies.any(|it| it["restartPolicy"] == "Always")
    });
    let native = native.count();
    let ok = ready.len() >= 7 && ready.iter().all(|it| *it == "2/2") && native == pods.len();
    let two = ready.iter().filter(|it| **it == "2/2").count();
    Ok((ok, format!("{two} of {} pods are 2/2, {native} with a native sidecar", ready.len())))
}

/// A Job's pod is done when its work is, and its requests were answered.
pub(super) async fn job(stage: &Stage) -> anyhow::Result<(bool, String)> {
    stage.kubectl.apply(install::job()).await?;
    let (succeeded, time) = until("the Job ends", LIMIT, async || {
        let job = stage.kubectl.json(&["get", "job", "reader", "-n", BOOKINFO]).await?;
        let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
        let mut ended = conditions.filter(|it| it["status"] == "True");
        Ok(ended.find_map(|it| match it["type"].as_str() {
            Some("Complete") => Some(true),
            Some("Failed") => Some(false),
            _ => None,
        }))
    })
    .await?;
    let pods = stage.pods(BOOKINFO, "app=reader").await?;
    let pod = pods.first().context("the Job has no pod")?;
    let phase = pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
    let sidecar = pod["status"]["initContainerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|it| it["name"] == "istio-proxy")
        .map(|it| it["state"]["terminated"]["exitCode"].clone())
        .unwrap_or_default();
    stage.kubectl.run(["delete", "job", "reader", "-n", BOOKINFO, "--wait"]).await?;
    let ok = succeeded && phase == "Succeeded" && sidecar == 0 && time < Duration::from_secs(60);
    Ok((ok, format!("{phase} after {:.1} s, sidecar exit status {sidecar}", time.as_secs_f64())))
}

/// A pod with the template `grpc-agent` has what a gRPC library needs when its application starts.
pub(super) async fn library(stage: &Stage) -> anyhow::Result<(bool, String)> {
    stage.kubectl.apply(LIBRARY).await?;
    let (running, time) = until("the pod is ready", LIMIT, async || {
        let pod = stage.kubectl.json(&["get", "pod", "library", "-n", BOOKINFO]).await?;
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.filter(|it| it["type"] == "Ready").any(|it| it["status"] == "True");
        Ok(if pod["status"]["phase"] == "Failed" { Some(false) } else { ready.then_some(true) })
    })
    .await?;
    let seen = stage.kubectl.run(["logs", "library", "-n", BOOKINFO, "-c", "app"]).await?;
    stage.kubectl.run(["delete", "pod", "library", "-n", BOOKINFO, "--wait"]).await?;
    let bootstrap = seen.split("-----BEGIN").next().unwrap_or_default();
    let bootstrap: Value = serde_json::from_str(bootstrap).context("the bootstrap file")?;
    let generator = &bootstrap["node"]["metadata"]["GENERATOR"];
    let certificates = seen.matches("-----BEGIN CERTIFICATE-----").count();
    let ok = running && generator == "grpc" && certificates > 0;
    let text = format!(
        "ready after {:.1} s: bootstrap for {generator}, a chain of {certificates}, a socket",
        time.as_secs_f64()
    );
    Ok((ok, text))
}
