//! What there is to say about rules that are well-formed but do not fit the mesh: destinations that
//! nobody is, subsets that no rule defines, hosts that are ruled already, policies that cannot be
//! honoured. Remarks change nothing of what is in force.

use std::collections::{HashMap, HashSet};

use lateen_api::Finding;
use lateen_api::host;
use lateen_api::meta::{Labels, ObjectRef};
use lateen_api::networking::{Destination, VirtualService, gateway_of};
use lateen_api::object::Resource;

use super::virtual_services::is_for_sidecars;
use crate::registry::Registry;
use crate::source::Objects;
use crate::translate::authorization_findings;
use crate::translate::input::MeshSettings;

/// All remarks, in order of objects.
pub(super) fn remarks(
    objects: &Objects,
    registry: &Registry,
    mesh: &MeshSettings,
    root: &str,
) -> Vec<Finding> {
    let mut findings = authorization_findings(&objects.authorization_policies, &mesh.trust_domains);
    let known = Known::new(objects, registry, &mesh.cluster_domain);
    let mut ruled: HashMap<(String, String), ObjectRef> = HashMap::new();
    let gateways: HashSet<(&str, &str)> =
        objects.gateways.iter().map(|it| (it.namespace(), it.name())).collect();
    for rule in &objects.virtual_services {
        let object = ObjectRef::new("VirtualService", rule.namespace(), rule.name());
        let mut say = |path: String, message: String| {
            findings.push(Finding::warning(path, message).on(&object, &rule.origin));
        };
        for path in subnets(&rule.spec) {
            let message = "is not honoured yet: connections to and from any address match";
            say(path, message.to_owned());
        }
        for (path, destination) in destinations(&rule.spec) {
            if let Some(message) = known.objection(destination, rule) {
                say(path, message);
            }
        }
        for (index, entry) in rule.spec.gateways.iter().enumerate() {
            let named = gateway_of(entry, rule.namespace());
            if let Some((namespace, name)) = named.filter(|it| !gateways.contains(it)) {
                let message = format!("no Gateway `{namespace}/{name}` is known");
                say(format!("spec.gateways[{index}]"), message);
            }
        }
        // On gateways, rules of one host follow each other.
        let hosts = rule.spec.hosts.iter().filter(|_| is_for_sidecars(&rule.spec));
        for (index, host) in hosts.enumerate() {
            let full = host::resolve(host, rule.namespace(), &mesh.cluster_domain);
            let key = (rule.namespace().to_owned(), full);
            match ruled.get(&key) {
                Some(first) => say(
                    format!("spec.hosts[{index}]"),
                    format!("`{host}` is ruled by the {first} already, which wins: merge the two"),
                ),
                None => drop(ruled.insert(key, object.clone())),
            }
        }
    }
    findings.extend(unused_modes(objects, root));
    findings
}

/// Policies of mutual TLS that decide nothing.
fn unused_modes(objects: &Objects, root: &str) -> Vec<Finding> {
    let mut policies = objects.peer_authentications.clone();
    policies.sort_by(|a, b| a.age().cmp(&b.age()));
    let mut first: HashMap<(String, Labels), ObjectRef> = HashMap::new();
    let mut findings = Vec::new();
    for policy in policies {
        let selector = policy.spec.selector.as_ref().map(|it| it.match_labels.clone());
        let selector = selector.unwrap_or_default();
        let object = ObjectRef::new("PeerAuthentication", policy.namespace(), policy.name());
        let mut say = |path: &str, message: String| {
            findings.push(Finding::warning(path, message).on(&object, &policy.origin));
        };
        if policy.namespace() == root && !selector.is_empty() {
            say("spec.selector", "in the root namespace a selector selects nothing".to_owned());
            continue;
        }
        match first.get(&(policy.namespace().to_owned(), selector.clone())) {
            Some(older) => say("spec", format!("the older {older} is about the same and wins")),
            None => drop(first.insert((policy.namespace().to_owned(), selector), object.clone())),
        }
    }
    findings
}

/// Paths of conditions on addresses.
fn subnets(rule: &VirtualService) -> Vec<String> {
    let mut paths = Vec::new();
    for (index, route) in rule.tcp.iter().enumerate() {
        for (place, matched) in route.matches.iter().enumerate() {
            let path = format!("spec.tcp[{index}].match[{place}]");
            if !matched.destination_subnets.is_empty() {
                paths.push(format!("{path}.destinationSubnets"));
            }
            if !matched.source_subnet.is_empty() {
                paths.push(format!("{path}.sourceSubnet"));
            }
        }
    }
    for (index, route) in rule.tls.iter().enumerate() {
        for (place, matched) in route.matches.iter().enumerate() {
            if !matched.destination_subnets.is_empty() {
                paths.push(format!("spec.tls[{index}].match[{place}].destinationSubnets"));
            }
        }
    }
    paths
}

/// The destinations of a rule with the paths of their fields.
fn destinations(rule: &VirtualService) -> Vec<(String, &Destination)> {
    let mut found = Vec::new();
    for (index, route) in rule.http.iter().enumerate() {
        let path = format!("spec.http[{index}]");
        for (place, to) in route.route.iter().enumerate() {
            found.push((format!("{path}.route[{place}].destination"), &to.destination));
        }
        let mirrors =
            route.mirrors.iter().enumerate().map(|(place, it)| {
                (format!("{path}.mirrors[{place}].destination"), &it.destination)
            });
        found.extend(mirrors);
        found.extend(route.mirror.iter().map(|it| (format!("{path}.mirror"), it)));
    }
    let tcp = rule.tcp.iter().map(|it| &it.route).enumerate().map(|it| ("tcp", it));
    let tls = rule.tls.iter().map(|it| &it.route).enumerate().map(|it| ("tls", it));
    for (kind, (index, routes)) in tcp.chain(tls) {
        for (place, to) in routes.iter().enumerate() {
            let path = format!("spec.{kind}[{index}].route[{place}].destination");
            found.push((path, &to.destination));
        }
    }
    found
}

/// Hosts and subsets that exist.
struct Known<'a> {
    domain: &'a str,
    hosts: HashSet<&'a str>,
    subsets: HashSet<(String, &'a str)>,
    wildcards: Vec<(String, &'a str)>,
}

impl<'a> Known<'a> {
    fn new(objects: &'a Objects, registry: &'a Registry, domain: &'a str) -> Self {
        let hosts = registry.services().iter().map(|one| one.service.host.as_str()).collect();
        let subsets = objects.destination_rules.iter().flat_map(|rule| {
            let host = host::resolve(&rule.spec.host, rule.namespace(), domain);
            rule.spec.subsets.iter().map(move |subset| (host.clone(), subset.name.as_str()))
        });
        let subsets: HashSet<(String, &str)> = subsets.collect();
        let wildcards = subsets.iter().filter(|(host, _)| host.starts_with('*')).cloned();
        Self { domain, hosts, wildcards: wildcards.collect(), subsets }
    }

    fn objection(
        &self,
        destination: &Destination,
        rule: &Resource<VirtualService>,
    ) -> Option<String> {
        let host = host::resolve(&destination.host, rule.namespace(), self.domain);
        if host.contains('*') {
            return None;
        }
        if !self.hosts.contains(host.as_str()) {
            return Some(format!("no service `{host}` is known: requests that match get 503"));
        }
        let subset = destination.subset.as_str();
        let key = (host, subset);
        if subset.is_empty() || self.subsets.contains(&key) {
            return None;
        }
        let (host, _) = key;
        let covers = |(of, name): &(String, &str)| {
            let wildcard = of.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix));
            *name == subset && wildcard
        };
        if self.wildcards.iter().any(covers) {
            return None;
        }
        Some(format!(
            "no DestinationRule of `{host}` has a subset `{subset}`: requests that match get 503"
        ))
    }
}
