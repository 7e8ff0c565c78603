//! Claims about who may talk to whom, and that nobody else can listen.

use std::time::Duration;

use anyhow::{Context, ensure};
use lateen_cli::packets;
use lateen_lab::echo::Report;

use super::stage::Stage;
use super::traffic::CATALOG;

/// Text that must not be seen on the wire.
const SECRET: &str = "the-price-of-amber";
/// What the client's certificate must say.
const FRONT: &str = "URI=spiffe://cluster.local/ns/shop/sa/front";

/// Packets between the pods are TLS and never carry the application's bytes.
pub(super) async fn encrypted(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let (front, catalog) = (stage.pod("front")?, stage.pod("catalog-v2")?);
    let url = format!("{CATALOG}/{SECRET}");
    let header = format!("x-secret: {SECRET}");
    let args = [&url, "-n", "50", "-H", &header, "-H", "x-tester: yes"];
    let traffic = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stage.get(&front, &args).await
    };
    let (capture, summary) = tokio::join!(stage.capture(Duration::from_millis(1500)), traffic);
    let (capture, summary) = (capture?, summary?);
    ensure!(summary.last_body.contains(SECRET), "the server did not get the request");
    let addresses = [front.addresses.clone(), catalog.addresses.clone()].concat();
    let seen = packets::look(&capture, &addresses, SECRET.as_bytes());
    let ok = seen.tls_records > 0 && seen.leaks == 0;
    let text = format!(
        "{} segments between the pods, {} begin TLS records, {} hold the request's text",
        seen.segments, seen.tls_records, seen.leaks
    );
    Ok((ok, text))
}

/// The server learns the client's identity from its certificate.
pub(super) async fn identity(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    let summary = stage.get(&front, &[CATALOG]).await?;
    let report: Report = serde_json::from_str(&summary.last_body)
        .with_context(|| format!("status {}: {}", summary.last_status, summary.last_body))?;
    let header = report.headers.get("x-forwarded-client-cert").cloned().unwrap_or_default();
    let shown = header.split(';').find(|part| part.starts_with("URI=")).unwrap_or("no URI");
    Ok((header.split(';').any(|part| part == FRONT), shown.to_owned()))
}

/// A denied path is refused with Istio's answer.
pub(super) async fn denied(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    let summary = stage.get(&front, &["http://catalog/admin/keys"]).await?;
    let ok = summary.last_status == 403 && summary.last_body == "RBAC: access denied";
    Ok((ok, format!("{} {:?}", summary.last_status, summary.last_body)))
}

/// Only one principal may reach the TCP service.
pub(super) async fn principal(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let ask = ["lateen-echo", "tcp", "ledger:7000", "--send", "ahoy"];
    let allowed = stage.exec(&stage.pod("front")?, &ask).await;
    let refused = stage.exec(&stage.pod("catalog-v1")?, &ask).await;
    let ok = allowed.as_ref().is_ok_and(|text| text.trim() == "ahoy") && refused.is_err();
    let said =
        |result: &anyhow::Result<String>| if result.is_ok() { "answered" } else { "refused" };
    Ok((ok, format!("front: {}, catalog: {}", said(&allowed), said(&refused))))
}

/// A pod outside the mesh gets nothing under STRICT, though it reaches what is not meshed.
pub(super) async fn stranger(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let (stranger, catalog) = (stage.pod("stranger")?, stage.pod("catalog-v1")?);
    let address = catalog.addresses.first().context("the catalog has no address")?;
    let own = stranger.addresses.first().context("the stranger has no address")?;
    let meshed = format!("http://{address}:8080/");
    let unmeshed = format!("http://{own}:8080/");
    let refused = stage.get(&stranger, &[&meshed, "--timeout-ms", "3000"]).await?;
    let answered = stage.get(&stranger, &[&unmeshed, "--timeout-ms", "3000"]).await?;
    let ok = refused.failed == 1 && answered.last_status == 200;
    let reason = refused.failures.first().map_or("an answer!", |text| {
        text.split_once(' ').map_or(text.as_str(), |(_, reason)| reason)
    });
    Ok((ok, format!("meshed pod: {reason}; unmeshed pod: {}", answered.last_status)))
}
