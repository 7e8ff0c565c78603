//! Listeners of calls: one for each name under which an application may call a port of a service.
//!
//! A library looks a listener up by the target of its channel, literally. Source of behaviour:
//! Istio pilot/pkg/networking/grpcgen/lds.go.

use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Listener};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
};

use super::filters::{FAULT, http_filter};
use super::grpc::ports;
use super::input::{Outbound, Service, ServicePort};
use super::names::outbound_cluster;
use super::pack::{any, from_ads};
use super::routes::short_names;

/// All listeners of calls, in the order of the registry: of equal names the first is in force, so
/// that nobody takes over the short name of a Kubernetes service by a host that looks like it.
pub(crate) fn listeners(outbound: &Outbound) -> Vec<Listener> {
    let all = ports(outbound).flat_map(|(service, port)| {
        let names = std::iter::once(service.host.clone());
        let names = names.chain(short_names(service, &outbound.namespace));
        names.map(move |name| listener(&name, service, port))
    });
    all.collect()
}

/// Name of the route table of a port, which is that of its cluster.
pub(crate) fn table_name(service: &Service, port: &ServicePort) -> String {
    outbound_cluster(port.number, "", &service.host)
}

/// The last filter.
pub(crate) fn router() -> HttpFilter {
    http_filter("envoy.filters.http.router", any(&Router::default()))
}

fn listener(name: &str, service: &Service, port: &ServicePort) -> Listener {
    let manager = HttpConnectionManager {
        http_filters: vec![http_filter(FAULT, any(&HttpFault::default())), router()],
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(from_ads()),
            route_config_name: table_name(service, port),
        })),
        ..HttpConnectionManager::default()
    };
    Listener {
        name: format!("{name}:{}", port.number),
        api_listener: Some(ApiListener { api_listener: Some(any(&manager)) }),
        ..Listener::default()
    }
}
