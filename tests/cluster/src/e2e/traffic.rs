//! Claims about routing.

use std::time::Duration;

use super::stage::{BOOKINFO, Stage, lost, told, until};

const REVIEWS: &str = "http://reviews:9080/reviews/0";

/// The application of productpage reaches all versions, itself and through the mesh.
pub(super) async fn versions(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let page = stage.pod(BOOKINFO, "app=productpage").await?;
    let summary = stage.get(&page, &[REVIEWS, "-n", "90"]).await?;
    let all = ["v1", "v2", "v3"].iter().all(|version| summary.versions.contains_key(*version));
    Ok((all && lost(&summary) == 0, format!("{:?}; {}", summary.versions, told(&summary))))
}

/// Everything to v1.
pub(super) async fn all_v1(stage: &Stage) -> anyhow::Result<(bool, String)> {
    stage.sample("bookinfo/networking/virtual-service-all-v1.yaml").await?;
    let page = stage.pod(BOOKINFO, "app=productpage").await?;
    let summary = settled(stage, &page, &[REVIEWS, "-n", "60"], "v1").await?;
    Ok((lost(&summary) == 0, format!("{:?} of 60", summary.versions)))
}

/// One user to v2, the others to v1.
pub(super) async fn by_header(stage: &Stage) -> anyhow::Result<(bool, String)> {
    stage.sample("bookinfo/networking/virtual-service-reviews-test-v2.yaml").await?;
    let page = stage.pod(BOOKINFO, "app=productpage").await?;
    let jason =
        settled(stage, &page, &[REVIEWS, "-n", "60", "-H", "end-user: jason"], "v2").await?;
    let others = stage.get(&page, &[REVIEWS, "-n", "60"]).await?;
    let ok = others.versions.get("v1") == Some(&60) && lost(&jason) == 0;
    Ok((ok, format!("jason {:?}, others {:?}", jason.versions, others.versions)))
}

/// Asks until one version alone answers.
async fn settled(
    stage: &Stage,
    page: &super::stage::Pod,
    arguments: &[&str],
    version: &str,
) -> anyhow::Result<lateen_lab::echo::load::Summary> {
    let what = format!("{version} alone answers");
    let (summary, _) = until(&what, Duration::from_secs(20), async || {
        let summary = stage.get(page, arguments).await?;
        let alone = summary.versions.len() == 1 && summary.versions.contains_key(version);
        Ok(alone.then_some(summary))
    })
    .await?;
    Ok(summary)
}
