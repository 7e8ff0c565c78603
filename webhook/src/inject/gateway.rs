//! A gateway: the pod's own `istio-proxy` becomes a router.
//!
//! No redirection and no rights beyond binding low ports. Must not know pods that exist.

use lateen_api::names::{container, port};
use serde_json::{Map, Value, json};

use super::environment::{self, Role};
use super::facts::Facts;
use super::templates::Fragment;
use super::{InjectError, identity, images, metadata, sidecar, volumes};
use crate::kube::{Container, to_value};

/// What the template `gateway` adds.
pub(crate) fn fragment(facts: &Facts<'_>) -> Result<Fragment, InjectError> {
    let values = &facts.settings.values;
    let mut args = sidecar::arguments(facts);
    args.splice(0..0, ["proxy".to_owned(), "router".to_owned()]);
    let proxy = Container {
        name: container::PROXY.to_owned(),
        image: images::proxy(facts),
        image_pull_policy: values.global.image_pull_policy.clone(),
        args,
        ports: vec![sidecar::prometheus_port()],
        env: environment::variables(facts, Role::Gateway),
        readiness_probe: sidecar::readiness(facts, port::HEALTH),
        lifecycle: values.global.proxy.lifecycle.clone(),
        security_context: Some(identity::gateway(facts)),
        ..Container::default()
    };
    let mut value = to_value(&proxy);
    value["volumeMounts"] = Value::Array(volumes::mounts(facts, Role::Gateway)?);
    Ok(Fragment {
        proxy: Some(value),
        volumes: volumes::volumes(facts, Role::Gateway)?,
        labels: metadata::common_labels(facts),
        annotations: metadata::common_annotations(facts),
        image_pull_secrets: values.global.image_pull_secrets.clone(),
        spec: pod_security(facts),
        ..Fragment::default()
    })
}

/// Lets the gateway bind low ports without being root, unless the settings have their own way.
fn pod_security(facts: &Facts<'_>) -> Map<String, Value> {
    let gateways = &facts.settings.values.gateways;
    let mut context = gateways.security_context.clone();
    if context.is_empty() {
        let sysctl = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]);
        context.insert("sysctls".to_owned(), sysctl);
    }
    if !gateways.seccomp_profile.is_empty() && !context.contains_key("seccompProfile") {
        let profile = Value::Object(gateways.seccomp_profile.clone());
        context.insert("seccompProfile".to_owned(), profile);
    }
    let mut spec = Map::new();
    spec.insert("securityContext".to_owned(), Value::Object(context));
    spec
}
