//! What injection reads from mesh configuration.
//!
//! ProxyConfig stays untyped, since it is handed to the proxy as it was written: unknown fields
//! must survive. Must not know pods.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::SettingsError;
use super::merge::overlay_mesh;
use super::values::scalar;

/// What injection reads from mesh configuration.
#[derive(Debug, Clone)]
pub struct MeshSettings {
    /// Trust domain of workload identities.
    pub trust_domain: String,
    /// Whether metrics of applications are merged with the proxy's.
    pub prometheus_merge: bool,
    /// Whether inbound requests go to localhost instead of the pod's address.
    pub inbound_localhost: bool,
    /// ProxyConfig of every pod, before what its annotation says.
    pub default_config: Map<String, Value>,
    /// All of the mesh configuration, for templates.
    pub(crate) document: Map<String, Value>,
    /// What of the mesh configuration injection cannot honour, for status and log.
    pub warnings: Vec<String>,
}

impl MeshSettings {
    /// Mesh configuration over the defaults; without any, the proxies answer DNS.
    ///
    /// # Errors
    /// A field of the wrong shape, by its path.
    pub fn from_source(mesh: Option<&Value>) -> Result<Self, SettingsError> {
        let mut effective = defaults();
        let overlay = match mesh {
            None => dns_capture(),
            Some(Value::Object(mesh)) => mesh.clone(),
            Some(Value::Null) => Map::new(),
            Some(_) => return Err(shape("(root)", "a map")),
        };
        overlay_mesh(&mut effective, &overlay);
        let document = effective.clone();
        let Some(Value::Object(default_config)) = effective.remove("defaultConfig") else {
            return Err(shape("defaultConfig", "a map"));
        };
        crate::inject::check_proxy_config(&default_config)
            .map_err(|reason| SettingsError::Mesh { path: "defaultConfig".to_owned(), reason })?;
        Ok(Self {
            trust_domain: effective["trustDomain"]
                .as_str()
                .ok_or_else(|| shape("trustDomain", "a string"))?
                .to_owned(),
            prometheus_merge: effective["enablePrometheusMerge"]
                .as_bool()
                .ok_or_else(|| shape("enablePrometheusMerge", "true or false"))?,
            inbound_localhost: effective
                .get("inboundTrafficPolicy")
                .is_some_and(|policy| policy["mode"] == "LOCALHOST"),
            warnings: unhonoured(&effective),
            default_config,
            document,
        })
    }

    /// Environment of every proxy and init container.
    #[must_use]
    pub fn proxy_metadata(&self) -> BTreeMap<String, String> {
        string_map(self.default_config.get("proxyMetadata"))
    }
}

/// A map of scalars as text; anything else is left out (it was refused before).
pub(crate) fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), scalar(value)?))).collect()
}

fn unhonoured(mesh: &Map<String, Value>) -> Vec<String> {
    let providers = mesh.get("extensionProviders").and_then(Value::as_array).into_iter().flatten();
    providers
        .filter(|provider| {
            provider["opentelemetry"]["serviceAttributeEnrichment"] == "OTEL_SEMANTIC_CONVENTIONS"
        })
        .map(|provider| {
            format!(
                "extensionProviders[{}].opentelemetry.serviceAttributeEnrichment: \
                 OTEL_RESOURCE_ATTRIBUTES is not set in injected pods",
                provider["name"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

fn shape(path: &str, expected: &str) -> SettingsError {
    SettingsError::Mesh { path: path.to_owned(), reason: format!("expected {expected}") }
}

fn dns_capture() -> Map<String, Value> {
    let mut overlay = Map::new();
    overlay.insert(
        "defaultConfig".to_owned(),
        json!({"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}),
    );
    overlay
}

/// The mesh configuration that holds when nothing is set, as far as injection reads it.
fn defaults() -> Map<String, Value> {
    let mut mesh = Map::new();
    mesh.insert("defaultConfig".to_owned(), Value::Object(proxy_config_defaults()));
    mesh.insert("enablePrometheusMerge".to_owned(), json!(true));
    mesh.insert("trustDomain".to_owned(), json!("cluster.local"));
    mesh.insert("extensionProviders".to_owned(), json!([]));
    mesh
}

/// The ProxyConfig that every proxy knows without being told.
#[must_use]
pub fn proxy_config_defaults() -> Map<String, Value> {
    let defaults = json!({
        "binaryPath": "/usr/local/bin/envoy",
        "configPath": "./etc/istio/proxy",
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "discoveryAddress": "istiod.istio-system.svc:15012",
        "drainDuration": "45s",
        "interceptionMode": "REDIRECT",
        "proxyAdminPort": 15000,
        "serviceCluster": "istio-proxy",
        "statNameLength": 189,
        "statusPort": 15020,
        "terminationDrainDuration": "5s",
    });
    match defaults {
        Value::Object(defaults) => defaults,
        _ => Map::new(),
    }
}
