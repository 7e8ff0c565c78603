//! Which filter chain takes a connection: a pure function of the listener and what is known.
//!
//! The order is Envoy's: destination port, longest destination prefix, server name (exact, then
//! longest wildcard), transport protocol, application protocols. At each step the most specific
//! value that any remaining chain names is taken, and there is no way back.

use crate::config::{ChainMatch, FilterChain, Listener};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// Where the client wanted to go.
    pub destination: SocketAddr,
    /// Server name of the TLS handshake, lower case; empty without one.
    pub server_name: &'a str,
    /// The client speaks TLS.
    pub tls: bool,
    /// Application protocols: those offered in TLS, or what was sniffed.
    pub application_protocols: &'a [String],
}

/// The chain for a connection; `None` when no chain matches and there is no default.
#[must_use]
pub fn choose<'l>(
    listener: &'l Listener,
    facts: &ConnectionFacts<'_>,
) -> Option<&'l Arc<FilterChain>> {
    let mut left: Vec<&Arc<FilterChain>> = listener.filter_chains.iter().collect();
    by_port(&mut left, facts.destination.port());
    by_prefix(&mut left, facts.destination.ip());
    by_server_name(&mut left, facts.server_name);
    by_transport(&mut left, facts.tls);
    by_application(&mut left, facts.application_protocols);
    left.first().copied().or(listener.default_filter_chain.as_ref())
}

/// Keeps the chains that name `wanted`, or else those that name nothing.
fn narrow(
    left: &mut Vec<&Arc<FilterChain>>,
    names: impl Fn(&ChainMatch) -> bool,
    says_nothing: impl Fn(&ChainMatch) -> bool,
) {
    if left.iter().any(|chain| names(&chain.matches)) {
        left.retain(|chain| names(&chain.matches));
    } else {
        left.retain(|chain| says_nothing(&chain.matches));
    }
}

fn by_port(left: &mut Vec<&Arc<FilterChain>>, port: u16) {
    narrow(left, |m| m.destination_port == Some(port), |m| m.destination_port.is_none());
}

fn by_prefix(left: &mut Vec<&Arc<FilterChain>>, address: IpAddr) {
    let address = address.to_canonical();
    let longest = |m: &ChainMatch| {
        m.prefix_ranges
            .iter()
            .filter(|net| net.contains(&address))
            .map(|net| net.prefix_len())
            .max()
    };
    let best = left.iter().filter_map(|chain| longest(&chain.matches)).max();
    narrow(left, |m| best.is_some() && longest(m) == best, |m| m.prefix_ranges.is_empty());
}

fn by_server_name(left: &mut Vec<&Arc<FilterChain>>, name: &str) {
    let says_nothing = |m: &ChainMatch| m.server_names.is_empty();
    if name.is_empty() {
        left.retain(|chain| says_nothing(&chain.matches));
        return;
    }
    let exact = |m: &ChainMatch| m.server_names.iter().any(|own| own == name);
    if left.iter().any(|chain| exact(&chain.matches)) {
        left.retain(|chain| exact(&chain.matches));
        return;
    }
    let longest =
        |m: &ChainMatch| m.server_names.iter().filter_map(|own| wildcard_length(own, name)).max();
    let best = left.iter().filter_map(|chain| longest(&chain.matches)).max();
    narrow(left, |m| best.is_some() && longest(m) == best, says_nothing);
}

/// How much of `name` a wildcard `*.suffix` covers; at least one label stands for the star.
fn wildcard_length(own: &str, name: &str) -> Option<usize> {
    let suffix = own.strip_prefix('*')?;
    (name.len() > suffix.len() && name.ends_with(suffix)).then_some(suffix.len())
}

fn by_transport(left: &mut Vec<&Arc<FilterChain>>, tls: bool) {
    narrow(left, |m| m.tls == Some(tls), |m| m.tls.is_none());
}

fn by_application(left: &mut Vec<&Arc<FilterChain>>, protocols: &[String]) {
    for wanted in protocols {
        let names = |m: &ChainMatch| m.application_protocols.iter().any(|own| own == wanted);
        if left.iter().any(|chain| names(&chain.matches)) {
            left.retain(|chain| names(&chain.matches));
            return;
        }
    }
    left.retain(|chain| chain.matches.application_protocols.is_empty());
}
