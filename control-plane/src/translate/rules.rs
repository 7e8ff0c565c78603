//! Which virtual service holds for a host, and where its destinations lead.
//!
//! The most specific host wins; of equals, the first rule. Destinations that name no port take the
//! only port of their service, else the port that was called.

use std::collections::HashMap;

use lateen_api::host::{self, Host};
use lateen_api::networking::{Destination, VirtualService};
use lateen_api::object::Resource;

use super::input::{Outbound, Service};
use super::names::outbound_cluster;
use super::route_action::Target;
use super::traffic_policy::Policy;

/// A virtual service with its hosts in full.
#[derive(Debug)]
pub(crate) struct Ruling<'a> {
    /// The rule.
    pub(crate) rule: &'a Resource<VirtualService>,
    /// Its hosts; those that are no names are left out.
    pub(crate) hosts: Vec<Host>,
}

/// The rules that hold for a proxy, and what they may refer to.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    outbound: &'a Outbound,
    domain: &'a str,
    rulings: Vec<Ruling<'a>>,
    services: HashMap<&'a str, &'a Service>,
}

impl<'a> Rules<'a> {
    /// The rules of what a proxy sees, in a cluster of this DNS domain.
    pub(crate) fn new(outbound: &'a Outbound, domain: &'a str) -> Self {
        let rulings = outbound.virtual_services.iter().map(|rule| {
            let full =
                |name: &String| Host::parse(&host::resolve(name, rule.namespace(), domain)).ok();
            Ruling { rule, hosts: rule.spec.hosts.iter().filter_map(full).collect() }
        });
        let services = outbound.services.iter().map(|it| (it.host.as_str(), &**it));
        Self { outbound, domain, rulings: rulings.collect(), services: services.collect() }
    }

    /// The rule that holds for a host.
    pub(crate) fn for_host(&self, host: &str) -> Option<&'a Resource<VirtualService>> {
        let wanted = Host::parse(host).ok()?;
        let hosts = self.rulings.iter().flat_map(|ruling| &ruling.hosts);
        let best = host::most_specific(&wanted, hosts)?;
        let ruling = self.rulings.iter().find(|ruling| ruling.hosts.contains(best))?;
        Some(ruling.rule)
    }

    /// Hosts of rules that are no service's, each with the rule that holds for it.
    pub(crate) fn beyond_services(
        &self,
    ) -> impl Iterator<Item = (&Host, &'a Resource<VirtualService>)> {
        let mut seen: Vec<&Host> = Vec::new();
        let all = self.rulings.iter().flat_map(|it| it.hosts.iter().map(|host| (host, it.rule)));
        all.filter(move |(host, _)| {
            let new = !self.services.contains_key(host.as_str()) && !seen.contains(host);
            if new {
                seen.push(host);
            }
            new
        })
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

    /// Where a service's port leads when no rule says otherwise.
    pub(crate) fn default_target(&self, host: &str, port: u16) -> Target {
        let rule = self.outbound.destination_rules.get(host).map(|rule| &rule.spec);
        Target {
            cluster: outbound_cluster(port, "", host),
            hash_policies: Policy::of(rule, "", port).hash_policies(),
        }
    }
}
