//! Outbound listeners: what becomes of connections that the application makes.
//!
//! HTTP ports share one listener for each number, told apart by host. TCP ports have one for each
//! address of the service. Where the protocol is not known there is one for each address that looks
//! at the first bytes. What no listener takes goes through `virtualOutbound`.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::{CidrRange, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener,
};
use ipnet::IpNet;
use lateen_api::host::Host;
use lateen_api::names::port as ports;
use lateen_api::port::Protocol;

use super::access_log;
use super::clusters::Families;
use super::filters::{Direction, Manager, Routes, http_manager, tcp_proxy, tcp_stats};
use super::inbound::ALPN_PLAIN_HTTP;
use super::input::{MeshSettings, Outbound, Service, ServicePort};
use super::listener::{self, Inspection};
use super::names::{BLACK_HOLE, PASSTHROUGH, listener_name, range_name};
use super::pack::{cidr, duration, flag, number};
use super::route_match::Caller;
use super::routes::detected_name;
use super::rules::Rules;

/// Name of the listener to which everything is redirected.
const NAME: &str = "virtualOutbound";
/// Name of the chain for what is not HTTP on a port for HTTP.
const PASSTHROUGH_CHAIN: &str = "PassthroughFilterChain";

/// All outbound listeners.
pub(crate) fn listeners(
    outbound: &Outbound,
    mesh: &MeshSettings,
    istio_filters: bool,
    families: Families,
) -> Vec<Listener> {
    let rules = Rules::new(outbound, &mesh.cluster_domain);
    let build = Build { outbound, mesh, rules, istio_filters, families };
    let mut listeners = vec![build.catch_all()];
    let mut shared: BTreeMap<u16, Shared<'_>> = BTreeMap::new();
    let mut own: BTreeMap<String, Listener> = BTreeMap::new();
    for service in &outbound.services {
        for port in &service.ports {
            build.add(service, port, &mut shared, &mut own);
        }
    }
    listeners.extend(shared.into_iter().map(|(number, it)| build.shared(number, &it)));
    listeners.extend(own.into_values());
    listeners
}

/// What shares the listener of a port number.
#[derive(Debug, Default)]
struct Shared<'a> {
    http: bool,
    /// TLS and TCP without an address of its own, or with a range of addresses.
    connections: Vec<(&'a Service, &'a ServicePort)>,
}

struct Build<'a> {
    outbound: &'a Outbound,
    mesh: &'a MeshSettings,
    rules: Rules<'a>,
    istio_filters: bool,
    families: Families,
}

impl<'a> Build<'a> {
    fn add(
        &self,
        service: &'a Service,
        port: &'a ServicePort,
        shared: &mut BTreeMap<u16, Shared<'a>>,
        own: &mut BTreeMap<String, Listener>,
    ) {
        let taken = [ports::PROXY_OUTBOUND, ports::PROXY_INBOUND];
        if port.protocol == Protocol::Udp || taken.contains(&port.number) {
            return;
        }
        if port.protocol.is_http() {
            shared.entry(port.number).or_default().http = true;
            return;
        }
        let mut lead = |name: String, addresses: &[IpAddr], number: u16| {
            // The first, which is the oldest, keeps the address.
            own.entry(name).or_insert_with(|| self.own(service, port, addresses, number));
        };
        if service.is_headless() {
            for endpoint in port.endpoints.iter() {
                if let Ok(address) = endpoint.address.parse::<IpAddr>() {
                    let name = listener_name(&address.to_string(), endpoint.port);
                    lead(name, &[address], endpoint.port);
                }
            }
            return;
        }
        let single: Vec<IpAddr> = service.single_addresses().collect();
        if let Some(first) = single.first() {
            lead(listener_name(&first.to_string(), port.number), &single, port.number);
        }
        if single.len() < service.addresses.len() || service.addresses.is_empty() {
            shared.entry(port.number).or_default().connections.push((service, port));
        }
    }

    /// Everything is redirected here; the others are found by original destination.
    fn catch_all(&self) -> Listener {
        let own_port = FilterChain {
            name: format!("{NAME}-blackhole"),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: Some(number(u32::from(ports::PROXY_OUTBOUND))),
                ..FilterChainMatch::default()
            }),
            filters: vec![tcp_proxy(BLACK_HOLE, &[(BLACK_HOLE.to_owned(), 0)], Vec::new(), None)],
            ..FilterChain::default()
        };
        let rest = FilterChain { name: format!("{NAME}-catchall-tcp"), ..self.unknown() };
        Listener {
            name: NAME.to_owned(),
            use_original_dst: Some(flag(true)),
            filter_chains: vec![own_port, rest],
            listener_filters: listener::filters(&Inspection {
                original_destination: true,
                ..Inspection::default()
            }),
            traffic_direction: TrafficDirection::Outbound as i32,
            access_log: access_log::listener_logs(&self.mesh.access_log),
            ..listener::bound(ports::PROXY_OUTBOUND, self.families)
        }
    }

    /// Where connections go that no service takes.
    fn unknown(&self) -> FilterChain {
        let cluster = if self.mesh.allow_any_outbound { PASSTHROUGH } else { BLACK_HOLE };
        FilterChain {
            name: PASSTHROUGH_CHAIN.to_owned(),
            filters: self.tcp(cluster, &[(cluster.to_owned(), 0)]),
            ..FilterChain::default()
        }
    }

    /// The listener of a port number on every address.
    fn shared(&self, number: u16, shared: &Shared<'_>) -> Listener {
        let wildcard = if self.families.v4 { "0.0.0.0" } else { "::" };
        let mut chains = Vec::new();
        if shared.http {
            let prefix = format!("outbound_{wildcard}_{number};");
            chains.push(self.http(prefix, number.to_string()));
        }
        let mut rest = None;
        let mut taken: HashSet<(Vec<String>, String)> = HashSet::new();
        for (service, port) in &shared.connections {
            for mut chain in self.connections(service, port) {
                let Some(wanted) = &mut chain.filter_chain_match else {
                    rest = rest.or(Some(chain));
                    continue;
                };
                // Several services without name or address cannot be told apart.
                if claim(wanted, &mut taken) {
                    chains.push(chain);
                }
            }
        }
        let only_rest = chains.is_empty();
        let fallback = rest.unwrap_or_else(|| self.unknown());
        let (chains, fallback) =
            if only_rest { (vec![fallback], None) } else { (chains, Some(fallback)) };
        Listener {
            name: listener_name(wildcard, number),
            filter_chains: chains,
            default_filter_chain: fallback,
            ..self.inspecting(
                listener::virtual_anywhere(number, self.families),
                !only_rest,
                shared.http,
            )
        }
    }

    /// The listener of the addresses of one service, or of one endpoint.
    fn own(
        &self,
        service: &Service,
        port: &ServicePort,
        addresses: &[IpAddr],
        number: u16,
    ) -> Listener {
        let name = addresses.first().map(ToString::to_string).unwrap_or_default();
        let base = listener::virtual_on(addresses, number);
        if port.protocol == Protocol::Auto {
            let prefix = format!("outbound_{name}_{number};");
            let cluster = self.rules.default_target(&service.host, port.number).cluster;
            let plain = FilterChain {
                filters: self.tcp(&cluster, &self.split(service, port)),
                ..FilterChain::default()
            };
            return Listener {
                name: listener_name(&name, number),
                filter_chains: vec![self.http(prefix, detected_name(service, port))],
                default_filter_chain: Some(plain),
                ..self.inspecting(base, true, true)
            };
        }
        let chains = self.connections_at(service, port);
        let by_name = chains.iter().any(|chain| chain.filter_chain_match.is_some());
        let (named, rest): (Vec<FilterChain>, Vec<FilterChain>) =
            chains.into_iter().partition(|chain| chain.filter_chain_match.is_some());
        let mut rest = rest.into_iter();
        let (filter_chains, default) =
            if by_name { (named, rest.next()) } else { (rest.by_ref().take(1).collect(), None) };
        Listener {
            name: listener_name(&name, number),
            filter_chains,
            default_filter_chain: default,
            ..self.inspecting(base, by_name, false)
        }
    }

    /// Looks at the first bytes before a chain is chosen.
    fn inspecting(&self, base: Listener, tls: bool, http: bool) -> Listener {
        let inspection = Inspection { tls, http, ..Inspection::default() };
        Listener {
            listener_filters: listener::filters(&inspection),
            listener_filters_timeout: (tls || http)
                .then(|| duration(self.mesh.protocol_detection_timeout)),
            continue_on_listener_filters_timeout: tls || http,
            traffic_direction: TrafficDirection::Outbound as i32,
            access_log: access_log::listener_logs(&self.mesh.access_log),
            ..base
        }
    }

    fn http(&self, stat_prefix: String, table: String) -> FilterChain {
        FilterChain {
            filter_chain_match: Some(FilterChainMatch {
                transport_protocol: "raw_buffer".to_owned(),
                application_protocols: ALPN_PLAIN_HTTP.iter().map(|it| (*it).to_owned()).collect(),
                ..FilterChainMatch::default()
            }),
            filters: vec![http_manager(Manager {
                direction: Direction::Outbound,
                stat_prefix,
                routes: Routes::Named(table),
                authorization: Vec::new(),
                istio_filters: self.istio_filters,
                access_log: access_log::logs(&self.mesh.access_log),
            })],
            ..FilterChain::default()
        }
    }

    /// Chains of a service on a listener of every address: told apart by address or server name.
    fn connections(&self, service: &Service, port: &ServicePort) -> Vec<FilterChain> {
        let ranges: Vec<IpNet> = service.addresses.clone();
        let mut chains = self.connections_at(service, port);
        for chain in &mut chains {
            if ranges.is_empty() {
                continue;
            }
            chain.name = range_name(&ranges[0], port.number);
            let matched = chain.filter_chain_match.get_or_insert_default();
            matched.prefix_ranges = ranges.iter().copied().map(cidr).collect();
        }
        chains
    }

    /// Chains of a service where its address is known: TLS routes of its rule by server name, else
    /// one chain; TLS of a service that shares its listener, by its own name.
    fn connections_at(&self, service: &Service, port: &ServicePort) -> Vec<FilterChain> {
        let mut chains = self.by_server_name(service, port);
        let default = self.rules.default_target(&service.host, port.number).cluster;
        let chain = FilterChain {
            filters: self.tcp(&default, &self.split(service, port)),
            ..FilterChain::default()
        };
        let named = port.protocol.is_tls() && service.addresses.is_empty() && service.host != "*";
        if named && chains.is_empty() {
            chains.push(FilterChain {
                filter_chain_match: Some(server_names(vec![service.host.clone()])),
                ..chain
            });
        } else if chains.is_empty() || !service.addresses.is_empty() {
            chains.push(chain);
        }
        chains
    }

    fn by_server_name(&self, service: &Service, port: &ServicePort) -> Vec<FilterChain> {
        if !port.protocol.is_tls() {
            return Vec::new();
        }
        let Some(rule) = self.rules.for_host(&service.host) else { return Vec::new() };
        let caller = self.caller(port.number, rule.namespace());
        let mut chains = Vec::new();
        // A proxy refuses a listener in which two chains take one name: the first has it.
        let mut taken = HashSet::new();
        for route in &rule.spec.tls {
            let targets = self.rules.split(&route.route, rule.namespace(), port.number);
            let fits = route.matches.iter().filter(|it| {
                caller.fits(&it.gateways, &it.source_labels, &it.source_namespace, it.port)
            });
            for matched in fits.filter(|_| !targets.is_empty()) {
                let names = matched.sni_hosts.iter().filter_map(|it| Host::parse(it).ok());
                let names: Vec<String> = names
                    .map(|it| it.as_str().to_owned())
                    .filter(|name| taken.insert(name.clone()))
                    .collect();
                if names.is_empty() {
                    continue;
                }
                chains.push(FilterChain {
                    filter_chain_match: Some(server_names(names)),
                    filters: self.tcp(&targets[0].0, &targets),
                    ..FilterChain::default()
                });
            }
        }
        chains
    }

    /// Where TCP connections go: the first TCP route that fits, else the service.
    fn split(&self, service: &Service, port: &ServicePort) -> Vec<(String, u32)> {
        let default = || vec![(self.rules.default_target(&service.host, port.number).cluster, 0)];
        let Some(rule) = self.rules.for_host(&service.host) else { return default() };
        let caller = self.caller(port.number, rule.namespace());
        let fits = |route: &&lateen_api::networking::TcpRoute| {
            route.matches.is_empty()
                || route.matches.iter().any(|it| {
                    caller.fits(&it.gateways, &it.source_labels, &it.source_namespace, it.port)
                })
        };
        let Some(route) = rule.spec.tcp.iter().find(fits) else { return default() };
        let targets = self.rules.split(&route.route, rule.namespace(), port.number);
        if targets.is_empty() { default() } else { targets }
    }

    fn caller<'c>(&'c self, port: u16, rule: &'c str) -> Caller<'c> {
        let (namespace, labels) = (&self.outbound.namespace, &self.outbound.labels);
        Caller { namespace, labels, port, gateway: None, rule }
    }

    fn tcp(&self, stat_prefix: &str, clusters: &[(String, u32)]) -> Vec<Filter> {
        let logs = access_log::logs(&self.mesh.access_log);
        let stats = self.istio_filters.then(tcp_stats);
        stats.into_iter().chain([tcp_proxy(stat_prefix, clusters, logs, None)]).collect()
    }
}

/// Leaves to a match what no other has taken; false when nothing is left.
fn claim(wanted: &mut FilterChainMatch, taken: &mut HashSet<(Vec<String>, String)>) -> bool {
    let range = |it: &CidrRange| format!("{}/{:?}", it.address_prefix, it.prefix_len);
    let ranges: Vec<String> = wanted.prefix_ranges.iter().map(range).collect();
    if wanted.server_names.is_empty() {
        return taken.insert((ranges, String::new()));
    }
    wanted.server_names.retain(|name| taken.insert((ranges.clone(), name.clone())));
    !wanted.server_names.is_empty()
}

fn server_names(names: Vec<String>) -> FilterChainMatch {
    FilterChainMatch { server_names: names, ..FilterChainMatch::default() }
}
