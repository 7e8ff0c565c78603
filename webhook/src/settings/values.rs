//! The Helm values that injection reads, typed, with their defaults.
//!
//! The layout is that of the key `values` of Istio's ConfigMap `istio-sidecar-injector`. Fields
//! that injection does not read are ignored. Must not know pods.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// Everything that is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Values {
    /// Revision of the control plane; empty is `default`.
    pub revision: String,
    /// Settings of all parts.
    pub global: Global,
    /// Settings of the webhook.
    pub sidecar_injector_webhook: Webhook,
    /// Settings of the control plane that injection depends on.
    pub pilot: Pilot,
    /// Settings of gateways.
    pub gateways: Gateways,
}

/// `global`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Global {
    /// Namespace of the control plane.
    pub istio_namespace: String,
    /// Registry and path of images.
    pub hub: String,
    /// Tag of images.
    #[serde(deserialize_with = "text")]
    pub tag: String,
    /// Suffix of the tag, such as `distroless`.
    pub variant: String,
    /// Pull policy of injected containers; empty leaves it to Kubernetes.
    pub image_pull_policy: String,
    /// Pull secrets every injected pod gets.
    pub image_pull_secrets: Vec<String>,
    /// Whether logs are JSON.
    pub log_as_json: bool,
    /// Whether redirection uses nftables (Lateen always does).
    pub native_nftables: bool,
    /// Log level of the agent.
    pub logging: Logging,
    /// The proxy.
    pub proxy: Proxy,
    /// The init container.
    #[serde(rename = "proxy_init")]
    pub proxy_init: ProxyInit,
    /// Address of the certificate authority; empty is the control plane.
    pub ca_address: String,
    /// Name of the mesh; empty is the trust domain.
    #[serde(rename = "meshID")]
    pub mesh_id: String,
    /// Trust domain; empty is the one of the mesh configuration.
    pub trust_domain: String,
    /// Whether certificates of a Secret `istio.SERVICEACCOUNT` are mounted.
    pub mount_mtls_certs: bool,
    /// This cluster among several.
    pub multi_cluster: MultiCluster,
    /// Network of the pods; empty is unknown.
    pub network: String,
    /// Who signs certificates.
    pub pilot_cert_provider: String,
    /// Tokens.
    pub sds: Sds,
    /// Token exchange.
    pub sts: Sts,
    /// Name of the ConfigMap with the root certificate.
    pub trust_bundle_name: String,
}

/// `global.logging`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// Scopes and levels.
    pub level: String,
}

/// `global.proxy`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    /// Image: a name below the hub, or with `/` the whole.
    pub image: String,
    /// `enabled` or `disabled`: what happens to a pod that says nothing.
    pub auto_inject: String,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Log levels of components.
    pub component_log_level: String,
    /// Inbound ports not redirected.
    #[serde(deserialize_with = "text")]
    pub exclude_inbound_ports: String,
    /// Inbound ports redirected.
    #[serde(deserialize_with = "text")]
    pub include_inbound_ports: String,
    /// Outbound ranges redirected.
    #[serde(rename = "includeIPRanges", deserialize_with = "text")]
    pub include_ip_ranges: String,
    /// Outbound ranges not redirected.
    #[serde(rename = "excludeIPRanges", deserialize_with = "text")]
    pub exclude_ip_ranges: String,
    /// Outbound ports redirected whatever their address.
    #[serde(deserialize_with = "text")]
    pub include_outbound_ports: String,
    /// Outbound ports not redirected.
    #[serde(deserialize_with = "text")]
    pub exclude_outbound_ports: String,
    /// Log level.
    pub log_level: String,
    /// File of outlier events.
    pub outlier_log_path: String,
    /// Whether injected containers are privileged.
    pub privileged: bool,
    /// Seccomp profile of injected containers; empty is none.
    pub seccomp_profile: Map<String, Value>,
    /// Readiness probe of the proxy.
    pub readiness_failure_threshold: u32,
    /// Readiness probe of the proxy.
    pub readiness_initial_delay_seconds: u32,
    /// Readiness probe of the proxy.
    pub readiness_period_seconds: u32,
    /// Startup probe of the proxy.
    pub startup_probe: StartupProbe,
    /// Resources of injected containers.
    pub resources: Map<String, Value>,
    /// Status port; 0 switches the proxy's probes off.
    #[serde(deserialize_with = "text")]
    pub status_port: String,
    /// Tracing backend whose environment is set.
    pub tracer: String,
    /// Replaces the proxy's lifecycle hooks.
    pub lifecycle: Map<String, Value>,
    /// Whether the proxy may bind low ports.
    #[serde(deserialize_with = "text")]
    pub cap_net_bind_service: String,
    /// Whether applications wait for the proxy.
    pub hold_application_until_proxy_starts: bool,
}

/// `global.proxy.startupProbe`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartupProbe {
    /// Whether there is one.
    pub enabled: bool,
    /// Attempts, one a second.
    pub failure_threshold: u32,
}

/// `global.proxy_init`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyInit {
    /// Image, as of the proxy.
    pub image: String,
    /// Whether rules are applied over existing ones.
    pub force_apply_iptables: bool,
}

/// `global.multiCluster`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MultiCluster {
    /// Name of this cluster.
    pub cluster_name: String,
}

/// `global.sds`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Sds {
    /// The token of the certificate authority.
    pub token: SdsToken,
}

/// `global.sds.token`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SdsToken {
    /// Audience.
    pub aud: String,
}

/// `global.sts`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sts {
    /// Port of the token service of the agent; 0 is none.
    pub service_port: u16,
}

/// `sidecarInjectorWebhook`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Webhook {
    /// Label selectors of pods that are not injected unless they say so.
    pub never_inject_selector: Vec<Value>,
    /// Label selectors of pods that are injected unless they say no.
    pub always_inject_selector: Vec<Value>,
    /// Annotations every injected pod gets.
    pub injected_annotations: BTreeMap<String, String>,
    /// Whether namespaces without labels are injected.
    pub enable_namespaces_by_default: bool,
    /// Whether the API server injects by itself while the webhook does not answer
    /// ([`crate::fallback`]), instead of refusing pods. Lateen's own.
    pub fallback: bool,
    /// `Never` or `IfNeeded`.
    pub reinvocation_policy: String,
    /// Whether application probes are rewritten.
    #[serde(rename = "rewriteAppHTTPProbe")]
    pub rewrite_app_http_probe: bool,
    /// Templates of the user, by name.
    pub templates: BTreeMap<String, String>,
    /// Names that stand for lists of templates.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Templates of a pod that names none.
    pub default_templates: Vec<String>,
}

/// `pilot`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pilot {
    /// Who redirects.
    pub cni: Cni,
    /// Environment of the control plane.
    #[serde(deserialize_with = "text_map")]
    pub env: BTreeMap<String, String>,
    /// Name of the ConfigMap with the revocation list.
    #[serde(rename = "crlConfigMapName")]
    pub crl_config_map_name: String,
}

/// `pilot.cni`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Cni {
    /// Whether a CNI plugin redirects (else an init container does).
    pub enabled: bool,
    /// `default` or `multus`.
    pub provider: String,
}

/// `gateways`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateways {
    /// Security context of gateway pods, in place of the sysctl for low ports.
    pub security_context: Map<String, Value>,
    /// Seccomp profile of gateway pods.
    pub seccomp_profile: Map<String, Value>,
}

/// A scalar as text: Helm users write numbers and booleans with and without quotes.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    scalar(&Value::deserialize(deserializer)?)
        .ok_or_else(|| serde::de::Error::custom("expected a string, a number or a boolean"))
}

/// A map of such; nothing is an empty one.
pub(super) fn text_map<'de, D>(from: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    let map = Option::<BTreeMap<String, Value>>::deserialize(from)?.unwrap_or_default();
    let entry = |(key, value): (String, Value)| {
        let value = scalar(&value)
            .ok_or_else(|| serde::de::Error::custom(format!("{key}: expected a scalar")))?;
        Ok((key, value))
    };
    map.into_iter().map(entry).collect()
}

/// Text of a scalar; `None` for lists and maps.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// What Istio's chart sets when its user sets nothing. Values that come from a chart are laid
/// over these.
#[must_use]
pub fn chart_defaults() -> Value {
    json!({
        "revision": "",
        "global": global_defaults(),
        "sidecarInjectorWebhook": {
            "neverInjectSelector": [], "alwaysInjectSelector": [], "injectedAnnotations": {},
            "enableNamespacesByDefault": false, "reinvocationPolicy": "Never",
            "rewriteAppHTTPProbe": true, "templates": {}, "defaultTemplates": [],
        },
        "pilot": {"cni": {"enabled": false, "provider": "default"}, "env": {}},
        "gateways": {"securityContext": {}, "seccompProfile": {}},
    })
}

fn global_defaults() -> Value {
    json!({
        "istioNamespace": "istio-system",
        "hub": DEFAULT_HUB, "tag": DEFAULT_TAG, "variant": "",
        "imagePullPolicy": "", "imagePullSecrets": [],
        "logAsJson": false, "nativeNftables": false, "logging": {"level": "default:info"},
        "proxy": {
            "image": "proxyv2", "autoInject": "enabled", "clusterDomain": "cluster.local",
            "componentLogLevel": "misc:error", "logLevel": "warning", "outlierLogPath": "",
            "excludeInboundPorts": "", "includeInboundPorts": "*",
            "includeIPRanges": "*", "excludeIPRanges": "",
            "includeOutboundPorts": "", "excludeOutboundPorts": "",
            "privileged": false, "seccompProfile": {},
            "readinessFailureThreshold": 4, "readinessInitialDelaySeconds": 0,
            "readinessPeriodSeconds": 15,
            "startupProbe": {"enabled": true, "failureThreshold": 600},
            "resources": {
                "requests": {"cpu": "100m", "memory": "128Mi"},
                "limits": {"cpu": "2000m", "memory": "1024Mi"},
            },
            "statusPort": 15020, "tracer": "none",
        },
        "proxy_init": {"image": "proxyv2", "forceApplyIptables": false},
        "caAddress": "", "meshID": "", "mountMtlsCerts": false,
        "multiCluster": {"clusterName": ""}, "network": "", "pilotCertProvider": "istiod",
        "sds": {"token": {"aud": "istio-ca"}}, "sts": {"servicePort": 0},
    })
}

/// What Lateen does when it is installed without values: the chart's defaults, but the CNI
/// plugin redirects, so that no pod needs a privileged init container, injected containers pass the
/// Pod Security level `restricted`, and what another webhook adds after us is taken in.
#[must_use]
pub fn lateen_defaults() -> Value {
    let mut values = chart_defaults();
    super::merge::overlay(
        &mut values,
        &json!({
            "global": {"proxy": {"seccompProfile": {"type": "RuntimeDefault"}}},
            "pilot": {"cni": {"enabled": true}},
            "sidecarInjectorWebhook": {"reinvocationPolicy": "IfNeeded"},
        }),
    );
    values
}

/// Registry of Lateen's images.
pub const DEFAULT_HUB: &str = "ghcr.io/lateen-mesh";
/// Tag of Lateen's images: this release.
pub const DEFAULT_TAG: &str = env!("CARGO_PKG_VERSION");
