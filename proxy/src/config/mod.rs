//! The proxy's own picture of its configuration: plain, validated data, made from xDS and
//! read by every other module.
//!
//! Nothing here knows protobuf (that is `from_xds`), sockets, clocks or tasks. A value that
//! exists is a value that can be honoured: whatever cannot be is refused while it is made.

mod cluster;
mod endpoint;
pub mod from_xds;
mod header_match;
mod header_ops;
mod listener;
mod per_filter;
mod policy;
mod retry;
mod route;
mod secret;
mod string_match;

pub use cluster::*;
pub use endpoint::*;
pub use header_match::*;
pub use header_ops::*;
pub use listener::*;
pub use per_filter::*;
pub use policy::*;
pub use retry::*;
pub use route::*;
pub use secret::*;
pub use string_match::*;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Name of an xDS resource or object, shared between everything that points at it.
pub type Name = Arc<str>;

/// Everything the data path reads, immutable; a change makes a new one.
///
/// Endpoints, connection pools and counters live outside ([`crate::upstream`]) because they
/// outlast a change of configuration.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    /// Grows by one with each change.
    pub epoch: u64,
    /// All listeners, by resource name.
    pub listeners: HashMap<Name, Arc<Listener>>,
    /// All clusters, by resource name.
    pub clusters: HashMap<Name, Arc<Cluster>>,
    /// Endpoints of the clusters whose discovery is [`Discovery::Eds`], by cluster name.
    pub endpoints: HashMap<Name, Arc<EndpointSet>>,
    /// Route configurations, by resource name.
    pub routes: HashMap<Name, Arc<RouteConfig>>,
    /// Secrets, by name.
    pub secrets: HashMap<Name, Arc<Secret>>,
    /// Names the DNS proxy answers.
    pub names: Arc<NameTable>,
}

/// Host names of the mesh with their addresses (`istio.networking.nds.v1.NameTable`).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct NameTable {
    /// Lower-case fully qualified host (no trailing dot) to its addresses.
    pub hosts: HashMap<String, Vec<IpAddr>>,
}
