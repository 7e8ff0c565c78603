//! The node of a lab: the namespaces it lives in, its bridge, and what can be seen there.
//!
//! Must not know pods, nor who wants them.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Commands that stand in for images, by image name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images(pub Vec<(String, Vec<String>)>);

/// What everything on the node is told.
#[derive(Debug, Clone)]
pub struct NodeContext {
    /// State folder of the lab.
    pub state: PathBuf,
    /// Folder of our programs.
    pub binaries: PathBuf,
    /// What images run.
    pub images: Images,
    /// Addresses of the node on its bridge, IPv4 and IPv6.
    pub gateway: [IpAddr; 2],
    /// Additional lines of every pod's `/etc/hosts`.
    pub hosts: Vec<(IpAddr, String)>,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Name of the node.
    pub node_name: String,
}

/// The daemon that is to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// File its output is appended to.
    pub log: PathBuf,
    /// State folder of the lab.
    pub state: PathBuf,
}

/// With which rights a lab runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As root of the machine.
    Root,
    /// In a user namespace with subordinate ids.
    UserNamespace {
        /// First id.
        first: u32,
        /// How many.
        count: u32,
    },
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => out.write_str("as root"),
            Self::UserNamespace { first, count } => {
                let last = first.saturating_add(*count).saturating_sub(1);
                write!(out, "in a user namespace with the subordinate ids {first}-{last}")
            }
        }
    }
}

/// A started daemon.
#[derive(Debug)]
pub struct Entered {
    /// Process id as the caller sees it; killing it ends everything.
    pub pid: i32,
    /// With which rights it runs.
    pub mode: Mode,
}

/// Why the node cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(pub String);

/// Starts the daemon as first process of new namespaces.
///
/// # Errors
/// What the machine does not allow, and what to do.
pub fn enter(launch: &Launch) -> Result<Entered, NodeError> {
    Err(NodeError(format!("{}: namespaces are not made yet", launch.program.display())))
}

/// Removes a state folder, also what belongs to subordinate ids.
///
/// # Errors
/// What could not be removed.
pub fn remove_state(state: &Path) -> Result<(), NodeError> {
    match std::fs::remove_dir_all(state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(NodeError(format!("{}: {error}", state.display())))
        }
        _ => Ok(()),
    }
}

/// The node, from inside.
#[derive(Debug)]
pub struct Node {}

impl Node {
    /// Makes bridge and mounts.
    ///
    /// # Errors
    /// What could not be made.
    pub async fn start(context: &NodeContext) -> Result<Self, NodeError> {
        Err(NodeError(format!("{}: the node is not made yet", context.node_name)))
    }

    /// Writes what goes over the bridge for some time into a pcap file; gives the packets.
    ///
    /// # Errors
    /// When packets cannot be seen or the file not be written.
    pub async fn capture(&self, _time: Duration, _file: OwnedFd) -> Result<u64, NodeError> {
        Err(NodeError("capture is not made yet".to_owned()))
    }

    /// Takes everything down.
    pub async fn stop(self) {}
}
