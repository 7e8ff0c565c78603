//! The inbound listener: one filter chain for each way in which a connection may arrive.
//!
//! The mode of mutual TLS decides which ways there are: STRICT has none without it, PERMISSIVE has
//! both, DISABLE has none with it. The protocol of the port decides whether connections are read as
//! HTTP; where it is not known, what is seen on the wire decides.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, MaxStreamDuration,
};
use envoy_types::pb::envoy::config::route::v3::{
    Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, VirtualHost,
};
use lateen_api::names::port;
use lateen_api::port::Protocol;
use lateen_api::security::MutualTlsMode;

use super::access_log;
use super::authorization;
use super::clusters::Families;
use super::filters::{Direction, Manager, Routes, UNDELIVERED, http_manager, tcp_proxy, tcp_stats};
use super::input::{Inbound, InboundPort, MeshSettings};
use super::listener::{self, Inspection};
use super::names::{BLACK_HOLE, INBOUND_PASSTHROUGH, inbound_cluster};
use super::pack::{duration, flag, number};
use super::route_action::timed;
use super::route_match::everything;
use super::tls::{ALPN_MESH_HTTP, ALPN_MESH_TCP, mesh_server};

/// What plain HTTP is seen as on the wire.
pub(crate) const ALPN_PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];
/// What the inbound side answers in ALPN.
const ALPN_SERVER: [&str; 6] =
    ["istio-peer-exchange", "istio-h2", "istio-http/1.1", "istio", "h2", "http/1.1"];
/// Name of the listener.
const NAME: &str = "virtualInbound";

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// Without TLS.
    Plain,
    /// In mutual TLS, ended here.
    Mutual,
    /// In the application's own TLS, handed on.
    Foreign,
    /// In whatever; handed on.
    Any,
}

/// One way in which a connection may arrive at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Way {
    carried: Carried,
    http: bool,
    alpn: Vec<&'static str>,
}

impl Way {
    fn new(carried: Carried, http: bool, alpn: &[&'static str]) -> Self {
        Self { carried, http, alpn: alpn.to_vec() }
    }
}

/// The listener of everything that reaches the pod.
pub(crate) fn listener(
    inbound: &Inbound,
    mesh: &MeshSettings,
    istio_filters: bool,
    families: Families,
) -> Listener {
    let build = Build { inbound, mesh, istio_filters };
    let mut chains = vec![black_hole()];
    chains.extend(build.passthrough(None, inbound.mode_of(0)));
    let named = |number: u16| inbound.ports.iter().any(|port| port.port == number);
    for (number, mode) in inbound.port_modes.iter().filter(|(number, _)| !named(**number)) {
        let mode = if *mode == MutualTlsMode::Unset { inbound.mode_of(0) } else { *mode };
        chains.extend(build.passthrough(Some(*number), mode));
    }
    for port in &inbound.ports {
        chains.extend(build.port(port));
    }
    let known = inbound.ports.iter().filter(|port| port.protocol != Protocol::Auto);
    let plain = |port: &&InboundPort| {
        port.protocol != Protocol::Auto && inbound.mode_of(port.port) == MutualTlsMode::Disable
    };
    let inspection = Inspection {
        original_destination: true,
        tls: true,
        tls_not_on: inbound.ports.iter().filter(plain).map(|port| port.port).collect(),
        http: true,
        http_not_on: known.map(|port| port.port).collect(),
    };
    Listener {
        name: NAME.to_owned(),
        filter_chains: chains,
        listener_filters: listener::filters(&inspection),
        listener_filters_timeout: Some(duration(mesh.protocol_detection_timeout)),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Inbound as i32,
        access_log: access_log::listener_logs(&mesh.access_log),
        ..listener::bound(port::PROXY_INBOUND, families)
    }
}

/// Connections to the listener's own port lead nowhere; else they would come back for ever.
fn black_hole() -> FilterChain {
    FilterChain {
        name: format!("{NAME}-blackhole"),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: Some(number(u32::from(port::PROXY_INBOUND))),
            ..FilterChainMatch::default()
        }),
        filters: vec![tcp_proxy(BLACK_HOLE, &[(BLACK_HOLE.to_owned(), 0)], Vec::new(), None)],
        ..FilterChain::default()
    }
}

struct Build<'a> {
    inbound: &'a Inbound,
    mesh: &'a MeshSettings,
    istio_filters: bool,
}

/// Where a chain leads and how it is called.
struct Goal<'a> {
    name: String,
    number: Option<u16>,
    cluster: String,
    operation: Option<&'a InboundPort>,
    grpc: bool,
}

impl Build<'_> {
    fn port(&self, port: &InboundPort) -> Vec<FilterChain> {
        let goal = Goal {
            name: format!("0.0.0.0_{}", port.port),
            number: Some(port.port),
            cluster: inbound_cluster(port.port),
            operation: Some(port),
            grpc: port.protocol == Protocol::Grpc,
        };
        let ways = ways(self.inbound.mode_of(port.port), port.protocol);
        ways.iter().map(|way| self.chain(way, &goal)).collect()
    }

    /// Ports that no service names: the protocol is found out.
    fn passthrough(&self, number: Option<u16>, mode: MutualTlsMode) -> Vec<FilterChain> {
        let ways = ways(mode, Protocol::Auto);
        ways.iter()
            .map(|way| {
                let kind = if way.http { "-catchall-http" } else { "" };
                let at = number.map(|number| format!("-{number}")).unwrap_or_default();
                let goal = Goal {
                    name: format!("{NAME}{kind}{at}"),
                    number,
                    cluster: INBOUND_PASSTHROUGH.to_owned(),
                    operation: None,
                    grpc: false,
                };
                self.chain(way, &goal)
            })
            .collect()
    }

    fn chain(&self, way: &Way, goal: &Goal<'_>) -> FilterChain {
        let transport = match way.carried {
            Carried::Plain => "raw_buffer",
            Carried::Mutual | Carried::Foreign => "tls",
            Carried::Any => "",
        };
        let mutual = way.carried == Carried::Mutual;
        FilterChain {
            name: goal.name.clone(),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: goal.number.map(|it| number(u32::from(it))),
                transport_protocol: transport.to_owned(),
                application_protocols: way.alpn.iter().map(|it| (*it).to_owned()).collect(),
                ..FilterChainMatch::default()
            }),
            filters: if way.http { self.http(goal) } else { self.tcp(goal) },
            transport_socket: mutual.then(|| mesh_server(&self.mesh.trust_domains, &ALPN_SERVER)),
            ..FilterChain::default()
        }
    }

    fn http(&self, goal: &Goal<'_>) -> Vec<Filter> {
        let number = goal.number.map_or_else(|| "0".to_owned(), |number| number.to_string());
        let trust_domains = &self.mesh.trust_domains;
        vec![http_manager(Manager {
            direction: Direction::Inbound,
            stat_prefix: format!("inbound_0.0.0.0_{number};"),
            routes: Routes::Inline(Box::new(routes(goal))),
            authorization: authorization::http_filters(&self.inbound.policies, trust_domains),
            istio_filters: self.istio_filters,
            access_log: access_log::logs(&self.mesh.access_log),
        })]
    }

    fn tcp(&self, goal: &Goal<'_>) -> Vec<Filter> {
        let trust_domains = &self.mesh.trust_domains;
        let mut filters = authorization::network_filters(&self.inbound.policies, trust_domains);
        if self.istio_filters {
            filters.push(tcp_stats());
        }
        let logs = access_log::logs(&self.mesh.access_log);
        filters.push(tcp_proxy(&goal.cluster, &[(goal.cluster.clone(), 0)], logs, None));
        filters
    }
}

/// The ways into a port.
fn ways(mode: MutualTlsMode, protocol: Protocol) -> Vec<Way> {
    use Carried::{Any, Foreign, Mutual, Plain};
    let every_mesh: Vec<&'static str> = [&ALPN_MESH_HTTP[..], &ALPN_MESH_TCP[..]].concat();
    let http = protocol.is_http();
    let auto = protocol == Protocol::Auto;
    match mode {
        MutualTlsMode::Strict if auto => {
            vec![Way::new(Mutual, true, &ALPN_MESH_HTTP), Way::new(Mutual, false, &[])]
        }
        MutualTlsMode::Strict => vec![Way::new(Mutual, http, &[])],
        MutualTlsMode::Disable if auto => {
            // A chain for any transport would never be reached once there is one for plain bytes.
            vec![
                Way::new(Plain, true, &ALPN_PLAIN_HTTP),
                Way::new(Plain, false, &[]),
                Way::new(Foreign, false, &[]),
            ]
        }
        MutualTlsMode::Disable => vec![Way::new(Any, http, &[])],
        MutualTlsMode::Permissive | MutualTlsMode::Unset if auto => vec![
            Way::new(Mutual, true, &ALPN_MESH_HTTP),
            Way::new(Plain, true, &ALPN_PLAIN_HTTP),
            Way::new(Mutual, false, &ALPN_MESH_TCP),
            Way::new(Plain, false, &[]),
            Way::new(Foreign, false, &[]),
        ],
        MutualTlsMode::Permissive | MutualTlsMode::Unset if http => {
            vec![Way::new(Mutual, true, &every_mesh), Way::new(Plain, true, &[])]
        }
        MutualTlsMode::Permissive | MutualTlsMode::Unset => vec![
            Way::new(Mutual, false, &every_mesh),
            Way::new(Plain, false, &[]),
            Way::new(Foreign, false, &[]),
        ],
    }
}

/// Everything goes to the application.
fn routes(goal: &Goal<'_>) -> RouteConfiguration {
    let operation = goal.operation.map_or_else(
        || format!(":{}/*", goal.number.unwrap_or_default()),
        |port| format!("{}:{}/*", port.host, port.service_port),
    );
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(goal.cluster.clone())),
        // gRPC clients try again by themselves.
        retry_policy: (!goal.grpc).then(|| RetryPolicy {
            retry_on: "reset-before-request".to_owned(),
            num_retries: Some(number(2)),
            ..RetryPolicy::default()
        }),
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(duration(Duration::ZERO)),
            grpc_timeout_header_max: Some(duration(Duration::ZERO)),
            ..MaxStreamDuration::default()
        }),
        ..timed(Duration::ZERO)
    };
    let host = VirtualHost {
        name: format!("inbound|http|{}", goal.operation.map_or(0, |port| port.service_port)),
        domains: vec!["*".to_owned()],
        // Only the sidecar says it, not an application.
        response_headers_to_remove: vec![UNDELIVERED.to_owned()],
        routes: vec![Route {
            name: "default".to_owned(),
            r#match: Some(everything()),
            decorator: Some(Decorator { operation, ..Decorator::default() }),
            action: Some(Action::Route(action)),
            ..Route::default()
        }],
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: goal.cluster.clone(),
        virtual_hosts: vec![host],
        validate_clusters: Some(flag(false)),
        ..RouteConfiguration::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{ALPN_MESH_HTTP, ALPN_MESH_TCP, Carried, ways};
    use lateen_api::port::Protocol;
    use lateen_api::security::MutualTlsMode;

    #[test]
    fn strict_lets_nothing_in_without_mutual_tls() {
        for protocol in [Protocol::Http, Protocol::Tcp, Protocol::Auto, Protocol::Grpc] {
            let ways = ways(MutualTlsMode::Strict, protocol);
            assert!(ways.iter().all(|way| way.carried == Carried::Mutual), "{protocol:?}");
        }
    }

    #[test]
    fn the_number_of_ways_is_istios() {
        let count = |mode, protocol| ways(mode, protocol).len();
        assert_eq!(count(MutualTlsMode::Permissive, Protocol::Auto), 5);
        assert_eq!(count(MutualTlsMode::Permissive, Protocol::Http), 2);
        assert_eq!(count(MutualTlsMode::Permissive, Protocol::Tcp), 3);
        assert_eq!(count(MutualTlsMode::Strict, Protocol::Auto), 2);
        assert_eq!(count(MutualTlsMode::Strict, Protocol::Http), 1);
        assert_eq!(count(MutualTlsMode::Disable, Protocol::Auto), 3);
        assert_eq!(count(MutualTlsMode::Disable, Protocol::Tcp), 1);
    }

    #[test]
    fn http_and_tcp_in_mutual_tls_are_told_apart_by_alpn() {
        let ways = ways(MutualTlsMode::Permissive, Protocol::Auto);
        assert_eq!((ways[0].http, ways[0].alpn.as_slice()), (true, &ALPN_MESH_HTTP[..]));
        assert_eq!((ways[2].http, ways[2].alpn.as_slice()), (false, &ALPN_MESH_TCP[..]));
    }
}
