//! Clusters: where traffic can be sent, and how.

use super::{ClientTls, EndpointSet, Name};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// An upstream cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Cluster {
    /// Resource name, such as `outbound|9080||reviews.shop.svc.cluster.local`.
    pub name: Name,
    /// Where endpoints come from.
    pub discovery: Discovery,
    /// How one endpoint is picked.
    pub balance: Balance,
    /// TCP connect timeout.
    pub connect_timeout: Duration,
    /// HTTP version spoken to endpoints.
    pub http: UpstreamHttp,
    /// Longest idle time of a pooled connection.
    pub idle_timeout: Option<Duration>,
    /// Requests on one connection before it is closed; 0 is without limit.
    pub max_requests_per_connection: u32,
    /// How connections are secured.
    pub transport: Transport,
    /// Source address of connections (inbound: 127.0.0.6 or ::6).
    pub bind_source: Option<IpAddr>,
    /// Limits.
    pub limits: Limits,
    /// Endpoints that fail are set aside.
    pub outlier: Option<Outlier>,
    /// Healthy share, percent, below which health is ignored; 0 never ignores it.
    pub panic_threshold: f64,
    /// What metrics call this cluster (`metadata.istio.services[0]`).
    pub service: Option<ServiceLabels>,
}

/// Labels of the destination service (Istio cluster metadata).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceLabels {
    /// Fully qualified host.
    pub host: Name,
    /// Short name.
    pub name: Name,
    /// Namespace.
    pub namespace: Name,
    /// The cluster stands for something outside the mesh.
    pub external: bool,
}

/// Where the endpoints of a cluster come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// Endpoint discovery under this name.
    Eds(Name),
    /// Given in the cluster.
    Static(Arc<EndpointSet>),
    /// Names resolved again and again; every address is an endpoint.
    StrictDns(Vec<DnsTarget>),
    /// A name of which one address is used at a time.
    LogicalDns(DnsTarget),
    /// The address the connection was going to, with another port if given.
    OriginalDst {
        /// Port instead of the original one.
        port: Option<u16>,
    },
}

/// A host name with the port of the endpoints it resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsTarget {
    /// Host name.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Load balancing policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The less loaded of two picked by chance (weights honoured). Istio's default.
    LeastRequest,
    /// In turn (weights honoured).
    RoundRobin,
    /// By chance (weights honoured).
    Random,
    /// Consistent hashing on a ring of at least this many points.
    RingHash {
        /// Least number of points.
        minimum_size: u64,
    },
    /// Consistent hashing by a Maglev table.
    Maglev {
        /// Table size, a prime.
        table_size: u64,
    },
    /// Only with [`Discovery::OriginalDst`].
    ClusterProvided,
}

/// HTTP version spoken upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamHttp {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by prior knowledge or ALPN.
    Http2,
    /// The version the downstream request came with.
    SameAsDownstream,
}

/// How connections to endpoints are secured.
#[derive(Debug, Clone, PartialEq)]
pub enum Transport {
    /// As they are.
    Plain,
    /// Always TLS.
    Tls(Arc<ClientTls>),
    /// Mutual TLS where the endpoint says it has a sidecar ([`super::Endpoint::mtls`]),
    /// plaintext elsewhere (`transport_socket_matches`).
    Auto(Arc<ClientTls>),
}

/// Circuit breaker limits; `u32::MAX` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending: u32,
    /// Requests in flight.
    pub max_requests: u32,
    /// Retries in flight.
    pub max_retries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let none = u32::MAX;
        Self { max_connections: none, max_pending: none, max_requests: none, max_retries: none }
    }
}

/// Outlier detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Consecutive 5xx (or connect failures) until ejection; 0 is off.
    pub consecutive_5xx: u32,
    /// Consecutive 502, 503, 504 until ejection; 0 is off.
    pub consecutive_gateway: u32,
    /// How often ejected endpoints are looked at.
    pub interval: Duration,
    /// First ejection time; grows with each ejection.
    pub base_ejection: Duration,
    /// Largest share that may be ejected, percent.
    pub max_ejection_percent: u32,
}
