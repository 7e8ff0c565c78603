//! Listeners of servers that are gRPC libraries: who may connect, and who may call what.
//!
//! A server asks for a listener by the address it listens on. Mutual TLS cannot be made optional
//! there: where both are allowed, the label of the workload says what its clients will try. Source
//! of behaviour: Istio pilot/pkg/networking/grpcgen/lds.go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::{
    NonForwardingAction, Route, RouteConfiguration, VirtualHost,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use lateen_api::security::MutualTlsMode;

use super::authorization::grpc_filters;
use super::canonical::CONNECTION_MANAGER;
use super::filters::network_filter;
use super::grpc_listeners::router;
use super::input::{Inbound, InboundPort, MeshSettings};
use super::pack::{ANY_IPV4, ANY_IPV6, address, any_with};
use super::route_match::everything;
use super::tls::grpc_server;

/// What the names of such listeners start with, as bootstrap files of Istio say it.
const PREFIX: &str = "xds.istio.io/grpc/lds/inbound/";

/// The listeners of every address that a server may listen on, for the ports that services lead to.
pub(crate) fn listeners(inbound: &Inbound, mesh: &MeshSettings) -> Vec<Listener> {
    let usual = [ANY_IPV4, ANY_IPV6, Ipv4Addr::LOCALHOST.into(), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let one = |port: &InboundPort| {
        let chain = chain(inbound, port.port, mesh);
        let number = port.port;
        let addresses = usual.iter().chain(&inbound.addresses);
        let named = addresses.map(move |ip| listener(*ip, number, chain.clone()));
        named.collect::<Vec<_>>()
    };
    inbound.ports.iter().flat_map(one).collect()
}

fn listener(ip: IpAddr, port: u16, chain: FilterChain) -> Listener {
    Listener {
        name: format!("{PREFIX}{}", std::net::SocketAddr::new(ip, port)),
        address: Some(address(ip, port)),
        filter_chains: vec![chain],
        ..Listener::default()
    }
}

fn chain(inbound: &Inbound, port: u16, mesh: &MeshSettings) -> FilterChain {
    let mutual = match inbound.mode_of(port) {
        MutualTlsMode::Strict => true,
        MutualTlsMode::Disable => false,
        MutualTlsMode::Permissive | MutualTlsMode::Unset => inbound.labelled_mutual_tls,
    };
    let mut http_filters = grpc_filters(&inbound.policies, &mesh.trust_domains);
    http_filters.push(router());
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(served_here())),
        http_filters,
        ..HttpConnectionManager::default()
    };
    FilterChain {
        name: if mutual { "inbound-mtls" } else { "inbound-plaintext" }.to_owned(),
        filters: vec![manager_filter(&manager)],
        transport_socket: mutual.then(grpc_server),
        ..FilterChain::default()
    }
}

fn manager_filter(manager: &HttpConnectionManager) -> Filter {
    let config = any_with(manager, &CONNECTION_MANAGER);
    network_filter("envoy.filters.network.http_connection_manager", config)
}

/// The application serves every call itself.
fn served_here() -> RouteConfiguration {
    let route = Route {
        r#match: Some(everything()),
        action: Some(Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "inbound".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: "inbound".to_owned(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    }
}
