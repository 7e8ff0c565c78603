//! `MeshConfig`: settings of the whole mesh, and the proxy configuration inside it.
//!
//! What is honoured is typed; everything else is kept and reported, so that nobody believes in a
//! setting that does nothing. Defaults are methods, because absence is told apart from a value.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::duration::optional;
use crate::finding::Finding;
use crate::names::{cluster, port};
use crate::networking::Retries;
use crate::proto_enum::proto_enum;
use crate::stream;

proto_enum! {
    /// What becomes of traffic to hosts that the registry does not know.
    pub enum OutboundMode {
        /// Refused.
        RegistryOnly = "REGISTRY_ONLY" / 0,
        /// Let through.
        AllowAny = "ALLOW_ANY" / 1,
    }
}

proto_enum! {
    /// Form of the access log.
    pub enum LogEncoding {
        /// Lines of text.
        Text = "TEXT" / 0,
        /// One JSON object a line.
        Json = "JSON" / 1,
    }
}

proto_enum! {
    /// How a pod's traffic reaches the proxy.
    pub enum InterceptionMode {
        /// By redirection.
        Redirect = "REDIRECT" / 0,
        /// By transparent proxying.
        Tproxy = "TPROXY" / 1,
        /// Not at all.
        None = "NONE" / 2,
    }
}

/// Settings of the whole mesh.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// File of the access log; none is written where empty.
    #[serde(alias = "access_log_file")]
    pub access_log_file: String,
    /// Format of the access log; the default one where empty.
    #[serde(alias = "access_log_format")]
    pub access_log_format: String,
    /// Form of the access log.
    #[serde(alias = "access_log_encoding")]
    pub access_log_encoding: LogEncoding,
    /// Traffic to unknown hosts.
    #[serde(alias = "outbound_traffic_policy")]
    pub outbound_traffic_policy: Option<OutboundPolicy>,
    /// Mutual TLS between sidecars without being told.
    #[serde(alias = "enable_auto_mtls")]
    pub enable_auto_mtls: Option<bool>,
    /// Trust domain of the mesh.
    #[serde(alias = "trust_domain")]
    pub trust_domain: String,
    /// Other trust domains that are ours.
    #[serde(alias = "trust_domain_aliases")]
    pub trust_domain_aliases: Vec<String>,
    /// Namespace whose policies hold everywhere.
    #[serde(alias = "root_namespace")]
    pub root_namespace: String,
    /// Proxy configuration.
    #[serde(alias = "default_config")]
    pub default_config: ProxyConfig,
    /// Time to connect.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "connect_timeout")]
    pub connect_timeout: Option<Duration>,
    /// Retries of routes that say nothing.
    #[serde(alias = "default_http_retry_policy")]
    pub default_http_retry_policy: Option<Retries>,
    /// Merging of application metrics.
    #[serde(alias = "enable_prometheus_merge")]
    pub enable_prometheus_merge: Option<bool>,
    /// Time to wait for the first bytes when the protocol is detected; no limit where zero.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "protocol_detection_timeout")]
    pub protocol_detection_timeout: Option<Duration>,
    /// Who sees services that say nothing.
    #[serde(alias = "default_service_export_to")]
    pub default_service_export_to: Vec<String>,
    /// Who sees virtual services that say nothing.
    #[serde(alias = "default_virtual_service_export_to")]
    pub default_virtual_service_export_to: Vec<String>,
    /// Who sees destination rules that say nothing.
    #[serde(alias = "default_destination_rule_export_to")]
    pub default_destination_rule_export_to: Vec<String>,
    /// What is not honoured.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Traffic to unknown hosts.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutboundPolicy {
    /// Let through or refused.
    pub mode: OutboundMode,
}

/// Settings of one proxy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// Address of the control plane.
    #[serde(alias = "discovery_address")]
    pub discovery_address: String,
    /// Environment of the proxy.
    #[serde(alias = "proxy_metadata")]
    pub proxy_metadata: BTreeMap<String, String>,
    /// Worker threads; by CPU limit where absent, one per core where 0.
    pub concurrency: Option<u32>,
    /// The application waits for the proxy.
    #[serde(alias = "hold_application_until_proxy_starts")]
    pub hold_application_until_proxy_starts: Option<bool>,
    /// Status port.
    #[serde(alias = "status_port")]
    pub status_port: Option<u16>,
    /// Time in which old connections are drained after a change.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "drain_duration")]
    pub drain_duration: Option<Duration>,
    /// Time in which connections are drained at the end.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "termination_drain_duration")]
    pub termination_drain_duration: Option<Duration>,
    /// How traffic reaches the proxy.
    #[serde(alias = "interception_mode")]
    pub interception_mode: InterceptionMode,
    /// Image of the proxy.
    pub image: Option<ProxyImage>,
    /// What is not honoured by all parts.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Image of the proxy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyImage {
    /// Variant.
    #[serde(alias = "image_type")]
    pub image_type: String,
}

/// Settings that have no effect because they say what is done anyway, or because another part
/// reads them on its own.
const SILENT: [&str; 4] =
    ["enableTracing", "dnsRefreshRate", "proxyListenPort", "extensionProviders"];

impl MeshConfig {
    /// Reads a mesh configuration; `file` is only used to say where it came from.
    ///
    /// # Errors
    /// A finding with the line or the field.
    pub fn parse(file: &str, text: &str) -> Result<Self, Finding> {
        stream::document(file, text)
    }

    /// What is set and not honoured, or wrong.
    #[must_use]
    pub fn findings(&self, file: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        for name in self.other.keys().filter(|name| !SILENT.contains(&name.as_str())) {
            findings.push(Finding::warning(name, format!("{name} is not honoured yet")));
        }
        for name in self.default_config.other.keys() {
            let path = format!("defaultConfig.{name}");
            findings
                .push(Finding::warning(path, format!("{name} is not honoured by the mesh yet")));
        }
        for finding in &mut findings {
            finding.file = Some(file.to_owned());
        }
        findings
    }

    /// Whether unknown hosts are reachable.
    #[must_use]
    pub fn allows_any_outbound(&self) -> bool {
        self.outbound_traffic_policy
            .as_ref()
            .is_none_or(|policy| policy.mode == OutboundMode::AllowAny)
    }

    /// Whether sidecars use mutual TLS without being told.
    #[must_use]
    pub fn auto_mtls(&self) -> bool {
        self.enable_auto_mtls.unwrap_or(true)
    }

    /// Trust domain, `cluster.local` where none is set.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        if self.trust_domain.is_empty() { cluster::DOMAIN } else { &self.trust_domain }
    }

    /// Root namespace, `istio-system` where none is set.
    #[must_use]
    pub fn root_namespace(&self) -> &str {
        if self.root_namespace.is_empty() {
            cluster::SYSTEM_NAMESPACE
        } else {
            &self.root_namespace
        }
    }

    /// Time to connect, 10 s where none is set.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(Duration::from_secs(10))
    }

    /// Whether metrics are merged.
    #[must_use]
    pub fn merges_prometheus(&self) -> bool {
        self.enable_prometheus_merge.unwrap_or(true)
    }
}

impl ProxyConfig {
    /// Status port, 15020 where none is set.
    #[must_use]
    pub fn status_port(&self) -> u16 {
        self.status_port.unwrap_or(port::STATUS)
    }

    /// Time in which connections are drained at the end, 5 s where none is set.
    #[must_use]
    pub fn termination_drain_duration(&self) -> Duration {
        self.termination_drain_duration.unwrap_or(Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::{MeshConfig, OutboundMode};
    use std::time::Duration;

    #[test]
    fn what_is_honoured_is_typed_and_the_rest_reported() {
        let text = "accessLogFile: /dev/stdout\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n\
                    connectTimeout: 1s\nverifyCertificateAtClient: true\n\
                    defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: \"true\"}, tracing: {}}\n";
        let mesh = MeshConfig::parse("mesh.yaml", text).unwrap();
        assert!(!mesh.allows_any_outbound());
        assert_eq!(mesh.outbound_traffic_policy.as_ref().unwrap().mode, OutboundMode::RegistryOnly);
        assert_eq!(mesh.connect_timeout(), Duration::from_secs(1));
        assert_eq!(mesh.default_config.proxy_metadata["ISTIO_META_DNS_CAPTURE"], "true");
        let paths: Vec<_> =
            mesh.findings("mesh.yaml").into_iter().map(|finding| finding.path).collect();
        assert_eq!(paths, ["verifyCertificateAtClient", "defaultConfig.tracing"]);
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let mesh = MeshConfig::parse("mesh.yaml", "").unwrap();
        assert!(mesh.allows_any_outbound() && mesh.auto_mtls() && mesh.merges_prometheus());
        assert_eq!((mesh.trust_domain(), mesh.root_namespace()), ("cluster.local", "istio-system"));
        assert_eq!(mesh.default_config.status_port(), 15020);
    }

    #[test]
    fn a_wrong_value_names_its_field() {
        let error = MeshConfig::parse("m.yaml", "outboundTrafficPolicy: {mode: SOME}").unwrap_err();
        assert_eq!(error.path, "outboundTrafficPolicy.mode");
        assert!(error.message.contains("REGISTRY_ONLY, ALLOW_ANY"), "{error}");
    }
}
