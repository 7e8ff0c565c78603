//! A plain Envoy bootstrap with static resources, as the configuration of a proxy without control
//! plane: `lateen-proxy -c FILE`.
//!
//! The file is protobuf-JSON or the same as YAML. It is taken whole or refused with the field and
//! the reason; whatever would need somebody to ask (dynamic resources) is refused. Knows files, but
//! no sockets and no tasks.

mod text;

#[cfg(test)]
mod tests;

use crate::config::from_xds::{self, Refusal};
use crate::config::{Cluster, Listener, Name, Snapshot};
use crate::telemetry::access_log;
use envoy_types::pb::envoy::config::bootstrap::v3 as pb;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Why a bootstrap cannot be used.
#[derive(Debug, Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not JSON or YAML of a bootstrap.
    #[error("{}: {reason}", path.display())]
    Text {
        /// File.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// It asks for something that cannot be honoured.
    #[error("{}: {refusal}", path.display())]
    Refused {
        /// File.
        path: PathBuf,
        /// Resource, field and reason.
        refusal: Refusal,
    },
}

/// What a bootstrap says.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Listeners, clusters and their endpoints.
    pub snapshot: Snapshot,
    /// Where people ask.
    pub admin: Option<SocketAddr>,
    /// Node id.
    pub node: String,
}

/// Reads a bootstrap from its file.
///
/// # Errors
/// When it cannot be read, or not be honoured.
pub fn read(path: &Path) -> Result<Bootstrap, BootstrapError> {
    let bytes = std::fs::read(path)
        .map_err(|source| BootstrapError::File { path: path.to_owned(), source })?;
    parse(path, &bytes)
}

/// Takes the content of a bootstrap file; `path` is only used to say where it came from.
///
/// # Errors
/// When it is none, or cannot be honoured.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Bootstrap, BootstrapError> {
    let file = || path.to_owned();
    let proto =
        text::parse(bytes).map_err(|reason| BootstrapError::Text { path: file(), reason })?;
    take(&proto).map_err(|refusal| BootstrapError::Refused { path: file(), refusal })
}

fn take(proto: &pb::Bootstrap) -> Result<Bootstrap, Refusal> {
    refuse_unsupported(proto)?;
    let resources = proto.static_resources.clone().unwrap_or_default();
    if !resources.secrets.is_empty() {
        return Err(Refusal::new(
            "static_resources.secrets: is not supported, name files in place",
        ));
    }
    let mut listeners: HashMap<Name, Arc<Listener>> = HashMap::new();
    for (i, proto) in resources.listeners.iter().enumerate() {
        let mut proto = proto.clone();
        if proto.name.is_empty() {
            // Static listeners may go without a name.
            proto.name = format!("listener-{i}");
        }
        let listener = from_xds::listener(&proto)?;
        access_log::check_listener(&listener)
            .map_err(|reason| Refusal::new(format!("listener {}: {reason}", listener.name)))?;
        let name = Arc::clone(&listener.name);
        add(&mut listeners, &name, listener)?;
    }
    let mut clusters: HashMap<Name, Arc<Cluster>> = HashMap::new();
    for proto in &resources.clusters {
        let cluster = from_xds::cluster(proto)?;
        let name = Arc::clone(&cluster.name);
        add(&mut clusters, &name, cluster)?;
    }
    let admin = match proto.admin.as_ref().and_then(|admin| admin.address.as_ref()) {
        Some(address) => Some(from_xds::address(address)?),
        None => None,
    };
    let node = proto.node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
    let snapshot = Snapshot { epoch: 1, listeners, clusters, ..Snapshot::default() };
    Ok(Bootstrap { snapshot, admin, node })
}

/// Fields that ask for more than static resources.
#[expect(deprecated, reason = "deprecated fields are refused when set")]
fn refuse_unsupported(proto: &pb::Bootstrap) -> Result<(), Refusal> {
    let set = [
        ("dynamic_resources", proto.dynamic_resources.is_some()),
        ("hds_config", proto.hds_config.is_some()),
        ("stats_sinks", !proto.stats_sinks.is_empty()),
        ("tracing", proto.tracing.is_some()),
        ("overload_manager", proto.overload_manager.is_some()),
        ("bootstrap_extensions", !proto.bootstrap_extensions.is_empty()),
        ("listener_manager", proto.listener_manager.is_some()),
        ("default_socket_interface", !proto.default_socket_interface.is_empty()),
    ];
    match set.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(Refusal::new(format!("{field}: is not supported"))),
        None => Ok(()),
    }
}

fn add<T>(all: &mut HashMap<Name, Arc<T>>, name: &Name, new: T) -> Result<(), Refusal> {
    match all.insert(Arc::clone(name), Arc::new(new)) {
        None => Ok(()),
        Some(_) => Err(Refusal::new(format!("static_resources: {name} stands there twice"))),
    }
}
