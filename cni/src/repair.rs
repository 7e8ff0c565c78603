//! Pods that started while the plugin was absent: found by their missing rules, and captured in
//! place, deleted or labelled, as configured. Never silently: each gets an event.
//!
//! [`broken`] judges, [`find`] knows where a pod's network namespace is.

pub mod broken;
pub mod find;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use lateen_interception::{ApplyError, RedirectPlan, State, apply, netns, verify};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::agent::node_pods::{Key, NodePods, key, uid};
use crate::agent::refuse_own_namespace;
use crate::cluster::denied::pods;
use crate::cluster::events::Events;
use crate::cluster::within;
use crate::drift::{Drift, Subject};
use crate::metrics::Metrics;
use crate::settings::Repair as Mode;
use broken::{Captured, Look, judge, validation_failed};

/// Least time between looks, however much changes.
const PACE: Duration = Duration::from_millis(500);
/// Time between looks when nothing changes; also until a failure is tried again.
const RESCAN: Duration = Duration::from_secs(15);
/// Label of mode `label`.
const LABEL: &str = "cni.istio.io/uninitialized";

/// Looks at pods and acts on what it finds.
pub struct Repair {
    /// The node's pods.
    pub store: Arc<NodePods>,
    /// For deleting and labelling.
    pub client: Client,
    /// For telling.
    pub events: Events,
    /// For counting.
    pub metrics: Arc<Metrics>,
    /// What to do.
    pub mode: Mode,
    /// Where the runtime keeps network namespaces.
    pub namespaces: PathBuf,
    /// Namespaces whose pods are left alone.
    pub excluded: Vec<String>,
    /// What keeps the rules of those that are captured.
    pub drift: Drift,
}

impl std::fmt::Debug for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repair").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// A pod, and how its rules are.
struct Examined {
    pod: Value,
    result: Result<Finding, String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// It has rules.
    Captured,
    /// It had none, and has them now.
    Repaired,
    /// It has none.
    Uncaptured,
}

impl Repair {
    /// Looks whenever pods change, until `stop`.
    pub async fn follow(self, stop: CancellationToken) {
        let mut news = self.store.news();
        let mut complained = HashSet::new();
        loop {
            self.pass(&mut complained, &stop).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(PACE) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = timeout(RESCAN, news.changed()) => {}
            }
        }
    }

    async fn pass(&self, complained: &mut HashSet<String>, stop: &CancellationToken) {
        let mut look = Vec::new();
        for pod in self.store.unsettled(validation_failed) {
            match judge(&pod, &self.excluded) {
                Look::Never => self.store.settle(uid(&pod)),
                Look::NotNow => {}
                Look::At(captured) => look.push((pod, captured)),
            }
        }
        if look.is_empty() {
            return;
        }
        let (folder, drift) = (self.namespaces.clone(), self.drift.clone());
        let in_place = self.mode == Mode::InPlace;
        let examined = spawn_blocking(move || {
            examine(&folder, look, |subject| {
                let finding = examine_one(&subject, in_place)?;
                if finding != Finding::Uncaptured {
                    drift.watch(subject);
                }
                Ok(finding)
            })
        });
        let Ok(examined) = examined.await else { return };
        for one in examined {
            // What is repaired is told, even then.
            if stop.is_cancelled() && one.result != Ok(Finding::Repaired) {
                continue;
            }
            let id = uid(&one.pod).to_owned();
            match one.result {
                Ok(Finding::Captured) => self.store.settle(&id),
                Ok(finding) => self.act(&one.pod, &finding).await,
                // Said once a pod; tried again each time.
                Err(problem) if complained.insert(id) => self.complain(&one.pod, &problem).await,
                Err(_) => {}
            }
        }
        if complained.len() > 10_000 {
            complained.clear();
        }
    }

    async fn complain(&self, pod: &Value, problem: &str) {
        let Key { namespace, name } = key(pod);
        tracing::warn!(namespace, pod = name, "cannot tell whether the pod is captured: {problem}");
        self.metrics.repaired(self.mode, false);
        if validation_failed(pod) {
            let note =
                format!("The pod's traffic is not captured and it was not repaired: {problem}");
            self.events.tell(pod, true, ("NotCaptured", &note)).await;
        }
    }

    async fn act(&self, pod: &Value, finding: &Finding) {
        const WHY: &str = "it started while the CNI plugin was absent";
        let Key { namespace, name } = key(pod);
        let done = match self.mode {
            _ if *finding == Finding::Repaired => Ok("Captured"),
            Mode::Delete => self.delete(pod, (&namespace, &name)).await.map(|()| "Deleted"),
            Mode::Label => self.label(&namespace, &name).await.map(|()| "Labelled"),
            Mode::Off | Mode::InPlace => Ok("NotCaptured"),
        };
        self.metrics.repaired(self.mode, done.is_ok());
        let (reason, note) = match done {
            Ok("Captured") => (
                "Captured",
                format!(
                    "The pod had no redirect rules, because {WHY}; they are in place now. \
                 Connections that were open before pass outside of the mesh until they end"
                ),
            ),
            Ok("NotCaptured") => (
                "NotCaptured",
                format!(
                    "The pod's traffic is not captured, because {WHY}, and repair is off: delete the pod"
                ),
            ),
            Ok(done) => (done, format!("The pod's traffic was not captured, because {WHY}")),
            Err(problem) => ("NotRepaired", problem),
        };
        tracing::warn!(namespace, pod = name, reason, "{note}");
        if reason != "NotRepaired" {
            self.store.settle(uid(pod));
        }
        self.events.tell(pod, reason != "Captured", (reason, &note)).await;
    }

    /// Exactly the pod that was looked at.
    async fn delete(&self, pod: &Value, (namespace, name): (&str, &str)) -> Result<(), String> {
        let preconditions = Preconditions {
            uid: Some(uid(pod).to_owned()),
            resource_version: pod["metadata"]["resourceVersion"].as_str().map(str::to_owned),
        };
        let how = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        within(pods("delete"), api.delete(name, &how)).await.map(drop)
    }

    async fn label(&self, namespace: &str, name: &str) -> Result<(), String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"labels": {LABEL: "true"}}});
        let how = PatchParams::default();
        within(pods("patch"), api.patch(name, &how, &Patch::Merge(patch))).await.map(drop)
    }
}

/// Looks at pods, in each of the network namespaces that have their addresses. Blocking.
fn examine(
    folder: &Path,
    look: Vec<(Value, Captured)>,
    one: impl Fn(Subject) -> Result<Finding, String>,
) -> Vec<Examined> {
    let namespaces = find::by_address(folder).map_err(|e| format!("{}: {e}", folder.display()));
    let examined = look.into_iter().map(|(pod, captured)| {
        let paths = match &namespaces {
            Ok(namespaces) => paths(namespaces, &captured),
            Err(problem) => Err(problem.clone()),
        };
        let plan = RedirectPlan::new(&captured.settings);
        let subject = |netns| Subject { pod: pod.clone(), netns, plan: plan.clone() };
        let result = paths.and_then(|paths| {
            paths.into_iter().try_fold(Finding::Captured, |worst, path| {
                Ok(match one(subject(path))? {
                    Finding::Captured => worst,
                    worse => worse,
                })
            })
        });
        Examined { pod, result }
    });
    examined.collect()
}

fn paths(
    namespaces: &HashMap<IpAddr, Vec<PathBuf>>,
    captured: &Captured,
) -> Result<Vec<PathBuf>, String> {
    let found = captured.addresses.iter().filter_map(|ip| namespaces.get(ip));
    let mut paths: Vec<PathBuf> = found.flatten().cloned().collect();
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        return Err(format!("no network namespace has its address {:?}", captured.addresses));
    }
    Ok(paths)
}

/// Looks at the rules of one, and sets them where they are missing and `in_place`.
fn examine_one(subject: &Subject, in_place: bool) -> Result<Finding, String> {
    let (path, plan) = (subject.netns.as_path(), &subject.plan);
    refuse_own_namespace(path).map_err(|e| e.to_string())?;
    let done = netns::run_in(path, || -> Result<Finding, ApplyError> {
        match verify(plan)? {
            State::Absent if in_place => apply(plan).map(|()| Finding::Repaired),
            State::Absent => Ok(Finding::Uncaptured),
            // Rules of ours: what the pod's annotations say now may be newer than they are, and
            // what somebody changed in them is found by the first look of those who watch.
            State::Planned | State::Differs(_) => Ok(Finding::Captured),
        }
    });
    done.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}
