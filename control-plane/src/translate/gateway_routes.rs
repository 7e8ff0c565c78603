//! Route tables of gateways: one for all HTTP servers of a port, one for each HTTPS server.
//!
//! A virtual host for each host that both a server and a rule of it name. Rules of one host follow
//! each other, those that win first; what takes every request comes last. Hosts without a rule get
//! 404.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::redirect_action::SchemeRewriteSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::{
    RedirectAction, Route, RouteConfiguration, VirtualHost,
};

use lateen_api::Resource;
use lateen_api::networking::VirtualService;

use super::gateway::{Placed, Plan};
use super::input::{Edge, MeshSettings};
use super::route_match::{Caller, everything, takes_everything};
use super::routes;
use super::rules::Rules;

/// Every route table that the listeners of a plan refer to.
pub(crate) fn tables(
    plan: &Plan<'_>,
    edge: &Edge,
    rules: &Rules<'_>,
    mesh: &MeshSettings,
) -> Vec<RouteConfiguration> {
    let mut by_name: BTreeMap<String, (u16, Vec<&Placed<'_>>)> = BTreeMap::new();
    for opening in &plan.openings {
        for placed in opening.servers.iter().filter(|it| it.reads_http()) {
            let name = placed.table_name(opening.port);
            by_name.entry(name).or_insert((opening.port, Vec::new())).1.push(placed);
        }
    }
    let build = Build { edge, rules, mesh };
    by_name.into_iter().map(|(name, (port, servers))| build.table(name, port, &servers)).collect()
}

struct Build<'a> {
    edge: &'a Edge,
    rules: &'a Rules<'a>,
    mesh: &'a MeshSettings,
}

impl Build<'_> {
    fn table(&self, name: String, port: u16, servers: &[&Placed<'_>]) -> RouteConfiguration {
        let mut hosts: BTreeMap<String, VirtualHost> = BTreeMap::new();
        for placed in servers {
            self.serve(placed, &mut hosts);
        }
        for placed in servers.iter().filter(|it| redirects(it)) {
            // Also what a rule serves below a wildcard of the server.
            let rules = self.edge.virtual_services.iter().filter(|rule| placed.carries(rule));
            let ruled = rules.flat_map(|rule| self.shared(placed, rule));
            let named = placed.hosts().map(|host| host.as_str().to_owned());
            for host in named.chain(ruled) {
                let new = || virtual_host(&host, placed.number);
                hosts.entry(host.clone()).or_insert_with(new).routes = vec![to_https()];
            }
        }
        let mut hosts: Vec<VirtualHost> = hosts.into_values().collect();
        hosts.iter_mut().for_each(|host| order(&mut host.routes));
        hosts.retain(|host| !host.routes.is_empty());
        if hosts.is_empty() {
            hosts.push(VirtualHost {
                name: format!("blackhole:{port}"),
                domains: vec!["*".to_owned()],
                ..VirtualHost::default()
            });
        }
        routes::table(name, hosts)
    }

    fn serve(&self, placed: &Placed<'_>, hosts: &mut BTreeMap<String, VirtualHost>) {
        let gateway = Some((placed.gateway.namespace(), placed.gateway.name()));
        for rule in self.edge.virtual_services.iter().filter(|rule| placed.carries(rule)) {
            let shared = self.shared(placed, rule);
            if shared.is_empty() {
                continue;
            }
            let caller = Caller {
                namespace: &self.edge.namespace,
                labels: &self.edge.labels,
                port: placed.number,
                gateway,
                rule: rule.namespace(),
            };
            let made = routes::of_rule(self.rules, &caller, rule);
            for host in shared {
                let new = || virtual_host(&host, placed.number);
                hosts.entry(host.clone()).or_insert_with(new).routes.extend(made.iter().cloned());
            }
        }
    }

    /// Hosts that a server and a rule both name.
    fn shared(&self, placed: &Placed<'_>, rule: &Resource<VirtualService>) -> Vec<String> {
        let domain = &self.mesh.cluster_domain;
        let shared = placed.shared(&rule.spec.hosts, rule.namespace(), domain);
        shared.into_iter().map(|host| host.as_str().to_owned()).collect()
    }
}

fn redirects(placed: &Placed<'_>) -> bool {
    let redirects = placed.server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
    redirects && placed.server.protocol().is_http()
}

fn virtual_host(host: &str, number: u16) -> VirtualHost {
    VirtualHost {
        name: format!("{host}:{number}"),
        domains: vec![host.to_owned()],
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// The same request, with TLS.
fn to_https() -> Route {
    Route {
        name: "https-redirect".to_owned(),
        r#match: Some(everything()),
        action: Some(Action::Redirect(RedirectAction {
            scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::HttpsRedirect(true)),
            ..RedirectAction::default()
        })),
        ..Route::default()
    }
}

/// What takes every request comes last, and only the first of those is of use.
fn order(routes: &mut Vec<Route>) {
    let all = |route: &Route| route.r#match.as_ref().is_some_and(takes_everything);
    routes.sort_by_key(all);
    let last = routes.iter().position(all);
    if let Some(last) = last {
        routes.truncate(last + 1);
    }
}
