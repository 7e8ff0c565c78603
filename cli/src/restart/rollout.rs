//! One workload, restarted and waited for.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use lateen_webhook::audit::State;
use lateen_webhook::selectors::Labels;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::plan::{Budget, Progress, budget, down_at_once, progress};
use crate::cluster::{DISRUPTION_BUDGET, Kind, Live, kind_of, untyped};

/// By what kubectl restarts too.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";
/// Field manager of the change.
const MANAGER: &str = "lateen";

/// A workload that can be restarted.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// How its pods stand.
    pub(crate) states: BTreeSet<State>,
    /// How many of them would be other ones.
    pub(crate) pods: usize,
}

impl fmt::Display for Workload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states: Vec<&str> = self.states.iter().map(|state| state.code()).collect();
        write!(
            out,
            "{}/{} in {}: {} pods, {}",
            self.kind.kind.to_lowercase(),
            self.name,
            self.namespace,
            self.pods,
            states.join(", ")
        )
    }
}

/// What came of a restart.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done(String),
    LeftOut(String),
    Failed(String),
}

/// The workload that a pod belongs to, or why it has none that can be restarted.
pub(crate) async fn workload_of(
    live: &Live,
    pod: &Value,
) -> anyhow::Result<Result<Workload, String>> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let Some((kind, name)) = controller(pod) else {
        let why = "nobody creates it again: delete it and create it anew";
        return Ok(Err(why.to_owned()));
    };
    let (kind, name) = match kind_of(&kind).filter(|it| it.kind == "ReplicaSet") {
        None => (kind, name),
        Some(replica_set) => match live.get(replica_set, Some(namespace), &name).await? {
            None => (kind, name),
            Some(object) => controller(&object).unwrap_or((kind, name)),
        },
    };
    let known =
        kind_of(&kind).filter(|it| ["Deployment", "StatefulSet", "DaemonSet"].contains(&it.kind));
    Ok(match known {
        Some(kind) => Ok(Workload {
            kind,
            namespace: namespace.to_owned(),
            name,
            states: BTreeSet::new(),
            pods: 0,
        }),
        None => Err(format!(
            "it belongs to {kind} {name}, which has no rollout: its next pods will be as they should"
        )),
    })
}

/// Kind and name of the controller of an object.
fn controller(object: &Value) -> Option<(String, String)> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some((owner["kind"].as_str()?.to_owned(), owner["name"].as_str()?.to_owned()))
}

/// Restarts a workload when budgets allow, and waits until its pods are new and ready.
pub(crate) async fn restart(
    live: &Live,
    workload: &Workload,
    patience: Duration,
    dry_run: bool,
) -> anyhow::Result<Outcome> {
    let Workload { kind, namespace, name, .. } = workload;
    let Some(object) = live.get(kind, Some(namespace), name).await? else {
        return Ok(Outcome::LeftOut("it is gone".to_owned()));
    };
    let down = match down_at_once(&object) {
        Ok(down) => down,
        Err(why) => return Ok(Outcome::LeftOut(why)),
    };
    let labels: Labels =
        serde_json::from_value(object["spec"]["template"]["metadata"]["labels"].clone())
            .unwrap_or_default();
    let begun = Instant::now();
    loop {
        let budgets = live.list(&DISRUPTION_BUDGET, Some(namespace), None).await?;
        match budget(down, &budgets, &labels) {
            Budget::Free => break,
            Budget::Never(why) => return Ok(Outcome::LeftOut(why)),
            Budget::Wait(name, wanted) if dry_run => {
                let text = format!("would wait until budget {name} allows {wanted}");
                return Ok(Outcome::Done(text));
            }
            Budget::Wait(name, wanted) => {
                println!("    waiting until PodDisruptionBudget {name} allows {wanted}");
                let api = live.api(&DISRUPTION_BUDGET, Some(namespace));
                let allows = |budget: Option<&Value>| {
                    budget
                        .is_none_or(|it| {
                            it["status"]["disruptionsAllowed"].as_u64().unwrap_or_default()
                                >= wanted
                        })
                        .then_some(())
                };
                let left = patience.saturating_sub(begun.elapsed());
                if until((api, &DISRUPTION_BUDGET), &name, left, allows).await.is_none() {
                    let seconds = patience.as_secs();
                    return Ok(Outcome::LeftOut(format!(
                        "PodDisruptionBudget {name} did not allow it in {seconds} s; are its pods \
                         well? kubectl get pods -n {namespace}"
                    )));
                }
            }
        }
    }
    if dry_run {
        return Ok(Outcome::Done("would be restarted".to_owned()));
    }
    roll(live, workload, patience).await
}

async fn roll(live: &Live, workload: &Workload, patience: Duration) -> anyhow::Result<Outcome> {
    let Workload { kind, namespace, name, .. } = workload;
    let now = OffsetDateTime::from(SystemTime::now()).format(&Rfc3339)?;
    let patch = json!({"spec": {"template": {"metadata": {"annotations": {(RESTARTED): now}}}}});
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let api = live.api(kind, Some(namespace));
    let begun = Instant::now();
    let patched = api.patch(name, &params, &Patch::Merge(patch)).await;
    let patched = patched.with_context(|| format!("{workload}: cannot be restarted"))?;
    let generation = patched.metadata.generation.unwrap_or_default();
    let mut said = String::new();
    let look = |object: Option<&Value>| {
        let Some(object) = object else {
            return Some(Outcome::Failed("it was deleted meanwhile".to_owned()));
        };
        // The watch may begin with what was before.
        if object["metadata"]["generation"].as_i64().unwrap_or_default() < generation {
            return None;
        }
        match progress(object) {
            Progress::Done => {
                let seconds = begun.elapsed().as_secs_f32();
                Some(Outcome::Done(format!("restarted in {seconds:.1} s")))
            }
            Progress::Failed(why) => Some(Outcome::Failed(why)),
            Progress::Going(text) => {
                if text != said {
                    println!("    {text}");
                    said = text;
                }
                None
            }
        }
    };
    let outcome = until((api, kind), name, patience, look).await;
    Ok(outcome
        .unwrap_or_else(|| Outcome::Failed(format!("it was not over in {} s", patience.as_secs()))))
}

/// Watches an object until `look` sees what it wants, for at most `patience`. A watch that fails is
/// begun again.
async fn until<T>(
    (api, kind): (Api<DynamicObject>, &Kind),
    name: &str,
    patience: Duration,
    mut look: impl FnMut(Option<&Value>) -> Option<T>,
) -> Option<T> {
    let mut watch = Box::pin(watcher::watch_object(api, name).default_backoff());
    let seen = async {
        while let Some(next) = watch.next().await {
            let Ok(object) = next else { continue };
            let object = object.and_then(|object| untyped(kind, object).ok());
            if let Some(found) = look(object.as_ref()) {
                return Some(found);
            }
        }
        None
    };
    tokio::time::timeout(patience, seen).await.ok().flatten()
}
