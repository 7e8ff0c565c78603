//! Which virtual service holds for a host, and where its destinations lead.
//!
//! The most specific host wins; of equals, the first rule. Destinations that name no port take the
//! only port of their service, else the port that was called.

use std::collections::{HashMap, HashSet};

use lateen_api::host::{self, Host};
use lateen_api::networking::{Destination, RouteDestination, VirtualService};
use lateen_api::object::Resource;

use super::input::{Outbound, Service};
use super::names::outbound_cluster;
use super::route_action::Target;
use super::traffic_policy::Policy;

type Ruling<'a> = &'a Resource<VirtualService>;

/// The rules that hold for a proxy, and what they may refer to.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    outbound: &'a Outbound,
    domain: &'a str,
    /// Hosts in full with the first rule of each, in the order in which they win; those that are
    /// no names are left out.
    rulings: Vec<(Host, Ruling<'a>)>,
    /// Places of names that are no wildcards.
    exact: HashMap<Host, usize>,
    services: HashMap<&'a str, &'a Service>,
}

impl<'a> Rules<'a> {
    /// The rules of what a proxy sees, in a cluster of this DNS domain.
    pub(crate) fn new(outbound: &'a Outbound, domain: &'a str) -> Self {
        let mut known = HashSet::new();
        let mut rulings: Vec<(Host, Ruling<'a>)> = Vec::new();
        for rule in &outbound.virtual_services {
            let full =
                |name: &String| Host::parse(&host::resolve(name, rule.namespace(), domain)).ok();
            let hosts = rule.spec.hosts.iter().filter_map(full);
            rulings.extend(hosts.filter(|it| known.insert(it.clone())).map(|it| (it, &**rule)));
        }
        let places = rulings.iter().enumerate();
        let exact = places.filter(|(_, (host, _))| !host.is_wildcard());
        let exact = exact.map(|(place, (host, _))| (host.clone(), place)).collect();
        let services = outbound.services.iter().map(|it| (it.host.as_str(), &**it)).collect();
        Self { outbound, domain, rulings, exact, services }
    }

    /// The rule that holds for a host.
    pub(crate) fn for_host(&self, host: &str) -> Option<&'a Resource<VirtualService>> {
        let wanted = Host::parse(host).ok()?;
        if let Some(place) = self.exact.get(&wanted) {
            return self.rulings.get(*place).map(|(_, rule)| *rule);
        }
        let wildcards = self.rulings.iter().filter(|(host, _)| host.is_wildcard());
        let best = host::most_specific(&wanted, wildcards.clone().map(|(host, _)| host))?;
        wildcards.clone().find(|(host, _)| host == best).map(|(_, rule)| *rule)
    }

    /// Hosts of rules that are no service's, each with the rule that holds for it.
    pub(crate) fn beyond_services(
        &self,
    ) -> impl Iterator<Item = (&Host, &'a Resource<VirtualService>)> {
        let unknown = |(host, _): &&(Host, _)| !self.services.contains_key(host.as_str());
        self.rulings.iter().filter(unknown).map(|(host, rule)| (host, *rule))
    }

    /// Where a destination of a rule in `namespace` leads, for a connection to `port`.
    pub(crate) fn target(&self, destination: &Destination, namespace: &str, port: u16) -> Target {
        let host = host::resolve(&destination.host, namespace, self.domain);
        let service = self.services.get(host.as_str());
        let only = service.and_then(|service| match service.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        });
        let named = destination.port.and_then(|port| u16::try_from(port.number).ok());
        let number = named.filter(|number| *number != 0).or(only).unwrap_or(port);
        let rule = self.outbound.destination_rules.get(&host).map(|rule| &rule.spec);
        Target {
            cluster: outbound_cluster(number, &destination.subset, &host),
            hash_policies: Policy::of(rule, &destination.subset, number).hash_policies(),
        }
    }

    /// The clusters that connections are split between, with their shares.
    pub(crate) fn split(
        &self,
        destinations: &[RouteDestination],
        namespace: &str,
        port: u16,
    ) -> Vec<(String, u32)> {
        let live = destinations.iter().filter(|it| destinations.len() == 1 || it.weight > 0);
        live.map(|it| (self.target(&it.destination, namespace, port).cluster, it.weight)).collect()
    }

    /// Where a service's port leads when no rule says otherwise.
    pub(crate) fn default_target(&self, host: &str, port: u16) -> Target {
        let rule = self.outbound.destination_rules.get(host).map(|rule| &rule.spec);
        Target {
            cluster: outbound_cluster(port, "", host),
            hash_policies: Policy::of(rule, "", port).hash_policies(),
        }
    }
}
