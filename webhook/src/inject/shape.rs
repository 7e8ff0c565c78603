//! The shape a pod must have for injection to read it.
//!
//! The API server checks pods before they come here, but the webhook's port is open to others.
//! Knows the lists that injection touches and nothing else.

use serde_json::Value;

use super::InjectError;
use crate::kube::NAMED_LISTS;

const CONTAINER_LISTS: [&str; 3] = ["env", "volumeMounts", "ports"];

/// Refuses what is not a pod.
pub(crate) fn check(pod: &Value) -> Result<(), InjectError> {
    if !pod.is_object() {
        return Err(InjectError::pod("(root)", "expected a map"));
    }
    let metadata = &pod["metadata"];
    if !metadata.is_object() {
        return Err(InjectError::pod("metadata", "expected a map"));
    }
    for field in ["labels", "annotations"] {
        match &metadata[field] {
            Value::Null => {}
            Value::Object(map) if map.values().all(Value::is_string) => {}
            _ => {
                let path = format!("metadata.{field}");
                return Err(InjectError::pod(path, "expected a map of strings"));
            }
        }
    }
    let spec = &pod["spec"];
    if !spec.is_object() {
        return Err(InjectError::pod("spec", "expected a map"));
    }
    if !matches!(spec["securityContext"], Value::Null | Value::Object(_)) {
        return Err(InjectError::pod("spec.securityContext", "expected a map"));
    }
    for list in NAMED_LISTS {
        let path = format!("spec.{list}");
        for (index, element) in elements(&spec[list], &path)?.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if !element["name"].is_string() {
                return Err(InjectError::pod(format!("{path}.name"), "expected a string"));
            }
            if list.ends_with("ontainers") {
                check_container(element, &path)?;
            }
        }
    }
    Ok(())
}

fn check_container(container: &Value, path: &str) -> Result<(), InjectError> {
    for list in CONTAINER_LISTS {
        let path = format!("{path}.{list}");
        for (index, element) in elements(&container[list], &path)?.iter().enumerate() {
            if !element.is_object() {
                return Err(InjectError::pod(format!("{path}[{index}]"), "expected a map"));
            }
        }
    }
    for map in ["resources", "securityContext", "lifecycle"] {
        if !matches!(container[map], Value::Null | Value::Object(_)) {
            return Err(InjectError::pod(format!("{path}.{map}"), "expected a map"));
        }
    }
    Ok(())
}

fn elements<'a>(list: &'a Value, path: &str) -> Result<&'a [Value], InjectError> {
    match list {
        Value::Null => Ok(&[]),
        Value::Array(elements) => Ok(elements),
        _ => Err(InjectError::pod(path, "expected a list")),
    }
}
