//! The ConfigMap with the roots that workloads trust, in every namespace that can have workloads.
//!
//! Written by the leader alone, while it leads: when a namespace comes, when a ConfigMap is changed
//! or deleted, and when the roots change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use lateen_api::names::cluster::IGNORED_NAMESPACES;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::MANAGER;
use super::ask::{Failure, Trouble, ask, explain_watch};
use super::ca_bundle::Former;
use super::denied::{Tried, is_terminating};
use super::mirror::{Change, Mirror};
use super::owner;
use super::roots::Roots;
use crate::cluster::Cluster;
use crate::serve::readiness::Readiness;

/// Name of the ConfigMap.
pub const NAME: &str = "istio-ca-root-cert";
/// Its key.
const KEY: &str = "root-cert.pem";
/// Its label, by which others tell that it is not a user's.
const LABEL: (&str, &str) = ("istio.io/config", "true");
/// Writes at once.
const WRITES: usize = 16;

/// What matters of a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    roots: Roots,
    labelled: bool,
}

impl Present {
    fn of(map: &ConfigMap) -> Self {
        let text = map.data.as_ref().and_then(|data| data.get(KEY));
        let roots = text.map(|text| Roots::of_pem(text.as_bytes())).unwrap_or_default();
        let label = map.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL.0));
        Self { roots, labelled: label.is_some_and(|it| it == LABEL.1) }
    }
}

/// Whether a namespace gets the ConfigMap: it is not one of the system's, nor about to go.
#[must_use]
pub fn is_served(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    let going = namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating");
    !going && !IGNORED_NAMESPACES.contains(&namespace.name_any().as_str())
}

/// What the ConfigMap of a namespace should hold, when it does not. `now` as in [`Former::next`].
pub fn due(
    former: &mut Former,
    namespace: &str,
    wanted: &Roots,
    present: Option<&Present>,
    now: (Duration, SystemTime),
) -> Option<Roots> {
    let Some(present) = present else { return Some(wanted.clone()) };
    let next = former.next(namespace, wanted, &present.roots, now);
    next.or_else(|| (!present.labelled).then(|| present.roots.clone()))
}

/// The ConfigMap as it is applied; with an owner it goes when the owner goes.
#[must_use]
pub fn config_map(roots: &Roots, owner: Option<&Value>) -> Value {
    let mut map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "labels": {LABEL.0: LABEL.1}},
        "data": {KEY: roots.pem()},
    });
    if let Some(owner) = owner {
        map["metadata"]["ownerReferences"] = json!([owner]);
    }
    map
}

/// The writer.
#[derive(Debug)]
pub struct RootCertificates {
    cluster: Cluster,
    wanted: watch::Receiver<Roots>,
    /// Our chart's cluster role, and the reference to it.
    role: String,
    owner: Option<Value>,
    former: Former,
    begun: Instant,
    namespaces: Mirror<()>,
    maps: Mirror<Present>,
    /// Namespaces to look at.
    dirty: BTreeSet<String>,
    /// Namespaces whose write failed, and when they are looked at again.
    late: (BTreeSet<String>, Instant),
    writing: BTreeSet<String>,
    writes: Trouble,
    /// With the watches of namespaces and of ConfigMaps.
    watches: [Trouble; 2],
    owners: Trouble,
}

/// A write that has ended.
#[derive(Debug)]
struct Written(String, Result<ConfigMap, Failure>);

impl RootCertificates {
    /// A writer of the `wanted` roots, which keeps former ones for `grace`, on behalf of the chart's
    /// cluster role `role`.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        role: String,
        wanted: watch::Receiver<Roots>,
        grace: Duration,
        readiness: &Arc<Readiness>,
    ) -> Self {
        Self {
            cluster: cluster.clone(),
            wanted,
            role,
            owner: None,
            former: Former::new(grace),
            begun: Instant::now(),
            namespaces: Mirror::default(),
            maps: Mirror::default(),
            dirty: BTreeSet::new(),
            late: (BTreeSet::new(), Instant::now()),
            writing: BTreeSet::new(),
            writes: Trouble::none("root certificates", Arc::clone(readiness)),
            watches: ["watch of namespaces", "watch of root certificates"]
                .map(|part| Trouble::none(part, Arc::clone(readiness))),
            owners: Trouble::none("owner of root certificates", Arc::clone(readiness)),
        }
    }

    /// Writes whenever this replica leads, until `stop`.
    pub async fn run(mut self, mut leads: watch::Receiver<bool>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                led = leads.wait_for(|leads| *leads) => if led.is_err() { return },
            }
            tokio::select! {
                () = stop.cancelled() => return,
                led = leads.wait_for(|leads| !*leads) => if led.is_err() { return },
                () = self.lead() => {}
            }
            self.writing.clear();
            // It is another's now.
            self.writes.forget();
            self.watches.iter_mut().for_each(Trouble::forget);
            (self.namespaces, self.maps) = (Mirror::default(), Mirror::default());
        }
    }

    async fn lead(&mut self) {
        let mut namespaces =
            watcher(Api::<Namespace>::all(self.cluster.client.clone()), watcher::Config::default())
                .default_backoff()
                .boxed();
        let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let maps = Api::<ConfigMap>::all(self.cluster.client.clone());
        let mut maps = watcher(maps, only).default_backoff().boxed();
        let mut writes = FuturesUnordered::new();
        let mut look = Instant::now() + self.former.look();
        self.own().await;
        loop {
            while let Some((namespace, roots)) = self.next(writes.len()) {
                let map = config_map(&roots, self.owner.as_ref());
                writes.push(write(self.cluster.client.clone(), namespace, map));
            }
            let changed = tokio::select! {
                Some(event) = namespaces.next() => self.namespace(event),
                Some(event) = maps.next() => self.map(event),
                Some(written) = writes.next() => self.written(written),
                changed = self.wanted.changed() => match changed {
                    Ok(()) => Change::All,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(self.late.1), if !self.late.0.is_empty() => {
                    self.dirty.append(&mut self.late.0);
                    Change::Nothing
                }
                () = tokio::time::sleep_until(look) => {
                    look = Instant::now() + self.former.look();
                    self.own().await;
                    Change::All
                }
            };
            match changed {
                Change::Nothing => {}
                Change::One(namespace) => {
                    self.dirty.insert(namespace);
                }
                Change::All => {
                    self.dirty.extend(self.namespaces.iter().map(|(name, ())| name.clone()));
                }
            }
        }
    }

    /// Looks for the owner of what is written; where it cannot be told, that of before stays.
    async fn own(&mut self) {
        match owner::reference(&self.cluster, &self.role).await {
            Ok(owner) => {
                self.owner = owner;
                self.owners.over();
            }
            Err(failure) => drop(self.owners.again(failure.to_string())),
        }
    }

    /// The next ConfigMap to write, if one is due and there is room for it.
    fn next(&mut self, under_way: usize) -> Option<(String, Roots)> {
        if under_way >= WRITES || !self.namespaces.is_complete() || !self.maps.is_complete() {
            return None;
        }
        let wanted = self.wanted.borrow_and_update().clone();
        let now = (self.begun.elapsed(), SystemTime::now());
        while let Some(namespace) =
            self.dirty.iter().find(|it| !self.writing.contains(*it)).cloned()
        {
            self.dirty.remove(&namespace);
            if self.namespaces.get(&namespace).is_none() {
                continue;
            }
            if let Some(roots) =
                due(&mut self.former, &namespace, &wanted, self.maps.get(&namespace), now)
            {
                self.writing.insert(namespace.clone());
                return Some((namespace, roots));
            }
        }
        None
    }

    fn namespace(&mut self, event: watcher::Result<watcher::Event<Namespace>>) -> Change {
        match event {
            Ok(event) => {
                self.watches[0].over();
                let read = |it: Namespace| (it.name_any(), is_served(&it).then_some(()));
                self.namespaces.feed(event, read)
            }
            Err(error) => {
                unwatched(&mut self.watches[0], &error, &Tried::new("watch", "namespaces"))
            }
        }
    }

    fn map(&mut self, event: watcher::Result<watcher::Event<ConfigMap>>) -> Change {
        match event {
            Ok(event) => {
                self.watches[1].over();
                let read =
                    |it: ConfigMap| (it.namespace().unwrap_or_default(), Some(Present::of(&it)));
                self.maps.feed(event, read)
            }
            Err(error) => {
                let tried = Tried::new("watch", "configmaps").named(NAME);
                unwatched(&mut self.watches[1], &error, &tried)
            }
        }
    }

    fn written(&mut self, Written(namespace, outcome): Written) -> Change {
        self.writing.remove(&namespace);
        match outcome {
            Ok(map) => {
                self.writes.over();
                tracing::info!(%namespace, "{NAME} is written");
                self.maps.set(namespace, Some(Present::of(&map)));
            }
            // It goes, or is gone already; the watch says which.
            Err(failure)
                if failure.status().is_some_and(|it| is_terminating(it) || it.code == 404) => {}
            Err(failure) => {
                let pause = self.writes.again(failure.to_string());
                self.late.0.insert(namespace);
                self.late.1 = Instant::now() + pause;
            }
        }
        Change::Nothing
    }
}

/// The watch is begun again by itself; what was known stays.
fn unwatched(trouble: &mut Trouble, error: &watcher::Error, tried: &Tried) -> Change {
    let _pause = trouble.again(explain_watch(error, tried));
    Change::Nothing
}

async fn write(client: Client, namespace: String, map: Value) -> Written {
    let maps = Api::<ConfigMap>::namespaced(client, &namespace);
    let tried = Tried::new("patch", "configmaps").named(NAME).within(&namespace);
    let params = PatchParams::apply(MANAGER).force();
    let outcome = ask(tried, maps.patch(NAME, &params, &Patch::Apply(&map))).await;
    Written(namespace, outcome)
}

#[cfg(test)]
mod tests {
    use super::super::ca_bundle::Former;
    use super::super::roots::tests::root;
    use super::{Present, config_map, due, is_served};
    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    use serde_json::{Value, json};
    use std::time::{Duration, SystemTime};

    fn namespace(value: Value) -> Namespace {
        serde_json::from_value(value).unwrap()
    }

    fn map(value: Value) -> Present {
        Present::of(&serde_json::from_value::<ConfigMap>(value).unwrap())
    }

    #[test]
    fn namespaces_that_can_have_workloads_are_served() {
        assert!(is_served(&namespace(json!({"metadata": {"name": "shop"}}))));
        for system in ["kube-system", "kube-public", "kube-node-lease"] {
            assert!(!is_served(&namespace(json!({"metadata": {"name": system}}))), "{system}");
        }
        assert!(!is_served(&namespace(json!({
            "metadata": {"name": "shop"}, "status": {"phase": "Terminating"},
        }))));
    }

    #[test]
    fn what_differs_is_written_and_nothing_else() {
        let now = (Duration::ZERO, SystemTime::now());
        let mut former = Former::new(Duration::from_secs(600));
        let (a, b) = (root(), root());
        assert_eq!(due(&mut former, "shop", &a, None, now), Some(a.clone()));
        let ours = map(config_map(&a, None));
        assert_eq!(due(&mut former, "shop", &a, Some(&ours), now), None);
        let bare = map(json!({"metadata": {}, "data": {"root-cert.pem": a.pem()}}));
        assert_eq!(due(&mut former, "shop", &a, Some(&bare), now), Some(a.clone()), "the label");
        for broken in [json!({"data": {"root-cert.pem": "no"}}), json!({"data": {}})] {
            let mut broken = broken;
            broken["metadata"] = json!({"labels": {"istio.io/config": "true"}});
            assert_eq!(due(&mut former, "shop", &a, Some(&map(broken)), now), Some(a.clone()));
        }
        assert_eq!(
            due(&mut former, "shop", &b, Some(&ours), now),
            Some(a.and(&b)),
            "both for a while"
        );
    }
}
