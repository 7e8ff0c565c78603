//! A digest of what the settings made of a pod, written to the pod.
//!
//! Who has the settings of today and the pod of then can tell whether the sidecar would be another
//! one. Over what was injected, by name, and what was decided about the rest; without what the
//! application's own containers decide, since that is not the settings' doing, and independent of any
//! order. Must not know how it is compared.

use std::collections::BTreeSet;

use lateen_api::names::{annotation, env};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh64::Xxh64;

use crate::kube::Status;

/// Variables of the proxy that come from the application's containers and annotations.
const OF_THE_APPLICATION: [&str; 4] =
    [env::APP_PROBERS, env::PROMETHEUS_ANNOTATIONS, env::META_POD_PORTS, env::META_APP_CONTAINERS];
/// Annotations that tell of the injection, or that the application decides; an earlier injection's are
/// taken out elsewhere.
const NOT_OURS: [&str; 9] = [
    annotation::STATUS,
    annotation::OVERRIDES,
    annotation::DIGEST,
    annotation::ADDED,
    annotation::DEFAULT_CONTAINER,
    annotation::DEFAULT_LOGS_CONTAINER,
    annotation::PROMETHEUS_SCRAPE,
    annotation::PROMETHEUS_PATH,
    annotation::PROMETHEUS_PORT,
];

/// Labels and annotations that injection added, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Added {
    annotations: BTreeSet<String>,
    labels: BTreeSet<String>,
}

/// Labels and annotations of a pod before it is injected.
#[derive(Debug)]
pub(super) struct Before {
    had: Added,
    /// What an earlier injection added.
    added: Added,
}

impl Before {
    /// Of a pod whose earlier injection, if there was one, has been taken out but for what it added
    /// to labels and annotations; its records go.
    pub(super) fn of(pod: &mut Value, injected: bool) -> Self {
        let added = take_records(pod).filter(|_| injected).unwrap_or_default();
        Self {
            had: Added { annotations: keys(pod, "annotations"), labels: keys(pod, "labels") },
            added,
        }
    }

    /// Writes what was added, and the digest; `beyond` is what injection decided about parts that are not
    /// its own.
    pub(super) fn mark(self, pod: &mut Value, beyond: &[Value]) {
        let new =
            |map: &str, had: &BTreeSet<String>, added: &BTreeSet<String>| -> BTreeSet<String> {
                let mut all = keys(pod, map);
                all.retain(|key| {
                    !NOT_OURS.contains(&key.as_str()) && (!had.contains(key) || added.contains(key))
                });
                all
            };
        let added = Added {
            annotations: new("annotations", &self.had.annotations, &self.added.annotations),
            labels: new("labels", &self.had.labels, &self.added.labels),
        };
        let digest = format!("{:016x}", digest(pod, &added, beyond));
        let record = serde_json::to_string(&added).unwrap_or_default();
        let annotations = &mut pod["metadata"]["annotations"];
        annotations[annotation::DIGEST] = Value::from(digest);
        annotations[annotation::ADDED] = Value::from(record);
    }
}

/// Takes out what an earlier injection added to labels and annotations.
pub(super) fn unmark(pod: &mut Value) {
    let Some(added) = take_records(pod) else { return };
    for (map, keys) in [("annotations", added.annotations), ("labels", added.labels)] {
        if let Some(map) = pod["metadata"][map].as_object_mut() {
            map.retain(|key, _| !keys.contains(key));
        }
    }
}

/// Takes the records out of a pod, and reads what was added.
fn take_records(pod: &mut Value) -> Option<Added> {
    let annotations = pod.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    annotations.shift_remove(annotation::DIGEST);
    let text = annotations.shift_remove(annotation::ADDED)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn keys(pod: &Value, map: &str) -> BTreeSet<String> {
    pod["metadata"][map].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

fn digest(pod: &Value, added: &Added, beyond: &[Value]) -> u64 {
    let mut hash = Xxh64::new(0);
    let text = pod["metadata"]["annotations"][annotation::STATUS].as_str().unwrap_or_default();
    let status: Status = serde_json::from_str(text).unwrap_or_default();
    for (list, names) in [
        ("initContainers", status.init_containers),
        ("containers", status.containers),
        ("volumes", status.volumes),
        ("imagePullSecrets", status.image_pull_secrets),
    ] {
        hash.update(list.as_bytes());
        let mut names = names.unwrap_or_default();
        names.sort_unstable();
        let elements = pod["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default();
        for name in &names {
            for element in elements.iter().filter(|it| it["name"] == name.as_str()) {
                element_into(element, &mut hash);
            }
        }
    }
    for (map, keys) in [("annotations", &added.annotations), ("labels", &added.labels)] {
        for key in keys {
            hash.update(key.as_bytes());
            feed(&pod["metadata"][map][key], &mut hash);
        }
    }
    for decided in beyond {
        hash.update(b"beyond");
        feed(decided, &mut hash);
    }
    hash.digest()
}

/// An injected element, without the variables that the application decides.
fn element_into(element: &Value, hash: &mut Xxh64) {
    let Some(fields) = element.as_object() else { return feed(element, hash) };
    let mut keys: Vec<&String> = fields.keys().collect();
    keys.sort_unstable();
    for key in keys {
        hash.update(key.as_bytes());
        match (key.as_str(), &fields[key]) {
            ("env", Value::Array(variables)) => {
                let ours = variables.iter().filter(|variable| {
                    let name = variable["name"].as_str().unwrap_or_default();
                    !OF_THE_APPLICATION.contains(&name)
                });
                ours.for_each(|variable| feed(variable, hash));
            }
            (_, value) => feed(value, hash),
        }
    }
}

/// A value, the same in whatever order its keys are. Each part is set off from the next, so that no
/// two values look alike.
fn feed(value: &Value, hash: &mut Xxh64) {
    match value {
        Value::Object(fields) => {
            hash.update(b"{");
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            for key in keys {
                feed(&Value::from(key.as_str()), hash);
                feed(&fields[key], hash);
            }
            hash.update(b"}");
        }
        Value::Array(elements) => {
            hash.update(b"[");
            elements.iter().for_each(|element| feed(element, hash));
            hash.update(b"]");
        }
        Value::String(text) => {
            hash.update(b"\"");
            hash.update(&text.len().to_le_bytes());
            hash.update(text.as_bytes());
        }
        other => {
            hash.update(b"=");
            hash.update(other.to_string().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::inject::{AdmissionContext, inject, original};
    use crate::settings::{InjectionSettings, Options};
    use serde_json::{Value, json};

    fn settings(values: &Value) -> InjectionSettings {
        InjectionSettings::from_sources(Some(values), None, Options::default()).unwrap()
    }

    fn injected(pod: &Value, values: &Value) -> Value {
        let context = AdmissionContext { namespace: "shop".to_owned(), ..Default::default() };
        inject(pod, &settings(values), &context).unwrap().pod
    }

    fn digest(pod: &Value) -> &str {
        pod["metadata"]["annotations"]["inject.lateen.dev/digest"].as_str().unwrap()
    }

    fn pod() -> Value {
        json!({"metadata": {"name": "a", "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "i"}]}})
    }

    #[test]
    fn it_changes_with_the_result_and_with_nothing_else() {
        let cni = |more: Value| {
            let mut values = json!({"pilot": {"cni": {"enabled": true}}});
            values["global"] = more;
            values
        };
        let before = injected(&pod(), &cni(json!({})));
        let changed = [
            json!({"tag": "next"}),
            json!({"network": "other"}),
            json!({"proxy": {"includeIPRanges": "10.0.0.0/8"}}),
            json!({"proxy": {"logLevel": "debug"}}),
        ];
        for values in changed {
            let now = injected(&original(&before), &cni(values.clone()));
            assert_ne!(digest(&now), digest(&before), "{values}");
            let back = injected(&original(&now), &cni(json!({})));
            assert_eq!(digest(&back), digest(&before), "{values}: nothing of it stayed");
        }
        for values in
            [json!({"configValidation": false}), json!({"istiod": {"enableAnalysis": true}})]
        {
            assert_eq!(
                digest(&injected(&pod(), &cni(values.clone()))),
                digest(&before),
                "{values}"
            );
        }
        let mut overridden = pod();
        overridden["metadata"]["annotations"] = json!({"sidecar.istio.io/logLevel": "info"});
        assert_eq!(
            digest(&injected(&overridden, &cni(json!({"proxy": {"logLevel": "debug"}})))),
            digest(&injected(&overridden, &cni(json!({}))))
        );
    }

    #[test]
    fn so_does_what_it_makes_of_parts_that_are_not_its_own() {
        let template = |text: &str| {
            let webhook =
                json!({"templates": {"mine": text}, "defaultTemplates": ["sidecar", "mine"]});
            json!({"sidecarInjectorWebhook": webhook})
        };
        let templates = |before: &str, after: &str| (template(before), template(after));
        let mut own = pod();
        own["metadata"]["annotations"] = json!({"own": "1"});
        own["spec"]["volumes"] = json!([{"name": "own", "emptyDir": {}}]);
        let mut gateway = pod();
        gateway["metadata"]["annotations"] = json!({"inject.istio.io/templates": "gateway"});
        gateway["spec"]["containers"] = json!([{"name": "istio-proxy", "image": "auto"}]);
        let kept = json!({"sidecarInjectorWebhook": {"rewriteAppHTTPProbe": false}});
        let root = json!({"gateways": {"securityContext": {"runAsUser": 7}}});
        for (pod, (before, after)) in [
            (&own, (json!({}), kept)),
            (&gateway, (json!({}), root)),
            (&own, templates("spec: {priorityClassName: a}", "spec: {priorityClassName: b}")),
            (
                &own,
                templates(
                    "spec: {volumes: [{name: own, emptyDir: {medium: Memory}}]}",
                    "spec: {volumes: [{name: own, emptyDir: {sizeLimit: 1Gi}}]}",
                ),
            ),
            (
                &own,
                templates("metadata: {annotations: {own: a}}", "metadata: {annotations: {own: b}}"),
            ),
            (
                &own,
                templates(
                    "spec: {containers: [{name: a, tty: true}]}",
                    "spec: {containers: [{name: a, stdin: true}]}",
                ),
            ),
        ] {
            let first = injected(pod, &before);
            let now = injected(&original(&first), &after);
            assert_ne!(digest(&now), digest(&first), "{after}");
            let again = injected(&original(&first), &before);
            assert_eq!(digest(&again), digest(&first), "{before}: nothing has changed");
        }
    }

    #[test]
    fn it_knows_whether_metrics_are_merged() {
        let merged = |merged: bool| {
            let mesh = json!({"enablePrometheusMerge": merged});
            let settings =
                InjectionSettings::from_sources(None, Some(&mesh), Options::default()).unwrap();
            let context = AdmissionContext { namespace: "shop".to_owned(), ..Default::default() };
            inject(&pod(), &settings, &context).unwrap().pod
        };
        assert_ne!(digest(&merged(true)), digest(&merged(false)));
    }

    #[test]
    fn the_application_has_no_part_in_it() {
        let values = json!({});
        let plain = injected(&pod(), &values);
        let mut other = pod();
        other["metadata"]["annotations"] =
            json!({"prometheus.io/port": "9090", "prometheus.io/scrape": "true"});
        other["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
        other["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": 80}});
        assert_eq!(digest(&injected(&other, &values)), digest(&plain));
    }

    #[test]
    fn injecting_again_writes_the_same() {
        let values = json!({});
        let once = injected(&pod(), &values);
        assert_eq!(injected(&once, &values), once);
        assert_eq!(original(&once)["metadata"]["labels"], json!({"app": "a"}));
        let left = original(&once)["metadata"]["annotations"].to_string();
        assert!(!left.contains("istio.io"), "{left}");
    }

    #[test]
    fn records_of_a_pod_that_is_not_injected_mean_nothing() {
        let mut forged = pod();
        forged["metadata"]["annotations"] = json!({
            "inject.lateen.dev/added": "{\"labels\": [\"app\"]}", "inject.lateen.dev/digest": "x",
        });
        let once = injected(&forged, &json!({}));
        assert_eq!(once, injected(&pod(), &json!({})));
    }
}
