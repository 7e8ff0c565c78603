//! Node metadata from the environment: what the control plane is told about this proxy.
//!
//! `ISTIO_META_X` becomes text `X`; `ISTIO_METAJSON_X` becomes JSON `X`.

use super::{Environment, ProxyConfig, VERSION};
use lateen_api::names::env;
use serde_json::{Map, Value};

/// The part of node metadata that stands in the environment.
pub(super) fn from_environment(env: &Environment, config: &ProxyConfig) -> Map<String, Value> {
    let mut metadata = Map::new();
    for (name, value) in env.with_prefix(env::META_PREFIX) {
        metadata.insert(name.to_owned(), Value::from(value));
    }
    for (name, value) in env.with_prefix("ISTIO_METAJSON_") {
        if let Ok(json) = serde_json::from_str(value) {
            metadata.insert(name.to_owned(), json);
        }
    }
    let always = [
        ("NAME", env.text(env::POD_NAME)),
        ("NAMESPACE", env.or(env::POD_NAMESPACE, "default")),
        ("SERVICE_ACCOUNT", env.or(env::SERVICE_ACCOUNT, "default")),
        ("CLUSTER_ID", env.or(env::META_CLUSTER_ID, "Kubernetes")),
        ("INTERCEPTION_MODE", env.or(env::META_INTERCEPTION_MODE, "REDIRECT")),
        ("ISTIO_VERSION", VERSION),
        ("LATEEN", "1"),
    ];
    for (name, value) in always {
        metadata.insert(name.to_owned(), Value::from(value));
    }
    if !config.whole.is_empty() {
        metadata.insert("PROXY_CONFIG".to_owned(), Value::Object(config.whole.clone()));
    }
    metadata
}
