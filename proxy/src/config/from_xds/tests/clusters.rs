//! Clusters, endpoints and names.

use super::super::{cluster, endpoints, name_table};
use super::{address, any};
use crate::config::{Balance, Discovery, Health, Limits, Transport, UpstreamHttp, Validation};
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, Metadata, SocketAddress, TransportSocket,
};
use envoy_types::pb::envoy::config::endpoint::v3 as eds;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf::{ListValue, Struct, UInt32Value, Value, value::Kind};
use lateen_xds::istio::{NameInfo, NameTable};
use pb::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy, TransportSocketMatch};
use std::collections::HashMap;
use std::time::Duration;

const NAME: &str = "outbound|9080||reviews.shop.svc.cluster.local";

fn fields(pairs: &[(&str, Value)]) -> Struct {
    Struct { fields: pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect() }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn metadata(namespace: &str, fields: Struct) -> Option<Metadata> {
    let filter_metadata = HashMap::from([(namespace.to_owned(), fields)]);
    Some(Metadata { filter_metadata, ..Metadata::default() })
}

fn upstream_tls() -> TransportSocket {
    let san = matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::Exact("spiffe://x".to_owned())),
        ignore_case: false,
    };
    let secret = |name: &str| tls::SdsSecretConfig { name: name.to_owned(), sds_config: None };
    #[expect(deprecated, reason = "the field Istio fills")]
    let default = tls::CertificateValidationContext {
        match_subject_alt_names: vec![san],
        ..tls::CertificateValidationContext::default()
    };
    let combined = tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(default),
        validation_context_sds_secret_config: Some(secret("ROOTCA")),
        ..tls::common_tls_context::CombinedCertificateValidationContext::default()
    };
    let context = tls::UpstreamTlsContext {
        sni: "outbound_.9080_._.reviews.shop.svc.cluster.local".to_owned(),
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default")],
            alpn_protocols: vec!["istio".to_owned()],
            validation_context_type: Some(
                tls::common_tls_context::ValidationContextType::CombinedValidationContext(combined),
            ),
            ..tls::CommonTlsContext::default()
        }),
        ..tls::UpstreamTlsContext::default()
    };
    socket("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", &context)
}

fn socket(type_name: &str, message: &impl prost::Message) -> TransportSocket {
    let config_type = Some(SocketConfig::TypedConfig(any(type_name, message)));
    TransportSocket { name: String::new(), config_type }
}

/// The shape of an outbound cluster with automatic mutual TLS.
pub(super) fn outbound() -> pb::Cluster {
    let service = fields(&[
        ("host", text("reviews.shop.svc.cluster.local")),
        ("name", text("reviews")),
        ("namespace", text("shop")),
    ]);
    let service = Value { kind: Some(Kind::StructValue(service)) };
    let services = Value { kind: Some(Kind::ListValue(ListValue { values: vec![service] })) };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            UseDownstreamHttpConfig::default(),
        )),
        ..HttpProtocolOptions::default()
    };
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let most = || Some(UInt32Value { value: u32::MAX });
    let raw = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    pb::Cluster {
        name: NAME.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(pb::cluster::EdsClusterConfig {
            service_name: NAME.to_owned(),
            eds_config: None,
        }),
        lb_policy: LbPolicy::LeastRequest as i32,
        transport_socket_matches: vec![
            TransportSocketMatch {
                name: "tlsMode-istio".to_owned(),
                r#match: Some(fields(&[("tlsMode", text("istio"))])),
                transport_socket: Some(upstream_tls()),
            },
            TransportSocketMatch {
                name: "tlsMode-disabled".to_owned(),
                r#match: Some(Struct::default()),
                transport_socket: Some(socket(raw, &Struct::default())),
            },
        ],
        typed_extension_protocol_options: HashMap::from([(key.to_owned(), any(key, &options))]),
        circuit_breakers: Some(pb::CircuitBreakers {
            thresholds: vec![pb::circuit_breakers::Thresholds {
                max_connections: most(),
                max_pending_requests: most(),
                max_requests: most(),
                max_retries: most(),
                track_remaining: true,
                ..pb::circuit_breakers::Thresholds::default()
            }],
            ..pb::CircuitBreakers::default()
        }),
        metadata: metadata("istio", fields(&[("services", services)])),
        ..pb::Cluster::default()
    }
}

#[test]
fn an_outbound_cluster_is_taken_whole() {
    let taken = cluster(&outbound()).unwrap();
    assert!(matches!(&taken.discovery, Discovery::Eds(name) if &**name == NAME));
    assert_eq!(
        (taken.balance, taken.http),
        (Balance::LeastRequest, UpstreamHttp::SameAsDownstream)
    );
    assert_eq!(taken.limits, Limits::default());
    assert_eq!(taken.connect_timeout, Duration::from_secs(5));
    let Transport::Auto(tls) = &taken.transport else { panic!("{:?}", taken.transport) };
    assert_eq!(tls.validation, Validation::Sds("ROOTCA".into()));
    assert_eq!(tls.certificate.as_deref(), Some("default"));
    assert!(tls.subject_alt_names[0].matches("spiffe://x"));
    let service = taken.service.unwrap();
    assert_eq!((&*service.name, &*service.namespace), ("reviews", "shop"));
}

#[test]
fn inbound_clusters_keep_destination_and_source() {
    let proto = pb::Cluster {
        name: "inbound|9080||".to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        upstream_bind_config: Some(BindConfig {
            source_address: Some(SocketAddress {
                address: "127.0.0.6".to_owned(),
                ..SocketAddress::default()
            }),
            ..BindConfig::default()
        }),
        ..pb::Cluster::default()
    };
    let taken = cluster(&proto).unwrap();
    assert!(matches!(taken.discovery, Discovery::OriginalDst { port: None }));
    assert_eq!(taken.bind_source, Some("127.0.0.6".parse().unwrap()));
    assert_eq!(taken.limits.max_connections, 1024, "Envoy's limits where none are given");
    let wrong = pb::Cluster { lb_policy: LbPolicy::Random as i32, ..proto };
    assert!(cluster(&wrong).is_err());
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let refused = |change: fn(&mut pb::Cluster)| {
        let mut proto = outbound();
        change(&mut proto);
        cluster(&proto).unwrap_err().to_string()
    };
    for (refusal, wanted) in [
        (
            refused(|c| c.lb_subset_config = Some(Default::default())),
            "lb_subset_config: is not supported",
        ),
        (
            refused(|c| c.transport_socket_matches.swap(0, 1)),
            "transport_socket_matches[0]: must be TLS for {tlsMode: istio}",
        ),
        (
            refused(|c| {
                c.outlier_detection = Some(pb::OutlierDetection {
                    enforcing_success_rate: Some(UInt32Value { value: 100 }),
                    ..pb::OutlierDetection::default()
                });
            }),
            "outlier_detection.enforcing_success_rate: is not supported",
        ),
        (refused(|c| c.lb_policy = 7), "lb_policy: LOAD_BALANCING_POLICY_CONFIG is not supported"),
    ] {
        assert_eq!(refusal, format!("cluster {NAME}: {wanted}"));
    }
}

fn host(ip: &str, weight: u32) -> eds::LbEndpoint {
    let endpoint = eds::Endpoint { address: address(ip, 80), ..eds::Endpoint::default() };
    eds::LbEndpoint {
        load_balancing_weight: Some(UInt32Value { value: weight }),
        host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..eds::LbEndpoint::default()
    }
}

fn locality(weight: u32, hosts: Vec<eds::LbEndpoint>) -> eds::LocalityLbEndpoints {
    eds::LocalityLbEndpoints {
        load_balancing_weight: Some(UInt32Value { value: weight }),
        lb_endpoints: hosts,
        ..eds::LocalityLbEndpoints::default()
    }
}

fn weights(localities: Vec<eds::LocalityLbEndpoints>) -> Vec<u32> {
    let proto = eds::ClusterLoadAssignment {
        cluster_name: NAME.to_owned(),
        endpoints: localities,
        ..eds::ClusterLoadAssignment::default()
    };
    endpoints(&proto).unwrap().endpoints.iter().map(|endpoint| endpoint.weight).collect()
}

#[test]
fn locality_weights_are_spread_over_endpoints() {
    // Localities weighted by the sum of their endpoints leave those as they are.
    let even = vec![
        locality(3, vec![host("10.0.0.1", 1), host("10.0.0.2", 2)]),
        locality(1, vec![host("10.0.0.3", 1)]),
    ];
    assert_eq!(weights(even), [1, 2, 1]);
    // 80 % and 20 %, whatever the number of endpoints.
    let shares = vec![
        locality(80, vec![host("10.0.0.1", 1), host("10.0.0.2", 1), host("10.0.0.3", 1)]),
        locality(20, vec![host("10.0.0.4", 1)]),
    ];
    let weights = weights(shares);
    let first: u32 = weights[..3].iter().sum();
    assert!(first.abs_diff(weights[3] * 4) <= 4, "{weights:?}");
}

#[test]
fn endpoints_say_what_they_are() {
    let mut sidecar = host("fd00::1", 1);
    sidecar.metadata =
        metadata("envoy.transport_socket_match", fields(&[("tlsMode", text("istio"))]));
    sidecar.metadata.as_mut().unwrap().filter_metadata.insert(
        "istio".to_owned(),
        fields(&[("workload", text("reviews-v1;shop;reviews;v1;Kubernetes"))]),
    );
    sidecar.health_status = 3;
    let proto = eds::ClusterLoadAssignment {
        cluster_name: NAME.to_owned(),
        endpoints: vec![locality(1, vec![sidecar])],
        ..eds::ClusterLoadAssignment::default()
    };
    let set = endpoints(&proto).unwrap();
    let endpoint = &set.endpoints[0];
    assert!(endpoint.mtls);
    assert_eq!(endpoint.health, Health::Draining);
    let workload = endpoint.workload.as_ref().unwrap();
    assert_eq!(
        (&*workload.name, &*workload.namespace, &*workload.cluster),
        ("reviews-v1", "shop", "Kubernetes")
    );
    assert_eq!((&*workload.canonical_service, &*workload.canonical_revision), ("reviews", "v1"));
}

#[test]
fn names_become_addresses() {
    let info = |ip: &str| NameInfo { ips: vec![ip.to_owned()], ..NameInfo::default() };
    let table = |ip: &str| NameTable { table: HashMap::from([("A.test.".to_owned(), info(ip))]) };
    let names = name_table(&table("10.0.0.1")).unwrap();
    assert_eq!(names.hosts["a.test"], ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    let refusal = name_table(&table("x")).unwrap_err().to_string();
    assert_eq!(refusal, "names NameTable: table[A.test.].ips[0]: \"x\" is not an IP address");
}
