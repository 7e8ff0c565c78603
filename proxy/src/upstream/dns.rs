//! Clusters whose endpoints are host names: resolved again and again in the background.
//!
//! Uses the resolver of the operating system. A lookup that fails leaves the endpoints as they
//! were; an answer replaces them.

use crate::config::{Discovery, DnsTarget, Endpoint, EndpointSet, Health};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time between two lookups.
pub(super) const REFRESH: Duration = Duration::from_secs(5);

/// The endpoints of a DNS cluster as they resolve now; `None` when nothing resolved.
pub(super) async fn resolve(
    discovery: &Discovery,
    before: Option<&EndpointSet>,
) -> Option<EndpointSet> {
    match discovery {
        Discovery::StrictDns(targets) => {
            let mut addresses = Vec::new();
            for target in targets {
                addresses.extend(lookup(target).await);
            }
            strict(addresses)
        }
        Discovery::LogicalDns(target) => logical(&lookup(target).await, before),
        Discovery::Eds(_) | Discovery::Static(_) | Discovery::OriginalDst { .. } => None,
    }
}

async fn lookup(target: &DnsTarget) -> Vec<SocketAddr> {
    match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::debug!(host = target.host, %error, "name does not resolve");
            Vec::new()
        }
    }
}

fn strict(mut addresses: Vec<SocketAddr>) -> Option<EndpointSet> {
    addresses.sort_unstable();
    addresses.dedup();
    let endpoints: Vec<_> = addresses.into_iter().map(endpoint).collect();
    (!endpoints.is_empty()).then_some(EndpointSet { endpoints })
}

/// One address at a time; the one in use stays while the name still resolves to it.
fn logical(addresses: &[SocketAddr], before: Option<&EndpointSet>) -> Option<EndpointSet> {
    let current = before.and_then(|set| set.endpoints.first()).map(|e| e.address);
    let chosen =
        current.filter(|a| addresses.contains(a)).or_else(|| addresses.first().copied())?;
    Some(EndpointSet { endpoints: vec![endpoint(chosen)] })
}

/// An endpoint of which only the address is known.
pub(super) fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address,
        weight: 1,
        priority: 0,
        health: Health::Healthy,
        mtls: false,
        workload: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strict_takes_every_address_once() {
        let set = strict(vec![at("10.0.0.2:80"), at("10.0.0.1:80"), at("10.0.0.2:80")]).unwrap();
        assert_eq!(set.endpoints.len(), 2);
        assert!(strict(Vec::new()).is_none());
    }

    #[test]
    fn logical_keeps_its_address_while_it_resolves() {
        let first = logical(&[at("10.0.0.1:80"), at("10.0.0.2:80")], None).unwrap();
        assert_eq!(first.endpoints[0].address, at("10.0.0.1:80"));
        let same = logical(&[at("10.0.0.2:80"), at("10.0.0.1:80")], Some(&first)).unwrap();
        assert_eq!(same.endpoints[0].address, at("10.0.0.1:80"));
        let moved = logical(&[at("10.0.0.3:80")], Some(&first)).unwrap();
        assert_eq!(moved.endpoints[0].address, at("10.0.0.3:80"));
    }
}
