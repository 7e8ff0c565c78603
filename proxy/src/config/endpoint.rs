//! Endpoints of a cluster (`envoy.config.endpoint.v3.ClusterLoadAssignment`).

use super::Name;
use std::net::SocketAddr;
use std::sync::Arc;

/// The endpoints of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointSet {
    /// All of them, in the order given.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Load balancing weight, at least 1 (locality weight times endpoint weight).
    pub weight: u32,
    /// Priority; 0 is used first.
    pub priority: u32,
    /// Whether it may be picked.
    pub health: Health,
    /// A sidecar answers mutual TLS here (metadata `envoy.transport_socket_match`).
    pub mtls: bool,
    /// Workload for metrics (metadata `istio.workload`: `name;ns;canonical;revision;cluster`).
    pub workload: Option<Arc<WorkloadLabels>>,
}

/// Health as the control plane sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// May be picked.
    Healthy,
    /// Not picked for new requests.
    Unhealthy,
    /// Finishing what it has; not picked for new requests.
    Draining,
}

/// What metrics say about a workload; empty means unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct WorkloadLabels {
    /// Workload name.
    pub name: Name,
    /// Namespace.
    pub namespace: Name,
    /// Label `app`.
    pub app: Name,
    /// Label `version`.
    pub version: Name,
    /// Canonical service.
    pub canonical_service: Name,
    /// Canonical revision.
    pub canonical_revision: Name,
    /// Cluster.
    pub cluster: Name,
}
