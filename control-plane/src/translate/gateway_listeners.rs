//! Listeners of gateways: one for each address that is opened.
//!
//! HTTP has one chain; TLS one for each server, or for each rule where TLS is handed on; TCP one
//! chain, and no listener where no rule says where to.

use std::collections::HashSet;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener,
};
use lateen_api::networking::{RouteDestination, VirtualService};
use lateen_api::object::Resource;

use super::access_log;
use super::authorization;
use super::clusters::Families;
use super::filters::{Direction, Manager, Routes, http_manager, tcp_proxy, tcp_stats};
use super::gateway::{Carried, Opening, Placed, Plan};
use super::gateway_tls;
use super::input::{Edge, MeshSettings};
use super::listener::{self, Inspection};
use super::names::listener_name;
use super::pack::{address, duration};
use super::route_match::Caller;
use super::rules::Rules;

/// What the listeners of a gateway depend on besides its plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Build<'a> {
    /// The gateway's part of the mesh.
    pub(crate) edge: &'a Edge,
    /// Where destinations lead.
    pub(crate) rules: &'a Rules<'a>,
    /// Settings of the mesh.
    pub(crate) mesh: &'a MeshSettings,
    /// Whether the proxy has Istio's filters.
    pub(crate) istio_filters: bool,
    /// Address families of the proxy.
    pub(crate) families: Families,
}

impl Build<'_> {
    /// The listeners of a plan.
    pub(crate) fn listeners(&self, plan: &Plan<'_>) -> Vec<Listener> {
        plan.openings.iter().filter_map(|opening| self.listener(opening)).collect()
    }

    fn listener(&self, opening: &Opening<'_>) -> Option<Listener> {
        let chains = match opening.carried {
            Carried::Http => opening.servers.first().map(|it| self.http(it, opening.port)),
            Carried::Tcp => opening.servers.first().and_then(|it| self.tcp(it)),
            Carried::Tls => None,
        };
        let mut chains: Vec<FilterChain> = chains.into_iter().collect();
        let tls = opening.carried == Carried::Tls;
        if tls {
            // A proxy refuses a listener in which two chains take one name: the first has it.
            let mut taken = HashSet::new();
            for placed in &opening.servers {
                chains.extend(self.tls(placed, opening.port, &mut taken));
            }
        }
        if chains.is_empty() {
            return None;
        }
        let anywhere = if self.families.v4 { "0.0.0.0" } else { "::" };
        let at = opening.bind.map_or_else(|| anywhere.to_owned(), |it| it.to_string());
        let base = match opening.bind {
            None => listener::bound(opening.port, self.families),
            Some(bind) => {
                Listener { address: Some(address(bind, opening.port)), ..Listener::default() }
            }
        };
        Some(Listener {
            name: listener_name(&at, opening.port),
            filter_chains: chains,
            listener_filters: listener::filters(&Inspection { tls, ..Inspection::default() }),
            listener_filters_timeout: tls.then(|| duration(self.mesh.protocol_detection_timeout)),
            traffic_direction: TrafficDirection::Outbound as i32,
            access_log: access_log::listener_logs(&self.mesh.access_log),
            ..base
        })
    }

    fn http(&self, placed: &Placed<'_>, port: u16) -> FilterChain {
        let table = placed.table_name(port);
        let policies = &self.edge.policies;
        let manager = Manager {
            direction: Direction::Gateway,
            stat_prefix: format!("outbound_0.0.0.0_{port};"),
            routes: Routes::Named(table),
            authorization: authorization::http_filters(policies, &self.mesh.trust_domains),
            istio_filters: self.istio_filters,
            access_log: access_log::logs(&self.mesh.access_log),
        };
        FilterChain { filters: vec![http_manager(manager)], ..FilterChain::default() }
    }

    /// The chain of the first TCP route that fits.
    fn tcp(&self, placed: &Placed<'_>) -> Option<FilterChain> {
        let filters = self.rules_of(placed).find_map(|rule| {
            let caller = self.caller(placed, rule);
            let route = rule.spec.tcp.iter().find(|route| {
                route.matches.is_empty()
                    || route.matches.iter().any(|it| {
                        caller.fits(&it.gateways, &it.source_labels, &it.source_namespace, it.port)
                    })
            })?;
            self.towards(placed, rule, &route.route)
        })?;
        Some(FilterChain { filters, ..FilterChain::default() })
    }

    fn tls(&self, placed: &Placed<'_>, port: u16, taken: &mut HashSet<String>) -> Vec<FilterChain> {
        if placed.passes_tls() {
            return self.handed_on(placed, taken);
        }
        let names = placed.server_names();
        let Some(names) = claim(names, taken) else { return Vec::new() };
        let ended = gateway_tls::server(placed, self.mesh);
        let chain =
            if placed.reads_http() { Some(self.http(placed, port)) } else { self.tcp(placed) };
        chain
            .zip(ended)
            .map(|(chain, ended)| FilterChain {
                filter_chain_match: Some(server_names(names)),
                transport_socket: Some(ended),
                ..chain
            })
            .into_iter()
            .collect()
    }

    /// Chains of TLS that goes on as it came: by the server names of rules.
    fn handed_on(&self, placed: &Placed<'_>, taken: &mut HashSet<String>) -> Vec<FilterChain> {
        let mut chains = Vec::new();
        for rule in self.rules_of(placed) {
            let caller = self.caller(placed, rule);
            for route in &rule.spec.tls {
                let fits = route.matches.iter().filter(|it| {
                    caller.fits(&it.gateways, &it.source_labels, &it.source_namespace, it.port)
                });
                for matched in fits {
                    let domain = &self.mesh.cluster_domain;
                    let shared = placed.shared(&matched.sni_hosts, rule.namespace(), domain);
                    let any = shared.iter().any(|host| host.as_str() == "*");
                    let names = shared.iter().filter(|_| !any).map(|it| it.as_str().to_owned());
                    let names: Vec<String> = names.collect();
                    let Some(filters) = self.towards(placed, rule, &route.route) else { continue };
                    if names.is_empty() && !any {
                        continue;
                    }
                    chains.extend(claim(names, taken).map(|names| FilterChain {
                        filter_chain_match: Some(server_names(names)),
                        filters,
                        ..FilterChain::default()
                    }));
                }
            }
        }
        chains
    }

    /// Rules of a server that share a host with it.
    fn rules_of<'s>(
        &'s self,
        placed: &'s Placed<'_>,
    ) -> impl Iterator<Item = &'s Resource<VirtualService>> {
        let domain = &self.mesh.cluster_domain;
        let all = self.edge.virtual_services.iter().map(|rule| &**rule);
        all.filter(move |rule| {
            placed.carries(rule)
                && !placed.shared(&rule.spec.hosts, rule.namespace(), domain).is_empty()
        })
    }

    fn caller<'s>(
        &'s self,
        placed: &'s Placed<'_>,
        rule: &'s Resource<VirtualService>,
    ) -> Caller<'s> {
        Caller {
            namespace: &self.edge.namespace,
            labels: &self.edge.labels,
            port: placed.number,
            gateway: Some((placed.gateway.namespace(), placed.gateway.name())),
            rule: rule.namespace(),
        }
    }

    /// Filters that hand bytes on; `None` without a destination.
    fn towards(
        &self,
        placed: &Placed<'_>,
        rule: &Resource<VirtualService>,
        destinations: &[RouteDestination],
    ) -> Option<Vec<Filter>> {
        let clusters = self.rules.split(destinations, rule.namespace(), placed.number);
        let first = clusters.first()?;
        let trust_domains = &self.mesh.trust_domains;
        let mut filters = authorization::network_filters(&self.edge.policies, trust_domains);
        if self.istio_filters {
            filters.push(tcp_stats());
        }
        let logs = access_log::logs(&self.mesh.access_log);
        filters.push(tcp_proxy(&first.0, &clusters, logs, None));
        Some(filters)
    }
}

/// The names that no other chain has; `None` when nothing is left.
fn claim(names: Vec<String>, taken: &mut HashSet<String>) -> Option<Vec<String>> {
    if names.is_empty() {
        return taken.insert(String::new()).then_some(names);
    }
    let mut names = names;
    names.retain(|name| taken.insert(name.clone()));
    (!names.is_empty()).then_some(names)
}

fn server_names(names: Vec<String>) -> FilterChainMatch {
    FilterChainMatch { server_names: names, ..FilterChainMatch::default() }
}
