//! Endpoints of clusters: addresses, grouped by locality, with what clients must know of each.
//!
//! Says for each endpoint whether it takes mutual TLS, and which workload it is. Which endpoints
//! belong to a cluster is the caller's to say.

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::{HealthStatus, Locality, Metadata};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
};

use super::clusters::{Families, Origin};
use super::input::{Endpoint, Service};
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

/// The endpoints of a cluster-to-be that a proxy of these families can reach.
pub(crate) fn of(origin: Origin<'_>, families: Families) -> ClusterLoadAssignment {
    let all: Vec<_> = origin.endpoints().collect();
    assignment(&origin.cluster_name(), reachable(origin.service, &all, families))
}

/// The endpoints that a proxy of these families can reach, one address of each: where it has both
/// families, those of the one that the service is primarily of.
pub(crate) fn reachable<'a>(
    service: &Service,
    endpoints: &[&'a Endpoint],
    families: Families,
) -> Vec<&'a Endpoint> {
    let is_v4 = |it: &Endpoint| it.address.parse().map_or(true, |it: IpAddr| it.is_ipv4());
    let of = |v4: bool| endpoints.iter().copied().filter(|it| is_v4(it) == v4).collect();
    if !(families.v4 && families.v6) {
        return of(families.v4 || !families.v6);
    }
    let primary = service.addresses.first().map(|net| net.addr().is_ipv4());
    let primary = primary.unwrap_or_else(|| endpoints.first().is_none_or(|it| is_v4(it)));
    let chosen: Vec<&Endpoint> = of(primary);
    if chosen.is_empty() { of(!primary) } else { chosen }
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

#[cfg(test)]
mod tests {
    use super::reachable;
    use crate::translate::clusters::Families;
    use crate::translate::input::{Endpoint, Resolution, Service};

    fn service(addresses: &[&str]) -> Service {
        Service {
            host: String::new(),
            name: String::new(),
            namespace: String::new(),
            kubernetes: true,
            external: false,
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            resolution: Resolution::Endpoints,
            ports: Vec::new(),
            subject_alt_names: Vec::new(),
        }
    }

    fn endpoint(address: &str) -> Endpoint {
        Endpoint {
            address: address.to_owned(),
            port: 80,
            labels: lateen_api::meta::Labels::new(),
            identity: String::new(),
            mutual_tls: false,
            healthy: true,
            locality: String::new(),
            weight: 1,
            workload: String::new(),
        }
    }

    #[test]
    fn one_address_of_each_endpoint_that_can_be_reached() {
        let both = [endpoint("10.0.0.1"), endpoint("fd00::1")];
        let (v4, v6) = (service(&["10.1.0.1/32", "fd01::1/128"]), service(&["fd01::1/128"]));
        let of = |service: &Service, endpoints: &[Endpoint], v4: bool, v6: bool| {
            let found =
                reachable(service, &endpoints.iter().collect::<Vec<_>>(), Families { v4, v6 });
            found.iter().map(|it| it.address.clone()).collect::<Vec<_>>()
        };
        assert_eq!(of(&v4, &both, true, true), ["10.0.0.1"]);
        assert_eq!(of(&v6, &both, true, true), ["fd00::1"]);
        assert_eq!(of(&v4, &both, false, true), ["fd00::1"]);
        assert_eq!(of(&v6, &both, true, false), ["10.0.0.1"]);
        assert_eq!(of(&v4, &both[1..], true, true), ["fd00::1"], "rather than none");
        assert_eq!(of(&v4, &both[1..], true, false), Vec::<String>::new());
        assert_eq!(of(&service(&[]), &both[1..], true, true), ["fd00::1"]);
    }
}
