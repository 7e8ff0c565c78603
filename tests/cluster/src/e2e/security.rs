//! Claims about encryption, identity and authorization.

use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use lateen_cli::packets;

use super::stage::{BOOKINFO, Pod, Stage, lost, told, until};

const DETAILS: &str = "http://details:9080/details/0";
/// A text that must not be seen between pods.
const SECRET: &str = "x-secret-of-the-request";
const STRICT: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bookinfo}
spec: {mtls: {mode: STRICT}}
";
const DENY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: bookinfo}
spec:
  selector: {matchLabels: {app: details}}
  action: DENY
  rules: [{to: [{operation: {paths: [/details/secret]}}]}]
";

/// What crosses the node's interfaces between two pods are TLS records.
pub(super) async fn encrypted(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let wiretap =
        ["exec", "-n", "wiretap", "wiretap", "--", "lateen-echo", "capture", "--seconds", "4"];
    let mut capture = stage.kubectl.command(wiretap);
    capture.stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = stage.client().await?;
    let load = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let header = format!("{SECRET}: yes");
        stage.get(&client, &[DETAILS, "-n", "50", "-H", &header]).await
    };
    let (capture, summary) = tokio::join!(capture.output(), load);
    let (capture, summary) = (capture.context("kubectl")?, summary?);
    ensure!(capture.status.success(), "capture: {}", String::from_utf8_lossy(&capture.stderr));
    let addresses = [address(stage, "app=client").await?, address(stage, "app=details").await?];
    let seen = packets::look(&capture.stdout, &addresses, SECRET.as_bytes());
    let ok = seen.segments >= 50
        && seen.leaks == 0
        && seen.tls_records * 10 >= seen.segments * 8
        && lost(&summary) == 0;
    let text = format!(
        "{} segments between the pods, {} begin TLS records, {} hold the request's text",
        seen.segments, seen.tls_records, seen.leaks
    );
    Ok((ok, text))
}

async fn address(stage: &Stage, selector: &str) -> anyhow::Result<IpAddr> {
    let pods = stage.pods(BOOKINFO, selector).await?;
    let address = pods.first().and_then(|pod| pod["status"]["podIP"].as_str());
    Ok(address.with_context(|| format!("no address of {selector}"))?.parse()?)
}

/// The server's sidecar tells its application who calls.
pub(super) async fn identity(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let summary = stage.get(&stage.client().await?, &[DETAILS]).await?;
    let body: serde_json::Value = serde_json::from_str(&summary.last_body)?;
    let peer = body["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    let uri = peer.split(';').find(|part| part.starts_with("URI=")).unwrap_or("no URI").to_owned();
    Ok((uri == "URI=spiffe://cluster.local/ns/bookinfo/sa/client", uri))
}

/// A path that a policy denies is 403, others are as before.
pub(super) async fn denied(stage: &Stage) -> anyhow::Result<(bool, String)> {
    stage.kubectl.apply(DENY).await?;
    let client = stage.client().await?;
    let (summary, time) = until("the policy denies", Duration::from_secs(20), async || {
        let summary = stage.get(&client, &["http://details:9080/details/secret"]).await?;
        Ok((summary.last_status == 403).then_some(summary))
    })
    .await?;
    let other = stage.get(&client, &[DETAILS]).await?;
    stage.kubectl.feed(["delete", "-f", "-"], DENY).await?;
    let text = format!(
        "403 {:?} after {:.1} s; another path {}",
        summary.last_body,
        time.as_secs_f64(),
        other.last_status
    );
    Ok((other.last_status == 200, text))
}

/// With STRICT a pod outside the mesh gets no answer; one inside does. STRICT stays.
pub(super) async fn stranger(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let stranger = stage.pod("outside", "app=stranger").await?;
    let url = "http://details.bookinfo:9080/details/0";
    let before = stage.get(&stranger, &[url]).await?;
    stage.kubectl.apply(STRICT).await?;
    let (after, _) = until("the stranger is refused", Duration::from_secs(20), async || {
        let summary = stage.get(&stranger, &[url]).await?;
        Ok((summary.failed == 1).then_some(summary))
    })
    .await?;
    let inside = stage.get(&stage.client().await?, &[DETAILS]).await?;
    let why = after.failures.first().cloned().unwrap_or_default();
    let text = format!(
        "before STRICT {}, then: {why}; a meshed pod: {}",
        before.last_status, inside.last_status
    );
    Ok((before.last_status == 200 && inside.last_status == 200, text))
}

/// Whether what `pod` sends goes through its sidecar: the server sees its identity.
pub(super) async fn is_captured(stage: &Stage, pod: &Pod) -> anyhow::Result<bool> {
    let summary = stage.get(pod, &[DETAILS]).await?;
    ensure!(lost(&summary) == 0, "{}: {}", pod.name, told(&summary));
    let body: serde_json::Value = serde_json::from_str(&summary.last_body)?;
    Ok(body["headers"]["x-forwarded-client-cert"].as_str().is_some_and(|it| it.contains("spiffe")))
}
