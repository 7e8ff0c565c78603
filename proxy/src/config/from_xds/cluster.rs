//! Clusters: discovery, transport, protocol.

use super::field::{duration, host_port, ip, lasts, limit, number, port, truth, unpack};
use super::load::{balance, limits, outlier, panic_threshold};
use super::metadata::{list, namespace, structure, text, truth as flag};
use super::tls::client;
use super::{At, Refusal, endpoint, unsupported};
use crate::config::{
    Balance, ClientTls, Cluster, Discovery, DnsTarget, ServiceLabels, Transport, UpstreamHttp,
};
use envoy_types::pb::envoy::config::cluster::v3 as pb;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use envoy_types::pb::google::protobuf::Struct;
use pb::cluster::{ClusterDiscoveryType, ClusterProtocolSelection, DiscoveryType, LbConfig};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's connect timeout when none is given.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's idle time of pooled connections when none is given.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Key of the HTTP options among the extension options.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Takes a cluster.
///
/// # Errors
/// Names the first field that cannot be honoured.
pub fn cluster(proto: &pb::Cluster) -> Result<Cluster, Refusal> {
    take(proto).of("cluster", &proto.name)
}

fn take(proto: &pb::Cluster) -> Result<Cluster, Refusal> {
    refuse_unsupported(proto)?;
    let http = http_options(proto)?;
    let connect_timeout = match &proto.connect_timeout {
        Some(time) => duration(time).at("connect_timeout")?,
        None => DEFAULT_CONNECT_TIMEOUT,
    };
    let discovery = discovery(proto)?;
    let balance = balance(proto)?;
    let by_destination = matches!(discovery, Discovery::OriginalDst { .. });
    if by_destination != (balance == Balance::ClusterProvided) {
        return Err(Refusal::new("CLUSTER_PROVIDED goes with ORIGINAL_DST, and only with it"))
            .at("lb_policy");
    }
    Ok(Cluster {
        name: proto.name.as_str().into(),
        discovery,
        balance,
        connect_timeout,
        http: http.version,
        idle_timeout: http.idle_timeout,
        max_requests_per_connection: http.max_requests,
        transport: transport(proto, http.auto_sni)?,
        bind_source: bind_source(proto).at("upstream_bind_config")?,
        limits: limits(proto.circuit_breakers.as_ref()).at("circuit_breakers")?,
        outlier: outlier(proto.outlier_detection.as_ref()).at("outlier_detection")?,
        panic_threshold: panic_threshold(proto),
        service: service(proto),
    })
}

#[expect(deprecated, reason = "deprecated fields are refused when set")]
fn refuse_unsupported(proto: &pb::Cluster) -> Result<(), Refusal> {
    if proto.name.is_empty() {
        return Err(Refusal::new("a name is needed")).at("name");
    }
    unsupported(&[
        ("transport_socket_matcher", proto.transport_socket_matcher.is_some()),
        ("health_checks", !proto.health_checks.is_empty()),
        ("dns_resolvers", !proto.dns_resolvers.is_empty()),
        ("use_tcp_for_dns_lookups", proto.use_tcp_for_dns_lookups),
        ("lb_subset_config", proto.lb_subset_config.is_some()),
        ("upstream_http_protocol_options", proto.upstream_http_protocol_options.is_some()),
        ("filters", !proto.filters.is_empty()),
        ("load_balancing_policy", proto.load_balancing_policy.is_some()),
        ("upstream_config", proto.upstream_config.is_some()),
        ("lrs_server", proto.lrs_server.is_some()),
        ("preconnect_policy", proto.preconnect_policy.is_some()),
        (
            "connection_pool_per_downstream_connection",
            proto.connection_pool_per_downstream_connection,
        ),
        ("queuing_policies", proto.queuing_policies.is_some()),
    ])
}

fn discovery(proto: &pb::Cluster) -> Result<Discovery, Refusal> {
    let kind = match &proto.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind)
            .map_err(|_| Refusal::new("unknown discovery type"))
            .at("type")?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return Err(Refusal::new(format!("unknown extension {}", custom.name)))
                .at("cluster_type");
        }
    };
    match kind {
        DiscoveryType::Static => {
            let set = match &proto.load_assignment {
                Some(assignment) => endpoint::take(assignment).at("load_assignment")?,
                None => crate::config::EndpointSet::default(),
            };
            Ok(Discovery::Static(Arc::new(set)))
        }
        DiscoveryType::StrictDns => {
            dns_targets(proto).map(Discovery::StrictDns).at("load_assignment")
        }
        DiscoveryType::LogicalDns => {
            let mut targets = dns_targets(proto).at("load_assignment")?;
            match (targets.pop(), targets.is_empty()) {
                (Some(only), true) => Ok(Discovery::LogicalDns(only)),
                _ => Err(Refusal::new("LOGICAL_DNS needs exactly one endpoint"))
                    .at("load_assignment"),
            }
        }
        DiscoveryType::Eds => {
            let given = proto.eds_cluster_config.as_ref().map_or("", |eds| &eds.service_name);
            // Endpoints are kept by cluster name.
            if !given.is_empty() && given != proto.name {
                return Err(Refusal::new("must be the name of the cluster"))
                    .at("eds_cluster_config.service_name");
            }
            Ok(Discovery::Eds(proto.name.as_str().into()))
        }
        DiscoveryType::OriginalDst => original_dst(proto),
    }
}

fn original_dst(proto: &pb::Cluster) -> Result<Discovery, Refusal> {
    let Some(LbConfig::OriginalDstLbConfig(config)) = &proto.lb_config else {
        return Ok(Discovery::OriginalDst { port: None });
    };
    unsupported(&[
        ("use_http_header", config.use_http_header),
        ("metadata_key", config.metadata_key.is_some()),
    ])
    .at("original_dst_lb_config")?;
    let port = match &config.upstream_port_override {
        Some(value) => Some(port(value.value).at("original_dst_lb_config.upstream_port_override")?),
        None => None,
    };
    Ok(Discovery::OriginalDst { port })
}

fn dns_targets(proto: &pb::Cluster) -> Result<Vec<DnsTarget>, Refusal> {
    let mut targets = Vec::new();
    let localities = proto.load_assignment.iter().flat_map(|assignment| &assignment.endpoints);
    for (i, locality) in localities.enumerate() {
        for (j, host) in locality.lb_endpoints.iter().enumerate() {
            let Some(HostIdentifier::Endpoint(endpoint)) = &host.host_identifier else {
                return Err(Refusal::new("an endpoint is needed"));
            };
            let (host, port) = host_port(endpoint.address.as_ref())
                .at(&format!("endpoints[{i}].lb_endpoints[{j}].endpoint.address"))?;
            targets.push(DnsTarget { host: host.to_owned(), port });
        }
    }
    if targets.is_empty() {
        return Err(Refusal::new("a name to resolve is needed"));
    }
    Ok(targets)
}

/// What the HTTP options say.
struct Http {
    version: UpstreamHttp,
    idle_timeout: Option<Duration>,
    max_requests: u32,
    auto_sni: bool,
}

fn http_options(proto: &pb::Cluster) -> Result<Http, Refusal> {
    for key in proto.typed_extension_protocol_options.keys() {
        if key != HTTP_OPTIONS {
            return Err(Refusal::new(format!("unknown extension {key}")))
                .at("typed_extension_protocol_options");
        }
    }
    match proto.typed_extension_protocol_options.get(HTTP_OPTIONS) {
        Some(any) => {
            let options: HttpProtocolOptions = unpack(any)?;
            given_http(proto, &options).at("typed_extension_protocol_options.HttpProtocolOptions")
        }
        None => legacy_http(proto),
    }
}

#[expect(deprecated, reason = "the HTTP options of older control planes")]
fn legacy_http(proto: &pb::Cluster) -> Result<Http, Refusal> {
    let same = proto.protocol_selection == ClusterProtocolSelection::UseDownstreamProtocol as i32;
    let version = match (same, proto.http2_protocol_options.is_some()) {
        (true, _) => UpstreamHttp::SameAsDownstream,
        (false, true) => UpstreamHttp::Http2,
        (false, false) => UpstreamHttp::Http1,
    };
    let common = proto.common_http_protocol_options.as_ref();
    Ok(Http {
        version,
        idle_timeout: limit(
            common.and_then(|common| common.idle_timeout.as_ref()),
            Some(DEFAULT_IDLE_TIMEOUT),
        )
        .at("common_http_protocol_options.idle_timeout")?,
        max_requests: number(proto.max_requests_per_connection.as_ref(), 0),
        auto_sni: false,
    })
}

#[expect(deprecated, reason = "max_requests_per_connection has an older and a newer place")]
fn given_http(proto: &pb::Cluster, options: &HttpProtocolOptions) -> Result<Http, Refusal> {
    unsupported(&[
        ("http_filters", !options.http_filters.is_empty()),
        ("header_validation_config", options.header_validation_config.is_some()),
        ("outlier_detection", options.outlier_detection.is_some()),
        ("request_mirror_policies", !options.request_mirror_policies.is_empty()),
        ("hash_policy", !options.hash_policy.is_empty()),
        ("retry_policy", options.retry_policy.is_some()),
    ])?;
    let version = match &options.upstream_protocol_options {
        None => UpstreamHttp::Http1,
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => {
            UpstreamHttp::SameAsDownstream
        }
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            match &explicit.protocol_config {
                None | Some(ProtocolConfig::HttpProtocolOptions(_)) => UpstreamHttp::Http1,
                Some(ProtocolConfig::Http2ProtocolOptions(_)) => UpstreamHttp::Http2,
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    return Err(Refusal::new("HTTP/3 is not supported")).at("explicit_http_config");
                }
            }
        }
        Some(UpstreamProtocolOptions::AutoConfig(_)) => {
            return Err(Refusal::new("is not supported")).at("auto_config");
        }
    };
    let common = options.common_http_protocol_options.unwrap_or_default();
    unsupported(&[
        ("max_connection_duration", lasts(common.max_connection_duration.as_ref())),
        ("max_stream_duration", lasts(common.max_stream_duration.as_ref())),
    ])
    .at("common_http_protocol_options")?;
    let sni = options.upstream_http_protocol_options.clone().unwrap_or_default();
    unsupported(&[("override_auto_sni_header", !sni.override_auto_sni_header.is_empty())])
        .at("upstream_http_protocol_options")?;
    let older = number(proto.max_requests_per_connection.as_ref(), 0);
    Ok(Http {
        version,
        idle_timeout: limit(common.idle_timeout.as_ref(), Some(DEFAULT_IDLE_TIMEOUT))
            .at("common_http_protocol_options.idle_timeout")?,
        max_requests: number(common.max_requests_per_connection.as_ref(), older),
        auto_sni: sni.auto_sni || sni.auto_san_validation,
    })
}

fn transport(proto: &pb::Cluster, auto_sni: bool) -> Result<Transport, Refusal> {
    let secured = |tls: Option<ClientTls>| {
        tls.map(|tls| Arc::new(ClientTls { auto_sni: tls.auto_sni || auto_sni, ..tls }))
    };
    let Some((first, others)) = proto.transport_socket_matches.split_first() else {
        let tls = match &proto.transport_socket {
            Some(socket) => client(socket).at("transport_socket")?,
            None => None,
        };
        return Ok(secured(tls).map_or(Transport::Plain, Transport::Tls));
    };
    // The one shape there is in a mesh: mutual TLS where the endpoint has a sidecar, else as is.
    let mutual = first.r#match.as_ref().is_some_and(is_sidecar_match);
    let socket = first.transport_socket.as_ref().filter(|_| mutual);
    let tls = socket.map(client).transpose().at_index("transport_socket_matches", 0)?.flatten();
    let tls = secured(tls)
        .ok_or_else(|| Refusal::new("must be TLS for {tlsMode: istio}"))
        .at_index("transport_socket_matches", 0)?;
    for (i, other) in others.iter().enumerate() {
        let any_endpoint = other.r#match.as_ref().is_none_or(|fields| fields.fields.is_empty());
        let plain = match &other.transport_socket {
            Some(socket) => client(socket).at_index("transport_socket_matches", i + 1)?.is_none(),
            None => true,
        };
        if !(any_endpoint && plain) {
            return Err(Refusal::new("must be plaintext for every other endpoint"))
                .at_index("transport_socket_matches", i + 1);
        }
    }
    unsupported(&[("transport_socket", proto.transport_socket.is_some())])?;
    Ok(Transport::Auto(tls))
}

fn is_sidecar_match(fields: &Struct) -> bool {
    fields.fields.len() == 1 && text(fields, "tlsMode") == Some("istio")
}

fn bind_source(proto: &pb::Cluster) -> Result<Option<IpAddr>, Refusal> {
    let Some(bind) = &proto.upstream_bind_config else { return Ok(None) };
    unsupported(&[
        ("freebind", truth(bind.freebind.as_ref(), false)),
        ("socket_options", !bind.socket_options.is_empty()),
        ("local_address_selector", bind.local_address_selector.is_some()),
    ])?;
    let Some(source) = &bind.source_address else { return Ok(None) };
    ip(&source.address).map(Some).at("source_address.address")
}

/// Istio's cluster metadata: the destination service for metrics.
fn service(proto: &pb::Cluster) -> Option<ServiceLabels> {
    let istio = namespace(proto.metadata.as_ref(), "istio")?;
    let external = flag(istio, "external").unwrap_or(false);
    let Some(first) = list(istio, "services").first().and_then(structure) else {
        return external.then(|| ServiceLabels { external, ..ServiceLabels::default() });
    };
    let field = |key| text(first, key).unwrap_or_default().into();
    Some(ServiceLabels {
        host: field("host"),
        name: field("name"),
        namespace: field("namespace"),
        external,
    })
}
