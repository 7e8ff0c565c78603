//! Listeners and listener filters.

use super::access_log::access_log;
use super::chain;
use super::field::{socket_address, truth, type_name, unpack};
use super::{At, Refusal, each, unsupported};
use crate::config::{Direction, FilterChain, Inspect, Listener, PortPredicate};
use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use envoy_types::pb::envoy::config::listener::v3::{
    Listener as Proto, ListenerFilter, ListenerFilterChainMatchPredicate,
};
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's time for listener filters when none is given.
const DEFAULT_INSPECT_TIMEOUT: Duration = Duration::from_secs(15);
/// One more than the last port.
const PORTS: u32 = 65_536;

/// Takes a listener.
///
/// # Errors
/// Names the first field that cannot be honoured.
pub fn listener(proto: &Proto) -> Result<Listener, Refusal> {
    take(proto).of("listener", &proto.name)
}

fn take(proto: &Proto) -> Result<Listener, Refusal> {
    refuse_unsupported(proto)?;
    let address = socket_address(proto.address.as_ref()).at("address")?;
    let additional_addresses =
        each("additional_addresses", &proto.additional_addresses, |extra| {
            socket_address(extra.address.as_ref()).at("address")
        })?;
    let filter_chains =
        each("filter_chains", &proto.filter_chains, |c| chain::take(c).map(Arc::new))?;
    refuse_ambiguous(&filter_chains)?;
    let default_filter_chain = match &proto.default_filter_chain {
        Some(default) => Some(Arc::new(chain::take(default).at("default_filter_chain")?)),
        None => None,
    };
    if filter_chains.is_empty() && default_filter_chain.is_none() {
        return Err(Refusal::new("at least one filter chain is needed")).at("filter_chains");
    }
    Ok(Listener {
        name: proto.name.as_str().into(),
        address,
        additional_addresses,
        bind: truth(proto.bind_to_port.as_ref(), true),
        use_original_dst: truth(proto.use_original_dst.as_ref(), false),
        direction: direction(proto.traffic_direction),
        inspect: inspect(proto)?,
        filter_chains,
        default_filter_chain,
        access_log: each("access_log", &proto.access_log, access_log)?,
    })
}

#[expect(deprecated, reason = "deprecated fields are refused when set")]
fn refuse_unsupported(proto: &Proto) -> Result<(), Refusal> {
    if proto.name.is_empty() {
        return Err(Refusal::new("a name is needed")).at("name");
    }
    unsupported(&[
        ("fcds_config", proto.fcds_config.is_some()),
        ("filter_chain_matcher", proto.filter_chain_matcher.is_some()),
        ("deprecated_v1", proto.deprecated_v1.is_some()),
        ("transparent", truth(proto.transparent.as_ref(), false)),
        ("freebind", truth(proto.freebind.as_ref(), false)),
        ("socket_options", !proto.socket_options.is_empty()),
        ("udp_listener_config", proto.udp_listener_config.is_some()),
        ("api_listener", proto.api_listener.is_some()),
        ("enable_mptcp", proto.enable_mptcp),
        ("listener_specifier", proto.listener_specifier.is_some()),
    ])
}

/// Two chains with the same criteria leave open which is meant.
fn refuse_ambiguous(chains: &[Arc<FilterChain>]) -> Result<(), Refusal> {
    for (i, chain) in chains.iter().enumerate() {
        let twin = chains.iter().take(i).position(|other| other.matches == chain.matches);
        if let Some(twin) = twin {
            let reason = format!("has the same criteria as filter_chains[{twin}]");
            return Err(Refusal::new(reason)).at_index("filter_chains", i);
        }
    }
    Ok(())
}

fn direction(value: i32) -> Direction {
    match TrafficDirection::try_from(value) {
        Ok(TrafficDirection::Inbound) => Direction::Inbound,
        Ok(TrafficDirection::Outbound) => Direction::Outbound,
        Ok(TrafficDirection::Unspecified) | Err(_) => Direction::Unspecified,
    }
}

fn inspect(proto: &Proto) -> Result<Inspect, Refusal> {
    let mut inspect = Inspect {
        timeout: super::field::limit(
            proto.listener_filters_timeout.as_ref(),
            Some(DEFAULT_INSPECT_TIMEOUT),
        )
        .at("listener_filters_timeout")?,
        continue_on_timeout: proto.continue_on_listener_filters_timeout,
        ..Inspect::default()
    };
    for (i, filter) in proto.listener_filters.iter().enumerate() {
        inspector(filter, &mut inspect).at_index("listener_filters", i)?;
    }
    Ok(inspect)
}

fn inspector(filter: &ListenerFilter, inspect: &mut Inspect) -> Result<(), Refusal> {
    let any = match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(Refusal::new("is not supported")).at("config_discovery");
        }
        None => return Err(Refusal::new("typed_config is needed")),
    };
    let disabled = match &filter.filter_disabled {
        Some(predicate) => ports(predicate, 0).at("filter_disabled")?,
        None => Vec::new(),
    };
    match type_name(any) {
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            unsupported(&[("filter_disabled", !disabled.is_empty())])?;
            inspect.original_dst = true;
        }
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            let config: TlsInspector = unpack(any)?;
            unsupported(&[
                (
                    "enable_ja3_fingerprinting",
                    truth(config.enable_ja3_fingerprinting.as_ref(), false),
                ),
                (
                    "enable_ja4_fingerprinting",
                    truth(config.enable_ja4_fingerprinting.as_ref(), false),
                ),
            ])
            .at("typed_config")?;
            inspect.tls = Some(predicate(disabled));
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            inspect.http = Some(predicate(disabled));
        }
        other => return Err(Refusal::new(format!("unknown extension {other}"))),
    }
    Ok(())
}

fn predicate(ranges: Vec<Range>) -> PortPredicate {
    let disabled = ranges
        .into_iter()
        .filter_map(|(start, end)| u16::try_from(start).ok().map(|start| (start, end)))
        .collect();
    PortPredicate { disabled }
}

/// Half-open range of ports.
type Range = (u32, u32);

/// The ports on which a predicate holds: sorted ranges that do not touch.
fn ports(
    predicate: &ListenerFilterChainMatchPredicate,
    depth: usize,
) -> Result<Vec<Range>, Refusal> {
    const MAX_DEPTH: usize = 16;
    if depth > MAX_DEPTH {
        return Err(Refusal::new("is nested too deeply"));
    }
    let each_rule = |field: &str, rules: &[ListenerFilterChainMatchPredicate]| {
        each(field, rules, |rule| ports(rule, depth + 1)).at("rules")
    };
    match &predicate.rule {
        Some(Rule::AnyMatch(true)) => Ok(vec![(0, PORTS)]),
        Some(Rule::AnyMatch(false)) => Ok(Vec::new()),
        Some(Rule::OrMatch(set)) => Ok(union(each_rule("or_match", &set.rules)?.concat())),
        Some(Rule::AndMatch(set)) => {
            let outside: Vec<_> =
                each_rule("and_match", &set.rules)?.iter().map(|r| complement(r)).collect();
            Ok(complement(&union(outside.concat())))
        }
        Some(Rule::NotMatch(inner)) => Ok(complement(&ports(inner, depth + 1).at("not_match")?)),
        Some(Rule::DestinationPortRange(range)) => {
            let bound = |value: i32| u32::try_from(value).ok().filter(|value| *value <= PORTS);
            match (bound(range.start), bound(range.end)) {
                (Some(start), Some(end)) if start < end => Ok(vec![(start, end)]),
                _ => Err(Refusal::new("is not a range of ports")).at("destination_port_range"),
            }
        }
        None => Err(Refusal::new("a rule is needed")),
    }
}

fn union(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match out.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

fn complement(ranges: &[Range]) -> Vec<Range> {
    let mut out = Vec::with_capacity(ranges.len() + 1);
    let mut from = 0;
    for (start, end) in ranges {
        if from < *start {
            out.push((from, *start));
        }
        from = *end;
    }
    if from < PORTS {
        out.push((from, PORTS));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::MatchSet;
    use envoy_types::pb::envoy::r#type::v3::Int32Range;

    fn rule(rule: Rule) -> ListenerFilterChainMatchPredicate {
        ListenerFilterChainMatchPredicate { rule: Some(rule) }
    }

    fn range(start: i32, end: i32) -> ListenerFilterChainMatchPredicate {
        rule(Rule::DestinationPortRange(Int32Range { start, end }))
    }

    #[test]
    fn predicates_become_port_ranges() {
        let or = |rules| rule(Rule::OrMatch(MatchSet { rules }));
        let and = |rules| rule(Rule::AndMatch(MatchSet { rules }));
        let not = |inner| rule(Rule::NotMatch(Box::new(inner)));
        for (predicate, wanted) in [
            (range(80, 81), vec![(80, 81)]),
            (or(vec![range(81, 82), range(80, 81), range(90, 95)]), vec![(80, 82), (90, 95)]),
            (not(range(80, 81)), vec![(0, 80), (81, 65_536)]),
            (and(vec![range(1, 100), range(50, 200)]), vec![(50, 100)]),
            (and(vec![not(range(80, 81)), range(79, 82)]), vec![(79, 80), (81, 82)]),
            (rule(Rule::AnyMatch(true)), vec![(0, 65_536)]),
        ] {
            assert_eq!(ports(&predicate, 0).unwrap(), wanted);
        }
        assert!(ports(&range(80, 80), 0).is_err());
        let deep = (0..40).fold(range(1, 2), |inner, _| not(inner));
        assert!(ports(&deep, 0).is_err());
    }
}
