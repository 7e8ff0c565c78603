//! The policy of a `DestinationRule` that holds for one port and subset.
//!
//! A subset overrides the rule field by field. A policy for the port replaces all of it: what it
//! leaves out has the default. Knows no clusters.

use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3::route_action::HashPolicy;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter,
};
use lateen_api::networking::{
    ClientTls, ConnectionPool, ConsistentHash, DestinationRule, LoadBalancer, OutlierDetection,
    TrafficPolicy,
};

use super::pack::duration;

/// What holds; absent parts have their default.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Policy<'a> {
    /// Load balancing.
    pub(crate) load_balancer: Option<&'a LoadBalancer>,
    /// Limits.
    pub(crate) connection_pool: Option<&'a ConnectionPool>,
    /// Ejection of endpoints.
    pub(crate) outlier_detection: Option<&'a OutlierDetection>,
    /// TLS to the servers.
    pub(crate) tls: Option<&'a ClientTls>,
}

impl<'a> Policy<'a> {
    /// The policy of `rule` for a port and subset (empty: none).
    pub(crate) fn of(rule: Option<&'a DestinationRule>, subset: &str, port: u16) -> Self {
        let Some(rule) = rule else { return Self::default() };
        let whole = rule.traffic_policy.as_ref().map(|it| at_port(it, port)).unwrap_or_default();
        let subset = rule.subsets.iter().find(|it| !subset.is_empty() && it.name == subset);
        match subset.and_then(|it| it.traffic_policy.as_ref()) {
            None => whole,
            Some(policy) if has_port(policy, port) => at_port(policy, port),
            Some(policy) => {
                let own = at_port(policy, port);
                Self {
                    load_balancer: own.load_balancer.or(whole.load_balancer),
                    connection_pool: own.connection_pool.or(whole.connection_pool),
                    outlier_detection: own.outlier_detection.or(whole.outlier_detection),
                    tls: own.tls.or(whole.tls),
                }
            }
        }
    }

    /// How requests are tied to endpoints; empty when they are not.
    pub(crate) fn hash_policies(&self) -> Vec<HashPolicy> {
        let hash = self.load_balancer.and_then(|balancer| balancer.consistent_hash.as_ref());
        hash.and_then(hash_key).into_iter().map(hash_policy).collect()
    }
}

fn has_port(policy: &TrafficPolicy, port: u16) -> bool {
    policy.port_level_settings.iter().any(|it| is_for(it.port.map(|it| it.number), port))
}

fn is_for(number: Option<u32>, port: u16) -> bool {
    number == Some(u32::from(port))
}

fn at_port(policy: &TrafficPolicy, port: u16) -> Policy<'_> {
    let level =
        policy.port_level_settings.iter().find(|it| is_for(it.port.map(|it| it.number), port));
    match level {
        Some(level) => Policy {
            load_balancer: level.load_balancer.as_ref(),
            connection_pool: level.connection_pool.as_ref(),
            outlier_detection: level.outlier_detection.as_ref(),
            tls: level.tls.as_ref(),
        },
        None => Policy {
            load_balancer: policy.load_balancer.as_ref(),
            connection_pool: policy.connection_pool.as_ref(),
            outlier_detection: policy.outlier_detection.as_ref(),
            tls: policy.tls.as_ref(),
        },
    }
}

fn hash_policy(key: PolicySpecifier) -> HashPolicy {
    HashPolicy { policy_specifier: Some(key), ..HashPolicy::default() }
}

fn hash_key(hash: &ConsistentHash) -> Option<PolicySpecifier> {
    if let Some(name) = &hash.http_header_name {
        let header = Header { header_name: name.clone(), ..Header::default() };
        return Some(PolicySpecifier::Header(header));
    }
    if let Some(cookie) = &hash.http_cookie {
        return Some(PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            // A cookie without lifetime is made by the application, never by the proxy.
            ttl: cookie.ttl.map(|ttl: Duration| duration(ttl)),
            path: cookie.path.clone(),
            ..Cookie::default()
        }));
    }
    if let Some(name) = &hash.http_query_parameter_name {
        return Some(PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() }));
    }
    let by_source = hash.use_source_ip == Some(true);
    by_source
        .then_some(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }))
}

#[cfg(test)]
mod tests {
    use super::Policy;
    use lateen_api::networking::{ClientTlsMode, DestinationRule};
    use serde_json::json;

    fn rule() -> DestinationRule {
        serde_json::from_value(json!({
            "host": "cart",
            "trafficPolicy": {
                "loadBalancer": {"simple": "RANDOM"}, "tls": {"mode": "DISABLE"},
                "portLevelSettings": [{"port": {"number": 81}, "tls": {"mode": "SIMPLE"}}],
            },
            "subsets": [
                {"name": "v1", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}},
                {"name": "v2", "trafficPolicy": {
                    "portLevelSettings": [{"port": {"number": 80}}]}},
                {"name": "v3"},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn a_subset_overrides_field_by_field_and_a_port_replaces() {
        let rule = rule();
        let of = |subset, port| Policy::of(Some(&rule), subset, port);
        let mode = |policy: Policy<'_>| policy.tls.map(|tls| tls.mode);
        assert_eq!(mode(of("", 80)), Some(ClientTlsMode::Disable));
        assert_eq!(mode(of("v1", 80)), Some(ClientTlsMode::IstioMutual));
        assert!(of("v1", 80).load_balancer.is_some(), "inherited");
        assert_eq!(mode(of("", 81)), Some(ClientTlsMode::Simple));
        assert!(of("", 81).load_balancer.is_none(), "a port's policy replaces everything");
        assert_eq!(of("v2", 80), Policy::default());
        assert_eq!(mode(of("v3", 80)), Some(ClientTlsMode::Disable));
        assert_eq!(Policy::of(None, "", 80), Policy::default());
    }
}
