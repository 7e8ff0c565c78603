//! What a pod is like before admission: made of a template, completed as the API server and its
//! ServiceAccount plugin do.
//!
//! Pure but for random names.

use lateen_api::core::Deployment;
use lateen_api::names::label;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::names;
use super::objects::{Key, Role};

/// Where the default token is mounted.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// ConfigMap with the certificate of the API server's authority.
pub const CLUSTER_ROOT: &str = "kube-root-ca.crt";
/// Lifetime of the default token, seconds.
const TOKEN_SECONDS: u64 = 3607;

/// A pod of a Deployment (`value` and `typed` are the same), as its ReplicaSet makes it: without a
/// name, which the API server gives after admission.
#[must_use]
pub fn from_template(value: &Value, typed: &Deployment, hash: &str) -> Value {
    let template = &value["spec"]["template"];
    let name = &typed.metadata.name;
    let mut metadata = Map::new();
    metadata.insert("generateName".to_owned(), json!(format!("{name}-{hash}-")));
    let namespace = typed.metadata.namespace_or_empty();
    metadata.insert("namespace".to_owned(), json!(namespace));
    let mut labels = template["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(label::POD_TEMPLATE_HASH.to_owned(), json!(hash));
    metadata.insert("labels".to_owned(), Value::Object(labels));
    if let Some(annotations) = template["metadata"]["annotations"].as_object() {
        metadata.insert("annotations".to_owned(), json!(annotations));
    }
    let owner = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": format!("{name}-{hash}"),
        "uid": replica_set_uid(typed.metadata.uid.as_deref().unwrap_or_default(), hash),
        "controller": true,
        "blockOwnerDeletion": true,
    });
    metadata.insert("ownerReferences".to_owned(), json!([owner]));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": template["spec"],
    })
}

/// The pod that an object asks for, as it is before admission, and the path of what describes it;
/// `None` for objects that ask for none.
#[must_use]
pub fn of(key: &Key, value: &Value) -> Option<(Value, &'static str)> {
    let (mut pod, path) = match key.role {
        Role::Pod => (value.clone(), ""),
        Role::Deployment => {
            let typed = Deployment::deserialize(value).ok()?;
            let hash = names::template_hash(&value["spec"]["template"]);
            (from_template(value, &typed, &hash), "spec.template")
        }
        _ => return None,
    };
    complete(&mut pod);
    Some((pod, path))
}

/// The id of the ReplicaSet of a template: always the same for the same Deployment and template.
fn replica_set_uid(deployment: &str, hash: &str) -> String {
    let mut digits = hash.bytes().map(|byte| byte & 0x0f);
    let tail: String = deployment
        .chars()
        .map(|letter| match letter.to_digit(16).zip(digits.next().map(u32::from)) {
            Some((digit, other)) => char::from_digit(digit ^ other, 16).unwrap_or(letter),
            None => letter,
        })
        .collect();
    tail
}

/// What the API server fills in before it asks webhooks.
pub fn complete(pod: &mut Value) {
    let spec = &mut pod["spec"];
    let default = |spec: &mut Value, field: &str, value: Value| {
        if spec[field].is_null() {
            spec[field] = value;
        }
    };
    default(spec, "restartPolicy", json!("Always"));
    default(spec, "terminationGracePeriodSeconds", json!(30));
    default(spec, "dnsPolicy", json!("ClusterFirst"));
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", json!("default-scheduler"));
    default(spec, "serviceAccountName", json!("default"));
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    for container in containers(spec) {
        for port in list_of(container, "ports") {
            default(port, "protocol", json!("TCP"));
        }
        default(container, "resources", json!({}));
        default(container, "terminationMessagePath", json!("/dev/termination-log"));
        default(container, "imagePullPolicy", json!("IfNotPresent"));
    }
    mount_token(spec);
}

/// All containers, those of the start too.
fn containers(spec: &mut Value) -> Vec<&mut Value> {
    let Some(spec) = spec.as_object_mut() else { return Vec::new() };
    spec.iter_mut()
        .filter(|(name, _)| matches!(name.as_str(), "initContainers" | "containers"))
        .filter_map(|(_, list)| list.as_array_mut())
        .flatten()
        .collect()
}

/// Mounts the default token into every container that has nothing of its own there.
fn mount_token(spec: &mut Value) {
    if spec["automountServiceAccountToken"] == false {
        return;
    }
    let name = names::generated("kube-api-access-");
    let mut used = false;
    for container in containers(spec) {
        let mounts = &mut container["volumeMounts"];
        if mounts.is_null() {
            *mounts = json!([]);
        }
        let Some(mounts) = mounts.as_array_mut() else { continue };
        if mounts.iter().all(|mount| mount["mountPath"] != TOKEN_PATH) {
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
            used = true;
        }
    }
    if !used {
        return;
    }
    let volume = json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {
                    "name": CLUSTER_ROOT, "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        },
    });
    match spec.get_mut("volumes").and_then(Value::as_array_mut) {
        Some(volumes) => volumes.push(volume),
        None => spec["volumes"] = json!([volume]),
    }
}

fn list_of<'a>(value: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// What a stored pod has beyond the admitted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Name.
    pub name: String,
    /// Unique id.
    pub uid: String,
    /// When (RFC 3339).
    pub time: String,
    /// On which node.
    pub node: String,
}

/// Gives an admitted pod its name, id, time and node.
pub fn store(pod: &mut Value, birth: &Birth) {
    let metadata = &mut pod["metadata"];
    metadata["name"] = json!(birth.name);
    metadata["uid"] = json!(birth.uid);
    metadata["creationTimestamp"] = json!(birth.time);
    pod["spec"]["nodeName"] = json!(birth.node);
}

#[cfg(test)]
mod tests {
    use super::{Birth, complete, from_template, store};
    use lateen_api::core::{Deployment, Pod};
    use serde_json::{Value, json};

    fn deployment() -> Value {
        json!({
            "metadata": {"name": "cart", "namespace": "shop", "uid": "0a1b2c3d-0000-4000-8000-000000000000"},
            "spec": {"template": {
                "metadata": {"labels": {"app": "cart"}, "annotations": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]},
            }},
        })
    }

    fn pod(hash: &str) -> Value {
        let value = deployment();
        let typed: Deployment = serde_json::from_value(value.clone()).unwrap();
        from_template(&value, &typed, hash)
    }

    #[test]
    fn a_pod_names_its_replica_set() {
        let pod = pod("7bf8");
        let metadata = &pod["metadata"];
        assert_eq!(metadata["generateName"], "cart-7bf8-");
        assert_eq!(metadata["labels"], json!({"app": "cart", "pod-template-hash": "7bf8"}));
        assert_eq!(metadata["annotations"]["a"], "b");
        let owner = &metadata["ownerReferences"][0];
        assert_eq!(
            (owner["kind"].as_str(), owner["name"].as_str()),
            (Some("ReplicaSet"), Some("cart-7bf8"))
        );
        assert_ne!(
            owner["uid"],
            super::tests::pod("7bf9")["metadata"]["ownerReferences"][0]["uid"]
        );
    }

    #[test]
    fn the_default_token_is_mounted_once() {
        let mut pod = pod("h");
        pod["spec"]["initContainers"] = json!([{
            "name": "own", "image": "i",
            "volumeMounts": [{"name": "v", "mountPath": super::TOKEN_PATH}],
        }]);
        complete(&mut pod);
        let typed: Pod = serde_json::from_value(pod.clone()).unwrap();
        assert_eq!(typed.spec.volumes.len(), 1);
        assert_eq!(typed.spec.init_containers[0].volume_mounts.len(), 1);
        assert_eq!(typed.spec.containers[0].volume_mounts[0].name, typed.spec.volumes[0].name);
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
        let mut without = super::tests::pod("h");
        without["spec"]["automountServiceAccountToken"] = json!(false);
        complete(&mut without);
        assert!(without["spec"]["volumes"].is_null());
    }

    #[test]
    fn what_the_author_set_stays() {
        let mut pod = pod("h");
        pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
        pod["spec"]["serviceAccountName"] = json!("cart");
        complete(&mut pod);
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 1);
        assert_eq!(pod["spec"]["serviceAccount"], "cart");
        let birth = Birth {
            name: "cart-h-x".to_owned(),
            uid: "u".to_owned(),
            time: "t".to_owned(),
            node: "lab".to_owned(),
        };
        store(&mut pod, &birth);
        assert_eq!(pod["metadata"]["name"], "cart-h-x");
        assert_eq!(pod["spec"]["nodeName"], "lab");
    }
}
