//! The node of a lab: the namespaces it lives in, its bridge, and what can be seen there.
//!
//! Must not know pods, nor who wants them.

mod enter;
pub(crate) mod network;
mod reap;
mod subordinate;

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::capture;

/// The bridge of the node.
pub const BRIDGE: &str = "lab0";
/// Program that enters namespaces and starts containers.
pub const LAUNCHER: &str = "lateen-lab-launch";

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

impl NodeContext {
    /// Folder of everything that lives and dies with the node: a memory file system that only
    /// the node's processes see.
    #[must_use]
    pub fn inner(&self) -> PathBuf {
        self.state.join("node")
    }

    /// File of the network configuration list that pods are connected by.
    #[must_use]
    pub fn network_file(&self) -> PathBuf {
        self.state.join("run/lateen-lab.conflist")
    }
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
    /// Folder of our programs.
    pub binaries: PathBuf,
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

/// Starts the daemon as first process of new namespaces. Blocks until it runs.
///
/// # Errors
/// What the machine does not allow, and what to do.
pub fn enter(launch: &Launch) -> Result<Entered, NodeError> {
    enter::enter(launch)
}

/// Removes a state folder. What subordinate ids own in it are files in folders of the caller; all
/// else was on file systems that ended with the node.
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
pub struct Node {
    inner: PathBuf,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// Makes mounts, network and the reaper of orphans. Called once, by the first process of the
    /// namespaces.
    ///
    /// # Errors
    /// What could not be made.
    pub async fn start(context: &NodeContext) -> Result<Self, NodeError> {
        if std::process::id() != 1 {
            let text = "the node runs in namespaces of its own: start it with node::enter";
            return Err(NodeError(text.to_owned()));
        }
        let inner = context.inner();
        mounts(&inner)?;
        let ipv6 = network::make(context.gateway).await?;
        let file = context.network_file();
        let conflist = crate::runtime::conflist(context, ipv6);
        write(&file, conflist.to_string().as_bytes())?;
        let node = Self { inner, stop: CancellationToken::new(), tasks: TaskTracker::new() };
        node.tasks.spawn(reap::orphans(node.stop.clone()));
        node.tasks.close();
        Ok(node)
    }

    /// Writes what goes over the bridge for some time into a pcap file; gives the packets.
    ///
    /// # Errors
    /// When packets cannot be seen or the file not be written.
    pub async fn capture(&self, time: Duration, file: OwnedFd) -> Result<u64, NodeError> {
        let stop = self.stop.clone();
        let work =
            tokio::task::spawn_blocking(move || capture::record(Some(BRIDGE), time, file, &stop));
        let frames = work.await.map_err(|e| NodeError(format!("capture: {e}")))?;
        frames.map_err(|e| NodeError(e.to_string()))
    }

    /// Takes everything down. Pods must have ended.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        if let Err(e) = umount2(&self.inner, MntFlags::MNT_DETACH) {
            tracing::warn!("{}: unmount: {e}", self.inner.display());
        }
    }
}

/// Private mounts, the processes of our own pid namespace, and the node's own file system.
fn mounts(inner: &Path) -> Result<(), NodeError> {
    const NONE: Option<&str> = None;
    let failed = |what: &str, e: nix::Error| NodeError(format!("mounting {what}: {e}"));
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|e| failed("/ private", e))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE).map_err(|e| {
        NodeError(format!(
            "mounting /proc: {e}; where parts of /proc are hidden (in most containers) only root \
             can run a lab"
        ))
    })?;
    let folder = inner.display().to_string();
    std::fs::create_dir_all(inner).map_err(|e| NodeError(format!("{folder}: {e}")))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("lateen-lab"), inner, Some("tmpfs"), flags, Some("mode=0755"))
        .map_err(|e| failed(&folder, e))
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), NodeError> {
    let folder = file.parent().unwrap_or(file);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(file, bytes))
        .map_err(|e| NodeError(format!("{}: {e}", file.display())))
}
