//! The data of a template: Istio's `SidecarTemplateData`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::Shared;
use super::shapes::{self, NAMESPACED, ROOT, TYPE};
use crate::gotemplate::{Kind, Record, Value};
use crate::inject::facts::Facts;
use crate::inject::images;

/// Everything a template sees of a pod.
pub(super) fn of(pod: &Json, shared: &Shared, facts: &Facts<'_>) -> Value {
    let settings = facts.settings;
    let namespace = facts.context.namespace.as_str();
    let mut metadata = pod["metadata"].clone();
    if let (Some(fields), false) = (metadata.as_object_mut(), namespace.is_empty()) {
        fields.insert("namespace".to_owned(), Json::from(namespace));
    }
    let policy = settings.values.pilot.env.get("COMPLIANCE_POLICY").map_or("", String::as_str);
    let mode = if settings.mesh.inbound_localhost { "localhost" } else { "passthrough" };
    let workload = &facts.workload;
    let id = |id: u64| Value::Int(i64::try_from(id).unwrap_or(i64::MAX));
    struct_of(
        &ROOT,
        [
            (
                "TypeMeta",
                struct_of(
                    &TYPE,
                    [
                        ("kind", Value::from(workload.kind.as_str())),
                        ("apiVersion", Value::from(workload.api_version.as_str())),
                    ],
                ),
            ),
            (
                "DeploymentMeta",
                struct_of(
                    &NAMESPACED,
                    [
                        ("name", Value::from(workload.name.as_str())),
                        ("namespace", Value::from(namespace)),
                    ],
                ),
            ),
            ("ObjectMeta", shapes::metadata(&metadata)),
            ("Spec", shapes::spec(&pod["spec"])),
            ("ProxyConfig", shapes::proxy_config(&facts.config.document())),
            ("MeshConfig", shared.mesh.clone()),
            ("Values", shared.values.clone()),
            ("Revision", Value::from(settings.revision.as_str())),
            ("NativeSidecars", Value::Bool(settings.native_sidecars)),
            ("ProxyImage", Value::from(images::proxy(facts))),
            ("ProxyInitImage", Value::from(images::init(facts))),
            ("ProxyUID", id(facts.ids.redirect_user)),
            ("ProxyGID", id(facts.ids.group)),
            ("InboundTrafficPolicyMode", Value::from(mode)),
            ("CompliancePolicy", Value::from(policy)),
        ],
    )
}

fn struct_of<const N: usize>(record: &'static Record, fields: [(&'static str, Value); N]) -> Value {
    let entries: BTreeMap<Arc<str>, Value> =
        fields.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
    Value::given_map(entries, Kind::Record(record))
}

/// Mesh configuration over what Istio's control plane takes for granted.
pub(super) fn mesh(mesh: &Map<String, Json>) -> Value {
    let mut all = json!({
        "accessLogEncoding": "TEXT", "accessLogFile": "", "accessLogFormat": "",
        "connectTimeout": "10s", "dnsRefreshRate": "60s", "enableAutoMtls": true,
        "enableEnvoyAccessLogService": false, "enablePrometheusMerge": true,
        "enableTracing": true, "ingressClass": "istio", "ingressControllerMode": "STRICT",
        "ingressService": "istio-ingressgateway", "ingressSelector": "",
        "inboundTrafficPolicy": {"mode": "PASSTHROUGH"},
        "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "protocolDetectionTimeout": "0s",
        "proxyHttpPort": 0, "proxyInboundListenPort": 15006, "proxyListenPort": 15001,
        "rootNamespace": "istio-system", "trustDomain": "cluster.local", "trustDomainAliases": [],
    });
    if let Json::Object(all) = &mut all {
        all.extend(mesh.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    shapes::mesh_config(&all)
}
