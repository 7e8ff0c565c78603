//! Clusters: one for each port of each service, one more for each subset, and the fixed ones.
//!
//! Decides how endpoints are found, how load is shared and limited, and which HTTP is spoken. TLS
//! is in `cluster_tls`.

use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbConfig, LbPolicy,
    MaglevLbConfig, RingHashLbConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, ExtraSourceAddress, Metadata, SocketAddress,
};
use envoy_types::pb::google::protobuf::{UInt64Value, Value};
use lateen_api::meta::selects;
use lateen_api::networking::{ConsistentHash, DestinationRule, LoadBalancing};
use lateen_api::object::Resource;
use lateen_api::port::Protocol;

use super::cluster_limits::{ServerNames, connection_limits, http_options, outlier_detection};
use super::cluster_tls;
use super::endpoints::assignment;
use super::input::{
    Endpoint, InboundPort, MeshSettings, Outbound, Resolution, Service, ServicePort,
};
use super::names::{
    BLACK_HOLE, INBOUND_PASSTHROUGH, PASSTHROUGH, inbound_cluster, outbound_cluster,
};
use super::pack::{duration, from_ads, list, number, object, structure, text};
use super::traffic_policy::Policy;

/// Source address of connections to the application, by which its own proxy's are told apart.
const INBOUND_SOURCE: (&str, &str) = ("127.0.0.6", "::6");
/// Ring size where none is asked for.
const DEFAULT_RING: u64 = 1024;
/// How often names are looked up again.
const DNS_REFRESH: Duration = Duration::from_secs(60);
/// How long an original destination is remembered that nobody uses.
const CLEANUP: Duration = Duration::from_secs(60);

/// The address families a proxy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Families {
    /// IPv4.
    pub(crate) v4: bool,
    /// IPv6.
    pub(crate) v6: bool,
}

/// A port of a service, or a subset of it, that becomes a cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The service.
    pub(crate) service: &'a Service,
    /// The port.
    pub(crate) port: &'a ServicePort,
    /// Name of the subset; empty for all endpoints.
    pub(crate) subset: &'a str,
    /// The destination rule of the host.
    pub(crate) rule: Option<&'a Resource<DestinationRule>>,
}

impl<'a> Origin<'a> {
    /// Name of the cluster.
    pub(crate) fn cluster_name(&self) -> String {
        outbound_cluster(self.port.number, self.subset, &self.service.host)
    }

    /// What the rule says for it.
    pub(crate) fn policy(&self) -> Policy<'a> {
        Policy::of(self.rule.map(|rule| &rule.spec), self.subset, self.port.number)
    }

    /// The endpoints that belong to it.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &'a Endpoint> + use<'a> {
        let subsets = self.rule.map(|rule| rule.spec.subsets.as_slice()).unwrap_or_default();
        let subset = subsets.iter().find(|it| !self.subset.is_empty() && it.name == self.subset);
        let labels = subset.map(|it| &it.labels);
        let belongs = move |it: &&Endpoint| labels.is_none_or(|labels| selects(labels, &it.labels));
        self.port.endpoints.iter().filter(belongs)
    }

    /// How its endpoints are found.
    pub(crate) fn resolution(&self) -> Resolution {
        let simple = self.policy().load_balancer.and_then(|balancer| balancer.simple);
        if simple == Some(LoadBalancing::Passthrough) {
            return Resolution::Passthrough;
        }
        self.service.resolution
    }
}

/// Every cluster-to-be of what a proxy sees.
pub(crate) fn origins(outbound: &Outbound) -> impl Iterator<Item = Origin<'_>> {
    outbound.services.iter().flat_map(|service| {
        let rule = outbound.destination_rules.get(&service.host).map(|rule| &**rule);
        let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
        ports.flat_map(move |port| {
            let subsets = rule.map(|rule| rule.spec.subsets.as_slice()).unwrap_or_default();
            let names = std::iter::once("").chain(subsets.iter().map(|it| it.name.as_str()));
            names.map(move |subset| Origin { service, port, subset, rule })
        })
    })
}

/// The cluster of a port or subset.
pub(crate) fn outbound(origin: Origin<'_>, mesh: &MeshSettings, families: Families) -> Cluster {
    let policy = origin.policy();
    let mut cluster = Cluster {
        name: origin.cluster_name(),
        connect_timeout: Some(duration(mesh.connect_timeout)),
        circuit_breakers: Some(unlimited()),
        metadata: Some(metadata(origin)),
        ..Cluster::default()
    };
    discovery(&mut cluster, origin, families);
    balancing(&mut cluster, &policy);
    let names = policy.tls.map(ServerNames::of).unwrap_or_default();
    http_options(&mut cluster, origin.port.protocol, policy.connection_pool, names);
    if let Some(pool) = policy.connection_pool {
        connection_limits(&mut cluster, pool);
    }
    if let Some(outlier) = policy.outlier_detection {
        outlier_detection(&mut cluster, outlier);
    }
    cluster_tls::apply(&mut cluster, origin, mesh);
    cluster
}

/// The clusters that every proxy has.
pub(crate) fn fixed(mesh: &MeshSettings, families: Families) -> Vec<Cluster> {
    let connect_timeout = Some(duration(mesh.connect_timeout));
    let base = |name: &str| Cluster {
        name: name.to_owned(),
        connect_timeout,
        circuit_breakers: Some(unlimited()),
        ..Cluster::default()
    };
    let mut passthrough = base(PASSTHROUGH);
    original_destination(&mut passthrough);
    http_options(&mut passthrough, Protocol::Auto, None, ServerNames::default());
    let mut inbound = base(INBOUND_PASSTHROUGH);
    original_destination(&mut inbound);
    inbound.upstream_bind_config = Some(inbound_source(families));
    http_options(&mut inbound, Protocol::Auto, None, ServerNames::default());
    let black_hole = Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        ..base(BLACK_HOLE)
    };
    vec![black_hole, inbound, passthrough]
}

/// The cluster of a port of the application: whatever address was called, from our own address.
pub(crate) fn inbound(port: &InboundPort, mesh: &MeshSettings, families: Families) -> Cluster {
    let service = service_metadata(&port.host, &port.service_name, &port.service_namespace);
    let mut cluster = Cluster {
        name: inbound_cluster(port.port),
        connect_timeout: Some(duration(mesh.connect_timeout)),
        circuit_breakers: Some(unlimited()),
        upstream_bind_config: Some(inbound_source(families)),
        metadata: Some(istio_metadata([("services".to_owned(), list(vec![service]))])),
        ..Cluster::default()
    };
    original_destination(&mut cluster);
    http_options(&mut cluster, port.protocol, None, ServerNames::default());
    cluster
}

fn discovery(cluster: &mut Cluster, origin: Origin<'_>, families: Families) {
    let kind = match origin.resolution() {
        Resolution::Passthrough => return original_destination(cluster),
        Resolution::Endpoints => {
            cluster.eds_cluster_config = Some(EdsClusterConfig {
                eds_config: Some(from_ads()),
                service_name: cluster.name.clone(),
            });
            DiscoveryType::Eds
        }
        Resolution::Dns => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind as i32));
    if kind == DiscoveryType::Eds {
        return;
    }
    // One name is looked up at a time, so there can be only one.
    let most = if kind == DiscoveryType::LogicalDns { 1 } else { usize::MAX };
    cluster.load_assignment = Some(assignment(&cluster.name, origin.endpoints().take(most)));
    name_lookup(cluster, families);
}

#[expect(deprecated, reason = "proxies of Istio in the field read these fields")]
fn name_lookup(cluster: &mut Cluster, families: Families) {
    cluster.dns_refresh_rate = Some(duration(DNS_REFRESH));
    cluster.respect_dns_ttl = true;
    cluster.dns_lookup_family = match (families.v4, families.v6) {
        (true, true) => DnsLookupFamily::All,
        (false, true) => DnsLookupFamily::V6Only,
        (_, false) => DnsLookupFamily::V4Only,
    } as i32;
}

fn original_destination(cluster: &mut Cluster) {
    let kind = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);
    cluster.cluster_discovery_type = Some(kind);
    cluster.lb_policy = LbPolicy::ClusterProvided as i32;
    cluster.cleanup_interval = Some(duration(CLEANUP));
}

fn balancing(cluster: &mut Cluster, policy: &Policy<'_>) {
    if cluster.lb_policy == LbPolicy::ClusterProvided as i32 {
        return;
    }
    let balancer = policy.load_balancer;
    if let Some(hash) = balancer.and_then(|it| it.consistent_hash.as_ref()) {
        return consistent_hashing(cluster, hash);
    }
    cluster.lb_policy = match balancer.and_then(|it| it.simple).unwrap_or_default() {
        LoadBalancing::Random => LbPolicy::Random,
        LoadBalancing::RoundRobin => LbPolicy::RoundRobin,
        LoadBalancing::Unspecified
        | LoadBalancing::LeastConn
        | LoadBalancing::LeastRequest
        | LoadBalancing::Passthrough => LbPolicy::LeastRequest,
    } as i32;
}

fn consistent_hashing(cluster: &mut Cluster, hash: &ConsistentHash) {
    if let Some(maglev) = &hash.maglev {
        cluster.lb_policy = LbPolicy::Maglev as i32;
        let size = Some(maglev.table_size).filter(|size| *size > 0);
        cluster.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
            table_size: size.map(|value| UInt64Value { value }),
        }));
        return;
    }
    ring_hashing(cluster, hash);
}

/// Balancing by a hash on a ring.
pub(crate) fn ring_hashing(cluster: &mut Cluster, hash: &ConsistentHash) {
    let asked = hash.ring_hash.as_ref().map(|ring| ring.minimum_ring_size);
    let asked = asked.or(hash.minimum_ring_size).filter(|size| *size > 0);
    cluster.lb_policy = LbPolicy::RingHash as i32;
    cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: Some(UInt64Value { value: asked.unwrap_or(DEFAULT_RING) }),
        ..RingHashLbConfig::default()
    }));
}

/// Limits that are none: what the proxy would take as default is too low for a mesh.
pub(crate) fn unlimited() -> CircuitBreakers {
    let most = Some(number(u32::MAX));
    let thresholds = Thresholds {
        max_connections: most,
        max_pending_requests: most,
        max_requests: most,
        max_retries: most,
        track_remaining: true,
        ..Thresholds::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() }
}

fn inbound_source(families: Families) -> BindConfig {
    let address = |text: &str| SocketAddress {
        address: text.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(0)),
        ..SocketAddress::default()
    };
    let (v4, v6) = INBOUND_SOURCE;
    let first = if families.v4 { v4 } else { v6 };
    let other = (families.v4 && families.v6).then(|| ExtraSourceAddress {
        address: Some(address(v6)),
        ..ExtraSourceAddress::default()
    });
    BindConfig {
        source_address: Some(address(first)),
        extra_source_addresses: other.into_iter().collect(),
        ..BindConfig::default()
    }
}

fn metadata(origin: Origin<'_>) -> Metadata {
    let service = origin.service;
    let entry = service_metadata(&service.host, &service.name, &service.namespace);
    let mut fields = vec![("services".to_owned(), list(vec![entry]))];
    if let Some(rule) = origin.rule {
        let path = format!(
            "/apis/networking.istio.io/v1alpha3/namespaces/{}/destination-rule/{}",
            rule.namespace(),
            rule.name()
        );
        fields.push(("config".to_owned(), text(path)));
    }
    if !origin.subset.is_empty() {
        fields.push(("subset".to_owned(), text(origin.subset)));
    }
    if service.external {
        fields.push(("external".to_owned(), super::pack::truth(true)));
    }
    istio_metadata(fields)
}

fn service_metadata(host: &str, name: &str, namespace: &str) -> Value {
    object([
        ("host".to_owned(), text(host)),
        ("name".to_owned(), text(if name.is_empty() { host } else { name })),
        ("namespace".to_owned(), text(namespace)),
    ])
}

fn istio_metadata(fields: impl IntoIterator<Item = (String, Value)>) -> Metadata {
    let metadata = [("istio".to_owned(), structure(fields))];
    Metadata { filter_metadata: metadata.into(), ..Metadata::default() }
}
