//! The HTTP filters of a connection manager, in their order, and the connection manager itself.
//!
//! What a filter decides (who may pass, which faults) is given by the caller. Istio's own filters
//! go only to proxies that have them: a stock Envoy would refuse the whole listener.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ResponseFlagFilter,
};
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::Cors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::grpc_stats::v3::{
    FilterConfig as GrpcStats, filter_config::PerMethodStatSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation,
    SetCurrentClientCertDetails, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, LocalReplyConfig, Rds, ResponseMapper, http_filter,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use envoy_types::pb::google::protobuf::{Any, Value};

use super::canonical::CONNECTION_MANAGER;
use super::pack::{
    any, any_with, duration, flag, from_ads, list, object, text, truth, typed_struct,
};

/// Name of the fault filter, which routes configure.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
/// Name of the CORS filter, which routes configure.
pub(crate) const CORS: &str = "envoy.filters.http.cors";
/// Header of an answer to a request that reached no application.
pub(crate) const UNDELIVERED: &str = "x-lateen-undelivered";
/// Type of the filter that offers ALPN by request protocol.
const ALPN_CONFIG: &str =
    "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
/// Type of the telemetry filter.
const STATS_CONFIG: &str = "type.googleapis.com/stats.PluginConfig";
/// Type of the filter that tells peers who is who.
const PEER_METADATA_CONFIG: &str = "type.googleapis.com/io.istio.http.peer_metadata.Config";

/// Which side of the sidecar, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From others to the application.
    Inbound,
    /// From the application to others.
    Outbound,
    /// From outside to the mesh.
    Gateway,
}

/// A route table, or where to get one.
#[derive(Debug, Clone)]
pub(crate) enum Routes {
    /// By name, over discovery.
    Named(String),
    /// In place.
    Inline(Box<envoy_types::pb::envoy::config::route::v3::RouteConfiguration>),
}

/// What differs between connection managers.
#[derive(Debug, Clone)]
pub(crate) struct Manager {
    /// Side.
    pub(crate) direction: Direction,
    /// Prefix of statistics.
    pub(crate) stat_prefix: String,
    /// Routes.
    pub(crate) routes: Routes,
    /// Authorization filters (not outbound).
    pub(crate) authorization: Vec<HttpFilter>,
    /// Whether the proxy has Istio's filters.
    pub(crate) istio_filters: bool,
    /// Access log.
    pub(crate) access_log: Vec<AccessLog>,
}

/// The connection manager as a network filter.
pub(crate) fn http_manager(manager: Manager) -> Filter {
    let direction = manager.direction;
    let http_filters = http_filters(&manager);
    let routes = match manager.routes {
        Routes::Named(name) => {
            RouteSpecifier::Rds(Rds { config_source: Some(from_ads()), route_config_name: name })
        }
        Routes::Inline(routes) => RouteSpecifier::RouteConfig(*routes),
    };
    let mut message = HttpConnectionManager {
        stat_prefix: manager.stat_prefix,
        http_filters,
        server_name: "istio-envoy".to_owned(),
        // A gateway is where clients are strangers: what they say of themselves is not believed.
        use_remote_address: Some(flag(direction == Direction::Gateway)),
        generate_request_id: Some(flag(true)),
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        normalize_path: Some(flag(true)),
        access_log: manager.access_log,
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        route_specifier: Some(routes),
        ..HttpConnectionManager::default()
    };
    if direction == Direction::Inbound {
        message.server_header_transformation = ServerHeaderTransformation::PassThrough as i32;
        message.local_reply_config = Some(undelivered());
    }
    let client_certificates = match direction {
        Direction::Inbound => Some(ForwardClientCertDetails::AppendForward),
        Direction::Gateway => Some(ForwardClientCertDetails::SanitizeSet),
        Direction::Outbound => None,
    };
    if let Some(details) = client_certificates {
        message.forward_client_cert_details = details as i32;
        message.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: Some(flag(true)),
            dns: true,
            uri: true,
            ..SetCurrentClientCertDetails::default()
        });
    }
    network_filter(
        "envoy.filters.network.http_connection_manager",
        any_with(&message, &CONNECTION_MANAGER),
    )
}

/// Answers for an application that cannot be connected to, as one that ends: they say that it has
/// seen nothing of the request, so that it may be sent to another.
fn undelivered() -> LocalReplyConfig {
    let connection_failed = AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["UF".to_owned()],
        })),
    };
    let header = HeaderValue {
        key: UNDELIVERED.to_owned(),
        value: "true".to_owned(),
        ..HeaderValue::default()
    };
    let mapper = ResponseMapper {
        filter: Some(connection_failed),
        headers_to_add: vec![HeaderValueOption {
            header: Some(header),
            append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
            ..HeaderValueOption::default()
        }],
        ..ResponseMapper::default()
    };
    LocalReplyConfig { mappers: vec![mapper], ..LocalReplyConfig::default() }
}

fn http_filters(manager: &Manager) -> Vec<HttpFilter> {
    let mut filters = Vec::new();
    if manager.istio_filters {
        filters.push(http_filter("istio.metadata_exchange", peer_metadata(manager.direction)));
    }
    filters.extend(manager.authorization.iter().cloned());
    filters.push(http_filter("envoy.filters.http.grpc_stats", grpc_stats()));
    if manager.istio_filters && manager.direction != Direction::Inbound {
        filters.push(http_filter("istio.alpn", alpn()));
    }
    filters.push(http_filter(FAULT, any(&HttpFault::default())));
    filters.push(http_filter(CORS, any(&Cors {})));
    if manager.istio_filters {
        filters.push(http_filter("istio.stats", typed_struct(STATS_CONFIG, stats())));
    }
    filters.push(http_filter("envoy.filters.http.router", any(&Router::default())));
    filters
}

/// A named HTTP filter.
pub(crate) fn http_filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

/// A named network filter.
pub(crate) fn network_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// Telemetry of TCP connections, for proxies that have it.
pub(crate) fn tcp_stats() -> Filter {
    network_filter("istio.stats", typed_struct(STATS_CONFIG, stats()))
}

/// Where TCP connections go: one cluster, or a split by weight.
pub(crate) fn tcp_proxy(
    stat_prefix: &str,
    clusters: &[(String, u32)],
    access_log: Vec<AccessLog>,
    idle_timeout: Option<Duration>,
) -> Filter {
    let destination = match clusters {
        [(only, _)] => ClusterSpecifier::Cluster(only.clone()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|(name, weight)| ClusterWeight {
                    name: name.clone(),
                    weight: *weight,
                    ..ClusterWeight::default()
                })
                .collect(),
        }),
    };
    let message = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        access_log,
        idle_timeout: idle_timeout.map(duration),
        cluster_specifier: Some(destination),
        ..TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", any(&message))
}

fn grpc_stats() -> Any {
    any(&GrpcStats {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(flag(false))),
        ..GrpcStats::default()
    })
}

fn stats() -> Vec<(String, Value)> {
    Vec::new()
}

/// Inbound: learn the caller from its headers and tell it who we are. Else the reverse, but
/// say nothing to servers outside the mesh.
fn peer_metadata(direction: Direction) -> Any {
    let headers = || list(vec![object([("istio_headers".to_owned(), object([]))])]);
    let propagation = list(vec![object([(
        "istio_headers".to_owned(),
        match direction {
            Direction::Inbound => object([]),
            Direction::Outbound | Direction::Gateway => {
                object([("skip_external_clusters".to_owned(), truth(true))])
            }
        },
    )])]);
    let fields = match direction {
        Direction::Inbound => [
            ("downstream_discovery".to_owned(), headers()),
            ("downstream_propagation".to_owned(), propagation),
        ],
        Direction::Outbound | Direction::Gateway => [
            ("upstream_discovery".to_owned(), headers()),
            ("upstream_propagation".to_owned(), propagation),
        ],
    };
    typed_struct(PEER_METADATA_CONFIG, fields)
}

/// What to offer inside mutual TLS, by the protocol the request is sent with.
fn alpn() -> Any {
    let protocols = [
        ("HTTP10", ["istio-http/1.0", "istio", "http/1.0"]),
        ("HTTP11", ["istio-http/1.1", "istio", "http/1.1"]),
        ("HTTP2", ["istio-h2", "istio", "h2"]),
    ];
    let overrides = protocols
        .into_iter()
        .map(|(protocol, names)| {
            let names = names.into_iter().map(text).collect();
            object([
                ("upstream_protocol".to_owned(), text(protocol)),
                ("alpn_override".to_owned(), list(names)),
            ])
        })
        .collect();
    typed_struct(ALPN_CONFIG, [("alpn_override".to_owned(), list(overrides))])
}
