//! `VirtualService`: which requests and connections to a host go where.
//!
//! HTTP routes have a file of their own.

use serde::Deserialize;

use super::http::HttpRoute;
use crate::meta::Labels;

/// `spec` of a VirtualService.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VirtualService {
    /// Hosts that the routes are for.
    pub hosts: Vec<String>,
    /// Gateways that carry the routes; `mesh` (all sidecars) where empty.
    pub gateways: Vec<String>,
    /// HTTP routes, the first match wins.
    pub http: Vec<HttpRoute>,
    /// TLS routes, by SNI.
    pub tls: Vec<TlsRoute>,
    /// TCP routes.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that see this; the mesh's default where empty.
    #[serde(alias = "export_to")]
    pub export_to: Vec<String>,
}

/// Where to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Destination {
    /// Host of the registry; a short name belongs to the rule's namespace.
    pub host: String,
    /// Subset of a DestinationRule; none where empty.
    pub subset: String,
    /// Port; needed where the host has several.
    pub port: Option<PortSelector>,
}

/// A port by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PortSelector {
    /// Number; 0 is unset.
    pub number: u32,
}

/// A TLS route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsRoute {
    /// One of these must match.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Destinations by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions on a TLS connection; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsMatch {
    /// Server names.
    #[serde(alias = "sni_hosts")]
    pub sni_hosts: Vec<String>,
    /// Destination ranges.
    #[serde(alias = "destination_subnets")]
    pub destination_subnets: Vec<String>,
    /// Port; 0 is any.
    pub port: u32,
    /// Labels of the caller.
    #[serde(alias = "source_labels")]
    pub source_labels: Labels,
    /// Gateways; those of the rule where empty.
    pub gateways: Vec<String>,
    /// Namespace of the caller; any where empty.
    #[serde(alias = "source_namespace")]
    pub source_namespace: String,
}

/// A TCP route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpRoute {
    /// One of these must match; anything where empty.
    #[serde(rename = "match")]
    pub matches: Vec<L4Match>,
    /// Destinations by weight.
    pub route: Vec<RouteDestination>,
}

/// Conditions on a connection; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct L4Match {
    /// Destination ranges.
    #[serde(alias = "destination_subnets")]
    pub destination_subnets: Vec<String>,
    /// Port; 0 is any.
    pub port: u32,
    /// Source range; any where empty.
    #[serde(alias = "source_subnet")]
    pub source_subnet: String,
    /// Labels of the caller.
    #[serde(alias = "source_labels")]
    pub source_labels: Labels,
    /// Gateways; those of the rule where empty.
    pub gateways: Vec<String>,
    /// Namespace of the caller; any where empty.
    #[serde(alias = "source_namespace")]
    pub source_namespace: String,
}

/// A destination of a TLS or TCP route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share; a single destination may leave it out.
    pub weight: u32,
}
