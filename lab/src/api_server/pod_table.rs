//! The pods there are: what became of each, and what to tell people about it.
//!
//! A plain table; who changes it holds its lock. Time comes in.

use std::collections::{BTreeMap, VecDeque};

use lateen_api::core::{ContainerStatus, Pod, PodStatus};
use serde::Deserialize as _;
use serde_json::Value;

use super::deployments::Replica;
use super::view::{EventRow, PodRow};
use crate::kubelet::PodKey;

/// Most events kept for a pod.
const MAX_EVENTS: usize = 50;
/// Longest text of an event.
const MAX_EVENT: usize = 1024;

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not admitted yet.
    Admitting,
    /// Admitted; the kubelet has it.
    Running,
    /// To be ended, or ending.
    Ending,
}

/// What a pod was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// Name of the Deployment; `None`: the pod was applied itself.
    pub(super) deployment: Option<String>,
    /// Hash of the template.
    pub(super) hash: String,
}

/// A pod.
#[derive(Debug, Clone)]
pub(super) struct PodRecord {
    pub(super) key: PodKey,
    pub(super) owner: Owner,
    /// Counts up with each pod.
    pub(super) age: u64,
    pub(super) stage: Stage,
    /// Before admission what is wished, then what was admitted and stored.
    pub(super) value: Value,
    pub(super) reason: String,
    pub(super) hooks: Vec<String>,
    /// A webhook refused it; it will not do otherwise.
    pub(super) denied: bool,
    pub(super) status: PodStatus,
    pub(super) events: VecDeque<EventRow>,
}

/// All pods by namespace and name.
#[derive(Debug, Default)]
pub(super) struct PodTable {
    pods: BTreeMap<(String, String), PodRecord>,
    made: u64,
}

impl PodTable {
    /// Adds a pod that is to be admitted.
    pub(super) fn add(&mut self, key: PodKey, owner: Owner, value: Value) {
        self.made += 1;
        let record = PodRecord {
            owner,
            age: self.made,
            stage: Stage::Admitting,
            value,
            reason: String::new(),
            hooks: Vec::new(),
            denied: false,
            status: PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() },
            events: VecDeque::new(),
            key: key.clone(),
        };
        self.pods.insert((key.namespace, key.name), record);
    }

    /// The pod of a key, if it is still the same one.
    pub(super) fn get(&self, key: &PodKey) -> Option<&PodRecord> {
        self.pods.get(&place(key)).filter(|record| record.key.uid == key.uid)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, key: &PodKey) -> Option<&mut PodRecord> {
        self.pods.get_mut(&place(key)).filter(|record| record.key.uid == key.uid)
    }

    /// The pod of a name.
    pub(super) fn named(&self, namespace: &str, name: &str) -> Option<&PodRecord> {
        self.pods.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Forgets a pod.
    pub(super) fn remove(&mut self, key: &PodKey) {
        if self.get(key).is_some() {
            self.pods.remove(&place(key));
        }
    }

    /// All pods.
    pub(super) fn all(&self) -> impl Iterator<Item = &PodRecord> {
        self.pods.values()
    }

    /// The pods of a Deployment that are not ending.
    pub(super) fn replicas(&self, namespace: &str, deployment: &str) -> Vec<Replica> {
        self.all()
            .filter(|record| {
                record.key.namespace == namespace
                    && record.owner.deployment.as_deref() == Some(deployment)
                    && record.stage != Stage::Ending
            })
            .map(|record| Replica {
                name: record.key.name.clone(),
                hash: record.owner.hash.clone(),
                ready: record.is_ready(),
                age: record.age,
            })
            .collect()
    }
}

fn place(key: &PodKey) -> (String, String) {
    (key.namespace.clone(), key.name.clone())
}

impl PodRecord {
    /// Whether all containers are ready.
    pub(super) fn is_ready(&self) -> bool {
        let conditions = &self.status.conditions;
        self.stage == Stage::Running
            && conditions.iter().any(|it| it.kind == "Ready" && it.status == "True")
    }

    /// Whether there is nothing more to wait for.
    pub(super) fn is_settled(&self) -> bool {
        self.is_ready() || self.status.phase.as_deref() == Some("Succeeded")
    }

    /// The stored object with its status; `None` before it is stored.
    pub(super) fn object(&self) -> Option<Value> {
        if self.value["metadata"]["uid"].is_null() {
            return None;
        }
        let mut value = self.value.clone();
        value["status"] = serde_json::to_value(&self.status).ok()?;
        Some(value)
    }

    /// Keeps an event; the same one twice in a row counts once.
    pub(super) fn event(&mut self, reason: &str, message: &str, time: &str) {
        let message: String = message.chars().take(MAX_EVENT).collect();
        if let Some(last) = self.events.back_mut()
            && last.reason == reason
            && last.message == message
        {
            last.count += 1;
            time.clone_into(&mut last.time);
            return;
        }
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        let reason = reason.to_owned();
        self.events.push_back(EventRow { reason, message, time: time.to_owned(), count: 1 });
    }

    /// What people see of it.
    pub(super) fn row(&self) -> PodRow {
        let pod = Pod::deserialize(&self.value).unwrap_or_default();
        let (apps, initial) = (pod.spec.containers.iter(), pod.spec.init_containers.iter());
        let all_containers =
            apps.clone().chain(initial.clone()).map(|it| it.name.clone()).collect();
        let sidecars = initial.filter(|it| it.restart_policy.as_deref() == Some("Always"));
        let containers = apps.chain(sidecars).map(|it| it.name.clone()).collect();
        let with_status = Pod { status: Some(self.status.clone()), ..Pod::default() };
        let addresses = with_status.addresses().into_iter().filter_map(|it| it.parse().ok());
        PodRow {
            name: self.key.name.clone(),
            namespace: self.key.namespace.clone(),
            addresses: addresses.collect(),
            containers,
            all_containers,
            reason: self.reason.clone(),
            hooks: self.hooks.clone(),
            ready: self.is_settled(),
            phase: match self.stage {
                Stage::Ending => "Terminating".to_owned(),
                _ => self.status.phase.clone().unwrap_or_default(),
            },
            restarts: statuses(&self.status).map(|it| it.restart_count).sum(),
            why: self.why(),
            events: self.events.iter().cloned().collect(),
        }
    }

    /// Why it is not ready; empty when it is.
    fn why(&self) -> String {
        if self.is_settled() {
            return String::new();
        }
        if self.stage == Stage::Ending {
            return "ending".to_owned();
        }
        let waiting = statuses(&self.status).filter(|it| !it.ready).find_map(|status| {
            let state = status.state.as_ref()?;
            let (kind, detail) = ["waiting", "terminated"]
                .into_iter()
                .find_map(|kind| Some((kind, state.get(kind)?)))?;
            let reason = detail["reason"].as_str().unwrap_or(kind);
            (reason != "Completed" && reason != "PodInitializing")
                .then(|| format!("{}: {reason}", status.name))
        });
        let unready = statuses(&self.status)
            .find(|it| !it.ready && it.state.as_ref().is_some_and(|it| it["running"].is_object()))
            .map(|it| format!("{}: running, not ready", it.name));
        let last = self.events.back().map(|event| format!("{}: {}", event.reason, event.message));
        let parts: Vec<String> = waiting.or(unready).into_iter().chain(last).collect();
        if parts.is_empty() { "starting".to_owned() } else { parts.join("; ") }
    }
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().chain(&status.container_statuses)
}

#[cfg(test)]
mod tests {
    use super::{Owner, PodTable, Stage};
    use crate::kubelet::PodKey;
    use lateen_api::core::PodStatus;
    use serde_json::json;

    fn key(uid: &str) -> PodKey {
        PodKey { namespace: "n".to_owned(), name: "p".to_owned(), uid: uid.to_owned() }
    }

    fn table() -> PodTable {
        let mut table = PodTable::default();
        let owner = Owner { deployment: Some("d".to_owned()), hash: "h".to_owned() };
        let value = json!({"spec": {
            "containers": [{"name": "app"}],
            "initContainers": [{"name": "once"}, {"name": "istio-proxy", "restartPolicy": "Always"}],
        }});
        table.add(key("1"), owner, value);
        table
    }

    #[test]
    fn a_key_of_an_earlier_pod_of_the_name_is_none() {
        let mut table = table();
        assert!(table.get(&key("1")).is_some() && table.get(&key("2")).is_none());
        table.remove(&key("2"));
        assert!(table.named("n", "p").is_some());
        table.remove(&key("1"));
        assert!(table.named("n", "p").is_none());
    }

    #[test]
    fn sidecars_are_containers_and_the_reason_is_shown() {
        let mut table = table();
        let record = table.get_mut(&key("1")).unwrap();
        record.stage = Stage::Running;
        record.status = serde_json::from_value::<PodStatus>(json!({
            "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "containerStatuses": [{"name": "app", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
        }))
        .unwrap();
        record.event("BackOff", "exit status 1", "t");
        record.event("BackOff", "exit status 1", "u");
        let row = record.row();
        assert_eq!(row.containers, ["app", "istio-proxy"]);
        assert_eq!(row.addresses.len(), 2);
        assert_eq!(row.why, "app: CrashLoopBackOff; BackOff: exit status 1");
        assert_eq!((row.restarts, row.events.len(), row.events[0].count), (3, 1, 2));
        assert!(!row.ready);
        assert_eq!(table.replicas("n", "d").len(), 1);
    }
}
