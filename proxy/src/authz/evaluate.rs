//! Evaluating policies: any permission and any principal of a policy must hold.

use super::{Facts, PeerNames};
use crate::config::{
    HeaderMatch, Name, PathMatch, Permission, Policy, Principal, Rbac, StringMatch,
};
use ipnet::IpNet;
use std::net::IpAddr;

/// The first policy that matches, in the order of names.
#[must_use]
pub fn matching_policy<'r>(rules: &'r Rbac, facts: &dyn Facts) -> Option<&'r Name> {
    rules.policies.iter().find(|(_, policy)| policy_matches(policy, facts)).map(|(name, _)| name)
}

fn policy_matches(policy: &Policy, facts: &dyn Facts) -> bool {
    policy.permissions.iter().any(|permission| permission_holds(permission, facts))
        && policy.principals.iter().any(|principal| principal_holds(principal, facts))
}

/// Whether a permission holds.
#[must_use]
pub fn permission_holds(permission: &Permission, facts: &dyn Facts) -> bool {
    match permission {
        Permission::Any => true,
        Permission::All(list) => list.iter().all(|inner| permission_holds(inner, facts)),
        Permission::OneOf(list) => list.iter().any(|inner| permission_holds(inner, facts)),
        Permission::Not(inner) => !permission_holds(inner, facts),
        Permission::Header(matcher) => header_holds(matcher, facts),
        Permission::Path(matcher) => facts.path().is_some_and(|path| path_holds(matcher, path)),
        Permission::UrlPath(matcher) => facts.path().is_some_and(|path| matcher.matches(path)),
        Permission::DestinationIp(net) => contains(net, facts.destination().ip()),
        Permission::DestinationPort(port) => facts.destination().port() == *port,
        Permission::DestinationPortRange(start, end) => {
            let port = facts.destination().port();
            port >= *start && u32::from(port) < *end
        }
        Permission::RequestedServerName(matcher) => matcher.matches(facts.server_name()),
    }
}

/// Whether a principal holds.
#[must_use]
pub fn principal_holds(principal: &Principal, facts: &dyn Facts) -> bool {
    match principal {
        Principal::Any => true,
        Principal::All(list) => list.iter().all(|inner| principal_holds(inner, facts)),
        Principal::OneOf(list) => list.iter().any(|inner| principal_holds(inner, facts)),
        Principal::Not(inner) => !principal_holds(inner, facts),
        Principal::Authenticated(None) => facts.peer().is_some(),
        Principal::Authenticated(Some(name)) => {
            facts.peer().is_some_and(|peer| peer_is(&peer, name))
        }
        Principal::DirectRemoteIp(net) => contains(net, facts.direct_remote()),
        Principal::RemoteIp(net) => contains(net, facts.remote()),
        Principal::Header(matcher) => header_holds(matcher, facts),
        Principal::UrlPath(matcher) => facts.path().is_some_and(|path| matcher.matches(path)),
    }
}

/// URI names first, then DNS names; the subject only of a certificate without either.
fn peer_is(peer: &PeerNames<'_>, name: &StringMatch) -> bool {
    if peer.uris.is_empty() && peer.dns.is_empty() {
        return name.matches(peer.subject);
    }
    peer.uris.iter().chain(peer.dns).any(|own| name.matches(own))
}

fn contains(net: &IpNet, address: IpAddr) -> bool {
    net.contains(&address.to_canonical())
}

fn header_holds(wanted: &HeaderMatch, facts: &dyn Facts) -> bool {
    wanted.accepts(facts.header(&wanted.name).as_deref())
}

fn path_holds(wanted: &PathMatch, path: &str) -> bool {
    let starts = |value: &str, case_sensitive: bool| {
        path.get(..value.len()).is_some_and(|head| same(head, value, case_sensitive))
    };
    match wanted {
        PathMatch::Prefix { value, case_sensitive } => starts(value, *case_sensitive),
        PathMatch::Exact { value, case_sensitive } => same(path, value, *case_sensitive),
        PathMatch::SeparatedPrefix { value, case_sensitive } => {
            starts(value, *case_sensitive)
                && matches!(path.as_bytes().get(value.len()), None | Some(b'/'))
        }
        PathMatch::Regex(regex) => regex.is_match(path),
    }
}

fn same(a: &str, b: &str, case_sensitive: bool) -> bool {
    if case_sensitive { a == b } else { a.eq_ignore_ascii_case(b) }
}
