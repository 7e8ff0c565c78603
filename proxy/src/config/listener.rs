//! Listeners, filter chains and what ends them.

use super::{AccessLog, HttpManager, Name, Rbac, ServerTls, TcpProxy};
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which way traffic goes, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the network to the application.
    Inbound,
    /// From the application to the network.
    Outbound,
    /// Neither: a gateway or a service port of the proxy itself.
    Unspecified,
}

/// A place where connections arrive.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Resource name.
    pub name: Name,
    /// Address; for a listener that is not bound, the original destination it stands for.
    pub address: SocketAddr,
    /// Further addresses that share this listener (dual stack).
    pub additional_addresses: Vec<SocketAddr>,
    /// False: no socket of its own; `virtualOutbound` hands connections over to it by their
    /// original destination (exact address, then wildcard address with the same port).
    pub bind: bool,
    /// Connections are handed to the listener of their original destination if there is one.
    pub use_original_dst: bool,
    /// Traffic direction.
    pub direction: Direction,
    /// What is looked at before a filter chain is chosen.
    pub inspect: Inspect,
    /// Chains in the order of the resource.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// Taken when no chain matches.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// Log of connections that no chain took.
    pub access_log: Vec<AccessLog>,
}

/// Listener filters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inspect {
    /// Read the original destination (`SO_ORIGINAL_DST`).
    pub original_dst: bool,
    /// Look for a TLS `ClientHello`.
    pub tls: Option<PortPredicate>,
    /// Look for an HTTP request.
    pub http: Option<PortPredicate>,
    /// Give up waiting for bytes after this; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// After the timeout go on with what is known instead of closing.
    pub continue_on_timeout: bool,
}

/// On which destination ports a listener filter is switched off.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PortPredicate {
    /// Half-open port ranges `[start, end)` where the filter does not run.
    pub disabled: Vec<(u16, u32)>,
}

impl PortPredicate {
    /// Whether the filter runs for connections to `port`.
    #[must_use]
    pub fn enabled(&self, port: u16) -> bool {
        !self.disabled.iter().any(|(start, end)| port >= *start && u32::from(port) < *end)
    }
}

/// One way to treat a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterChain {
    /// Name, unique in the listener; may be empty.
    pub name: Name,
    /// When it is chosen.
    pub matches: ChainMatch,
    /// TLS that is terminated here.
    pub tls: Option<Arc<ServerTls>>,
    /// Longest time for the TLS handshake.
    pub handshake_timeout: Duration,
    /// Network authorization, in order.
    pub rbac: Vec<Arc<Rbac>>,
    /// Report TCP metrics (`istio.stats`).
    pub stats: bool,
    /// What serves the connection.
    pub terminal: Terminal,
}

/// Criteria of a chain; empty means any (`envoy.config.listener.v3.FilterChainMatch`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChainMatch {
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Original destination address.
    pub prefix_ranges: Vec<IpNet>,
    /// Server names: exact or `*.suffix`, lower case.
    pub server_names: Vec<String>,
    /// `Some(true)`: TLS; `Some(false)`: anything else.
    pub tls: Option<bool>,
    /// Application protocols found by the inspectors.
    pub application_protocols: Vec<String>,
}

/// The end of a filter chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Terminal {
    /// Bytes are carried as they are.
    Tcp(Arc<TcpProxy>),
    /// HTTP/1.1, HTTP/2.
    Http(Arc<HttpManager>),
}
