//! `DestinationRule`: what happens after routing: subsets, load balancing, limits, TLS.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::WorkloadSelector;
use crate::duration::optional;
use crate::meta::Labels;
use crate::proto_enum::proto_enum;

/// `spec` of a DestinationRule.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DestinationRule {
    /// Host of the registry; a short name belongs to the rule's namespace.
    pub host: String,
    /// Policy of all subsets and of the host itself.
    #[serde(alias = "traffic_policy")]
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the host's endpoints.
    pub subsets: Vec<Subset>,
    /// Namespaces that see this; the mesh's default where empty.
    #[serde(alias = "export_to")]
    pub export_to: Vec<String>,
    /// Callers it holds for; all where absent.
    #[serde(alias = "workload_selector")]
    pub workload_selector: Option<WorkloadSelector>,
}

/// A named part of a host's endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Subset {
    /// Name.
    pub name: String,
    /// Labels of its endpoints.
    pub labels: Labels,
    /// Policy, field by field over the rule's.
    #[serde(alias = "traffic_policy")]
    pub traffic_policy: Option<TrafficPolicy>,
}

/// Policy of traffic to a host.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrafficPolicy {
    /// Load balancing.
    #[serde(alias = "load_balancer")]
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    #[serde(alias = "connection_pool")]
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection of failing endpoints.
    #[serde(alias = "outlier_detection")]
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the host.
    pub tls: Option<ClientTls>,
    /// Policies of single ports, each in place of this whole policy.
    #[serde(alias = "port_level_settings")]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Tunnel through a proxy.
    pub tunnel: Option<Tunnel>,
    /// PROXY protocol towards the host, raw.
    #[serde(alias = "proxy_protocol")]
    pub proxy_protocol: Option<Value>,
    /// Limit of retries, raw.
    #[serde(alias = "retry_budget")]
    pub retry_budget: Option<Value>,
}

/// Policy of one port.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PortTrafficPolicy {
    /// Port of the service.
    pub port: Option<super::PortSelector>,
    /// Load balancing.
    #[serde(alias = "load_balancer")]
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    #[serde(alias = "connection_pool")]
    pub connection_pool: Option<ConnectionPool>,
    /// Ejection of failing endpoints.
    #[serde(alias = "outlier_detection")]
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the host.
    pub tls: Option<ClientTls>,
}

proto_enum! {
    /// How an endpoint is picked.
    pub enum LoadBalancing {
        /// The default: least request.
        Unspecified = "UNSPECIFIED" / 0,
        /// Old name of `LEAST_REQUEST`.
        LeastConn = "LEAST_CONN" / 1,
        /// By chance.
        Random = "RANDOM" / 2,
        /// The address the caller asked for.
        Passthrough = "PASSTHROUGH" / 3,
        /// In turn.
        RoundRobin = "ROUND_ROBIN" / 4,
        /// Of two chosen by chance, the one with fewer requests.
        LeastRequest = "LEAST_REQUEST" / 5,
    }
}

/// Load balancing; `simple` and `consistent_hash` exclude each other.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancer {
    /// By a simple rule.
    pub simple: Option<LoadBalancing>,
    /// By hash of something of the request.
    #[serde(alias = "consistent_hash")]
    pub consistent_hash: Option<ConsistentHash>,
    /// Preference by locality, raw.
    #[serde(alias = "locality_lb_setting")]
    pub locality_lb_setting: Option<Value>,
    /// Preference by zone, raw.
    #[serde(alias = "zone_aware_lb_setting")]
    pub zone_aware_lb_setting: Option<Value>,
    /// Time in which a new endpoint gets less (old form).
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "warmup_duration_secs")]
    pub warmup_duration_secs: Option<Duration>,
    /// How a new endpoint gets its share.
    pub warmup: Option<Warmup>,
}

/// How a new endpoint gets its share.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Warmup {
    /// How long.
    #[serde(deserialize_with = "optional")]
    pub duration: Option<Duration>,
    /// Least share in percent; 10 where absent.
    #[serde(alias = "minimum_percent")]
    pub minimum_percent: Option<f64>,
    /// Speed; 1 where absent.
    pub aggression: Option<f64>,
}

/// What is hashed (one of the first four), and how.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsistentHash {
    /// A header.
    #[serde(alias = "http_header_name")]
    pub http_header_name: Option<String>,
    /// A cookie.
    #[serde(alias = "http_cookie")]
    pub http_cookie: Option<HttpCookie>,
    /// The caller's address.
    #[serde(alias = "use_source_ip")]
    pub use_source_ip: Option<bool>,
    /// A query parameter.
    #[serde(alias = "http_query_parameter_name")]
    pub http_query_parameter_name: Option<String>,
    /// By ring.
    #[serde(alias = "ring_hash")]
    pub ring_hash: Option<RingHash>,
    /// By Maglev table.
    pub maglev: Option<Maglev>,
    /// Size of the ring (old form).
    #[serde(alias = "minimum_ring_size")]
    pub minimum_ring_size: Option<u64>,
}

/// A cookie to hash, made where it is absent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpCookie {
    /// Name.
    pub name: String,
    /// Path.
    pub path: String,
    /// Lifetime; a session cookie where zero.
    #[serde(deserialize_with = "optional")]
    pub ttl: Option<Duration>,
    /// Attributes, raw.
    pub attributes: Vec<Value>,
}

/// Ring hash.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RingHash {
    /// Least size; 1024 where 0.
    #[serde(alias = "minimum_ring_size")]
    pub minimum_ring_size: u64,
}

/// Maglev.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Maglev {
    /// Size, a prime up to 5000011; 65537 where 0.
    #[serde(alias = "table_size")]
    pub table_size: u64,
}

/// Limits.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionPool {
    /// Of connections.
    pub tcp: Option<TcpPool>,
    /// Of requests.
    pub http: Option<HttpPool>,
}

/// Limits of connections.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpPool {
    /// Most connections; no limit where 0.
    #[serde(alias = "max_connections")]
    pub max_connections: u32,
    /// Time to connect; the mesh's where absent.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "connect_timeout")]
    pub connect_timeout: Option<Duration>,
    /// Keepalive.
    #[serde(alias = "tcp_keepalive")]
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "max_connection_duration")]
    pub max_connection_duration: Option<Duration>,
    /// Longest silence.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "idle_timeout")]
    pub idle_timeout: Option<Duration>,
}

/// TCP keepalive.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpKeepalive {
    /// Probes without answer; the system's where 0.
    pub probes: u32,
    /// Silence before the first.
    #[serde(deserialize_with = "optional")]
    pub time: Option<Duration>,
    /// Time between.
    #[serde(deserialize_with = "optional")]
    pub interval: Option<Duration>,
}

proto_enum! {
    /// Whether HTTP/1.1 is carried over HTTP/2 towards the host.
    pub enum UpgradePolicy {
        /// The mesh's default.
        Default = "DEFAULT" / 0,
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE" / 1,
        /// Yes.
        Upgrade = "UPGRADE" / 2,
    }
}

/// Limits of requests.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpPool {
    /// Most requests that wait for a connection; no limit where 0.
    #[serde(alias = "http1_max_pending_requests")]
    pub http1_max_pending_requests: u32,
    /// Most requests at once; no limit where 0.
    #[serde(alias = "http2_max_requests")]
    pub http2_max_requests: u32,
    /// Most requests of a connection; no limit where 0.
    #[serde(alias = "max_requests_per_connection")]
    pub max_requests_per_connection: u32,
    /// Most retries at once; no limit where 0.
    #[serde(alias = "max_retries")]
    pub max_retries: u32,
    /// Longest silence of a connection.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "idle_timeout")]
    pub idle_timeout: Option<Duration>,
    /// HTTP/2 towards the host.
    #[serde(alias = "h2_upgrade_policy")]
    pub h2_upgrade_policy: UpgradePolicy,
    /// The caller's protocol towards the host.
    #[serde(alias = "use_client_protocol")]
    pub use_client_protocol: bool,
    /// Most streams of an HTTP/2 connection; no limit where 0.
    #[serde(alias = "max_concurrent_streams")]
    pub max_concurrent_streams: u32,
    /// Pings of HTTP/2 connections, raw.
    #[serde(alias = "http2_keep_alive")]
    pub http2_keep_alive: Option<Value>,
}

/// Ejection of failing endpoints.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// Old form of `consecutive_5xx_errors`.
    #[serde(alias = "consecutive_errors")]
    pub consecutive_errors: u32,
    /// Errors of the connection count apart.
    #[serde(alias = "split_external_local_origin_errors")]
    pub split_external_local_origin_errors: bool,
    /// Errors of the connection in a row.
    #[serde(alias = "consecutive_local_origin_failures")]
    pub consecutive_local_origin_failures: Option<u32>,
    /// 502, 503, 504 in a row.
    #[serde(alias = "consecutive_gateway_errors")]
    pub consecutive_gateway_errors: Option<u32>,
    /// 5xx in a row; 5 where absent, 0 switches off.
    #[serde(rename = "consecutive5xxErrors")]
    #[serde(alias = "consecutive_5xx_errors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between looks; 10 s where absent.
    #[serde(deserialize_with = "optional")]
    pub interval: Option<Duration>,
    /// Least time of ejection; 30 s where absent.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "base_ejection_time")]
    pub base_ejection_time: Option<Duration>,
    /// Most endpoints ejected in percent; 10 where 0.
    #[serde(alias = "max_ejection_percent")]
    pub max_ejection_percent: u32,
    /// Share of healthy endpoints below which ejection ends.
    #[serde(alias = "min_health_percent")]
    pub min_health_percent: u32,
    /// Status codes that count as errors, raw.
    #[serde(alias = "http_errors")]
    pub http_errors: Option<Value>,
}

proto_enum! {
    /// TLS towards a host.
    pub enum ClientTlsMode {
        /// None.
        Disable = "DISABLE" / 0,
        /// Only the server has a certificate.
        Simple = "SIMPLE" / 1,
        /// Both have certificates, ours from files.
        Mutual = "MUTUAL" / 2,
        /// Both have certificates of the mesh.
        IstioMutual = "ISTIO_MUTUAL" / 3,
    }
}

/// TLS towards a host.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientTls {
    /// Whether and how.
    pub mode: ClientTlsMode,
    /// File of our certificate.
    #[serde(alias = "client_certificate")]
    pub client_certificate: String,
    /// File of our key.
    #[serde(alias = "private_key")]
    pub private_key: String,
    /// File of the authorities.
    #[serde(alias = "ca_certificates")]
    pub ca_certificates: String,
    /// Secret with all of them, for gateways.
    #[serde(alias = "credential_name")]
    pub credential_name: String,
    /// Names of which the server must have one.
    #[serde(alias = "subject_alt_names")]
    pub subject_alt_names: Vec<String>,
    /// Server name to send.
    pub sni: String,
    /// Take any certificate.
    #[serde(alias = "insecure_skip_verify")]
    pub insecure_skip_verify: Option<bool>,
    /// File of revoked certificates.
    #[serde(alias = "ca_crl")]
    pub ca_crl: String,
}

/// Tunnel through a proxy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tunnel {
    /// `CONNECT` or `POST`.
    pub protocol: String,
    /// Host at the far end.
    #[serde(alias = "target_host")]
    pub target_host: String,
    /// Port at the far end.
    #[serde(alias = "target_port")]
    pub target_port: u32,
}
