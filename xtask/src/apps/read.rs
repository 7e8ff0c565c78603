//! Which images a manifest names, and what each has to be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::AppsError;

/// What an image has to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct App {
    /// Label `app` of the pod, or the container's name.
    pub app: String,
    /// Label `version` of the pod.
    pub version: String,
    /// Declared TCP ports.
    pub ports: BTreeSet<u16>,
    /// What it asks for every request.
    pub calls: Vec<&'static str>,
    /// Whether a container gives it arguments without a command.
    pub has_args: bool,
}

/// Images whose originals ask others, by the end of their name without tag.
const CALLS: [(&str, &[&str]); 3] = [
    (
        "bookinfo-productpage-v1",
        &["http://details:9080/details/0", "http://reviews:9080/reviews/0"],
    ),
    ("bookinfo-reviews-v2", &["http://ratings:9080/ratings/0"]),
    ("bookinfo-reviews-v3", &["http://ratings:9080/ratings/0"]),
];

/// The images that containers in `manifests` name, each a text of YAML documents.
///
/// # Errors
/// When one is not YAML.
pub fn read(manifests: &[&str]) -> Result<BTreeMap<String, App>, AppsError> {
    let mut found = BTreeMap::new();
    for (place, text) in manifests.iter().enumerate() {
        let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(text).map_err(|error| {
            AppsError::Manifest { number: place + 1, message: error.to_string() }
        })?;
        for document in documents.iter().flatten() {
            search(document, &mut found);
        }
    }
    Ok(found)
}

/// Looks for pods and pod templates: objects with `spec.containers`.
fn search(value: &Value, found: &mut BTreeMap<String, App>) {
    let nothing = Value::Null;
    let labels = value.pointer("/metadata/labels").unwrap_or(&nothing);
    for list in ["/spec/initContainers", "/spec/containers"] {
        let containers = value.pointer(list).and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            take(container, labels, found);
        }
    }
    match value {
        Value::Object(map) => map.values().for_each(|inner| search(inner, found)),
        Value::Array(list) => list.iter().for_each(|inner| search(inner, found)),
        _ => {}
    }
}

fn take(container: &Value, labels: &Value, found: &mut BTreeMap<String, App>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    // `auto` stands for what the webhook fills in.
    let Some(name) = text(&container["image"]).filter(|name| name != "auto") else { return };
    let bare = name.rsplit_once(':').map_or(name.as_str(), |(bare, _)| bare);
    let calls = CALLS.iter().find(|(end, _)| bare.ends_with(end)).map(|(_, calls)| calls.to_vec());
    let app = found.entry(name).or_insert_with(|| App {
        app: text(&labels["app"]).or_else(|| text(&container["name"])).unwrap_or_default(),
        version: text(&labels["version"]).unwrap_or_default(),
        calls: calls.unwrap_or_default(),
        ..App::default()
    });
    let ports = container["ports"].as_array().into_iter().flatten();
    let tcp = ports.filter(|port| port["protocol"].as_str().is_none_or(|it| it == "TCP"));
    let numbers = tcp.filter_map(|port| port["containerPort"].as_u64());
    app.ports.extend(numbers.filter_map(|port| u16::try_from(port).ok()));
    let filled = |key: &str| container[key].as_array().is_some_and(|list| !list.is_empty());
    app.has_args |= filled("args") && !filled("command");
}

#[cfg(test)]
mod tests {
    use super::read;

    const SHOP: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {ports: [{port: 9080}]}
---
# Nothing.
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v2, labels: {app: wrong}}
spec:
  template:
    metadata: {labels: {app: reviews, version: v2}}
    spec:
      initContainers: [{name: wait, image: "r.test/wait:1", command: [sh]}]
      containers:
      - name: reviews
        image: r.test/examples-bookinfo-reviews-v2:1.20.3
        ports: [{containerPort: 9080}, {containerPort: 53, protocol: UDP}]
"#;
    const MORE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: one}
spec:
  containers:
  - {name: echo, image: "r.test/tcp:1.3", args: ["9000,9001"], ports: [{containerPort: 9000}]}
  - {name: istio-proxy, image: auto}
"#;

    #[test]
    fn every_image_is_found_with_what_it_has_to_be() {
        let found = read(&[SHOP, MORE]).unwrap();
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        let reviews = "r.test/examples-bookinfo-reviews-v2:1.20.3";
        assert_eq!(names, [reviews, "r.test/tcp:1.3", "r.test/wait:1"]);
        let app = &found[reviews];
        assert_eq!((app.app.as_str(), app.version.as_str()), ("reviews", "v2"));
        assert_eq!(app.ports, [9080].into());
        assert_eq!(app.calls, ["http://ratings:9080/ratings/0"]);
        assert!(!app.has_args && !found["r.test/wait:1"].has_args);
        let tcp = &found["r.test/tcp:1.3"];
        assert!(tcp.has_args && tcp.app == "echo" && tcp.calls.is_empty());
    }

    #[test]
    fn a_manifest_that_is_not_yaml_is_named() {
        let error = read(&[SHOP, "a: [b"]).unwrap_err();
        assert!(error.to_string().starts_with("manifest 2 is not YAML"), "{error}");
    }
}
