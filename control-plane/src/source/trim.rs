//! What is kept of an object of an API server: the fields that the mesh reads.
//!
//! The rest would only take memory, and would make every heartbeat look like a change. What is left
//! out of an object must be read by nobody: the list stands here alone.

use std::hash::Hasher as _;

use lateen_api::object::decode;
use lateen_api::{Finding, Object, ObjectMeta, Origin};
use serde_json::{Map, Value};
use xxhash_rust::xxh64::Xxh64;

use super::topics::Topic;

/// The annotation in which `kubectl apply` keeps the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What is kept of any metadata, besides annotations.
const METADATA: [&str; 10] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "labels",
    "annotations",
    "ownerReferences",
];
const POD_SPEC: [&str; 7] = [
    "nodeName",
    "hostNetwork",
    "serviceAccountName",
    "hostname",
    "subdomain",
    "containers",
    "initContainers",
];
const POD_STATUS: [&str; 4] = ["phase", "podIP", "podIPs", "conditions"];
const ENDPOINT: [&str; 4] = ["addresses", "conditions", "nodeName", "targetRef"];
const TARGET: [&str; 2] = ["kind", "name"];
const CONTAINER: [&str; 3] = ["name", "ports", "restartPolicy"];

/// An object, and a number that changes when it does.
#[derive(Debug)]
pub(super) struct Trimmed {
    /// What is left of it.
    pub(super) object: Object,
    /// Fingerprint of that.
    pub(super) print: u64,
}

/// Trims an object of a topic, read in `version`.
///
/// # Errors
/// When its metadata has the wrong shape.
pub(super) fn trim(topic: &Topic, version: &str, mut value: Value) -> Result<Trimmed, Finding> {
    let Some(members) = value.as_object_mut() else {
        return Err(Finding::error("", format!("{topic}: an object is expected")));
    };
    only(members, fields(topic.kind));
    if let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) {
        trim_metadata(topic.kind, metadata);
    }
    match topic.kind {
        "Pod" => trim_pod(members),
        "EndpointSlice" => trim_endpoints(members),
        _ => {}
    }
    let api_version = match topic.group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    members.insert("apiVersion".to_owned(), api_version.as_str().into());
    members.insert("kind".to_owned(), topic.kind.into());
    let metadata: ObjectMeta =
        decode("metadata", members.get("metadata").cloned().unwrap_or_default())?;
    let mut hasher = Xxh64::new(0);
    print(&value, &mut hasher);
    let object =
        Object { api_version, kind: topic.kind.to_owned(), metadata, value, origin: origin(topic) };
    Ok(Trimmed { object, print: hasher.finish() })
}

/// Where an object of a topic was read, as findings say it.
fn origin(topic: &Topic) -> Origin {
    let file = match &topic.only {
        Some((namespace, name)) => format!("{} {namespace}/{name}", topic.kind).into(),
        None => "cluster".into(),
    };
    Origin { file, document: 0, line: 0 }
}

/// What is kept of a kind, besides its name.
fn fields(kind: &str) -> &'static [&'static str] {
    match kind {
        "Namespace" | "Node" => &["metadata"],
        "Pod" => &["metadata", "spec", "status"],
        "EndpointSlice" => &["metadata", "addressType", "endpoints", "ports"],
        "ConfigMap" => &["metadata", "data"],
        "Secret" => &["metadata", "type", "data"],
        _ => &["metadata", "spec"],
    }
}

fn only(members: &mut Map<String, Value>, fields: &[&str]) {
    members.retain(|field, _| fields.contains(&field.as_str()));
}

fn trim_metadata(kind: &str, metadata: &mut Map<String, Value>) {
    only(metadata, &METADATA);
    // Agents and controllers write theirs again and again; nobody reads them.
    if matches!(kind, "Node" | "Pod" | "EndpointSlice") {
        metadata.remove("annotations");
    }
    if matches!(kind, "Pod" | "EndpointSlice") {
        metadata.remove("generation");
        metadata.remove("uid");
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
}

fn trim_pod(pod: &mut Map<String, Value>) {
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        only(spec, &POD_SPEC);
        for list in ["containers", "initContainers"] {
            let Some(containers) = spec.get_mut(list).and_then(Value::as_array_mut) else {
                continue;
            };
            containers.iter_mut().filter_map(Value::as_object_mut).for_each(trim_container);
            containers.retain(|it| it.get("ports").is_some());
        }
    }
    let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) else { return };
    only(status, &POD_STATUS);
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut) {
        conditions.retain(|it| it.get("type").and_then(Value::as_str) == Some("Ready"));
        for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
            only(condition, &["type", "status"]);
        }
    }
}

/// Containers are asked for the numbers of ports that have names, and for nothing else.
fn trim_container(container: &mut Map<String, Value>) {
    only(container, &CONTAINER);
    let Some(ports) = container.get_mut("ports").and_then(Value::as_array_mut) else { return };
    ports.retain(|port| port.get("name").is_some());
    if ports.is_empty() {
        container.remove("ports");
    }
}

fn trim_endpoints(slice: &mut Map<String, Value>) {
    let endpoints = slice.get_mut("endpoints").and_then(Value::as_array_mut);
    for endpoint in endpoints.into_iter().flatten().filter_map(Value::as_object_mut) {
        only(endpoint, &ENDPOINT);
        if let Some(target) = endpoint.get_mut("targetRef").and_then(Value::as_object_mut) {
            only(target, &TARGET);
        }
    }
}

/// Feeds a value to a hasher, each part with its kind and length, so that no two values run together.
fn print(value: &Value, hasher: &mut Xxh64) {
    match value {
        Value::Null => hasher.update(b"n"),
        Value::Bool(it) => hasher.update(if *it { b"t" } else { b"f" }),
        Value::Number(it) => text("d", &it.to_string(), hasher),
        Value::String(it) => text("s", it, hasher),
        Value::Array(items) => {
            text("a", &items.len().to_string(), hasher);
            items.iter().for_each(|item| print(item, hasher));
        }
        Value::Object(members) => {
            text("o", &members.len().to_string(), hasher);
            for (key, member) in members {
                text("k", key, hasher);
                print(member, hasher);
            }
        }
    }
}

fn text(kind: &str, text: &str, hasher: &mut Xxh64) {
    hasher.update(kind.as_bytes());
    hasher.update(&text.len().to_le_bytes());
    hasher.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::topics::{Topic, topics};
    use super::{Trimmed, trim};
    use serde_json::{Value, json};

    fn topic(kind: &str) -> Topic {
        let all = topics("istio-system", &["istio".to_owned()]);
        all.into_iter().find(|topic| topic.kind == kind).unwrap()
    }

    fn trimmed(kind: &str, value: Value) -> Trimmed {
        trim(&topic(kind), "v1", value).unwrap()
    }

    fn pod(heartbeat: &str, ready: &str) -> Value {
        json!({
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "1", "resourceVersion": heartbeat,
                "managedFields": [{"manager": heartbeat}], "annotations": {"x": heartbeat},
                "labels": {"app": "a"},
            },
            "spec": {
                "nodeName": "n", "volumes": [{"name": "v"}], "serviceAccountName": "cart",
                "containers": [
                    {"name": "c", "image": "i", "env": [{"name": "SECRET"}],
                        "ports": [{"containerPort": 1}, {"name": "http", "containerPort": 80}]},
                    {"name": "d", "ports": [{"containerPort": 2}]},
                ],
            },
            "status": {
                "podIP": "10.0.0.1", "hostIP": "10.1.0.1",
                "conditions": [
                    {"type": "Ready", "status": ready, "lastProbeTime": heartbeat},
                    {"type": "Initialized", "status": "True"},
                ],
            },
        })
    }

    #[test]
    fn a_heartbeat_is_no_change() {
        let first = trimmed("Pod", pod("1", "False"));
        assert_eq!(first.print, trimmed("Pod", pod("2", "False")).print);
        assert_ne!(first.print, trimmed("Pod", pod("2", "True")).print);
    }

    #[test]
    fn a_pod_keeps_what_the_registry_reads() {
        let Trimmed { object, .. } = trimmed("Pod", pod("1", "True"));
        let read: lateen_api::core::Pod = object.decode().unwrap();
        assert!(read.is_ready());
        assert_eq!(read.addresses(), ["10.0.0.1"]);
        assert_eq!(read.service_account(), "cart");
        assert_eq!(read.spec.containers.len(), 1);
        assert_eq!(read.spec.containers[0].ports.len(), 1);
        assert_eq!(read.spec.containers[0].ports[0].container_port, 80);
        let kept = object.value.to_string();
        assert!(!kept.contains("SECRET") && !kept.contains("volumes") && !kept.contains("image"));
    }

    #[test]
    fn an_istio_kind_keeps_its_whole_spec_and_loses_its_status() {
        let spec = json!({"host": "cart", "nonsense": {"a": [1, null]}});
        let value = json!({
            "metadata": {"name": "a", "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"}},
            "spec": spec, "status": {"conditions": []},
        });
        let Trimmed { object, .. } = trimmed("DestinationRule", value);
        assert_eq!(object.value["spec"], spec);
        assert!(object.value.get("status").is_none());
        assert_eq!(object.api_version, "networking.istio.io/v1");
        assert_eq!(object.metadata.annotations.len(), 1);
    }

    #[test]
    fn a_config_map_is_named_where_it_is_spoken_of() {
        let value = json!({"metadata": {"name": "istio"}, "data": {"mesh": "{}"}});
        let Trimmed { object, .. } = trimmed("ConfigMap", value);
        assert_eq!(&*object.origin.file, "ConfigMap istio-system/istio");
    }

    #[test]
    fn neighbours_do_not_run_together() {
        let print = |value: Value| trimmed("VirtualService", json!({"spec": value})).print;
        assert_ne!(print(json!(["ab", "c"])), print(json!(["a", "bc"])));
        assert_ne!(print(json!([[], 1])), print(json!([[1]])));
        assert_ne!(print(json!({"a": "1"})), print(json!({"a": 1})));
    }
}
