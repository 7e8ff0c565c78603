//! Rule sets as tables: who may do what, and which policy decided.

use super::http::RequestFacts;
use super::*;
use crate::config::{
    Direction, HeaderMatch, PathMatch, Permission, Policy, Principal, RbacAction, StringMatch,
};
use crate::http::route::RequestHead;
use crate::http::{Downstream, DownstreamTls, PeerCertificate};
use ::http::{HeaderMap, Method};
use regex::Regex;

fn exact(text: &str) -> StringMatch {
    StringMatch::exact(text)
}

fn header(name: &str, value: Option<StringMatch>, invert: bool) -> HeaderMatch {
    HeaderMatch { name: name.into(), value, range: None, invert, treat_missing_as_empty: false }
}

fn downstream(uri: Option<&str>) -> Downstream {
    let peer = uri.map(|uri| PeerCertificate { uris: vec![uri.into()], ..Default::default() });
    let tls = DownstreamTls { sni: Some("a.test".into()), peer, ..DownstreamTls::default() };
    Downstream {
        peer: "10.0.0.9:40000".parse().unwrap(),
        local: "10.0.0.1:15006".parse().unwrap(),
        original_dst: Some("10.0.0.1:9080".parse().unwrap()),
        direction: Direction::Inbound,
        tls: Some(Arc::new(tls)),
    }
}

fn with_request<R>(uri: Option<&str>, check: impl FnOnce(&RequestFacts<'_>) -> R) -> R {
    let mut headers = HeaderMap::new();
    headers.append("x-tag", "a".parse().unwrap());
    headers.append("x-tag", "b".parse().unwrap());
    let downstream = downstream(uri);
    let head = RequestHead {
        method: &Method::GET,
        authority: "shop.test:80",
        scheme: "https",
        path: "/info/x",
        query: Some("q=1"),
        headers: &headers,
    };
    check(&RequestFacts { head: &head, downstream: &downstream })
}

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/front";

#[test]
fn permissions_hold_as_documented() {
    let path = |value: &str| PathMatch::Prefix { value: value.into(), case_sensitive: true };
    for (permission, wanted) in [
        (Permission::Any, true),
        (Permission::Not(Box::new(Permission::Any)), false),
        (Permission::All(vec![]), true),
        (Permission::OneOf(vec![]), false),
        (Permission::Header(header(":method", Some(exact("GET")), false)), true),
        (Permission::Header(header(":method", Some(exact("GET")), true)), false),
        (Permission::Header(header("x-tag", Some(exact("a,b")), false)), true),
        (Permission::Header(header("x-none", None, false)), false),
        (Permission::Header(header("x-none", None, true)), true),
        (Permission::Header(header("x-none", Some(exact("a")), true)), false),
        (Permission::Header(header(":path", Some(exact("/info/x?q=1")), false)), true),
        (Permission::UrlPath(exact("/info/x")), true),
        (Permission::Path(path("/info")), true),
        (Permission::Path(path("/other")), false),
        (Permission::DestinationPort(9080), true),
        (Permission::DestinationPort(15006), false),
        (Permission::DestinationPortRange(9000, 9081), true),
        (Permission::DestinationPortRange(9000, 9080), false),
        (Permission::DestinationIp("10.0.0.0/24".parse().unwrap()), true),
        (Permission::RequestedServerName(exact("a.test")), true),
    ] {
        let holds = with_request(None, |facts| permission_holds(&permission, facts));
        assert_eq!(holds, wanted, "{permission:?}");
    }
}

#[test]
fn principals_hold_as_documented() {
    let ns = StringMatch::Regex(Regex::new("^(?:.*/ns/shop/.*)$").unwrap());
    for (principal, with_identity, without) in [
        (Principal::Any, true, true),
        (Principal::Authenticated(None), true, false),
        (Principal::Authenticated(Some(exact(CLIENT))), true, false),
        (Principal::Authenticated(Some(ns)), true, false),
        (Principal::Authenticated(Some(exact("spiffe://x"))), false, false),
        (Principal::Not(Box::new(Principal::Authenticated(Some(exact(CLIENT))))), false, true),
        (Principal::DirectRemoteIp("10.0.0.0/8".parse().unwrap()), true, true),
        (Principal::RemoteIp("192.168.0.0/16".parse().unwrap()), false, false),
        (Principal::UrlPath(exact("/info/x")), true, true),
    ] {
        let of = |uri| with_request(uri, |facts| principal_holds(&principal, facts));
        assert_eq!(of(Some(CLIENT)), with_identity, "{principal:?}");
        assert_eq!(of(None), without, "{principal:?}");
    }
}

fn rules(action: RbacAction, shadow: bool, policies: Vec<(&str, Permission)>) -> Arc<Rbac> {
    let policies = policies
        .into_iter()
        .map(|(name, permission)| {
            let (permissions, principals) = (vec![permission], vec![Principal::Any]);
            (name.into(), Policy { permissions, principals })
        })
        .collect();
    Arc::new(Rbac { action, policies, shadow, stat_prefix: "".into() })
}

#[test]
fn actions_decide_as_documented() {
    let hit = || Permission::DestinationPort(9080);
    let miss = || Permission::DestinationPort(1);
    let allow = RbacAction::Allow;
    let deny = RbacAction::Deny;
    for (sets, allowed, policy) in [
        (vec![], true, None),
        (vec![rules(allow, false, vec![])], false, None),
        (vec![rules(allow, false, vec![("p", hit())])], true, Some("p")),
        (vec![rules(allow, false, vec![("p", miss())])], false, None),
        (vec![rules(deny, false, vec![("p", hit())])], false, Some("p")),
        (vec![rules(deny, false, vec![("p", miss())])], true, None),
        (
            vec![rules(deny, false, vec![("d", hit())]), rules(allow, false, vec![("a", hit())])],
            false,
            Some("d"),
        ),
        (vec![rules(deny, true, vec![("d", hit())])], true, None),
        (vec![rules(RbacAction::Log, false, vec![])], true, None),
        (vec![rules(allow, false, vec![("a", miss()), ("b", hit())])], true, Some("b")),
    ] {
        let decision = with_request(None, |facts| decide(&sets, facts));
        assert_eq!((decision.allowed, decision.policy.as_deref()), (allowed, policy), "{sets:?}");
    }
}

#[test]
fn refusals_name_their_policy() {
    let named = Decision { allowed: false, policy: Some("ns[a]-policy[b]-rule[0]".into()) };
    assert_eq!(named.details(), "rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]");
    let none = Decision { allowed: false, policy: None };
    assert_eq!(none.details(), "rbac_access_denied_matched_policy[none]");
}
