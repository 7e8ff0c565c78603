//! Claims about rules in the pods' network namespaces: whoever changes them, they come back, and no
//! packet notices that they are put back.

use std::collections::BTreeSet;

use anyhow::ensure;

use super::endurance::{AGENT, under_load};
use super::security::is_captured;
use super::stage::{BOOKINFO, LIMIT, SYSTEM, Stage, until};
use crate::cluster::Cluster;

/// Deletes the rules wherever there are some, and names those places.
const DELETE: &str = "for pod in /run/netns/*; do
    nsenter --net=$pod nft delete table inet lateen 2>/dev/null && echo $pod
done; true";
/// Names the places, of those given as arguments, that have no rules.
const BARE: &str = "for pod; do
    nsenter --net=$pod nft list table inet lateen >/dev/null 2>&1 || echo $pod
done";
/// Adds a rule that does nothing wherever there are rules, and names those places.
const STRAY: &str = "for pod in /run/netns/*; do
    nsenter --net=$pod nft add rule inet lateen nat-output counter comment stray 2>/dev/null &&
        echo $pod
done; true";
/// Names the places that have such a rule.
const STRAYED: &str = "for pod in /run/netns/*; do
    nsenter --net=$pod nft list table inet lateen 2>/dev/null | grep -q stray && echo $pod
done; true";
/// Changes in a row, each of which is answered later than the one before.
const CHANGES: usize = 5;

/// Somebody deletes the rules of all meshed pods of the node.
pub(super) async fn tampered(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let node = stage.own()?;
    let deleted = node.output(1, &["sh", "-c", DELETE]).await?;
    let places: Vec<&str> = deleted.split_whitespace().collect();
    let look = [&["sh", "-c", BARE, "sh"][..], &places].concat();
    let (_, time) = until("the rules are back", LIMIT, async || {
        Ok(node.output(1, &look).await?.trim().is_empty().then_some(()))
    })
    .await?;
    let pods = stage.pods(BOOKINFO, "app").await?.len();
    let (told, _) = until("events tell of it", LIMIT, async || {
        let events = stage.kubectl.json(&["get", "events", "-n", BOOKINFO]).await?;
        let events = events["items"].as_array().into_iter().flatten();
        let restored = events.filter(|event| event["reason"] == "RulesRestored");
        let told: BTreeSet<String> =
            restored.map(|event| event["involvedObject"]["name"].to_string()).collect();
        Ok((told.len() >= pods).then_some(told.len()))
    })
    .await?;
    let captured = is_captured(stage, &stage.client().await?).await?;
    let text = format!(
        "deleted in {} pods, back in all after {:.1} s at most, events on {told}; captured: {captured}",
        places.len(),
        time.as_secs_f64()
    );
    Ok((captured && places.len() >= pods, text))
}

/// The rules of all meshed pods are written again and again while requests pass. With STRICT in
/// force a connection that passes outside of the mesh is refused, so it would be missed.
pub(super) async fn rewritten(stage: &Stage) -> anyhow::Result<(bool, String)> {
    let node = stage.own()?;
    under_load(stage, async {
        let before = changes(node).await?;
        let agents = ["-n", SYSTEM, "-l", AGENT];
        stage.kubectl.run(["delete", "pod", "--grace-period=1"].iter().chain(&agents)).await?;
        let status = ["rollout", "status", "daemonset/istio-cni-node", "-n", SYSTEM];
        stage.kubectl.run(status.iter().chain(&["--timeout=60s"])).await?;
        let after = changes(node).await?;
        Ok(format!("changed and put back {} times, the agent deleted between them", before + after))
    })
    .await
}

/// Changes the rules of all pods some times, each time when they are back; says how often rules were
/// put back.
async fn changes(node: &Cluster) -> anyhow::Result<usize> {
    let mut changed = 0;
    for _ in 0..CHANGES {
        let places = node.output(1, &["sh", "-c", STRAY]).await?;
        ensure!(!places.trim().is_empty(), "no pod has rules");
        changed += places.lines().count();
        until("the rules are as they were", LIMIT, async || {
            Ok(node.output(1, &["sh", "-c", STRAYED]).await?.trim().is_empty().then_some(()))
        })
        .await?;
    }
    Ok(changed)
}
