//! Which destination rule holds for a service, seen from a namespace.
//!
//! Looked for in the caller's namespace, then the service's, then the root namespace; the first
//! that has one wins, and nothing is merged across. Within a namespace rules of one host that are
//! seen by the same namespaces become one: subsets together, the first traffic policy. A rule for
//! certain workloads comes before one for all. Source: Istio's `destinationRule` lookup and
//! `mergeDestinationRule`.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::host::{self, Host};
use lateen_api::meta::{Labels, selects};
use lateen_api::networking::DestinationRule;
use lateen_api::object::Resource;

use crate::registry::Visibility;
use crate::serve::generation::Scope;
use crate::translate::input::Service;

type Rule = Arc<Resource<DestinationRule>>;

/// A rule, or several that have become one.
#[derive(Debug)]
struct Merged {
    selector: Option<Labels>,
    seen: Visibility,
    rule: Rule,
}

/// The rules of the mesh, by namespace.
#[derive(Debug, Default)]
pub(super) struct DestinationRules {
    root: String,
    by_namespace: HashMap<String, OfNamespace>,
}

/// Rules of a namespace: those of one host together, and the hosts that are wildcards.
#[derive(Debug, Default)]
struct OfNamespace {
    by_host: HashMap<Host, Vec<Merged>>,
    wildcards: Vec<Host>,
}

impl DestinationRules {
    pub(super) fn new(
        rules: &[Rule],
        default_export_to: &[String],
        (domain, root): (&str, &str),
    ) -> Self {
        let mut oldest_first = rules.to_vec();
        oldest_first.sort_by(|a, b| a.age().cmp(&b.age()));
        let mut by_namespace: HashMap<String, OfNamespace> = HashMap::new();
        for rule in oldest_first {
            let namespace = rule.namespace().to_owned();
            let Ok(host) = Host::parse(&host::resolve(&rule.spec.host, &namespace, domain)) else {
                continue;
            };
            let seen = Visibility::of(&rule.spec.export_to, default_export_to, &namespace);
            let selector = rule.spec.workload_selector.as_ref().map(|it| it.labels.clone());
            let of = by_namespace.entry(namespace).or_default();
            if host.is_wildcard() && !of.by_host.contains_key(&host) {
                of.wildcards.push(host.clone());
            }
            let merged = of.by_host.entry(host).or_default();
            let same = |it: &&mut Merged| it.seen == seen && it.selector == selector;
            match merged.iter_mut().find(same) {
                Some(first) => first.rule = joined(&first.rule, &rule),
                None => merged.push(Merged { selector, seen, rule }),
            }
        }
        Self { root: root.to_owned(), by_namespace }
    }

    /// The rule that holds for a service, seen from a scope.
    pub(super) fn for_service(&self, service: &Service, scope: &Scope) -> Option<Rule> {
        if self.by_namespace.is_empty() {
            return None;
        }
        let wanted = Host::parse(&service.host).ok()?;
        let own = Some(scope.namespace.as_str()).filter(|it| *it != self.root);
        let places = own.into_iter().chain([service.namespace.as_str(), self.root.as_str()]);
        places.into_iter().find_map(|namespace| self.within(namespace, &wanted, scope))
    }

    fn within(&self, namespace: &str, wanted: &Host, scope: &Scope) -> Option<Rule> {
        let of = self.by_namespace.get(namespace)?;
        let wildcards = of.wildcards.iter().filter(|it| *it != wanted && it.covers(wanted));
        let candidates = std::iter::once(wanted)
            .chain(wildcards)
            .flat_map(|host| of.by_host.get(host).into_iter().flatten().map(move |it| (host, it)))
            .filter(|(_, it)| {
                it.seen.reaches(&scope.namespace)
                    && it.selector.as_ref().is_none_or(|it| selects(it, &scope.labels))
            });
        // The first of equals is the oldest: only a better one replaces it.
        let (_, best) = candidates.reduce(|best, other| {
            let rank = |(host, it): (&Host, &Merged)| {
                (it.selector.is_some(), !host.is_wildcard(), host.as_str().len())
            };
            if rank(other) > rank(best) { other } else { best }
        })?;
        Some(Arc::clone(&best.rule))
    }

    /// Keys of the labels of callers that rules ask for.
    pub(super) fn asked_labels(&self) -> impl Iterator<Item = &String> {
        let all = self.by_namespace.values().flat_map(|it| it.by_host.values().flatten());
        all.filter_map(|it| it.selector.as_ref()).flat_map(Labels::keys)
    }
}

/// The older rule with the subsets that only the younger one has, and its policy where the older
/// one has none.
fn joined(older: &Rule, younger: &Rule) -> Rule {
    let mut rule = Resource::clone(older);
    let known = |rule: &DestinationRule, name: &str| rule.subsets.iter().any(|it| it.name == name);
    for subset in &younger.spec.subsets {
        if !known(&rule.spec, &subset.name) {
            rule.spec.subsets.push(subset.clone());
        }
    }
    if rule.spec.traffic_policy.is_none() {
        rule.spec.traffic_policy.clone_from(&younger.spec.traffic_policy);
    }
    Arc::new(rule)
}
