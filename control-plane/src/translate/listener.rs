//! The parts that listeners have in common: addresses and listener filters.

use envoy_types::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{
    MatchSet, Rule,
};
use envoy_types::pb::envoy::config::listener::v3::{
    AdditionalAddress, Listener, ListenerFilter, ListenerFilterChainMatchPredicate,
};
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use envoy_types::pb::google::protobuf::Any;

use super::clusters::Families;
use super::pack::{ANY_IPV4, ANY_IPV6, address, any, flag};

/// What is looked at before a filter chain is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inspection {
    /// Where the connection was going before it was redirected.
    pub(crate) original_destination: bool,
    /// Whether it is TLS, and which name and protocols it asks for.
    pub(crate) tls: bool,
    /// Destination ports on which it is known not to be TLS of the mesh.
    pub(crate) tls_not_on: Vec<u16>,
    /// Whether it is HTTP.
    pub(crate) http: bool,
    /// Destination ports whose protocol is known; a server that speaks first must not be waited on.
    pub(crate) http_not_on: Vec<u16>,
}

/// A listener that is bound, on every address of the proxy's families.
pub(crate) fn bound(port: u16, families: Families) -> Listener {
    let (first, other) = wildcards(families);
    Listener {
        address: Some(address(first, port)),
        additional_addresses: other
            .map(|it| AdditionalAddress {
                address: Some(address(it, port)),
                ..AdditionalAddress::default()
            })
            .into_iter()
            .collect(),
        ..Listener::default()
    }
}

/// A listener for redirected connections to these addresses; it is never bound itself.
pub(crate) fn virtual_on(addresses: &[std::net::IpAddr], port: u16) -> Listener {
    let mut all = addresses.iter().map(|it| address(*it, port));
    Listener {
        address: all.next(),
        additional_addresses: all
            .map(|it| AdditionalAddress { address: Some(it), ..AdditionalAddress::default() })
            .collect(),
        bind_to_port: Some(flag(false)),
        ..Listener::default()
    }
}

/// The same on every address.
pub(crate) fn virtual_anywhere(port: u16, families: Families) -> Listener {
    Listener { bind_to_port: Some(flag(false)), ..bound(port, families) }
}

fn wildcards(families: Families) -> (std::net::IpAddr, Option<std::net::IpAddr>) {
    match (families.v4, families.v6) {
        (true, true) => (ANY_IPV4, Some(ANY_IPV6)),
        (false, true) => (ANY_IPV6, None),
        (_, false) => (ANY_IPV4, None),
    }
}

/// The listener filters of an inspection, in order.
pub(crate) fn filters(inspection: &Inspection) -> Vec<ListenerFilter> {
    let mut filters = Vec::new();
    if inspection.original_destination {
        let config = any(&OriginalDst::default());
        filters.push(filter("envoy.filters.listener.original_dst", config, &[]));
    }
    if inspection.tls {
        let config = any(&TlsInspector::default());
        filters.push(filter(
            "envoy.filters.listener.tls_inspector",
            config,
            &inspection.tls_not_on,
        ));
    }
    if inspection.http {
        let config = any(&HttpInspector::default());
        let not_on = &inspection.http_not_on;
        filters.push(filter("envoy.filters.listener.http_inspector", config, not_on));
    }
    filters
}

fn filter(name: &str, config: Any, not_on: &[u16]) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled: disabled_on(not_on),
        config_type: Some(ConfigType::TypedConfig(config)),
    }
}

fn disabled_on(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let rule = |rule| ListenerFilterChainMatchPredicate { rule: Some(rule) };
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.dedup();
    let one = |port: &u16| {
        let start = i32::from(*port);
        rule(Rule::DestinationPortRange(Int32Range { start, end: start + 1 }))
    };
    match ports.as_slice() {
        [] => None,
        [only] => Some(one(only)),
        // A set needs two members or more.
        several => Some(rule(Rule::OrMatch(MatchSet { rules: several.iter().map(one).collect() }))),
    }
}
