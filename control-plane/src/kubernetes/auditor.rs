//! Looks for pods that are not as they would be if they were created today: without the sidecar that is
//! due, or with one that other settings made.
//!
//! The leader alone looks, page by page, and keeps nothing of the pods. What is wrong with a pod is
//! decided in the webhook crate; here it is counted, and told a few times.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use lateen_webhook::admission::Injector;
use lateen_webhook::audit::{Audit, State, audit, lives};
use lateen_webhook::explain::Surroundings;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh64::xxh64;

use super::ask::{Failure, Trouble, ask};
use super::denied::Tried;
use super::events::{Events, Note};
use crate::cluster::Cluster;
use crate::serve::metrics::Metrics;
use crate::serve::readiness::Readiness;

/// Pods of one answer.
const PAGE: u32 = 250;
/// Events of one look: the counts say the rest, and `lateen ps` which.
const TOLD: usize = 10;
/// Time between looks at whether there is something new to look for.
const BEAT: Duration = Duration::from_secs(1);

/// The auditor.
#[derive(Debug)]
pub struct Auditor {
    cluster: Cluster,
    injector: Arc<ArcSwap<Injector>>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    period: Duration,
    trouble: Trouble,
    /// Pods and states that were told of.
    told: HashSet<(String, State)>,
}

/// What one look has found.
#[derive(Debug, Default)]
struct Found {
    counts: BTreeMap<State, i64>,
    told: HashSet<(String, State)>,
}

impl Auditor {
    /// One that looks every `period` and whenever the settings of injection change.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        injector: Arc<ArcSwap<Injector>>,
        events: Arc<Events>,
        (metrics, period): (Arc<Metrics>, Duration),
        readiness: &Arc<Readiness>,
    ) -> Self {
        let trouble = Trouble::none("audit of sidecars", Arc::clone(readiness));
        let cluster = cluster.clone();
        Self { cluster, injector, events, metrics, period, trouble, told: HashSet::new() }
    }

    /// Looks while this replica leads, until `stop`.
    pub async fn run(mut self, leads: watch::Receiver<bool>, stop: CancellationToken) {
        let mut next = tokio::time::Instant::now();
        let mut judged: Option<u64> = None;
        let mut seen = (self.injector.load_full(), 0);
        seen.1 = fingerprint(&seen.0);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(BEAT) => {}
            }
            if !*leads.borrow() {
                if judged.take().is_some() {
                    self.metrics.set_pods(&BTreeMap::new());
                }
                self.trouble.forget();
                continue;
            }
            let now = self.injector.load_full();
            // Most changes of the mesh leave these as they are.
            if !Arc::ptr_eq(&now, &seen.0) {
                seen = (Arc::clone(&now), fingerprint(&now));
            }
            if judged == Some(seen.1) && tokio::time::Instant::now() < next {
                continue;
            }
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = self.look() => looked,
            };
            match looked {
                Ok(found) => {
                    self.trouble.over();
                    self.metrics.set_pods(&found.counts);
                    self.told = found.told;
                    judged = Some(seen.1);
                    next = tokio::time::Instant::now() + self.period;
                }
                Err(failure) => {
                    let pause = self.trouble.again(failure.to_string());
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    async fn look(&self) -> Result<Found, Failure> {
        let around = self.surroundings().await?;
        let api = self.api("", "Pod", "pods");
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        let mut found = Found::default();
        let mut room = TOLD;
        loop {
            let page = ask(Tried::new("list", "pods"), api.list(&params)).await?;
            for pod in page.items {
                let Ok(pod) = serde_json::to_value(pod) else { continue };
                if let Some(judged) = ours(&pod, &around) {
                    *found.counts.entry(judged.state).or_default() += 1;
                    self.tell(&pod, &judged, &mut found, &mut room).await;
                }
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(found);
            }
        }
    }

    /// The hooks of the cluster, and what we know: our revision's settings.
    async fn surroundings(&self) -> Result<Surroundings, Failure> {
        const GROUP: &str = "admissionregistration.k8s.io";
        const PLURAL: &str = "mutatingwebhookconfigurations";
        let api = self.api(GROUP, "MutatingWebhookConfiguration", PLURAL);
        let tried = Tried::new("list", PLURAL).of(GROUP);
        let listed = ask(tried, api.list(&ListParams::default())).await?;
        let configurations =
            listed.items.into_iter().filter_map(|it| serde_json::to_value(it).ok()).collect();
        let injector = self.injector.load_full();
        let settings = injector.settings.clone();
        Ok(Surroundings {
            configurations,
            namespaces: injector.namespaces.clone(),
            settings: [(settings.revision.clone(), Ok(settings))].into(),
        })
    }

    fn api(&self, group: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        Api::all_with(self.cluster.client.clone(), &resource)
    }

    /// Tells of a pod that is not as it would be, once.
    async fn tell(&self, pod: &Value, judged: &Audit, found: &mut Found, room: &mut usize) {
        let (warning, reason) = match judged.state {
            State::Missing => (true, "SidecarMissing"),
            State::Stale => (false, "SidecarStale"),
            State::Unwanted => (false, "SidecarUnwanted"),
            _ => return,
        };
        let text = |key: &str| pod["metadata"][key].as_str().map(str::to_owned);
        let key = (text("uid").unwrap_or_default(), judged.state);
        if self.told.contains(&key) {
            found.told.insert(key);
            return;
        }
        let Some(left) = room.checked_sub(1) else { return };
        *room = left;
        found.told.insert(key);
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: text("name"),
            namespace: text("namespace"),
            uid: text("uid"),
            ..ObjectReference::default()
        };
        let text = format!(
            "{} ({}); restart its workload: lateen restart --stale -n {}",
            judged.state.explanation(),
            judged.reason,
            about.namespace.as_deref().unwrap_or_default()
        );
        self.events.tell(&about, Note { warning, reason, text: &text }).await;
    }
}

/// What is said of a pod that our revision decides about, or whose sidecar is ours.
fn ours(pod: &Value, around: &Surroundings) -> Option<Audit> {
    if !lives(pod) {
        return None;
    }
    let namespace = pod["metadata"]["namespace"].as_str()?;
    let judged = audit(pod, namespace, around);
    let known = |revision: &Option<String>| {
        revision.as_ref().is_some_and(|revision| around.settings.contains_key(revision))
    };
    let mine = match &judged.decides {
        Some(_) => known(&judged.decides),
        None => known(&judged.revision),
    };
    mine.then_some(judged)
}

/// What the verdicts depend on, as a number that can be compared.
fn fingerprint(injector: &Injector) -> u64 {
    xxh64(format!("{:?}{:?}", injector.settings, injector.namespaces).as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::ours;
    use lateen_webhook::InjectionSettings;
    use lateen_webhook::admission::NamespaceMetadata;
    use lateen_webhook::audit::State;
    use lateen_webhook::explain::Surroundings;
    use lateen_webhook::hooks::webhook_configuration;
    use lateen_webhook::settings::Options;
    use serde_json::json;

    #[test]
    fn pods_of_other_revisions_are_theirs_to_judge() {
        let settings = |revision: &str| {
            let options = Options { revision: revision.to_owned(), ..Options::default() };
            InjectionSettings::from_sources(None, None, options).unwrap()
        };
        let labelled = |key: &str, value: &str| NamespaceMetadata {
            labels: [(key.to_owned(), value.to_owned())].into(),
            ..NamespaceMetadata::default()
        };
        let around = Surroundings {
            configurations: ["default", "canary"]
                .map(|revision| webhook_configuration(&settings(revision), b"PEM"))
                .into(),
            namespaces: [
                ("mine".to_owned(), labelled("istio-injection", "enabled")),
                ("theirs".to_owned(), labelled("istio.io/rev", "canary")),
            ]
            .into(),
            settings: [("default".to_owned(), Ok(settings("default")))].into(),
        };
        let state = |namespace: &str| {
            let pod = json!({"metadata": {"name": "a", "namespace": namespace},
                "spec": {"containers": [{"name": "a", "image": "a"}]}});
            ours(&pod, &around).map(|it| it.state)
        };
        assert_eq!(state("mine"), Some(State::Missing));
        assert_eq!(state("theirs"), None);
        assert_eq!(state("outside"), None);
    }
}
