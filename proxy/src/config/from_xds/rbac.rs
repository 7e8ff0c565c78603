//! Authorization rules.
//!
//! Metadata matchers (claims of a request token) look at data that only filters this proxy does
//! not take could provide; they are decided here as Envoy decides them without such data.

use super::field::cidr;
use super::matcher::{header, path, string};
use super::{At, Refusal, path_template, unsupported};
use crate::config::{Name, Permission, Policy, Principal, Rbac, RbacAction, StringMatch};
use envoy_types::pb::envoy::config::rbac::v3::permission::Rule;
use envoy_types::pb::envoy::config::rbac::v3::principal::Identifier;
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
use envoy_types::pb::envoy::config::rbac::v3::{
    Permission as PermissionProto, Policy as PolicyProto, Principal as PrincipalProto,
    Rbac as RbacProto,
};
use envoy_types::pb::envoy::r#type::matcher::v3::MetadataMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use std::sync::Arc;

/// Deepest nesting of rules.
const MAX_DEPTH: usize = 32;
/// Filter state that only tunnelled (HBONE) connections have.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

/// What the HTTP and the network filter have in common.
pub(super) struct Parts<'a> {
    pub(super) rules: Option<&'a RbacProto>,
    pub(super) shadow_rules: Option<&'a RbacProto>,
    pub(super) stat_prefix: &'a str,
    pub(super) shadow_stat_prefix: &'a str,
}

/// A filter becomes one rule set for its rules and one for its shadow rules.
pub(super) fn filter(parts: &Parts<'_>) -> Result<Vec<Arc<Rbac>>, Refusal> {
    let mut sets = Vec::with_capacity(2);
    if let Some(rules) = parts.rules {
        sets.push(Arc::new(rule_set(rules, false, parts.stat_prefix).at("rules")?));
    }
    if let Some(rules) = parts.shadow_rules {
        sets.push(Arc::new(rule_set(rules, true, parts.shadow_stat_prefix).at("shadow_rules")?));
    }
    Ok(sets)
}

fn rule_set(proto: &RbacProto, shadow: bool, stat_prefix: &str) -> Result<Rbac, Refusal> {
    let action = match Action::try_from(proto.action) {
        Ok(Action::Allow) => RbacAction::Allow,
        Ok(Action::Deny) => RbacAction::Deny,
        Ok(Action::Log) => RbacAction::Log,
        Err(_) => return Err(Refusal::new("unknown action")).at("action"),
    };
    unsupported(&[("audit_logging_options", proto.audit_logging_options.is_some())])?;
    let mut policies: Vec<(Name, Policy)> = Vec::with_capacity(proto.policies.len());
    for (name, policy) in &proto.policies {
        let policy = take_policy(policy).at(&format!("policies[{name}]"))?;
        policies.push((name.as_str().into(), policy));
    }
    policies.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Rbac { action, policies, shadow, stat_prefix: stat_prefix.into() })
}

fn take_policy(proto: &PolicyProto) -> Result<Policy, Refusal> {
    unsupported(&[
        ("condition", proto.condition.is_some()),
        ("checked_condition", proto.checked_condition.is_some()),
        ("cel_config", proto.cel_config.is_some()),
    ])?;
    Ok(Policy {
        permissions: super::each("permissions", &proto.permissions, |p| permission(p, 0))?,
        principals: super::each("principals", &proto.principals, |p| principal(p, 0))?,
    })
}

fn deeper(depth: usize) -> Result<usize, Refusal> {
    if depth < MAX_DEPTH { Ok(depth + 1) } else { Err(Refusal::new("is nested too deeply")) }
}

#[expect(deprecated, reason = "metadata is still what control planes send")]
fn permission(proto: &PermissionProto, depth: usize) -> Result<Permission, Refusal> {
    let depth = deeper(depth)?;
    let Some(rule) = &proto.rule else { return Err(Refusal::new("a rule is needed")) };
    let set = |list: &[PermissionProto]| super::each("rules", list, |p| permission(p, depth));
    match rule {
        Rule::Any(_) => Ok(Permission::Any),
        Rule::AndRules(all) => set(&all.rules).map(Permission::All).at("and_rules"),
        Rule::OrRules(any) => set(&any.rules).map(Permission::OneOf).at("or_rules"),
        Rule::NotRule(inner) => {
            permission(inner, depth).map(|p| Permission::Not(Box::new(p))).at("not_rule")
        }
        Rule::Header(matcher) => header(matcher).map(Permission::Header).at("header"),
        Rule::UrlPath(matcher) => path(matcher).map(Permission::UrlPath).at("url_path"),
        Rule::UriTemplate(extension) => path_template::matcher(extension)
            .map(|regex| Permission::UrlPath(StringMatch::Regex(regex)))
            .at("uri_template"),
        Rule::DestinationIp(range) => {
            cidr(range).map(Permission::DestinationIp).at("destination_ip")
        }
        Rule::DestinationPort(port) => {
            super::field::port(*port).map(Permission::DestinationPort).at("destination_port")
        }
        Rule::DestinationPortRange(range) => {
            match (u16::try_from(range.start), u32::try_from(range.end)) {
                (Ok(start), Ok(end)) if u32::from(start) < end => {
                    Ok(Permission::DestinationPortRange(start, end))
                }
                _ => Err(Refusal::new("is not a range of ports")).at("destination_port_range"),
            }
        }
        Rule::RequestedServerName(matcher) => {
            string(matcher).map(Permission::RequestedServerName).at("requested_server_name")
        }
        Rule::Metadata(matcher) => Ok(permission_const(without_metadata(matcher).at("metadata")?)),
        Rule::Matcher(_) => Err(Refusal::new("is not supported")).at("matcher"),
        Rule::SourcedMetadata(_) => Err(Refusal::new("is not supported")).at("sourced_metadata"),
    }
}

#[expect(deprecated, reason = "source_ip is still sent by some control planes")]
fn principal(proto: &PrincipalProto, depth: usize) -> Result<Principal, Refusal> {
    let depth = deeper(depth)?;
    let Some(identifier) = &proto.identifier else {
        return Err(Refusal::new("an identifier is needed"));
    };
    let set = |list: &[PrincipalProto]| super::each("ids", list, |p| principal(p, depth));
    match identifier {
        Identifier::Any(_) => Ok(Principal::Any),
        Identifier::AndIds(all) => set(&all.ids).map(Principal::All).at("and_ids"),
        Identifier::OrIds(any) => set(&any.ids).map(Principal::OneOf).at("or_ids"),
        Identifier::NotId(inner) => {
            principal(inner, depth).map(|p| Principal::Not(Box::new(p))).at("not_id")
        }
        Identifier::Authenticated(who) => match &who.principal_name {
            Some(matcher) => string(matcher)
                .map(|name| Principal::Authenticated(Some(name)))
                .at("authenticated.principal_name"),
            None => Ok(Principal::Authenticated(None)),
        },
        Identifier::SourceIp(range) => cidr(range).map(Principal::DirectRemoteIp).at("source_ip"),
        Identifier::DirectRemoteIp(range) => {
            cidr(range).map(Principal::DirectRemoteIp).at("direct_remote_ip")
        }
        Identifier::RemoteIp(range) => cidr(range).map(Principal::RemoteIp).at("remote_ip"),
        Identifier::Header(matcher) => header(matcher).map(Principal::Header).at("header"),
        Identifier::UrlPath(matcher) => path(matcher).map(Principal::UrlPath).at("url_path"),
        Identifier::Metadata(matcher) => {
            Ok(principal_const(without_metadata(matcher).at("metadata")?))
        }
        // Without a tunnel nothing sets it, and an absent object matches nothing.
        Identifier::FilterState(state) if state.key == PEER_PRINCIPAL => Ok(principal_const(false)),
        Identifier::FilterState(_) => Err(Refusal::new("is not supported")).at("filter_state"),
        Identifier::SourcedMetadata(_) => {
            Err(Refusal::new("is not supported")).at("sourced_metadata")
        }
        Identifier::Custom(_) => Err(Refusal::new("is not supported")).at("custom"),
    }
}

fn permission_const(holds: bool) -> Permission {
    if holds { Permission::Any } else { Permission::Not(Box::new(Permission::Any)) }
}

fn principal_const(holds: bool) -> Principal {
    if holds { Principal::Any } else { Principal::Not(Box::new(Principal::Any)) }
}

/// What a metadata matcher says when there is no such metadata.
fn without_metadata(matcher: &MetadataMatcher) -> Result<bool, Refusal> {
    let Some(value) = &matcher.value else {
        return Err(Refusal::new("a value matcher is needed"));
    };
    let absent_fits = matches!(&value.match_pattern, Some(MatchPattern::PresentMatch(false)));
    Ok(absent_fits != matcher.invert)
}
