//! Kinds of `networking.istio.io`, strictly typed.
//!
//! Field names are read in camel case and snake case, enumerations by name or number. An unknown
//! field is refused: a rule whose misspelt part is dropped would do something else than it says.
//! What is typed here is not yet valid; `validate` judges the meaning.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod http;
mod proxy_config;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload_group;

pub use destination_rule::{
    ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, DestinationRule, HttpCookie,
    HttpPool, LoadBalancer, LoadBalancing, Maglev, OutlierDetection, PortTrafficPolicy, RingHash,
    Subset, TcpKeepalive, TcpPool, TrafficPolicy, Tunnel, UpgradePolicy, Warmup,
};
pub use envoy_filter::{
    ApplyTo, ClusterMatch, ConfigPatch, EnvoyFilter, FilterChainMatch, FilterClass, FilterMatch,
    ListenerMatch, NameMatch, ObjectMatch, Patch, PatchContext, PatchOperation, ProxyMatch,
    RouteActionMatch, RouteConfigurationMatch, RouteMatch, VirtualHostMatch, WaypointMatch,
};
pub use gateway::{
    Gateway, Server, ServerPort, ServerTls, ServerTlsMode, TlsCertificate, TlsVersion, gateway_of,
    server_host,
};
pub use http::{
    CorsPolicy, DelegateRef, DirectResponse, DirectResponseBody, Fault, FaultAbort, FaultDelay,
    GRPC_STATUSES, HeaderOperations, Headers, HttpMatch, HttpMirror, HttpRoute,
    HttpRouteDestination, Percent, Redirect, RedirectPort, RegexRewrite, Retries, Rewrite,
    UnmatchedPreflights,
};
pub use proxy_config::{ProxyConfig, ProxyImage};
pub use service_entry::{EntryPort, Location, Resolution, ServiceEntry, WorkloadEntry};
pub use sidecar::{
    CaptureMode, EgressListener, IngressListener, OutboundMode, OutboundTrafficPolicy, Sidecar,
    SidecarPort,
};
pub use virtual_service::{
    Destination, L4Match, PortSelector, RouteDestination, TcpRoute, TlsMatch, TlsRoute,
    VirtualService,
};

pub use workload_group::{
    ExecProbe, GroupMetadata, GrpcProbe, HttpProbe, ProbeHeader, ReadinessProbe, TcpProbe,
    WorkloadGroup,
};

use serde::Deserialize;

use crate::meta::Labels;

/// `workloadSelector` of networking kinds, in both of its spellings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadSelector {
    /// Labels that must be equal.
    #[serde(alias = "matchLabels", alias = "match_labels")]
    pub labels: Labels,
}
