//! Environment of the proxy.
//!
//! In the order of Istio's template: later variables may refer to earlier ones. Must not know
//! what the proxy does with it.

use lateen_api::names::{annotation, env, path};
use serde_json::Value;

use super::facts::Facts;
use crate::kube::EnvVar;

/// What kind of proxy the environment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Sidecar,
    Gateway,
    /// No proxy: the agent of applications that speak xDS themselves.
    Agent,
}

/// The environment, unique by name.
pub(crate) fn variables(facts: &Facts<'_>, role: Role) -> Vec<EnvVar> {
    let mut list = account(facts);
    if role == Role::Agent {
        let first = [
            EnvVar::value(env::META_GENERATOR, "grpc"),
            EnvVar::value(env::OUTPUT_CERTS, path::PROXY_DATA),
        ];
        list.splice(0..0, first);
    } else {
        list.push(EnvVar::resource(env::CPU_LIMIT, "limits.cpu"));
    }
    list.extend([
        EnvVar::value(env::PROXY_CONFIG, facts.config.environment()),
        EnvVar::value(env::META_POD_PORTS, Value::Array(facts.app_ports.clone()).to_string()),
        EnvVar::value(env::META_APP_CONTAINERS, facts.app_containers.join(",")),
    ]);
    let policy = facts.settings.values.pilot.env.get("COMPLIANCE_POLICY");
    list.extend(
        policy.filter(|policy| !policy.is_empty()).map(|p| EnvVar::value("COMPLIANCE_POLICY", p)),
    );
    if facts.settings.mesh.inbound_localhost {
        list.push(EnvVar::value("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true"));
    }
    list.extend([
        EnvVar::value(env::META_CLUSTER_ID, &facts.settings.cluster_id),
        EnvVar::field(env::META_NODE_NAME, "spec.nodeName"),
    ]);
    if let Some(mode) = interception(facts, role) {
        list.push(EnvVar::value(env::META_INTERCEPTION_MODE, mode));
    }
    list.extend([
        EnvVar::value(env::META_WORKLOAD_NAME, facts.workload_name()),
        EnvVar::value(env::META_OWNER, facts.workload.path(facts.namespace())),
    ]);
    if role != Role::Agent && facts.annotations.contains_key(annotation::BOOTSTRAP_OVERRIDE) {
        list.push(EnvVar::value(
            "ISTIO_BOOTSTRAP_OVERRIDE",
            "/etc/istio/custom-bootstrap/custom_bootstrap.json",
        ));
    }
    let global = &facts.settings.values.global;
    let mesh =
        if global.mesh_id.is_empty() { facts.settings.trust_domain() } else { &global.mesh_id };
    list.push(EnvVar::value(env::META_MESH_ID, mesh));
    list.push(EnvVar::value(env::TRUST_DOMAIN, facts.settings.trust_domain()));
    if let Some(network) = facts.network() {
        list.push(EnvVar::value(env::META_NETWORK, network));
    }
    overrule(&mut list, facts, role);
    list
}

/// The authority, and whose account asks it.
fn account(facts: &Facts<'_>) -> Vec<EnvVar> {
    vec![
        EnvVar::value(env::PILOT_CERT_PROVIDER, &facts.settings.values.global.pilot_cert_provider),
        EnvVar::value(env::CA_ADDR, ca_address(facts)),
        EnvVar::field(env::POD_NAME, "metadata.name"),
        EnvVar::field(env::POD_NAMESPACE, "metadata.namespace"),
        EnvVar::field(env::INSTANCE_IP, "status.podIP"),
        EnvVar::field(env::SERVICE_ACCOUNT, "spec.serviceAccountName"),
        EnvVar::field(env::HOST_IP, "status.hostIP"),
    ]
}

/// What wins over what is there: the proxy's metadata, what makes an agent of it, the webhook's URL.
fn overrule(list: &mut Vec<EnvVar>, facts: &Facts<'_>, role: Role) {
    for (name, value) in facts.config.metadata() {
        set(list, EnvVar::value(name, value));
    }
    if role == Role::Agent {
        // Names are resolved by discovery, not by DNS.
        set(list, EnvVar::value(env::META_DNS_CAPTURE, "false"));
        set(list, EnvVar::value(env::DISABLE_ENVOY, "true"));
    }
    for (name, value) in &facts.context.environment {
        set(list, EnvVar::value(name, value));
    }
}

/// Sets a variable in its place, or at the end.
fn set(list: &mut Vec<EnvVar>, variable: EnvVar) {
    match list.iter_mut().find(|known| known.name == variable.name) {
        Some(known) => *known = variable,
        None => list.push(variable),
    }
}

fn interception(facts: &Facts<'_>, role: Role) -> Option<&'static str> {
    match role {
        Role::Sidecar => Some(facts.mode.name()),
        Role::Gateway => Some(facts.config.mode().name()),
        Role::Agent => None,
    }
}

fn ca_address(facts: &Facts<'_>) -> String {
    let global = &facts.settings.values.global;
    if !global.ca_address.is_empty() {
        return global.ca_address.clone();
    }
    let service = facts.settings.control_plane_service();
    let port = lateen_api::names::port::DISCOVERY_TLS;
    format!("{service}.{}.svc:{port}", global.istio_namespace)
}
