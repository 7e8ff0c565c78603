//! Keeps pods off a node that cannot capture them: the node has a taint until the agent is ready,
//! and gets it again when the agent has not been ready for long.
//!
//! The key is Istio's (`pilot/pkg/controllers/untaint`), so that nodes that register with it need no
//! change. Opt-in. [`changed`] and [`wanted`] are pure; [`Taint::follow`] listens and patches.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Node, Taint as NodeTaint};
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cluster::denied::{Access, explain_watch};
use crate::cluster::within;
use crate::health::Health;
use crate::metrics::Metrics;

/// The taint's key.
pub const KEY: &str = "cni.istio.io/not-ready";
const EFFECT: &str = "NoSchedule";
/// Time until a patch that was refused is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Time between looks when nothing is heard.
const IDLE: Duration = Duration::from_secs(3600);

/// Whether a node is to have the taint: `None` while it is too early to say, for this long.
///
/// # Errors
/// The time after which it can be said.
pub fn wanted(unready: Option<Duration>, patience: Duration) -> Result<bool, Duration> {
    match unready {
        None => Ok(false),
        Some(time) if time >= patience => Ok(true),
        Some(time) => Err(patience.saturating_sub(time)),
    }
}

/// The taints that a node of these is to have instead; `None` when they are right.
#[must_use]
pub fn changed(taints: &[NodeTaint], wanted: bool) -> Option<Vec<NodeTaint>> {
    let is_ours = |taint: &NodeTaint| taint.key == KEY;
    if wanted == taints.iter().any(is_ours) {
        return None;
    }
    let mut all: Vec<NodeTaint> = taints.iter().filter(|taint| !is_ours(taint)).cloned().collect();
    if wanted {
        let (key, effect) = (KEY.to_owned(), EFFECT.to_owned());
        all.push(NodeTaint { key, effect, ..NodeTaint::default() });
    }
    Some(all)
}

/// Taints the node of this agent.
#[derive(Clone)]
pub struct Taint {
    /// For listening and patching.
    pub client: Client,
    /// Name of the node.
    pub node: String,
    /// Whether the agent can serve.
    pub health: Arc<Health>,
    /// For counting.
    pub metrics: Arc<Metrics>,
    /// How long it may be unready.
    pub patience: Duration,
}

impl std::fmt::Debug for Taint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taint").field("node", &self.node).finish_non_exhaustive()
    }
}

/// What is known of the node.
#[derive(Debug, Default)]
struct Known {
    taints: Vec<NodeTaint>,
    version: Option<String>,
}

impl Known {
    fn of(node: Node) -> Self {
        let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        Self { taints, version: node.metadata.resource_version }
    }
}

fn access(verb: &str) -> Access<'_> {
    Access { verb, resource: "nodes", namespace: None }
}

impl Taint {
    /// Keeps the taint as it is to be, until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let nodes = watcher(Api::<Node>::all(self.client.clone()), config).default_backoff();
        let mut nodes = pin!(nodes);
        let mut ready = self.health.ready();
        let mut known: Option<Known> = None;
        let mut unready_since = Some(Instant::now());
        loop {
            let is_ready = *ready.borrow_and_update();
            unready_since = match unready_since {
                _ if is_ready => None,
                None => Some(Instant::now()),
                since => since,
            };
            let unready = unready_since.map(|since| since.elapsed());
            let pause = match (wanted(unready, self.patience), known.take()) {
                (Ok(wanted), Some(node)) => self.keep(wanted, node, &mut known).await,
                (Ok(_), None) => IDLE,
                (Err(left), node) => {
                    known = node;
                    left
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                event = nodes.next() => match event {
                    Some(event) => note(event, &mut known),
                    None => return,
                },
                changed = ready.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    /// Patches the node when its taints are not right; gives the time until the next attempt.
    async fn keep(&self, wanted: bool, node: Known, known: &mut Option<Known>) -> Duration {
        let result = match changed(&node.taints, wanted) {
            None => Ok(None),
            Some(taints) => self.patch(&taints, node.version.as_deref()).await.map(Some),
        };
        let (now, pause) = match result {
            Ok(patched) => {
                self.metrics.tainted(wanted);
                if patched.is_some() {
                    let done = if wanted { "tainted" } else { "untainted" };
                    tracing::info!(node = self.node, taint = KEY, "{done}");
                }
                (patched.unwrap_or(node), IDLE)
            }
            Err(problem) => {
                tracing::warn!(node = self.node, taint = KEY, "{problem}");
                (node, AGAIN)
            }
        };
        *known = Some(now);
        pause
    }

    /// As long as nobody else has changed the node since: the list is replaced as a whole.
    async fn patch(&self, taints: &[NodeTaint], version: Option<&str>) -> Result<Known, String> {
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
        let (how, patch) = (PatchParams::default(), Patch::Merge(patch));
        let answer = within(access("patch"), api.patch(&self.node, &how, &patch)).await;
        answer.map(Known::of)
    }

    /// Takes the taint away for good: nobody is left to do it.
    pub async fn remove(&self) {
        let api: Api<Node> = Api::all(self.client.clone());
        let removed = async {
            let node = Known::of(within(access("get"), api.get(&self.node)).await?);
            match changed(&node.taints, false) {
                None => Ok(()),
                Some(taints) => self.patch(&taints, node.version.as_deref()).await.map(drop),
            }
        };
        if let Err(problem) = removed.await {
            let node = &self.node;
            tracing::error!(
                "the node may keep its taint ({problem}): kubectl taint node {node} {KEY}-"
            );
        }
    }
}

fn note(event: watcher::Result<Event<Node>>, known: &mut Option<Known>) {
    match event {
        Ok(Event::Apply(node) | Event::InitApply(node)) => *known = Some(Known::of(node)),
        Ok(Event::Delete(_)) => *known = None,
        Ok(Event::Init | Event::InitDone) => {}
        Err(error) => tracing::warn!("{}", explain_watch("nodes", None, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{KEY, NodeTaint, changed, wanted};
    use std::time::Duration;

    fn taint(key: &str, effect: &str) -> NodeTaint {
        NodeTaint { key: key.into(), effect: effect.into(), ..NodeTaint::default() }
    }

    #[test]
    fn only_the_taint_that_is_ours_changes_whatever_its_effect() {
        let other = taint("node.kubernetes.io/not-ready", "NoSchedule");
        let both = [taint(KEY, "NoExecute"), other.clone(), taint(KEY, "NoSchedule")];
        assert_eq!(changed(&both, false), Some(vec![other.clone()]));
        assert_eq!(changed(&both, true), None);
        assert_eq!(changed(&[], false), None);
        assert_eq!(
            changed(std::slice::from_ref(&other), true),
            Some(vec![other, taint(KEY, "NoSchedule")])
        );
    }

    #[test]
    fn a_moment_of_unreadiness_taints_nothing() {
        let second = Duration::from_secs(1);
        assert_eq!(wanted(None, second), Ok(false));
        assert_eq!(wanted(Some(Duration::ZERO), second), Err(second));
        assert_eq!(wanted(Some(second / 4), second), Err(second * 3 / 4));
        assert_eq!(wanted(Some(second), second), Ok(true));
    }
}
