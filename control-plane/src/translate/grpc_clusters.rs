//! Clusters of calls, and their endpoints.
//!
//! Libraries balance in turn or by a hash on a ring, nothing else; they limit the calls under way,
//! and make mutual TLS only where a rule asks for it by name: whether the application lets them is
//! not known. Source of behaviour: Istio pilot/pkg/networking/grpcgen/cds.go.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_api::networking::ClientTlsMode;

use super::cluster_limits::connection_limits;
use super::cluster_tls::mesh_names;
use super::clusters::{Families, Origin, ring_hashing, unlimited};
use super::endpoints::{self, assignment as assigned};
use super::input::Resolution;
use super::pack::from_ads;
use super::tls::grpc_client;

/// Whether there can be a cluster. There is none where the rule asks for TLS that libraries cannot
/// make, because calls would go in plaintext: without the cluster they fail. One whose endpoint is
/// looked up by name needs that name.
pub(crate) fn is_possible(origin: Origin<'_>) -> bool {
    let mode = origin.policy().tls.map(|tls| tls.mode);
    let makes_tls = !matches!(mode, Some(ClientTlsMode::Simple | ClientTlsMode::Mutual));
    makes_tls && (is_discovered(origin) || origin.endpoints().next().is_some())
}

/// The cluster of a port or subset.
pub(crate) fn cluster(origin: Origin<'_>) -> Cluster {
    let policy = origin.policy();
    let mut cluster = Cluster {
        name: origin.cluster_name(),
        lb_policy: LbPolicy::RoundRobin as i32,
        circuit_breakers: Some(unlimited()),
        ..Cluster::default()
    };
    discovery(&mut cluster, origin);
    if let Some(hash) = policy.load_balancer.and_then(|it| it.consistent_hash.as_ref()) {
        ring_hashing(&mut cluster, hash);
    }
    if let Some(pool) = policy.connection_pool {
        connection_limits(&mut cluster, pool);
    }
    if let Some(tls) = policy.tls.filter(|tls| tls.mode == ClientTlsMode::IstioMutual) {
        cluster.transport_socket = Some(grpc_client(&mesh_names(tls, origin)));
    }
    cluster
}

/// The endpoints of a port or subset, where they are discovered.
pub(crate) fn assignment(origin: Origin<'_>, families: Families) -> Option<ClusterLoadAssignment> {
    is_discovered(origin).then(|| endpoints::of(origin, families))
}

/// Unlike a proxy, a library never knows an address from elsewhere, whatever the rule says.
fn is_discovered(origin: Origin<'_>) -> bool {
    !matches!(origin.service.resolution, Resolution::Dns | Resolution::DnsRoundRobin)
}

fn discovery(cluster: &mut Cluster, origin: Origin<'_>) {
    let kind = if is_discovered(origin) {
        cluster.eds_cluster_config = Some(EdsClusterConfig {
            eds_config: Some(from_ads()),
            service_name: cluster.name.clone(),
        });
        DiscoveryType::Eds
    } else {
        // Libraries look up exactly one name.
        cluster.load_assignment = Some(assigned(&cluster.name, origin.endpoints().take(1)));
        DiscoveryType::LogicalDns
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind as i32));
}
