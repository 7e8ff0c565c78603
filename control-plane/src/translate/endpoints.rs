//! Endpoints of clusters: addresses, grouped by locality, with what clients must know of each.
//!
//! Says for each endpoint whether it takes mutual TLS, and which workload it is. Which endpoints
//! belong to a cluster is the caller's to say.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality, Metadata};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::input::Endpoint;
use super::pack::{named_address, number, structure, text};

/// Metadata in which transport sockets are chosen.
pub(crate) const SOCKET_MATCH: &str = "envoy.transport_socket_match";
/// Key and value there of endpoints that take mutual TLS.
pub(crate) const TLS_MODE: (&str, &str) = ("tlsMode", "istio");

/// The endpoints of a cluster.
pub(crate) fn assignment<'a>(
    cluster: &str,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
) -> ClusterLoadAssignment {
    let mut localities: BTreeMap<&str, Vec<LbEndpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        localities.entry(&endpoint.locality).or_default().push(lb_endpoint(endpoint));
    }
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: localities.into_iter().map(|(name, all)| locality(name, all)).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn locality(name: &str, lb_endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    let mut parts = name.splitn(3, '/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    let weights = lb_endpoints.iter().filter_map(|it| it.load_balancing_weight);
    let weight = weights.fold(0_u32, |sum, weight| sum.saturating_add(weight.value));
    LocalityLbEndpoints {
        locality: Some(Locality { region: part(), zone: part(), sub_zone: part() }),
        load_balancing_weight: Some(number(weight)),
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    }
}

fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let health = if endpoint.healthy { HealthStatus::Healthy } else { HealthStatus::Unhealthy };
    let mut metadata = Metadata::default();
    if endpoint.mutual_tls {
        let fields = [(TLS_MODE.0.to_owned(), text(TLS_MODE.1))];
        metadata.filter_metadata.insert(SOCKET_MATCH.to_owned(), structure(fields));
    }
    if !endpoint.workload.is_empty() {
        let fields = [("workload".to_owned(), text(endpoint.workload.as_str()))];
        metadata.filter_metadata.insert("istio".to_owned(), structure(fields));
    }
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(named_address(endpoint.address.clone(), endpoint.port)),
            ..EnvoyEndpoint::default()
        })),
        health_status: health as i32,
        load_balancing_weight: Some(number(endpoint.weight.max(1))),
        metadata: (!metadata.filter_metadata.is_empty()).then_some(metadata),
    }
}
