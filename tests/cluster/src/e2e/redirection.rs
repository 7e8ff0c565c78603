//! The claim about rules in the pods' network namespaces: whoever takes them away, they come back.

use std::collections::BTreeSet;

use super::security::is_captured;
use super::stage::{BOOKINFO, LIMIT, Stage, until};

/// Deletes the rules wherever there are some, and names those places.
const DELETE: &str = "for pod in /run/netns/*; do
    nsenter --net=$pod nft delete table inet lateen 2>/dev/null && echo $pod
done; true";
/// Names the places, of those given as arguments, that have no rules.
const BARE: &str = "for pod; do
    nsenter --net=$pod nft list table inet lateen >/dev/null 2>&1 || echo $pod
done";

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
