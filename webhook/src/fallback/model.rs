//! The mutation: what injection makes of a model pod, as additions to any pod.
//!
//! The model's name, namespace, workload and containers are markers; where they turn up in the
//! result stands an expression that takes the real pod's. Must not know which pods are meant.

use std::collections::BTreeMap;

use lateen_api::names::{annotation, env, label};
use serde_json::{Value, json};

use super::cel::{Marker, literal, quoted};
use crate::inject::{AdmissionContext, InjectError, Workload, inject};
use crate::kube::NAMED_LISTS;
use crate::settings::InjectionSettings;

const NAMESPACE: &str = "@{namespace}";
const WORKLOAD: &str = "@{workload}";
const KIND: &str = "@{kind}";
const VERSION: &str = "@{version}";
const CONTAINER: &str = "@{container}";
const CONTAINERS: &str = "@{containers}";
const CANONICAL_NAME: &str = "@{canonical}";
const CANONICAL_REVISION: &str = "@{revision}";

const MARKERS: [Marker; 8] = [
    (NAMESPACE, "request.namespace"),
    (WORKLOAD, "variables.workload"),
    (KIND, "variables.kind"),
    (VERSION, "variables.version"),
    (CONTAINER, "object.spec.containers[0].name"),
    (CONTAINERS, r#"object.spec.containers.map(c, c.name).join(",")"#),
    (CANONICAL_NAME, "variables.canonical"),
    (CANONICAL_REVISION, "variables.revision"),
];

/// A mutation that changes nothing of any pod: to an API server an empty list has no type.
pub(super) const NOTHING: &str =
    r#"(true ? [] : [JSONPatch{op: "add", path: "/metadata/labels", value: {}}])"#;

/// Whose pod it is, as `lateen_api::core::Workload` guesses it, except that a Job is not followed
/// to its CronJob. Later ones refer to earlier ones.
const OWNER: [(&str, &str); 7] = [
    (
        "owners",
        "has(object.metadata.ownerReferences) ? object.metadata.ownerReferences.filter(o, \
         has(o.controller) && o.controller) : []",
    ),
    (
        "controlled",
        "size(variables.owners) > 0 && has(object.metadata.generateName) && \
         object.metadata.generateName != ''",
    ),
    (
        "hash",
        "'pod-template-hash' in variables.labels ? variables.labels['pod-template-hash'] : ''",
    ),
    (
        "deployed",
        "variables.controlled && variables.hash != '' && variables.owners[0].kind == 'ReplicaSet' \
         && variables.owners[0].name.endsWith('-' + variables.hash)",
    ),
    (
        "workload",
        "variables.deployed ? variables.owners[0].name.substring(0, \
         size(variables.owners[0].name) - size(variables.hash) - 1) : variables.controlled ? \
         variables.owners[0].name : has(object.metadata.name) && object.metadata.name != '' ? \
         object.metadata.name : object.metadata.generateName",
    ),
    (
        "kind",
        "variables.deployed ? 'deployment' : variables.controlled ? \
         variables.owners[0].kind.lowerAscii() : 'pod'",
    ),
    (
        "version",
        "variables.deployed ? 'apps/v1' : variables.controlled ? variables.owners[0].apiVersion : \
         'v1'",
    ),
];

/// What expressions may refer to, in their order.
pub(super) fn variables() -> Value {
    let first = |keys: &[&str], otherwise: &str| {
        let choices = keys.iter().map(|key| {
            let value = format!("variables.labels[{}]", quoted(key));
            format!("{} in variables.labels && {value} != '' ? {value} : ", quoted(key))
        });
        format!("{}{otherwise}", choices.collect::<String>())
    };
    let workload = "size(variables.workload) > 63 ? variables.workload.substring(0, 63) : \
                    variables.workload";
    let names = [label::CANONICAL_NAME, label::KUBE_NAME, label::APP];
    let revisions = [label::CANONICAL_REVISION, label::KUBE_VERSION, label::VERSION];
    let labels = "has(object.metadata.labels) ? object.metadata.labels : {}".to_owned();
    let variable =
        |(name, expression): (&str, String)| json!({"name": name, "expression": expression});
    std::iter::once(("labels", labels))
        .chain(OWNER.map(|(name, expression)| (name, expression.to_owned())))
        .chain([
            ("canonical", first(&names, workload)),
            ("revision", first(&revisions, "'latest'")),
        ])
        .map(variable)
        .collect()
}

/// The mutation as an expression of JSON patch operations.
pub(super) fn mutation(settings: &InjectionSettings) -> Result<String, InjectError> {
    let injected = injected_model(settings)?;
    let metadata = &injected["metadata"];
    let mut parts = Vec::new();
    for map in ["labels", "annotations"] {
        parts.push(absent(&format!("object.metadata.{map}"), &format!("/metadata/{map}"), "{}"));
        for (key, value) in metadata[map].as_object().into_iter().flatten() {
            let path = format!("/metadata/{map}/{}", escaped(key));
            let add = format!("[{}]", add(&path, value));
            parts.push(match kept(map, key) {
                Some(kept) => format!("({kept} ? [] : {add})"),
                None => add,
            });
        }
    }
    for list in NAMED_LISTS {
        let added: Vec<&Value> = injected["spec"][list]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|element| element["name"] != CONTAINER)
            .collect();
        if added.is_empty() {
            continue;
        }
        parts.push(absent(&format!("object.spec.{list}"), &format!("/spec/{list}"), "[]"));
        // Each goes to the front, so the last comes first.
        let operations = added.iter().rev().map(|it| add(&format!("/spec/{list}/0"), it));
        parts.push(format!("[{}]", operations.collect::<Vec<_>>().join(", ")));
    }
    for (field, value) in injected["spec"].as_object().into_iter().flatten() {
        if !NAMED_LISTS.contains(&field.as_str()) {
            let add = add(&format!("/spec/{field}"), value);
            parts.push(format!("(has(object.spec.{field}) ? [] : [{add}])"));
        }
    }
    Ok(parts.join(" + "))
}

/// Under which condition the pod keeps what it has instead of a label or annotation; never for what
/// the webhook replaces too.
fn kept(map: &str, key: &str) -> Option<String> {
    let has = |key: &str| {
        format!("has(object.metadata.{map}) && {} in object.metadata.{map}", quoted(key))
    };
    // Who says where its metrics are says so with all three.
    let scrape =
        [annotation::PROMETHEUS_SCRAPE, annotation::PROMETHEUS_PORT, annotation::PROMETHEUS_PATH];
    match key {
        label::REVISION | label::NETWORK => None,
        key if scrape.contains(&key) => Some(scrape.map(has).join(" || ")),
        key => Some(has(key)),
    }
}

/// What injection makes of the model.
fn injected_model(settings: &InjectionSettings) -> Result<Value, InjectError> {
    let workload = Workload {
        api_version: VERSION.to_owned(),
        kind: KIND.to_owned(),
        name: WORKLOAD.to_owned(),
    };
    let context = AdmissionContext {
        namespace: NAMESPACE.to_owned(),
        workload: Some(workload),
        ..AdmissionContext::default()
    };
    let model = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"labels": {label::INJECT: "true"}},
        "spec": {"containers": [{"name": CONTAINER, "image": "model"}]},
    });
    let mut injected = inject(&model, settings, &context)?.pod;
    if let Some(labels) = injected["metadata"]["labels"].as_object_mut() {
        labels.remove(label::INJECT);
        labels.insert(label::CANONICAL_NAME.to_owned(), json!(CANONICAL_NAME));
        labels.insert(label::CANONICAL_REVISION.to_owned(), json!(CANONICAL_REVISION));
    }
    let replaced: BTreeMap<&str, &str> = [(env::META_APP_CONTAINERS, CONTAINERS)].into();
    for list in ["initContainers", "containers"] {
        let containers = injected["spec"][list].as_array_mut().into_iter().flatten();
        for variable in containers.filter_map(|it| it["env"].as_array_mut()).flatten() {
            if let Some(text) = variable["name"].as_str().and_then(|name| replaced.get(name)) {
                variable["value"] = json!(text);
            }
        }
    }
    // Annotations about the model's own ports say nothing about another pod.
    if let Some(annotations) = injected["metadata"]["annotations"].as_object_mut() {
        annotations.remove(annotation::OVERRIDES);
        annotations.remove(annotation::DIGEST);
        annotations.remove(annotation::ADDED);
    }
    Ok(injected)
}

/// Makes an empty value where there is none.
fn absent(expression: &str, path: &str, empty: &str) -> String {
    format!(
        "(has({expression}) ? [] : [JSONPatch{{op: \"add\", path: {}, value: {empty}}}])",
        quoted(path)
    )
}

fn add(path: &str, value: &Value) -> String {
    format!("JSONPatch{{op: \"add\", path: {}, value: {}}}", quoted(path), literal(value, &MARKERS))
}

/// A key as a part of a JSON pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
