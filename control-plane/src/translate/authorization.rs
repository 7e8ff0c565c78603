//! Authorization filters of a workload: DENY first, then ALLOW.
//!
//! Policies of one action become one filter. No ALLOW policy lets everything pass that is not
//! denied; an ALLOW policy without rules lets nothing pass.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action as RbacAction;
use envoy_types::pb::envoy::config::rbac::v3::{Policy, Rbac as Rules};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use lateen_api::meta::ObjectRef;
use lateen_api::object::Resource;
use lateen_api::security::{Action, AuthorizationPolicy};
use lateen_api::{Finding, names};

use super::canonical::RBAC;
use super::filters::{http_filter, network_filter};
use super::pack::any_with;
use super::rbac::{Reader, Ruling, Terms, match_nothing, ruling};

/// Prefix of the statistics of rules that are only tried.
const SHADOW_PREFIX: &str = "istio_dry_run_allow_";
/// The actions that are enforced, in the order in which they decide.
const ACTIONS: [Action; 2] = [Action::Deny, Action::Allow];

type Policies = [Arc<Resource<AuthorizationPolicy>>];

/// The filters for requests.
pub(crate) fn http_filters(policies: &Policies, trust_domains: &[String]) -> Vec<HttpFilter> {
    let filter = |rules| {
        let message = HttpRbac {
            rules: Some(rules),
            shadow_rules_stat_prefix: SHADOW_PREFIX.to_owned(),
            ..HttpRbac::default()
        };
        http_filter("envoy.filters.http.rbac", any_with(&message, &RBAC))
    };
    enforced(policies, trust_domains, Reader::Requests).map(filter).collect()
}

/// The filters of servers that are gRPC libraries: of each name there may be one only.
///
/// Source of names: Istio pilot/pkg/networking/grpcgen/lds.go.
pub(crate) fn grpc_filters(policies: &Policies, trust_domains: &[String]) -> Vec<HttpFilter> {
    let filter = |rules: Rules| {
        let denies = rules.action == RbacAction::Deny as i32;
        let name = if denies { "envoy.filters.http.rbac.DENY" } else { "envoy.filters.http.rbac" };
        http_filter(name, any_with(&HttpRbac { rules: Some(rules), ..HttpRbac::default() }, &RBAC))
    };
    enforced(policies, trust_domains, Reader::Grpc).map(filter).collect()
}

/// The filters for connections.
pub(crate) fn network_filters(policies: &Policies, trust_domains: &[String]) -> Vec<Filter> {
    let filter = |rules| {
        let message = NetworkRbac {
            rules: Some(rules),
            shadow_rules_stat_prefix: SHADOW_PREFIX.to_owned(),
            stat_prefix: "tcp.".to_owned(),
            ..NetworkRbac::default()
        };
        network_filter("envoy.filters.network.rbac", any_with(&message, &RBAC))
    };
    enforced(policies, trust_domains, Reader::Connections).map(filter).collect()
}

/// What in the policies cannot be honoured, on ports of any protocol.
#[must_use]
pub fn findings(policies: &Policies, trust_domains: &[String]) -> Vec<Finding> {
    let mut all = Vec::new();
    for policy in policies.iter().filter(|it| ACTIONS.contains(&it.spec.action)) {
        let object = ObjectRef::new("AuthorizationPolicy", policy.namespace(), policy.name());
        let effect = match policy.spec.action {
            Action::Deny => "the rule denies without looking at it",
            _ => "the rule allows nothing",
        };
        for (index, Ruling { unmet, .. }) in
            rulings(policy, trust_domains, Reader::Requests).enumerate()
        {
            for (path, reason) in unmet {
                let path = format!("spec.rules[{index}].{path}");
                let finding = Finding::warning(path, format!("{reason}: {effect}"));
                all.push(finding.on(&object, &policy.origin));
            }
        }
        if is_tried(policy) {
            let message = "a dry run is not supported: the policy is not enforced and not tried";
            let path = format!("metadata.annotations[{}]", names::annotation::DRY_RUN);
            all.push(Finding::warning(path, message).on(&object, &policy.origin));
        }
    }
    all
}

/// A policy that is only to be tried must never be enforced.
fn is_tried(policy: &Resource<AuthorizationPolicy>) -> bool {
    let wanted = policy.meta.annotations.get(names::annotation::DRY_RUN);
    wanted.is_some_and(|value| matches!(value.as_str(), "true" | "True" | "TRUE" | "t" | "T" | "1"))
}

fn enforced<'a>(
    policies: &'a Policies,
    trust_domains: &'a [String],
    reader: Reader,
) -> impl Iterator<Item = Rules> + 'a {
    ACTIONS.into_iter().filter_map(move |action| {
        let mut chosen =
            policies.iter().filter(|it| it.spec.action == action && !is_tried(it)).peekable();
        chosen.peek()?;
        let named = chosen.flat_map(|policy| named_rules(policy, trust_domains, reader));
        let action = match action {
            Action::Deny => RbacAction::Deny,
            _ => RbacAction::Allow,
        };
        Some(Rules {
            action: action as i32,
            policies: named.collect::<HashMap<String, Policy>>(),
            ..Rules::default()
        })
    })
}

fn named_rules(
    policy: &Resource<AuthorizationPolicy>,
    trust_domains: &[String],
    reader: Reader,
) -> Vec<(String, Policy)> {
    let name = |index: usize| {
        format!("ns[{}]-policy[{}]-rule[{index}]", policy.namespace(), policy.name())
    };
    if policy.spec.rules.is_empty() {
        return vec![(name(0), match_nothing())];
    }
    let rules = rulings(policy, trust_domains, reader).enumerate();
    rules.filter_map(|(index, ruling)| Some((name(index), ruling.policy?))).collect()
}

fn rulings<'a>(
    policy: &'a Resource<AuthorizationPolicy>,
    trust_domains: &'a [String],
    reader: Reader,
) -> impl Iterator<Item = Ruling> + 'a {
    let widens = policy.spec.action == Action::Deny;
    let terms = Terms { reader, widens, namespace: policy.namespace(), trust_domains };
    policy.spec.rules.iter().map(move |rule| ruling(rule, terms))
}
