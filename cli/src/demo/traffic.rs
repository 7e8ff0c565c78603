//! Claims about routing: split, header match, protocols, live changes, metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use lateen_cli::metrics;
use lateen_lab::echo::Report;

use super::stage::Stage;

/// Address of the service that has two versions.
pub(super) const CATALOG: &str = "http://catalog/items";
/// Requests of the split.
const SPLIT_REQUESTS: u64 = 1000;
/// Expected share of v2 among them, and how far off it may be: four standard deviations.
const SPLIT_V2: std::ops::RangeInclusive<u64> = 150..=250;
/// Requests whose metrics are counted.
const COUNTED: u64 = 200;

/// 80/20 over 1,000 requests.
pub(super) async fn split(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    let count = SPLIT_REQUESTS.to_string();
    let summary = stage.get(&front, &[CATALOG, "-n", &count, "-c", "4"]).await?;
    let v1 = summary.versions.get("v1").copied().unwrap_or_default();
    let v2 = summary.versions.get("v2").copied().unwrap_or_default();
    let ok = v1 + v2 == SPLIT_REQUESTS && SPLIT_V2.contains(&v2);
    Ok((ok, format!("v1 {v1}, v2 {v2} of {SPLIT_REQUESTS}; {} failed", summary.failed)))
}

/// A request header chooses the version.
pub(super) async fn header(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    let args = [CATALOG, "-n", "100", "-H", "x-tester: yes"];
    let summary = stage.get(&front, &args).await?;
    let v2 = summary.versions.get("v2").copied().unwrap_or_default();
    Ok((v2 == 100, format!("{v2} of 100 requests with x-tester: yes came to v2")))
}

/// HTTP/2, gRPC, WebSocket and raw TCP, beside HTTP/1.1.
pub(super) async fn protocols(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    let mut seen = Vec::new();
    let mut ok = true;
    let mut note = |what: &str, good: bool| {
        ok &= good;
        seen.push(format!("{what} {}", if good { "ok" } else { "FAILED" }));
    };
    let two = stage.get(&front, &["http://catalog:9000/items", "--http2"]).await?;
    let report: Result<Report, _> = serde_json::from_str(&two.last_body);
    note("HTTP/2", report.is_ok_and(|report| report.protocol == "HTTP/2.0"));
    let answer =
        stage.get(&front, &["http://catalog:9000/echo.Echo/Say", "--grpc", "-d", "hi"]).await?;
    let status = answer.last_headers.get("grpc-status").map(String::as_str);
    note("gRPC", status == Some("0") && answer.last_body.ends_with("hi"));
    let ws =
        stage.exec(&front, &["lateen-echo", "ws", "http://catalog/ws", "--send", "ahoy"]).await?;
    note("WebSocket", ws.trim() == "ahoy");
    let tcp = stage.exec(&front, &["lateen-echo", "tcp", "ledger:7000", "--send", "ahoy"]).await?;
    note("TCP", tcp.trim() == "ahoy");
    Ok((ok, seen.join(", ")))
}

/// The VirtualService that sends everything to one version.
fn all_to(version: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: catalog, namespace: shop}}\n\
         spec:\n  hosts: [catalog]\n  http:\n    - name: all-{version}\n      \
         route: [{{destination: {{host: catalog, subset: {version}}}}}]\n"
    )
}

/// An edited VirtualService takes effect under load, in under a second, without a failure.
pub(super) async fn live_change(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    stage.apply(&all_to("v1")).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let args = [CATALOG, "-n", "0", "--seconds", "3.5", "-c", "4", "--pause-ms", "2"];
    let load = stage.get(&front, &args);
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let at = epoch_millis();
        stage.apply(&all_to("v2")).await.map(|()| at)
    };
    let (summary, changed_at) = tokio::join!(load, change);
    let (summary, changed_at) = (summary?, changed_at?);
    let last_v1 = summary.last_seen.get("v1").copied().context("v1 never answered")?;
    let first_v2 = summary.first_seen.get("v2").copied().context("v2 never answered")?;
    let effect = last_v1.max(first_v2).saturating_sub(changed_at);
    let good = summary.status.get(&200).copied().unwrap_or_default();
    let lost = summary.requests - good;
    let text =
        format!("in effect after {effect} ms; {lost} of {} requests failed", summary.requests);
    Ok((effect < 1000 && lost == 0 && first_v2 >= changed_at, text))
}

/// The metrics of both sides say what was sent.
pub(super) async fn agree(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    let catalog = [stage.pod("catalog-v1")?, stage.pod("catalog-v2")?];
    let destination = ("destination_service", "catalog.shop.svc.cluster.local");
    let source = [("reporter", "source"), destination, ("response_code", "200")];
    let server = [("reporter", "destination"), destination, ("source_workload", "front")];
    let count = async || -> anyhow::Result<(f64, f64)> {
        let sent = metrics::sum(&stage.metrics(&front).await?, "istio_requests_total", &source);
        let mut received = 0.0;
        for pod in &catalog {
            let text = stage.metrics(pod).await?;
            received += metrics::sum(&text, "istio_requests_total", &server);
        }
        Ok((sent, received))
    };
    let before = count().await?;
    let args = [CATALOG, "-n", &COUNTED.to_string(), "-c", "2"];
    let summary = stage.get(&front, &args).await?;
    ensure!(summary.failed == 0, "requests failed: {:?}", summary.failures);
    let after = count().await?;
    let (sent, received) = (after.0 - before.0, after.1 - before.1);
    #[expect(clippy::cast_precision_loss, reason = "200 is exact")]
    let wanted = COUNTED as f64;
    let ok = sent == wanted && received == wanted;
    let text =
        format!("{COUNTED} sent; istio_requests_total: source +{sent}, destination +{received}");
    Ok((ok, text))
}

pub(super) fn epoch_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
