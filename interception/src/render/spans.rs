//! Ranges of addresses as the elements of an interval set: sorted, disjoint, in network byte order.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Disjoint ranges; the end is exclusive and absent when it is past the last address.
pub(super) fn ranges_v4(nets: &[Ipv4Net]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let spans =
        nets.iter().map(|n| (u32::from(n.network()).into(), u32::from(n.broadcast()).into()));
    let bytes =
        |value: u128| u32::try_from(value).ok().map(|v| Ipv4Addr::from(v).octets().to_vec());
    merged(spans.collect())
        .into_iter()
        .filter_map(|(first, last)| Some((bytes(first)?, bytes(last + 1))))
        .collect()
}

pub(super) fn ranges_v6(nets: &[Ipv6Net]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let spans = nets.iter().map(|n| (u128::from(n.network()), u128::from(n.broadcast())));
    let bytes = |value: u128| Ipv6Addr::from(value).octets().to_vec();
    merged(spans.collect())
        .into_iter()
        .map(|(first, last)| (bytes(first), last.checked_add(1).map(bytes)))
        .collect()
}

fn merged(mut spans: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    spans.sort_unstable();
    let mut found: Vec<(u128, u128)> = Vec::new();
    for (first, last) in spans {
        match found.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => found.push((first, last)),
        }
    }
    found
}
