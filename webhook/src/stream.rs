//! Injection of manifests: every workload of a YAML or JSON stream.
//!
//! What `lateen inject` does, without files and flags: documents in, documents and notices out.
//! The pod of a workload is built as the API server's controllers would. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::admission::NamespaceMetadata;
use crate::inject::{AdmissionContext, InjectError, Injection, Workload, inject};
use crate::policy::Reason;
use crate::settings::InjectionSettings;

/// Kinds with a pod in them, and where it is.
const WORKLOADS: [(&str, &[&str]); 8] = [
    ("Deployment", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("ReplicaSet", &["spec", "template"]),
    ("ReplicationController", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("DeploymentConfig", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
];
/// Hash that stands in for the one a Deployment would make.
const FAKE_HASH: &str = "fake";

/// A stream that cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Text that is neither YAML nor JSON.
    #[error("cannot be parsed: {0}")]
    Parse(String),
    /// An object that must be denied.
    #[error("{kind} {name:?}: {source}")]
    Denied {
        /// Kind of the object.
        kind: String,
        /// Namespace, if any, and name.
        name: String,
        /// Why.
        source: InjectError,
    },
}

/// Injected documents.
#[derive(Debug, Default)]
pub struct Injected {
    /// Documents in the order of the input.
    pub documents: Vec<Value>,
    /// Patch of each pod, in the same order; only of webhook runs.
    pub patches: Vec<Value>,
    /// Lines for the user: what was skipped, and warnings.
    pub notices: Vec<String>,
}

/// What a stream is injected with.
#[derive(Debug)]
pub struct StreamOptions<'a> {
    /// Settings.
    pub settings: &'a InjectionSettings,
    /// Namespaces by name, as far as they are known.
    pub namespaces: &'a BTreeMap<String, NamespaceMetadata>,
}

/// Reads a stream of documents; empty ones are left out.
///
/// # Errors
/// Text that is neither YAML nor JSON.
pub fn parse(text: &str) -> Result<Vec<Value>, StreamError> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| StreamError::Parse(error.to_string()))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// Writes documents as YAML, with `---` between them.
#[must_use]
pub fn to_yaml(documents: &[Value]) -> String {
    let mut text = String::new();
    for document in documents {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        crate::yaml::write(document, &mut text);
    }
    text
}

/// Labels and annotations of the Namespace objects among some documents.
#[must_use]
pub fn namespaces(documents: &[Value]) -> BTreeMap<String, NamespaceMetadata> {
    let objects = documents.iter().flat_map(items).filter(|object| object["kind"] == "Namespace");
    objects
        .filter_map(|object| {
            let metadata = &object["metadata"];
            let known = NamespaceMetadata {
                labels: crate::kube::text_map(&metadata["labels"]),
                annotations: crate::kube::text_map(&metadata["annotations"]),
            };
            Some((metadata["name"].as_str()?.to_owned(), known))
        })
        .collect()
}

/// The objects of a document: itself, or those of a List.
#[must_use]
pub fn items(document: &Value) -> Vec<&Value> {
    match document["items"].as_array() {
        Some(items) if document["kind"] == "List" => items.iter().collect(),
        _ => vec![document],
    }
}

/// Injects the pod templates of all workloads in place; all else passes through.
///
/// # Errors
/// An object that must be denied.
pub fn inject_manifests(
    mut documents: Vec<Value>,
    options: &StreamOptions<'_>,
) -> Result<Injected, StreamError> {
    let mut notices = Vec::new();
    for document in &mut documents {
        let list = document["kind"] == "List";
        match document.get_mut("items") {
            Some(Value::Array(items)) if list => {
                for item in items {
                    inject_manifest(item, options, &mut notices)?;
                }
            }
            _ => inject_manifest(document, options, &mut notices)?,
        }
    }
    Ok(Injected { documents, patches: Vec::new(), notices })
}

fn inject_manifest(
    object: &mut Value,
    options: &StreamOptions<'_>,
    notices: &mut Vec<String>,
) -> Result<(), StreamError> {
    let Some(path) = template_path(object) else { return Ok(()) };
    let Some(pod) = pod_of(object, path) else { return Ok(()) };
    let workload = (!path.is_empty()).then(|| Workload {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        name: text(&object["metadata"]["name"]),
    });
    let injection = run(object, &pod, workload, options, notices)?;
    if !injection.reason.injects() {
        return Ok(());
    }
    let mut target = object;
    for step in path {
        let Some(next) = target.get_mut(*step) else { return Ok(()) };
        target = next;
    }
    if let Value::Object(mut fields) = injection.pod {
        for field in ["metadata", "spec"] {
            if let Some(value) = fields.remove(field) {
                target[field] = value;
            }
        }
    }
    Ok(())
}

/// Injects the pods of all workloads as the webhook would see them; all else is left out.
///
/// # Errors
/// An object that must be denied.
pub fn inject_as_webhook(
    documents: &[Value],
    options: &StreamOptions<'_>,
) -> Result<Injected, StreamError> {
    let mut injected = Injected::default();
    for object in documents.iter().flat_map(items) {
        let Some(pod) = admitted_pod(object) else { continue };
        let injection = run(object, &pod, None, options, &mut injected.notices)?;
        let patch = injection.patch(&pod).iter().map(|operation| json!(operation)).collect();
        injected.patches.push(Value::Array(patch));
        injected.documents.push(injection.pod);
    }
    Ok(injected)
}

/// Runs injection for the pod of an object and words what happened.
fn run(
    object: &Value,
    pod: &Value,
    workload: Option<Workload>,
    options: &StreamOptions<'_>,
    notices: &mut Vec<String>,
) -> Result<Injection, StreamError> {
    let namespace = text(&object["metadata"]["namespace"]);
    let kind = text(&object["kind"]);
    let name = text(&object["metadata"]["name"]);
    let name = if namespace.is_empty() { name } else { format!("{namespace}/{name}") };
    let known = options.namespaces.get(&namespace).cloned().unwrap_or_default();
    let context = AdmissionContext {
        namespace,
        namespace_labels: known.labels,
        namespace_annotations: known.annotations,
        environment: BTreeMap::new(),
        workload,
    };
    let injection = inject(pod, options.settings, &context)
        .map_err(|source| StreamError::Denied { kind: kind.clone(), name: name.clone(), source })?;
    let warnings = injection.warnings.iter();
    notices.extend(warnings.map(|warning| format!("{kind} {name:?}: {warning}")));
    if !injection.reason.injects() {
        let why = match injection.reason {
            Reason::SkippedHostNetwork => "host networking enabled",
            _ => "sidecar injection disabled",
        };
        notices.push(format!("Skipping injection because {kind} {name:?} has {why}"));
    }
    Ok(injection)
}

/// Where the pod of an object is: `None` for an object without, empty for a Pod.
fn template_path(object: &Value) -> Option<&'static [&'static str]> {
    let kind = object["kind"].as_str()?;
    if kind == "Pod" {
        return Some(&[]);
    }
    WORKLOADS.iter().find(|(known, _)| *known == kind).map(|(_, path)| *path)
}

/// The pod at a path, with the kind that a template does not have.
fn pod_of(object: &Value, path: &[&str]) -> Option<Value> {
    let mut template = object;
    for step in path {
        template = template.get(step)?;
    }
    let mut pod = Map::new();
    pod.insert("apiVersion".to_owned(), Value::from("v1"));
    pod.insert("kind".to_owned(), Value::from("Pod"));
    for (key, value) in template.as_object()? {
        pod.insert(key.clone(), value.clone());
    }
    if !pod.get("metadata").is_some_and(Value::is_object) {
        pod.insert("metadata".to_owned(), json!({}));
    }
    Some(Value::Object(pod))
}

/// The pod of a workload as its controller would create it; `None` for an object without a pod.
#[must_use]
pub fn admitted_pod(object: &Value) -> Option<Value> {
    let path = template_path(object)?;
    if path.is_empty() {
        return Some(object.clone());
    }
    let mut pod = pod_of(object, path)?;
    let fields = pod.as_object_mut()?;
    fields.retain(|key, _| ["apiVersion", "kind", "metadata", "spec"].contains(&key.as_str()));
    let metadata = fields.get_mut("metadata")?.as_object_mut()?;
    let mut owner = Workload {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        name: text(&object["metadata"]["name"]),
    };
    if owner.kind == "Deployment" {
        owner.api_version = "apps/v1".to_owned();
        owner.kind = "ReplicaSet".to_owned();
        owner.name = format!("{}-{FAKE_HASH}", owner.name);
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        if let Value::Object(labels) = labels {
            labels.insert("pod-template-hash".to_owned(), Value::from(FAKE_HASH));
        }
    }
    if let Some(namespace) = object["metadata"]["namespace"].as_str() {
        metadata.insert("namespace".to_owned(), Value::from(namespace));
    }
    let generated = if owner.kind == "ReplicaSet" && object["kind"] == "Deployment" {
        format!("{}-", owner.name)
    } else {
        owner.name.clone()
    };
    metadata.insert("generateName".to_owned(), Value::from(generated));
    metadata.insert(
        "ownerReferences".to_owned(),
        json!([{
            "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name,
            "controller": true,
        }]),
    );
    Some(pod)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{StreamOptions, inject_as_webhook, inject_manifests, parse, to_yaml};
    use crate::settings::{InjectionSettings, Options};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use proptest::sample::select;
    use serde_json::{Value, json};

    const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
---
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: web, namespace: shop}
  spec:
    replicas: 2
    template:
      spec: {containers: [{name: web, image: i}]}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: tidy}
  spec:
    jobTemplate:
      spec:
        template:
          spec: {hostNetwork: true, containers: [{name: tidy, image: i}]}
";

    #[test]
    fn workloads_are_injected_in_place_and_the_rest_passes() {
        let settings = InjectionSettings::from_sources(None, None, Options::default()).unwrap();
        let namespaces = BTreeMap::new();
        let options = StreamOptions { settings: &settings, namespaces: &namespaces };
        let documents = parse(MANIFESTS).unwrap();
        let injected = inject_manifests(documents.clone(), &options).unwrap();
        assert_eq!(injected.documents[0], documents[0]);
        let web = &injected.documents[1]["items"][0];
        assert_eq!(web["spec"]["replicas"], 2);
        let init = &web["spec"]["template"]["spec"]["initContainers"];
        assert_eq!(init[1]["name"], "istio-proxy");
        let tidy = &injected.documents[1]["items"][1];
        assert_eq!(tidy, &documents[1]["items"][1]);
        assert_eq!(
            injected.notices.last().unwrap(),
            "Skipping injection because CronJob \"tidy\" has host networking enabled"
        );
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            any::<String>(),
            "[-:#&*!|>'\"%@`{}\\[\\], \n\t~?0-9a-fxoyn.+]{0,12}",
            select(vec![
                "yes",
                "No",
                "on",
                "~",
                "null",
                "0644",
                "0x1f",
                "1e3",
                "1_000",
                "12:30:45",
                "2001-01-01",
                ".inf",
                "=",
                "<<",
                "---",
                "...",
                "a: b",
                " a",
                "a ",
                "a\n\n",
                "\u{feff}"
            ])
            .prop_map(str::to_owned),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map(text.clone(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(documents in vec(any_value(), 1..3)) {
            let documents: Vec<Value> =
                documents.into_iter().map(|value| json!({"kind": "X", "value": value})).collect();
            let text = to_yaml(&documents);
            assert_eq!(parse(&text).unwrap(), documents, "{text}");
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            if let Ok(documents) = parse(&text) {
                assert!(documents.iter().all(|document| !document.is_null()));
            }
        }
    }

    #[test]
    fn webhook_pods_have_their_controllers() {
        let settings = InjectionSettings::from_sources(None, None, Options::default()).unwrap();
        let namespaces = BTreeMap::new();
        let options = StreamOptions { settings: &settings, namespaces: &namespaces };
        let injected = inject_as_webhook(&parse(MANIFESTS).unwrap(), &options).unwrap();
        let web = &injected.documents[0]["metadata"];
        assert_eq!(web["generateName"], "web-fake-");
        assert_eq!(web["namespace"], "shop");
        assert_eq!(
            web["ownerReferences"],
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-fake", "controller": true}])
        );
        assert_eq!(web["labels"]["service.istio.io/canonical-name"], "web");
        assert_eq!(injected.documents[1]["metadata"]["generateName"], "tidy");
        assert!(injected.patches[1].as_array().is_some_and(Vec::is_empty));
    }
}
