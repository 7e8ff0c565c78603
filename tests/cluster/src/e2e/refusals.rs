//! Claims about what is refused, and how it is said.

use std::time::Duration;

use serde_json::json;

use super::install::{CHARTS, chart};
use super::security::is_captured;
use super::stage::{BOOKINFO, LIMIT, Pod, SYSTEM, Stage, until};

const CLIENT: &str = "example.test/client:1";

/// kubectl prints why a pod cannot be injected.
pub(super) async fn annotation(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let key = "traffic.sidecar.istio.io/excludeOutboundPorts";
    let given = format!("--annotations={key}=80,ninety");
    let image = format!("--image={CLIENT}");
    let run = ["run", "wrong", "-n", BOOKINFO, &image, &given];
    match stage.kubectl.run(run).await {
        Ok(_) => Ok((false, "the pod was accepted".to_owned())),
        Err(error) => {
            let text = error.to_string();
            Ok((text.contains(key) && text.contains("ninety"), last_line(&text)))
        }
    }
}

/// What the API server said, without the command.
fn last_line(text: &str) -> String {
    let from = text.find("Error from server").unwrap_or_default();
    text[from..].lines().last().unwrap_or_default().chars().take(420).collect()
}

/// Scales the control plane, and waits until it is so.
async fn scale(stage: &Stage, replicas: usize) -> anyhow::Result<()> {
    let count = format!("--replicas={replicas}");
    stage.kubectl.run(["scale", "deployment/istiod", "-n", SYSTEM, &count]).await?;
    if replicas > 0 {
        return stage.rolled_out(SYSTEM).await;
    }
    until("the control plane is gone", LIMIT, async || {
        let list = ["get", "pods", "-n", SYSTEM, "-l", "app=istiod", "-o", "name"];
        Ok(stage.kubectl.run(list).await?.trim().is_empty().then_some(()))
    })
    .await
    .map(drop)
}

/// With `failurePolicy: Fail` no pod gets past a webhook that is down; others are not touched.
pub(super) async fn webhook_down(stage: &Stage) -> anyhow::Result<(bool, String)> {
    scale(stage, 0).await?;
    let image = format!("--image={CLIENT}");
    let meshed = stage.kubectl.run(["run", "meshed", "-n", BOOKINFO, &image]).await;
    let outside = ["run", "other", "-n", "outside", &image, "--grace-period=1"];
    let outside = stage.kubectl.run(&outside[..5]).await;
    scale(stage, 1).await?;
    drop(stage.kubectl.run(["delete", "pod", "other", "-n", "outside", "--grace-period=1"]).await);
    let told = match &meshed {
        Ok(_) => "a pod was let through".to_owned(),
        Err(error) => last_line(&error.to_string()),
    };
    let named = told.contains("sidecar-injector.istio.io");
    Ok((meshed.is_err() && named && outside.is_ok(), told))
}

/// With the fallback a pod that is created while the webhook is down has its sidecar and is
/// captured, and one that cannot be served so is refused.
pub(super) async fn fallback(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let on = ["--set", "sidecarInjectorWebhook.fallback=true"];
    chart(stage, CHARTS[2], &on).await?;
    until("the policies are written", Duration::from_secs(60), async || {
        let get = ["get", "mutatingadmissionpolicies,validatingadmissionpolicies", "-o", "name"];
        let text = stage.kubectl.run(get).await?;
        Ok((text.matches("istio-sidecar-injector-fallback").count() == 2).then_some(()))
    })
    .await?;
    scale(stage, 0).await?;
    let seen = without_webhook(stage).await;
    scale(stage, 1).await?;
    let (ready, refusal) = seen?;
    let pod = Pod { namespace: BOOKINFO.to_owned(), name: "fallback".to_owned() };
    let wait = ["wait", "--for=condition=Ready", "pod/fallback", "-n", BOOKINFO, "--timeout=120s"];
    stage.kubectl.run(wait).await?;
    let captured = ready && is_captured(stage, &pod).await?;
    stage.kubectl.run(["delete", "pod", "fallback", "-n", BOOKINFO, "--grace-period=1"]).await?;
    chart(stage, CHARTS[2], &[]).await?;
    let (gone, _) = until("the policies are taken away", Duration::from_secs(60), async || {
        let get = ["get", "mutatingadmissionpolicies,validatingadmissionpolicies", "-o", "name"];
        Ok((!stage.kubectl.run(get).await?.contains("istio-sidecar-injector")).then_some(true))
    })
    .await?;
    let text = format!("captured: {captured}; with a template: {refusal}");
    Ok((captured && gone && refusal.contains("injection webhook does not answer"), text))
}

/// A pod that needs nothing, and one that needs the webhook.
async fn without_webhook(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let image = format!("--image={CLIENT}");
    // The sidecar's certificate comes from the control plane, so the pod is not ready before it.
    stage.kubectl.run(["run", "fallback", "-n", BOOKINFO, &image, "--labels=app=fallback"]).await?;
    let pod = stage.kubectl.json(&["get", "pod", "fallback", "-n", BOOKINFO]).await?;
    let containers = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
    let sidecar = containers.iter().any(|it| it["name"] == "istio-proxy");
    let template = json!({"metadata": {"annotations": {"inject.istio.io/templates": "gateway"}}});
    let overrides = format!("--overrides={template}");
    let refused = stage.kubectl.run(["run", "special", "-n", BOOKINFO, &image, &overrides]).await;
    let refusal = match refused {
        Ok(_) => "accepted".to_owned(),
        Err(error) => last_line(&error.to_string()),
    };
    Ok((sidecar, refusal))
}
