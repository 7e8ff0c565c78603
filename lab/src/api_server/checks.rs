//! What speaks against an object of a Kubernetes kind: its shape, and what the lab cannot give.
//!
//! Pure. Istio's kinds are checked by `lateen_api::validate` before.

use std::collections::BTreeSet;

use lateen_api::core::{
    ConfigMap, Deployment, EndpointSlice, Namespace, Pod, PodSpec, Secret, ServiceAccount,
};
use lateen_api::{Finding, Object};
use lateen_webhook::selectors;
use serde_json::Value;

use super::names;
use super::objects::Role;
use crate::kubelet;

/// Most pods of one Deployment.
const MAX_REPLICAS: u32 = 100;

/// Whether `object` can be taken, where `before` is what it would replace.
///
/// # Errors
/// The field that speaks against it.
pub(super) fn check(object: &Object, before: Option<&Value>) -> Result<(), Finding> {
    match Role::of(object) {
        Role::Namespace => object.decode::<Namespace>().map(drop),
        Role::ServiceAccount => object.decode::<ServiceAccount>().map(drop),
        Role::ConfigMap => object.decode::<ConfigMap>().map(drop),
        Role::Secret => object.decode::<Secret>().and_then(|secret| check_secret(&secret)),
        Role::EndpointSlice => object.decode::<EndpointSlice>().map(drop),
        Role::Pod => {
            let pod: Pod = object.decode()?;
            check_pod(&pod.spec, "")
        }
        Role::Deployment => {
            let deployment: Deployment = object.decode()?;
            check_deployment(object, &deployment, before)
        }
        Role::Service | Role::Node | Role::Istio | Role::Unknown => Ok(()),
    }
}

fn check_secret(secret: &Secret) -> Result<(), Finding> {
    use base64::Engine as _;
    for (key, text) in &secret.data {
        // Line breaks are allowed, as in the output of the program `base64`.
        let text: String = text.split_whitespace().collect();
        if base64::engine::general_purpose::STANDARD.decode(text).is_err() {
            let message = "not base64: use stringData for plain text";
            return Err(Finding::error(format!("data.{key}"), message));
        }
    }
    Ok(())
}

fn check_pod(spec: &PodSpec, below: &str) -> Result<(), Finding> {
    if spec.containers.is_empty() {
        let message = "a pod needs at least one container";
        return Err(Finding::error(format!("{below}spec.containers"), message));
    }
    let mut seen = BTreeSet::new();
    let lists = [("initContainers", &spec.init_containers), ("containers", &spec.containers)];
    for (list, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            let path = |field: &str| format!("{below}spec.{list}[{index}].{field}");
            if !names::is_label(&container.name) {
                let message = format!("`{}` is not a name of a container", container.name);
                return Err(Finding::error(path("name"), message));
            }
            if !seen.insert(&container.name) {
                let message = format!("there are two containers `{}`", container.name);
                return Err(Finding::error(path("name"), message));
            }
            if container.image.as_deref().unwrap_or_default().is_empty() {
                return Err(Finding::error(path("image"), "an image is needed"));
            }
        }
    }
    kubelet::check(spec)
        .map_err(|error| Finding::error(format!("{below}{}", error.path), error.message))
}

fn check_deployment(
    object: &Object,
    deployment: &Deployment,
    before: Option<&Value>,
) -> Result<(), Finding> {
    let spec = &deployment.spec;
    let selector = &object.value["spec"]["selector"];
    if spec.selector.is_none() {
        return Err(Finding::error("spec.selector", "a selector is needed"));
    }
    let chosen = selectors::matches(selector, &spec.template.metadata.labels)
        .map_err(|error| Finding::error(format!("spec.selector.{}", error.path), error.reason))?;
    if !chosen {
        let message = "the labels of the template must match spec.selector";
        return Err(Finding::error("spec.template.metadata.labels", message));
    }
    if before.is_some_and(|before| before["spec"]["selector"] != *selector) {
        let message = "a selector cannot be changed: use another name, or take the lab down";
        return Err(Finding::error("spec.selector", message));
    }
    if spec.replicas.is_some_and(|count| count > MAX_REPLICAS) {
        let message = format!("at most {MAX_REPLICAS} pods of one Deployment are run here");
        return Err(Finding::error("spec.replicas", message));
    }
    if spec.template.spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always") {
        let message = "pods of a Deployment are always started again: Always";
        return Err(Finding::error("spec.template.spec.restartPolicy", message));
    }
    check_pod(&spec.template.spec, "spec.template.")
}

#[cfg(test)]
mod tests {
    use super::check;
    use lateen_api::stream;

    fn refused(text: &str) -> String {
        let object = stream::parse("t.yaml", text).objects.remove(0);
        check(&object, None).unwrap_err().about(&object).to_string()
    }

    #[test]
    fn the_field_is_named() {
        let deployment = |spec: &str| {
            format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec: {spec}\n")
        };
        let pod = |spec: &str| {
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n")
        };
        for (text, path) in [
            (deployment("{}"), "spec.selector"),
            (
                deployment("{selector: {matchLabels: {a: b}}, template: {}}"),
                "spec.template.metadata.labels",
            ),
            (
                deployment("{selector: {matchExpressions: [{key: a, operator: Gt}]}}"),
                "spec.selector.matchExpressions[0].operator",
            ),
            (deployment("{selector: {}, replicas: 1000}"), "spec.replicas"),
            (deployment("{selector: {}, replicas: many}"), "spec.replicas"),
            (deployment("{selector: {}}"), "spec.template.spec.containers"),
            (pod("{}"), "spec.containers"),
            (pod("{containers: [{name: A, image: i}]}"), "spec.containers[0].name"),
            (pod("{containers: [{name: a}]}"), "spec.containers[0].image"),
            (
                pod("{containers: [{name: a, image: i}, {name: a, image: i}]}"),
                "spec.containers[1].name",
            ),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: '*'}".to_owned(),
                "data.a",
            ),
        ] {
            let said = refused(&text);
            assert!(said.contains(&format!(": {path}: ")), "{text}: {said}");
        }
    }
}
