//! Choosing a route: pure functions over a table compiled when a route configuration arrives.
//!
//! Virtual hosts are looked up as Envoy does: exact name, longest `*.suffix`, longest
//! `prefix.*`, then `*`; routes of a virtual host are tried in their order. Chance comes in as a
//! number. Knows no requests of hyper, only [`RequestHead`].

mod matching;
mod rewrite;

pub use matching::query_value as query_parameter;
pub use rewrite::{location, rewritten_path};

use crate::config::{Forward, Route, RouteAction, RouteConfig, VirtualHost, WeightedCluster};
use http::{HeaderMap, Method};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// What a route choice depends on.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// Method.
    pub method: &'a Method,
    /// `:authority` or `Host`, as it came.
    pub authority: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// The outcome of a route choice.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'t> {
    /// No virtual host or no route.
    NotFound,
    /// This route.
    Route(&'t Arc<VirtualHost>, &'t Arc<Route>),
}

/// A route configuration made ready for lookups.
#[derive(Debug)]
pub struct RouteTable {
    config: Arc<RouteConfig>,
    exact: HashMap<Box<str>, usize>,
    /// `.suffix` with its virtual host, longest first.
    suffixes: Vec<(Box<str>, usize)>,
    /// `prefix.` with its virtual host, longest first.
    prefixes: Vec<(Box<str>, usize)>,
    any: Option<usize>,
}

impl RouteTable {
    /// Compiles a configuration.
    #[must_use]
    pub fn new(config: Arc<RouteConfig>) -> Self {
        let mut exact = HashMap::new();
        let (mut suffixes, mut prefixes, mut any) = (Vec::new(), Vec::new(), None);
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                if domain == "*" {
                    any.get_or_insert(index);
                } else if let Some(suffix) = domain.strip_prefix('*') {
                    suffixes.push((Box::from(suffix), index));
                } else if let Some(prefix) = domain.strip_suffix('*') {
                    prefixes.push((Box::from(prefix), index));
                } else {
                    exact.entry(Box::from(domain.as_str())).or_insert(index);
                }
            }
        }
        let longest_first =
            |a: &(Box<str>, usize), b: &(Box<str>, usize)| b.0.len().cmp(&a.0.len());
        suffixes.sort_by(longest_first);
        prefixes.sort_by(longest_first);
        Self { config, exact, suffixes, prefixes, any }
    }

    /// The configuration it was made from.
    #[must_use]
    pub fn config(&self) -> &Arc<RouteConfig> {
        &self.config
    }

    /// The virtual host of an authority.
    #[must_use]
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let host = if self.config.ignore_port { without_port(authority) } else { authority };
        let host = lower(host);
        let index = self
            .exact
            .get(host.as_ref())
            .copied()
            .or_else(|| wildcard(&self.suffixes, |text| host.ends_with(text), host.len()))
            .or_else(|| wildcard(&self.prefixes, |text| host.starts_with(text), host.len()))
            .or(self.any)?;
        self.config.virtual_hosts.get(index)
    }
}

/// A wildcard stands for at least one character.
fn wildcard(
    list: &[(Box<str>, usize)],
    fits: impl Fn(&str) -> bool,
    length: usize,
) -> Option<usize> {
    list.iter().find(|(text, _)| text.len() < length && fits(text)).map(|(_, index)| *index)
}

fn lower(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// An authority without its port; IPv6 literals keep their brackets.
#[must_use]
pub fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority.get(colon..).is_some_and(|tail| tail.contains(']')) => {
            let port = authority.get(colon + 1..).unwrap_or_default();
            if port.bytes().all(|b| b.is_ascii_digit()) {
                authority.get(..colon).unwrap_or(authority)
            } else {
                authority
            }
        }
        _ => authority,
    }
}

/// The route for a request.
#[must_use]
pub fn choose<'t>(table: &'t RouteTable, head: &RequestHead<'_>) -> Decision<'t> {
    let Some(host) = table.virtual_host(head.authority) else { return Decision::NotFound };
    host.routes
        .iter()
        .find(|route| matching::matches(&route.matches, head))
        .map_or(Decision::NotFound, |route| Decision::Route(host, route))
}

/// The share of a weighted route that `random` falls on.
#[must_use]
pub fn choose_cluster(forward: &Forward, random: impl FnOnce() -> u64) -> Option<&WeightedCluster> {
    if let [only] = forward.clusters.as_slice() {
        return Some(only);
    }
    let total: u64 = forward.clusters.iter().map(|c| u64::from(c.weight)).sum();
    let mut ticket = random().checked_rem(total)?;
    forward.clusters.iter().find(|cluster| {
        let weight = u64::from(cluster.weight);
        let hit = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        hit
    })
}

/// Whether a request falls under a share of parts per million.
#[must_use]
pub fn falls_under(parts_per_million: u32, random: u64) -> bool {
    random % 1_000_000 < u64::from(parts_per_million)
}

/// The forwarding part of a route, if it forwards.
#[must_use]
pub fn forward_of(route: &Route) -> Option<&Forward> {
    match &route.action {
        RouteAction::Forward(forward) => Some(forward),
        RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
    }
}

#[cfg(test)]
mod tests;
