//! From xDS protobufs to the proxy's own configuration, validating.
//!
//! A resource is taken whole or refused with the field and the reason, so that the refusal can
//! be sent back as a NACK. Fields that change behaviour and are not supported are refused; fields
//! that only tune statistics or buffers are ignored. Pure: no clock, no I/O, no globals.

mod access_log;
mod action;
mod chain;
mod cluster;
mod cors;
mod endpoint;
mod fault;
mod field;
mod headers;
mod http_manager;
mod listener;
mod load;
mod matcher;
mod metadata;
mod names;
mod network;
mod path_template;
mod pattern;
mod per_filter;
mod rbac;
mod retry;
mod route;
mod secret;
mod tls;

#[cfg(test)]
mod tests;

pub use cluster::cluster;
pub use endpoint::endpoints;
pub use field::address;
pub use listener::listener;
pub use names::name_table;
pub use route::route_config;
pub use secret::secret;

use super::{Cluster, EndpointSet, Listener, Name, NameTable, RouteConfig, Secret};
use envoy_types::pb::envoy::config;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls_proto;
use envoy_types::pb::google::protobuf::Any;
use lateen_xds::type_url;
use prost::Message;
use std::fmt;
use std::sync::Arc;

/// One resource that was taken.
#[derive(Debug, Clone)]
pub enum Resource {
    /// A listener.
    Listener(Arc<Listener>),
    /// A cluster.
    Cluster(Arc<Cluster>),
    /// Endpoints of the named cluster.
    Endpoints(Name, Arc<EndpointSet>),
    /// Routes.
    Routes(Arc<RouteConfig>),
    /// The named secret.
    Secret(Name, Arc<Secret>),
    /// Names the DNS proxy answers.
    Names(Arc<NameTable>),
}

/// Takes a resource as it came in a discovery response.
///
/// # Errors
/// When the type is unknown, the bytes are not a protobuf of that type, or the resource asks for
/// something that cannot be honoured.
pub fn decode(kind: &str, bytes: &[u8]) -> Result<Resource, Refusal> {
    match kind {
        type_url::LISTENER => {
            let proto: config::listener::v3::Listener = message("listener", bytes)?;
            Ok(Resource::Listener(Arc::new(listener(&proto)?)))
        }
        type_url::CLUSTER => {
            let proto: config::cluster::v3::Cluster = message("cluster", bytes)?;
            Ok(Resource::Cluster(Arc::new(cluster(&proto)?)))
        }
        type_url::ENDPOINTS => {
            let proto: config::endpoint::v3::ClusterLoadAssignment = message("endpoints", bytes)?;
            let set = endpoints(&proto)?;
            Ok(Resource::Endpoints(proto.cluster_name.as_str().into(), Arc::new(set)))
        }
        type_url::ROUTES => {
            let proto: config::route::v3::RouteConfiguration = message("routes", bytes)?;
            Ok(Resource::Routes(Arc::new(route_config(&proto)?)))
        }
        type_url::SECRET => {
            let proto: tls_proto::Secret = message("secret", bytes)?;
            let taken = secret(&proto, bytes)?;
            Ok(Resource::Secret(proto.name.as_str().into(), Arc::new(taken)))
        }
        type_url::NAME_TABLE => {
            let proto: lateen_xds::istio::NameTable = message("names", bytes)?;
            Ok(Resource::Names(Arc::new(name_table(&proto)?)))
        }
        other => Err(Refusal::new(format!("unknown resource type {other}"))),
    }
}

/// Takes a resource in its envelope.
///
/// # Errors
/// As [`decode`].
pub fn decode_any(any: &Any) -> Result<Resource, Refusal> {
    decode(&any.type_url, &any.value)
}

fn message<M: Message + Default>(kind: &str, bytes: &[u8]) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|e| Refusal::new(format!("cannot decode {kind}: {e}")))
}

/// Why a resource was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kind and name, `listener virtualInbound`; empty when it has none yet.
    pub resource: String,
    /// Field, `filter_chains[3].filters[0]`; empty for the whole resource.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.resource, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.reason)
    }
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { resource: String::new(), path: String::new(), reason: reason.into() }
    }
}

/// Says where in a resource something was refused.
trait At: Sized {
    /// The refused field is below `field`.
    fn at(self, field: &str) -> Self;
    /// The refused field is below element `index` of `field`.
    fn at_index(self, field: &str, index: usize) -> Self;
    /// The refused field is part of this resource.
    fn of(self, kind: &str, name: &str) -> Self;
}

impl<T> At for Result<T, Refusal> {
    fn at(self, field: &str) -> Self {
        self.map_err(|mut refusal| {
            let dot =
                if refusal.path.is_empty() || refusal.path.starts_with('[') { "" } else { "." };
            refusal.path = format!("{field}{dot}{}", refusal.path);
            refusal
        })
    }

    fn at_index(self, field: &str, index: usize) -> Self {
        if self.is_ok() { self } else { self.at(&format!("{field}[{index}]")) }
    }

    fn of(self, kind: &str, name: &str) -> Self {
        self.map_err(|refusal| Refusal { resource: format!("{kind} {name}"), ..refusal })
    }
}

/// Converts each element; a refusal names its index.
fn each<A, B>(
    field: &str,
    list: &[A],
    convert: impl Fn(&A) -> Result<B, Refusal>,
) -> Result<Vec<B>, Refusal> {
    list.iter().enumerate().map(|(i, item)| convert(item).at_index(field, i)).collect()
}

/// Refuses the first field of the list that is set.
fn unsupported(fields: &[(&str, bool)]) -> Result<(), Refusal> {
    match fields.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(Refusal::new("is not supported")).at(field),
        None => Ok(()),
    }
}
