//! The workload a pod belongs to, guessed from its controller as Istio does it.
//!
//! Names in the mesh are those of Deployments, not of the ReplicaSets between. Pure; knows nothing
//! of telemetry or injection, which both speak of workloads.

use crate::meta::{ObjectMeta, OwnerReference};
use crate::names::label;

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// API group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl Workload {
    fn new(api_version: &str, kind: &str, name: &str) -> Self {
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), name: name.to_owned() }
    }

    /// The workload of a pod with this metadata; a pod that nobody controls is its own.
    #[must_use]
    pub fn of_pod(meta: &ObjectMeta) -> Self {
        let generated = meta.generate_name.as_deref().unwrap_or_default();
        if let (Some(controller), false) = (meta.controller(), generated.is_empty()) {
            return of_controller(controller, meta);
        }
        let own = Some(meta.name.as_str()).filter(|name| !name.is_empty());
        Self::new("v1", "Pod", own.unwrap_or_else(|| generated.trim_end_matches('-')))
    }

    /// The owner as proxies report it.
    #[must_use]
    pub fn path(&self, namespace: &str) -> String {
        format!(
            "kubernetes://apis/{}/namespaces/{namespace}/{}s/{}",
            self.api_version,
            self.kind.to_lowercase(),
            self.name
        )
    }
}

fn of_controller(controller: &OwnerReference, meta: &ObjectMeta) -> Workload {
    let OwnerReference { api_version, kind, name, .. } = controller;
    let labelled = |key: &str| meta.labels.get(key).filter(|value| !value.is_empty());
    let without = |hash: &String| {
        let name = name.strip_suffix(hash.as_str())?.strip_suffix('-')?;
        (!name.is_empty()).then_some(name)
    };
    let itself = || Workload::new(api_version, kind, name);
    match kind.as_str() {
        "ReplicaSet" => {
            if let Some(name) = labelled(label::ROLLOUTS_POD_TEMPLATE_HASH).and_then(without) {
                return Workload::new("v1alpha1", "Rollout", name);
            }
            labelled(label::POD_TEMPLATE_HASH)
                .and_then(without)
                .map_or_else(itself, |name| Workload::new("apps/v1", "Deployment", name))
        }
        "ReplicationController" => labelled(label::DEPLOYMENT_CONFIG)
            .map_or_else(itself, |name| Workload::new("v1", "DeploymentConfig", name)),
        "Job" => {
            cron_job(name).map_or_else(itself, |name| Workload::new("batch/v1", "CronJob", name))
        }
        _ => itself(),
    }
}

/// Name of the CronJob of a Job that ends in the minute (8 to 10 digits) it was due.
fn cron_job(job: &str) -> Option<&str> {
    let (name, minute) = job.rsplit_once('-')?;
    let digits = (8..=10).contains(&minute.len()) && minute.bytes().all(|b| b.is_ascii_digit());
    (digits && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::Workload;
    use crate::meta::ObjectMeta;
    use serde_json::{Value, json};

    fn of(metadata: Value) -> Workload {
        let meta: ObjectMeta = serde_json::from_value(metadata).unwrap();
        Workload::of_pod(&meta)
    }

    fn pod(kind: &str, name: &str, labels: &Value) -> Value {
        json!({
            "generateName": format!("{name}-"), "labels": labels,
            "ownerReferences": [{"apiVersion": "x/v1", "kind": kind, "name": name, "controller": true}],
        })
    }

    #[test]
    fn controllers() {
        let hash = json!({"pod-template-hash": "abc"});
        let rollout = json!({"rollouts-pod-template-hash": "abc"});
        let config = json!({"deploymentconfig": "web"});
        let none = json!({});
        let cases = [
            ("ReplicaSet", "web-abc", &hash, ("apps/v1", "Deployment", "web")),
            ("ReplicaSet", "web-xyz", &hash, ("x/v1", "ReplicaSet", "web-xyz")),
            ("ReplicaSet", "web-abc", &rollout, ("v1alpha1", "Rollout", "web")),
            ("ReplicationController", "web-1", &config, ("v1", "DeploymentConfig", "web")),
            ("ReplicationController", "web-1", &none, ("x/v1", "ReplicationController", "web-1")),
            ("Job", "tidy-27894563", &none, ("batch/v1", "CronJob", "tidy")),
            ("Job", "tidy-123", &none, ("x/v1", "Job", "tidy-123")),
            ("StatefulSet", "db", &none, ("x/v1", "StatefulSet", "db")),
        ];
        for (kind, name, labels, (api_version, expected, workload)) in cases {
            assert_eq!(of(pod(kind, name, labels)), Workload::new(api_version, expected, workload));
        }
    }

    #[test]
    fn a_pod_of_its_own() {
        let bare = of(json!({"name": "solo"}));
        assert_eq!(bare.path("shop"), "kubernetes://apis/v1/namespaces/shop/pods/solo");
        assert_eq!(of(json!({"generateName": "solo-"})).name, "solo");
    }
}
