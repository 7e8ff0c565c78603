//! The workload a pod belongs to, guessed from its controller as Istio does it.
//!
//! Names in the mesh are those of Deployments, not of the ReplicaSets between. Pure.

use lateen_api::names::label;
use serde_json::Value;

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

/// The workload of a pod; a pod that nobody controls is its own.
pub(crate) fn of_pod(pod: &Value) -> Workload {
    let metadata = &pod["metadata"];
    let generated = metadata["generateName"].as_str().unwrap_or_default();
    let controller = metadata["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|reference| reference["controller"] == true);
    if let (Some(controller), false) = (controller, generated.is_empty()) {
        return of_controller(controller, metadata);
    }
    let name = metadata["name"].as_str().filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| generated.trim_end_matches('-'));
    Workload::new("v1", "Pod", name)
}

fn of_controller(controller: &Value, metadata: &Value) -> Workload {
    let text = |field: &str| controller[field].as_str().unwrap_or_default();
    let (api_version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let labelled = |key: &str| metadata["labels"][key].as_str().filter(|value| !value.is_empty());
    let without = |hash: &str| {
        name.strip_suffix(hash).and_then(|name| name.strip_suffix('-')).filter(|n| !n.is_empty())
    };
    match kind {
        "ReplicaSet" => {
            let rollout = labelled(label::ROLLOUTS_POD_TEMPLATE_HASH).and_then(without);
            if let Some(name) = rollout {
                return Workload::new("v1alpha1", "Rollout", name);
            }
            match labelled(label::POD_TEMPLATE_HASH).and_then(without) {
                Some(name) => Workload::new("apps/v1", "Deployment", name),
                None => Workload::new(api_version, kind, name),
            }
        }
        "ReplicationController" => match labelled(label::DEPLOYMENT_CONFIG) {
            Some(name) => Workload::new("v1", "DeploymentConfig", name),
            None => Workload::new(api_version, kind, name),
        },
        "Job" => match cron_job(name) {
            Some(name) => Workload::new("batch/v1", "CronJob", name),
            None => Workload::new(api_version, kind, name),
        },
        _ => Workload::new(api_version, kind, name),
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
    #![expect(clippy::needless_pass_by_value, reason = "literals are passed as they stand")]

    use super::{Workload, of_pod};
    use serde_json::{Value, json};

    fn pod(kind: &str, name: &str, labels: Value) -> Value {
        json!({"metadata": {
            "generateName": format!("{name}-"), "labels": labels,
            "ownerReferences": [{"apiVersion": "x/v1", "kind": kind, "name": name, "controller": true}],
        }})
    }

    #[test]
    fn controllers() {
        let hash = json!({"pod-template-hash": "abc"});
        let rollout = json!({"rollouts-pod-template-hash": "abc"});
        let config = json!({"deploymentconfig": "web"});
        let cases = [
            ("ReplicaSet", "web-abc", hash.clone(), ("apps/v1", "Deployment", "web")),
            ("ReplicaSet", "web-xyz", hash, ("x/v1", "ReplicaSet", "web-xyz")),
            ("ReplicaSet", "web-abc", rollout, ("v1alpha1", "Rollout", "web")),
            ("ReplicationController", "web-1", config, ("v1", "DeploymentConfig", "web")),
            (
                "ReplicationController",
                "web-1",
                json!({}),
                ("x/v1", "ReplicationController", "web-1"),
            ),
            ("Job", "tidy-27894563", json!({}), ("batch/v1", "CronJob", "tidy")),
            ("Job", "tidy-123", json!({}), ("x/v1", "Job", "tidy-123")),
            ("StatefulSet", "db", json!({}), ("x/v1", "StatefulSet", "db")),
        ];
        for (kind, name, labels, (api_version, expected, workload)) in cases {
            assert_eq!(
                of_pod(&pod(kind, name, labels)),
                Workload::new(api_version, expected, workload)
            );
        }
    }

    #[test]
    fn a_pod_of_its_own() {
        let bare = json!({"metadata": {"name": "solo"}});
        assert_eq!(of_pod(&bare).path("shop"), "kubernetes://apis/v1/namespaces/shop/pods/solo");
        let generated = json!({"metadata": {"generateName": "solo-"}});
        assert_eq!(of_pod(&generated).name, "solo");
    }
}
