//! Claims about what must not be lost while parts of the mesh, or of the cluster, restart.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use lateen_lab::echo::load::Summary;
use serde_json::{Value, json};

use super::security::is_captured;
use super::stage::{BOOKINFO, LIMIT, Pod, SYSTEM, Stage, lost, told, until};

const DETAILS: &str = "http://details:9080/details/0";
/// Pods that come and go while the node agent restarts.
const CHURN: usize = 8;
/// Label of the node agent's pods.
pub(super) const AGENT: &str = "k8s-app=istio-cni-node";

/// Does `work` while the client sends, from a second before it until a second after it.
pub(super) async fn under_load(
    stage: &Stage,
    work: impl Future<Output = anyhow::Result<String>>,
) -> anyhow::Result<(bool, String)> {
    let client = stage.client().await?;
    let exec = ["exec", "-i", "-n", &client.namespace, &client.name, "--", "lateen-echo", "get"];
    let limit = LIMIT.as_secs().to_string();
    let much = ["-n", "0", "-c", "4", "--pause-ms", "5", "--until-eof", "--seconds", &limit];
    let mut command = stage.kubectl.command(exec.iter().chain(&[DETAILS]).chain(&much));
    let mut load = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let input = load.stdin.take();
    let second = Duration::from_secs(1);
    tokio::time::sleep(second).await;
    let text = work.await?;
    tokio::time::sleep(second).await;
    drop(input);
    let output = load.wait_with_output().await?;
    ensure!(output.status.success(), "the load ended with {}", output.status);
    let summary: Summary =
        serde_json::from_slice(&output.stdout).context("the client's summary")?;
    ensure!(
        Duration::from_millis(summary.millis) < LIMIT,
        "{text}, but the load ended before that"
    );
    Ok((lost(&summary) == 0 && summary.requests > 0, format!("{text}; {}", told(&summary))))
}

/// Every pod of a Deployment is replaced.
pub(super) async fn rolling(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let before = stage.pod(BOOKINFO, "app=details").await?;
    under_load(stage, async {
        let deployment = "deployment/details-v1";
        stage.kubectl.run(["rollout", "restart", deployment, "-n", BOOKINFO]).await?;
        stage
            .kubectl
            .run(["rollout", "status", deployment, "-n", BOOKINFO, "--timeout=40s"])
            .await?;
        gone(stage, &before).await?;
        let after = stage.pod(BOOKINFO, "app=details").await?;
        Ok(format!("{} became {}", before.name, after.name))
    })
    .await
}

async fn gone(stage: &Stage, pod: &Pod) -> anyhow::Result<()> {
    let name = format!("pod/{}", pod.name);
    let wait = ["wait", "--for=delete", &name, "-n", &pod.namespace, "--timeout=60s"];
    stage.kubectl.run(wait).await?;
    Ok(())
}

/// A pod that sends to `url` for `seconds`, which needs no API server meanwhile.
fn load_pod(url: &str, seconds: u32) -> String {
    let seconds = seconds.to_string();
    let command = ["lateen-echo", "get", url, "-n", "0", "--seconds", &seconds, "--pause-ms", "5"];
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "load", "namespace": BOOKINFO},
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {"name": "load", "image": "example.test/client:1", "command": command},
            ],
        },
    })
    .to_string()
}

/// A Deployment of pods that do nothing but be there.
fn idle(name: &str, namespace: &str, replicas: usize) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{"name": "client", "image": "example.test/client:1"}],
                },
            },
        },
    })
    .to_string()
}

/// The node agent is killed again and again while pods start; each is captured.
pub(super) async fn agent_churn(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let churn = async {
        stage.kubectl.apply(&idle("churn", BOOKINFO, CHURN)).await?;
        let status = ["rollout", "status", "deployment/churn", "-n", BOOKINFO, "--timeout=180s"];
        stage.kubectl.run(status).await
    };
    let kills = async {
        let mut kills = 0;
        for _ in 0..3 {
            stage
                .kubectl
                .run([
                    "delete",
                    "pod",
                    "-n",
                    SYSTEM,
                    "-l",
                    AGENT,
                    "--wait=false",
                    "--grace-period=1",
                ])
                .await?;
            kills += 1;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        anyhow::Ok(kills)
    };
    let (churned, kills) = tokio::join!(churn, kills);
    let kills = kills?;
    churned?;
    let mut captured = 0;
    let pods = stage.pods(BOOKINFO, "app=churn").await?;
    for name in pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()) {
        let pod = Pod { namespace: BOOKINFO.to_owned(), name: name.to_owned() };
        captured += usize::from(is_captured(stage, &pod).await?);
    }
    stage.kubectl.run(["delete", "deployment", "churn", "-n", BOOKINFO]).await?;
    let ok = captured == CHURN && pods.len() == CHURN;
    Ok((
        ok,
        format!("{captured} of {} pods captured, the agent was deleted {kills} times", pods.len()),
    ))
}

/// Without a node agent pods outside the mesh start; meshed ones wait, and say why.
pub(super) async fn agent_dead(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let nowhere =
        json!({"spec": {"template": {"spec": {"nodeSelector": {"lateen.test/none": "x"}}}}});
    let daemons = ["patch", "daemonset", "istio-cni-node", "-n", SYSTEM, "--type=merge", "-p"];
    stage.kubectl.run(daemons.iter().copied().chain([nowhere.to_string().as_str()])).await?;
    until("the node agent is gone", LIMIT, async || {
        Ok(stage.pods(SYSTEM, AGENT).await?.is_empty().then_some(()))
    })
    .await?;
    stage.kubectl.apply(&idle("bare", "outside", 1)).await?;
    stage.kubectl.apply(&idle("waiting", BOOKINFO, 1)).await?;
    let status = ["rollout", "status", "deployment/bare", "-n", "outside", "--timeout=60s"];
    let bare = stage.kubectl.run(status).await;
    let (why, _) = until("the meshed pod says why it waits", LIMIT, async || {
        let events = stage.kubectl.json(&["get", "events", "-n", BOOKINFO]).await?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        Ok(events.iter().find_map(waits))
    })
    .await?;
    let waiting = stage.pods(BOOKINFO, "app=waiting").await?;
    let held = waiting.iter().all(|pod| pod["status"]["phase"] == "Pending");
    let back =
        json!({"spec": {"template": {"spec": {"nodeSelector": {"lateen.test/none": null}}}}});
    stage.kubectl.run(daemons.iter().copied().chain([back.to_string().as_str()])).await?;
    let status = ["rollout", "status", "deployment/waiting", "-n", BOOKINFO, "--timeout=120s"];
    stage.kubectl.run(status).await?;
    let captured = is_captured(stage, &stage.pod(BOOKINFO, "app=waiting").await?).await?;
    stage.kubectl.run(["delete", "deployment", "bare", "-n", "outside"]).await?;
    stage.kubectl.run(["delete", "deployment", "waiting", "-n", BOOKINFO]).await?;
    let started = if bare.is_ok() { "started" } else { "did not start" };
    let text = format!(
        "outside: {started}; meshed: waited ({why}), captured when the agent was back: {captured}"
    );
    Ok((bare.is_ok() && held && captured, text))
}

/// The reason in an event of a sandbox that the plugin did not let start.
fn waits(event: &Value) -> Option<String> {
    let about = event["involvedObject"]["name"].as_str()?;
    let text = event["message"].as_str()?;
    let at = text.find("node agent does not answer")?;
    about.starts_with("waiting-").then(|| text[at..].chars().take(60).collect())
}

/// All pods of the control plane are deleted, and later it is away for some seconds.
pub(super) async fn control_plane(stage: &Stage) -> anyhow::Result<(bool, String)> {
    under_load(stage, async {
        stage
            .kubectl
            .run(["delete", "pod", "-n", SYSTEM, "-l", "app=istiod", "--grace-period=1"])
            .await?;
        stage.rolled_out(SYSTEM).await?;
        let scale = ["scale", "deployment/istiod", "-n", SYSTEM];
        stage.kubectl.run(scale.iter().chain(&["--replicas=0"])).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.kubectl.run(scale.iter().chain(&["--replicas=1"])).await?;
        stage.rolled_out(SYSTEM).await?;
        Ok("deleted once, away once for 5 s and more".to_owned())
    })
    .await
}

/// The API server is stopped and started; a pod that is made then joins the mesh.
pub(super) async fn api_server(stage: &Stage) -> anyhow::Result<(bool, String)> {
    stage.kubectl.apply(&load_pod(DETAILS, 30)).await?;
    let phase = async |wanted: &str| {
        let pod = stage.kubectl.json(&["get", "pod", "load", "-n", BOOKINFO]).await?;
        Ok((pod["status"]["phase"] == wanted).then_some(()))
    };
    until("the load runs", LIMIT, async || phase("Running").await).await?;
    stage.own()?.kill("kube-apiserver").await?;
    let ready = async || Ok(Some(stage.kubectl.run(["get", "--raw", "/readyz"]).await?));
    let (_, time) = until("the API server is back", LIMIT, ready).await?;
    ensure!(phase("Running").await?.is_some(), "the load ended before the API server was back");
    until("the load ends", LIMIT, async || phase("Succeeded").await).await?;
    let log = stage.kubectl.run(["logs", "load", "-n", BOOKINFO, "-c", "load"]).await?;
    let summary: Summary = serde_json::from_str(log.lines().last().unwrap_or_default())?;
    stage.kubectl.run(["delete", "pod", "load", "-n", BOOKINFO]).await?;
    let ok = lost(&summary) == 0 && summary.requests > 0;
    let text = format!("back after {:.1} s; {}", time.as_secs_f64(), told(&summary));
    stage.kubectl.run(["rollout", "restart", "deployment/client", "-n", BOOKINFO]).await?;
    stage.rolled_out(BOOKINFO).await?;
    let captured = is_captured(stage, &stage.client().await?).await?;
    Ok((ok && captured, format!("{text}; a new pod is captured: {captured}")))
}
