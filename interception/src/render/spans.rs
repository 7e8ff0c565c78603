//! Lists as sorted, disjoint spans: addresses as the elements of an interval set in network byte
//! order, ports as the words of iptables.

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

/// Ports as lists with commas, neighbours as `FIRST:LAST`; a list has at most `slots` ports, where a
/// span counts as two.
pub(super) fn ports(ports: &[u16], slots: usize) -> Vec<String> {
    let spans = merged(ports.iter().map(|p| (u128::from(*p), u128::from(*p))).collect());
    let mut lists: Vec<(usize, String)> = Vec::new();
    for (first, last) in spans {
        let (size, words) = match last - first {
            0 => (1, first.to_string()),
            _ => (2, format!("{first}:{last}")),
        };
        match lists.last_mut() {
            Some((used, list)) if *used + size <= slots => {
                *used += size;
                *list = format!("{list},{words}");
            }
            _ => lists.push((size, words)),
        }
    }
    lists.into_iter().map(|(_, list)| list).collect()
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

#[cfg(test)]
mod tests {
    use super::ports;

    #[test]
    fn neighbours_are_one_span_and_count_as_two() {
        assert_eq!(ports(&[80], 15), ["80"]);
        assert_eq!(ports(&[4, 80, 2, 3, 3], 15), ["2:4,80"]);
        assert_eq!(ports(&[1, 2, 4, 6], 3), ["1:2,4", "6"]);
        assert_eq!(ports(&[1, 3, 4, 6], 2), ["1", "3:4", "6"]);
        assert!(ports(&[], 15).is_empty());
        let all: Vec<u16> = (1..=u16::MAX).collect();
        assert_eq!(ports(&all, 15), ["1:65535"]);
    }
}
