//! Route tables of outbound HTTP: one for each port, one for each port whose protocol is detected.
//!
//! A virtual host for each service with its names and addresses, routes of its virtual service or
//! the one default route, and in the end what becomes of hosts that nobody knows.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    Decorator, DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch,
    VirtualHost,
};
use lateen_api::networking::{Destination, HttpRoute, VirtualService};
use lateen_api::object::Resource;
use lateen_api::port::Protocol;

use super::input::{MeshSettings, Outbound, Service, ServicePort};
use super::names::PASSTHROUGH;
use super::pack::{flag, number};
use super::route_action::{Target, action, forward_to, live, timed};
use super::route_match::{Caller, everything, route_match, takes_everything};
use super::route_policy::{HeaderChanges, filter_configs, header_changes};
use super::rules::Rules;

/// Port of route tables that know hosts which are no services.
const USUAL_PORT: u16 = 80;
/// Largest body of a direct response, in bytes.
const MAX_DIRECT_RESPONSE: u32 = 1 << 20;

/// Name of the route table of one port of one service.
pub(crate) fn detected_name(service: &Service, port: &ServicePort) -> String {
    format!("{}:{}", service.host, port.number)
}

/// Every route table that the outbound listeners refer to.
pub(crate) fn tables(outbound: &Outbound, mesh: &MeshSettings) -> Vec<RouteConfiguration> {
    let build = Build::new(outbound, mesh);
    let mut by_port: BTreeMap<u16, Vec<(&Service, &ServicePort)>> = BTreeMap::new();
    let mut tables = Vec::new();
    for service in &outbound.services {
        for port in &service.ports {
            if port.protocol.is_http() {
                by_port.entry(port.number).or_default().push((service, port));
            } else if port.protocol == Protocol::Auto {
                tables.push(build.of_port(service, port, detected_name(service, port)));
            }
        }
    }
    tables.extend(by_port.into_iter().map(|(number, all)| build.port(number, &all)));
    tables
}

/// Makes the route tables of what a proxy sees.
pub(crate) struct Build<'a> {
    outbound: &'a Outbound,
    mesh: &'a MeshSettings,
    rules: Rules<'a>,
}

impl<'a> Build<'a> {
    pub(crate) fn new(outbound: &'a Outbound, mesh: &'a MeshSettings) -> Self {
        Self { outbound, mesh, rules: Rules::new(outbound, &mesh.cluster_domain) }
    }

    fn port(&self, number: u16, services: &[(&Service, &ServicePort)]) -> RouteConfiguration {
        let mut taken = HashSet::new();
        let mut hosts: Vec<VirtualHost> = services
            .iter()
            .filter_map(|(service, port)| {
                let domains = self.domains(service);
                self.virtual_host(&service.host, port.number, domains, &mut taken)
            })
            .collect();
        // Hosts that no service is have no port: they are known where HTTP is usual.
        let beyond = self.rules.beyond_services().filter(|_| number == USUAL_PORT);
        for (host, rule) in beyond {
            let name = host.as_str();
            if taken.insert(name.to_owned()) {
                hosts.push(VirtualHost {
                    name: format!("{name}:{number}"),
                    domains: vec![name.to_owned()],
                    routes: self.routes(rule, number),
                    include_request_attempt_count: true,
                    ..VirtualHost::default()
                });
            }
        }
        hosts.retain(|host| !host.routes.is_empty());
        if !taken.contains("*") {
            hosts.push(self.unknown_hosts());
        }
        table(number.to_string(), hosts)
    }

    /// The table for where the service is known already, so that the host does not matter.
    pub(crate) fn of_port(
        &self,
        service: &Service,
        port: &ServicePort,
        name: String,
    ) -> RouteConfiguration {
        let any = vec!["*".to_owned()];
        let host = self.virtual_host(&service.host, port.number, any, &mut HashSet::new());
        table(name, host.into_iter().collect())
    }

    /// A virtual host with the domains that no other has taken.
    fn virtual_host(
        &self,
        host: &str,
        number: u16,
        domains: Vec<String>,
        taken: &mut HashSet<String>,
    ) -> Option<VirtualHost> {
        let domains: Vec<String> =
            domains.into_iter().filter(|domain| taken.insert(domain.clone())).collect();
        if domains.is_empty() {
            return None;
        }
        // A rule of which nothing holds for this caller and port is none.
        let ruled = self.rules.for_host(host).map(|rule| self.routes(rule, number));
        let routes = ruled
            .filter(|routes| !routes.is_empty())
            .unwrap_or_else(|| vec![self.default_route(host, number)]);
        Some(VirtualHost {
            name: format!("{host}:{number}"),
            domains,
            routes,
            include_request_attempt_count: true,
            ..VirtualHost::default()
        })
    }

    /// All names and addresses that stand for a service, seen from the proxy's namespace.
    fn domains(&self, service: &Service) -> Vec<String> {
        let mut domains = vec![service.host.clone()];
        domains.extend(short_names(service, &self.outbound.namespace));
        if service.is_headless() {
            // Its pods have names below its own.
            let pods: Vec<String> = domains.iter().map(|name| format!("*.{name}")).collect();
            domains.extend(pods);
        }
        domains.extend(service.single_addresses().map(|address| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }));
        domains
    }

    fn routes(&self, rule: &Resource<VirtualService>, number: u16) -> Vec<Route> {
        let caller = Caller {
            namespace: &self.outbound.namespace,
            labels: &self.outbound.labels,
            port: number,
            gateway: None,
            rule: rule.namespace(),
        };
        of_rule(&self.rules, &caller, rule)
    }

    fn default_route(&self, host: &str, number: u16) -> Route {
        Route {
            name: "default".to_owned(),
            r#match: Some(everything()),
            decorator: Some(Decorator {
                operation: format!("{host}:{number}/*"),
                ..Decorator::default()
            }),
            action: Some(Action::Route(forward_to(self.rules.default_target(host, number)))),
            ..Route::default()
        }
    }

    fn unknown_hosts(&self) -> VirtualHost {
        let (name, action) = if self.mesh.allow_any_outbound {
            let through = RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(PASSTHROUGH.to_owned())),
                ..timed(Duration::ZERO)
            };
            ("allow_any", Action::Route(through))
        } else {
            let refused = DirectResponseAction { status: 502, ..DirectResponseAction::default() };
            ("block_all", Action::DirectResponse(refused))
        };
        VirtualHost {
            name: name.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![Route {
                name: name.to_owned(),
                r#match: Some(everything()),
                action: Some(action),
                ..Route::default()
            }],
            include_request_attempt_count: true,
            ..VirtualHost::default()
        }
    }
}

/// The names besides its host that stand for a service, seen from a namespace.
pub(crate) fn short_names(service: &Service, from: &str) -> Vec<String> {
    if !service.kubernetes {
        return Vec::new();
    }
    let (name, namespace) = (&service.name, &service.namespace);
    let own = (namespace == from).then(|| name.clone());
    let longer = [format!("{name}.{namespace}"), format!("{name}.{namespace}.svc")];
    own.into_iter().chain(longer).collect()
}

/// The routes of a rule that can hold for a caller, up to the one that takes every request.
pub(crate) fn of_rule(
    rules: &Rules<'_>,
    caller: &Caller<'_>,
    rule: &Resource<VirtualService>,
) -> Vec<Route> {
    let mut routes = Vec::new();
    for http in &rule.spec.http {
        let matches: Vec<(String, RouteMatch)> = if http.matches.is_empty() {
            vec![(http.name.clone(), everything())]
        } else {
            let fitting = http.matches.iter().filter(|it| caller.may_match(it));
            fitting.map(|it| (route_name(&http.name, &it.name), route_match(it))).collect()
        };
        for (name, matched) in matches {
            let last = takes_everything(&matched);
            let target = |it: &Destination| rules.target(it, rule.namespace(), caller.port);
            routes.extend(route(http, (name, matched), &target));
            if last {
                return routes;
            }
        }
    }
    routes
}

fn route(
    http: &HttpRoute,
    (name, matched): (String, RouteMatch),
    target: &dyn Fn(&Destination) -> Target,
) -> Option<Route> {
    let action = action(http, &target)?;
    let mut destinations = live(&http.route);
    let only = destinations.next().filter(|_| destinations.next().is_none());
    let changes = http.headers.as_ref().map(header_changes).unwrap_or_default();
    let own = only.and_then(|it| it.headers.as_ref()).map(header_changes).unwrap_or_default();
    let HeaderChanges { request_add, request_remove, response_add, response_remove, host: _ } =
        changes.and(own);
    let operation = match &action {
        Action::Route(route) => operation(route),
        _ => None,
    };
    Some(Route {
        name,
        r#match: Some(matched),
        decorator: operation.map(|operation| Decorator { operation, ..Decorator::default() }),
        typed_per_filter_config: filter_configs(http.fault.as_ref(), http.cors_policy.as_ref()),
        request_headers_to_add: request_add,
        request_headers_to_remove: request_remove,
        response_headers_to_add: response_add,
        response_headers_to_remove: response_remove,
        action: Some(action),
        ..Route::default()
    })
}

fn route_name(route: &str, matched: &str) -> String {
    match (route.is_empty(), matched.is_empty()) {
        (_, true) => route.to_owned(),
        (true, false) => matched.to_owned(),
        (false, false) => format!("{route}.{matched}"),
    }
}

/// What tracing calls the request: host and port of the first destination.
fn operation(route: &RouteAction) -> Option<String> {
    let cluster = match route.cluster_specifier.as_ref()? {
        ClusterSpecifier::Cluster(name) => name,
        ClusterSpecifier::WeightedClusters(weighted) => &weighted.clusters.first()?.name,
        _ => return None,
    };
    let mut parts = cluster.split('|').skip(1);
    let (port, _, host) = (parts.next()?, parts.next()?, parts.next()?);
    Some(format!("{host}:{port}/*"))
}

/// A route table.
pub(crate) fn table(name: String, virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration {
        name,
        virtual_hosts,
        validate_clusters: Some(flag(false)),
        max_direct_response_body_size_bytes: Some(number(MAX_DIRECT_RESPONSE)),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}
