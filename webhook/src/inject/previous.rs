//! Takes an earlier injection out of a pod, so that injecting again sees the pod of the user.
//!
//! What was injected is named in the status annotation; what was changed in the user's own parts
//! (probes, scrape settings, overlaid containers) was recorded in the sidecar's environment and
//! in the overrides annotation, and is put back from there.

use lateen_api::names::{annotation, container, env};
use serde_json::{Map, Value};

use super::probes;
use super::prometheus;
use crate::kube::Status;

/// Removes an earlier injection in place. Warnings name what could not be understood.
pub(crate) fn strip(pod: &mut Value, warnings: &mut Vec<String>) {
    let annotations = &pod["metadata"]["annotations"];
    let Some(text) = annotations[annotation::STATUS].as_str() else { return };
    let status: Status = match serde_json::from_str(text) {
        Ok(status) => status,
        Err(error) => {
            warnings.push(format!(
                "annotation {}: {error}; the pod is injected as if it were new",
                annotation::STATUS
            ));
            return;
        }
    };
    let overrides = overridden(annotations[annotation::OVERRIDES].as_str(), warnings);
    let recorded = |name: &str| {
        let found = ["containers", "initContainers"].into_iter().find_map(|list| {
            let containers = pod["spec"][list].as_array()?;
            let proxy = containers.iter().find(|c| c["name"] == container::PROXY)?;
            let variables = proxy["env"].as_array()?;
            variables.iter().find(|variable| variable["name"] == name)?["value"].as_str()
        });
        found.map(str::to_owned)
    };
    let probers = recorded(env::APP_PROBERS);
    let scraped = recorded(env::PROMETHEUS_ANNOTATIONS);
    let spec = &mut pod["spec"];
    remove(spec, "initContainers", status.init_containers.as_deref(), &overrides);
    remove(spec, "containers", status.containers.as_deref(), &overrides);
    remove(spec, "volumes", status.volumes.as_deref(), &[]);
    remove(spec, "imagePullSecrets", status.image_pull_secrets.as_deref(), &[]);
    restore_proxy(spec, &overrides);
    if let Some(probers) = probers {
        probes::restore(pod, &probers, warnings);
    }
    prometheus::restore(pod, scraped.as_deref());
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.remove(annotation::STATUS);
        annotations.remove(annotation::OVERRIDES);
    }
}

/// The user's containers that ours were laid under.
fn overridden(text: Option<&str>, warnings: &mut Vec<String>) -> Vec<Value> {
    let Some(text) = text else { return Vec::new() };
    let overrides: Map<String, Value> = match serde_json::from_str(text) {
        Ok(overrides) => overrides,
        Err(error) => {
            warnings.push(format!(
                "annotation {}: {error}; containers it held are not restored",
                annotation::OVERRIDES
            ));
            return Vec::new();
        }
    };
    let lists = ["containers", "initContainers"].into_iter();
    lists
        .filter_map(|list| overrides.get(list)?.as_array().cloned())
        .flatten()
        .filter(|container| container["name"].is_string())
        .collect()
}

/// Removes what is named, except that a container the user had too goes back to the user's.
fn remove(spec: &mut Value, list: &str, names: Option<&[String]>, overrides: &[Value]) {
    let elements = spec.get_mut(list).and_then(Value::as_array_mut);
    let (Some(names), Some(elements)) = (names, elements) else { return };
    elements.retain_mut(|element| {
        let Some(name) = element["name"].as_str() else { return true };
        if !names.iter().any(|injected| injected == name) {
            return true;
        }
        match overrides.iter().find(|user| user["name"] == name && !is_ours(name)) {
            Some(user) => {
                *element = user.clone();
                true
            }
            None => false,
        }
    });
    if elements.is_empty()
        && let Some(spec) = spec.as_object_mut()
        && list != "containers"
    {
        spec.remove(list);
    }
}

/// The user's overlays of our own containers go back to the container list they may stand in.
fn restore_proxy(spec: &mut Value, overrides: &[Value]) {
    for user in overrides.iter().filter(|user| user["name"].as_str().is_some_and(is_ours)) {
        let list = if user["name"] == container::PROXY { "containers" } else { "initContainers" };
        if !spec[list].is_array() {
            spec[list] = Value::Array(Vec::new());
        }
        if let Some(elements) = spec[list].as_array_mut() {
            elements.push(user.clone());
        }
    }
}

/// Containers whose place is decided by injection.
pub(crate) fn is_ours(name: &str) -> bool {
    [container::PROXY, container::INIT, container::VALIDATION].contains(&name)
}
