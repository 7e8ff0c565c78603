//! Claims about certificates and about life without a control plane.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::stage::{Certificate, Pod, Stage};
use super::traffic::{CATALOG, epoch_millis};

/// How often the certificate is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Certificates rotate under load without a failed request.
pub(super) async fn rotation(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    let before = stage.certificate(&front).await?;
    let turned = async {
        let changed = until_renewed(stage, &front, &before, Duration::from_secs(15)).await;
        // Connections opened after the change carry the new certificate.
        tokio::time::sleep(Duration::from_secs(1)).await;
        changed
    };
    let (lost, after) = under_load(stage, &front, turned).await?;
    let after = after?;
    let text = format!(
        "serial ..{} became ..{}, {} ms before the old one ended; {lost}",
        tail(&before.serial),
        tail(&after.serial),
        before.not_after_ms.saturating_sub(after.seen_at_ms)
    );
    Ok((lost.none() && after.seen_at_ms < before.not_after_ms, text))
}

/// With the control plane gone traffic goes on; once it is back a due certificate is renewed
/// before the old one ends.
pub(super) async fn outage(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let front = stage.pod("front")?;
    let story = async {
        let fresh = stage.certificate(&front).await?;
        let before = until_renewed(stage, &front, &fresh, Duration::from_secs(15)).await?;
        stage.kill_control_plane().await?;
        let down_since = epoch_millis();
        let due = before.renew_at_ms + 1000;
        ensure!(due < before.not_after_ms, "the certificate has no time between due and end");
        tokio::time::sleep(Duration::from_millis(due.saturating_sub(down_since))).await;
        let held = stage.certificate(&front).await?;
        ensure!(held.serial == before.serial, "renewed although the control plane was down");
        stage.start_control_plane().await?;
        let down = epoch_millis() - down_since;
        let after = until_renewed(stage, &front, &before, Duration::from_secs(10)).await?;
        Ok((before, after, down))
    };
    let (lost, story) = under_load(stage, &front, story).await?;
    let (before, after, down) = story?;
    let spare = before.not_after_ms.saturating_sub(after.seen_at_ms);
    let text = format!("down for {down} ms; {lost}; renewed {spare} ms before the end");
    Ok((lost.none() && spare > 0, text))
}

/// Requests that got no 200.
struct Lost {
    requests: u64,
    lost: u64,
}

impl Lost {
    fn none(&self) -> bool {
        self.lost == 0 && self.requests > 0
    }
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} requests failed", self.lost, self.requests)
    }
}

/// Runs `story` while requests flow, in bursts on new connections, and counts what was lost.
async fn under_load<T>(
    stage: &Stage,
    pod: &Pod,
    story: impl Future<Output = T>,
) -> anyhow::Result<(Lost, T)> {
    let mut count = Lost { requests: 0, lost: 0 };
    tokio::pin!(story);
    loop {
        let args = [CATALOG, "-n", "0", "--seconds", "1", "-c", "2", "--pause-ms", "2"];
        let burst = stage.get(pod, &args);
        tokio::pin!(burst);
        let mut ended = None;
        let summary = tokio::select! {
            summary = burst.as_mut() => summary,
            value = story.as_mut() => {
                ended = Some(value);
                burst.await
            }
        }?;
        count.requests += summary.requests;
        count.lost += summary.requests - summary.status.get(&200).copied().unwrap_or_default();
        if let Some(value) = ended {
            return Ok((count, value));
        }
    }
}

async fn until_renewed(
    stage: &Stage,
    pod: &Pod,
    old: &Certificate,
    limit: Duration,
) -> anyhow::Result<Certificate> {
    let search = async {
        loop {
            let now = stage.certificate(pod).await.context("reading the certificate")?;
            if now.serial != old.serial {
                return anyhow::Ok(now);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(limit, search).await {
        Ok(found) => found,
        Err(_) => bail!("the certificate was not renewed within {} s", limit.as_secs()),
    }
}

/// The end of a serial number, enough to tell two apart.
fn tail(serial: &str) -> &str {
    serial.get(serial.len().saturating_sub(6)..).unwrap_or(serial)
}
