//! ProxyConfig of one pod: the mesh's, and over it the pod's annotation.
//!
//! Stays untyped apart from the fields injection itself needs, because it is handed to the proxy
//! as it was written. Must not know containers.

use std::collections::BTreeMap;

use lateen_api::names::annotation;
use serde_json::{Map, Value};

use super::InjectError;
use crate::settings::merge::overlay_proxy_config;
use crate::settings::mesh::{proxy_config_defaults, string_map};
use crate::settings::{InjectionSettings, parse_yaml};

/// Longest annotation that is read as YAML, bytes.
const ANNOTATION_LIMIT: usize = 64 * 1024;

/// Fields of ProxyConfig (`istio.mesh.v1alpha1.ProxyConfig`).
const FIELDS: [&str; 38] = [
    "availabilityZone",
    "binaryPath",
    "caCertificatesPem",
    "concurrency",
    "configPath",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "discoveryAddress",
    "discoveryRefreshDelay",
    "drainDuration",
    "envoyAccessLogService",
    "envoyMetricsService",
    "envoyMetricsServiceAddress",
    "extraStatTags",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "gatewayTopology",
    "holdApplicationUntilProxyStarts",
    "image",
    "interceptionMode",
    "meshId",
    "parentShutdownDuration",
    "privateKeyProvider",
    "proxyAdminPort",
    "proxyBootstrapTemplatePath",
    "proxyHeaders",
    "proxyMetadata",
    "proxyStatsMatcher",
    "readinessProbe",
    "runtimeValues",
    "sds",
    "serviceCluster",
    "statNameLength",
    "statsCompression",
    "statsdUdpAddress",
    "statusPort",
    "terminationDrainDuration",
    "tracing",
];
const MORE_FIELDS: [&str; 2] = ["tracingServiceName", "zipkinAddress"];

/// How traffic reaches the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Redirect,
    Tproxy,
    None,
}

impl Mode {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "REDIRECT" => Some(Self::Redirect),
            "TPROXY" => Some(Self::Tproxy),
            "NONE" => Some(Self::None),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redirect => "REDIRECT",
            Self::Tproxy => "TPROXY",
            Self::None => "NONE",
        }
    }
}

/// The effective ProxyConfig of a pod.
#[derive(Debug, Clone)]
pub(crate) struct ProxyConfig {
    fields: Map<String, Value>,
}

impl ProxyConfig {
    /// Mesh default, then the pod's annotation.
    pub(crate) fn effective(
        settings: &InjectionSettings,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, InjectError> {
        let mut fields = settings.mesh.default_config.clone();
        if let Some(text) = annotations.get(annotation::PROXY_CONFIG) {
            let pod = parse(text)
                .map_err(|reason| InjectError::annotation(annotation::PROXY_CONFIG, reason))?;
            overlay_proxy_config(&mut fields, &pod);
        }
        Ok(Self { fields })
    }

    /// The environment variable: only what differs from what every proxy knows.
    pub(crate) fn environment(&self) -> String {
        let defaults = proxy_config_defaults();
        let differing: Map<String, Value> = self
            .fields
            .iter()
            .filter(|(key, value)| defaults.get(*key) != Some(value))
            .filter(|(key, value)| {
                key.as_str() != "proxyMetadata"
                    || value.as_object().is_some_and(|map| !map.is_empty())
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        format!("{}\n", Value::Object(differing))
    }

    /// All of it.
    pub(crate) fn document(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    pub(crate) fn metadata(&self) -> BTreeMap<String, String> {
        string_map(self.fields.get("proxyMetadata"))
    }

    pub(crate) fn mode(&self) -> Mode {
        let name = self.fields.get("interceptionMode").and_then(Value::as_str).unwrap_or_default();
        Mode::parse(name).unwrap_or(Mode::Redirect)
    }

    /// Port of the proxy's status server.
    pub(crate) fn status_port(&self) -> u16 {
        self.fields
            .get("statusPort")
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(lateen_api::names::port::STATUS)
    }

    pub(crate) fn holds_application(&self) -> bool {
        self.fields.get("holdApplicationUntilProxyStarts") == Some(&Value::Bool(true))
    }

    pub(crate) fn image_type(&self) -> &str {
        self.fields.get("image").and_then(|image| image["imageType"].as_str()).unwrap_or_default()
    }
}

/// Whether ProxyConfig has a field of this name.
pub(crate) fn is_field(name: &str) -> bool {
    FIELDS.contains(&name) || MORE_FIELDS.contains(&name)
}

/// Reads the annotation.
fn parse(text: &str) -> Result<Map<String, Value>, String> {
    if text.len() > ANNOTATION_LIMIT {
        return Err(format!("longer than {ANNOTATION_LIMIT} bytes"));
    }
    let fields = match parse_yaml(text)? {
        Value::Null => Map::new(),
        Value::Object(fields) => fields,
        _ => return Err("expected a map of ProxyConfig fields".to_owned()),
    };
    let fields: Map<String, Value> =
        fields.into_iter().map(|(key, value)| (camel_case(&key), value)).collect();
    check(&fields)?;
    Ok(fields)
}

/// Protobuf JSON accepts `snake_case` too.
fn camel_case(key: &str) -> String {
    let mut camel = String::with_capacity(key.len());
    let mut upper = false;
    for character in key.chars() {
        if character == '_' {
            upper = true;
        } else if upper {
            camel.extend(character.to_uppercase());
            upper = false;
        } else {
            camel.push(character);
        }
    }
    camel
}

/// Checks names of fields, and the types of those that injection reads.
///
/// # Errors
/// The field and what is expected there.
pub(crate) fn check(fields: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in fields {
        if !is_field(key) {
            return Err(format!("{key}: unknown field of ProxyConfig"));
        }
        let expected = match key.as_str() {
            _ if value.is_null() => None,
            "interceptionMode" => {
                let known = value.as_str().is_some_and(|mode| Mode::parse(mode).is_some());
                (!known).then_some("REDIRECT, TPROXY or NONE")
            }
            "statusPort" | "proxyAdminPort" => {
                let port = value.as_u64().is_some_and(|port| port <= u64::from(u16::MAX));
                (!port).then_some("a port")
            }
            "concurrency" | "statNameLength" => (!value.is_u64()).then_some("a number"),
            "holdApplicationUntilProxyStarts" => (!value.is_boolean()).then_some("true or false"),
            "discoveryAddress"
            | "serviceCluster"
            | "drainDuration"
            | "terminationDrainDuration" => (!value.is_string()).then_some("a string"),
            "image" | "tracing" => (!value.is_object()).then_some("a map"),
            "proxyMetadata" => {
                let texts = value.as_object().is_some_and(|map| {
                    map.values().all(|entry| !entry.is_object() && !entry.is_array())
                });
                (!texts).then_some("a map of strings")
            }
            _ => None,
        };
        if let Some(expected) = expected {
            return Err(format!("{key}: expected {expected}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{camel_case, parse};

    #[test]
    fn unknown_fields_and_wrong_types_are_named() {
        for (text, needle) in [
            ("concurency: 2", "concurency"),
            ("interceptionMode: MAYBE", "interceptionMode"),
            ("statusPort: 70000", "statusPort"),
            ("proxyMetadata: {A: {B: c}}", "proxyMetadata"),
            ("- a", "expected a map"),
            ("a: [", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    #[test]
    fn both_spellings_are_read() {
        assert_eq!(camel_case("discovery_address"), "discoveryAddress");
        let fields = parse("discovery_address: foo:123\nconcurrency: 0").unwrap();
        assert_eq!(fields["discoveryAddress"], "foo:123");
        assert_eq!(parse("").unwrap().len(), 0);
    }
}
