//! What the environment says, and where things are. The only place of this crate that reads either.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::e2e::Settings;

/// Where programs that were built are kept where `LATEEN_CACHE` names no folder.
const CACHE: &str = "/var/tmp/lateen-cache";

/// Folder of what outlives a checkout: programs built from Go modules.
#[must_use]
pub fn cache() -> PathBuf {
    env::var_os("LATEEN_CACHE").map_or_else(|| PathBuf::from(CACHE), PathBuf::from)
}

/// The checkout this was built in.
#[must_use]
pub fn root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).unwrap_or(crate_folder).to_owned()
}

/// Cargo's folder of build output.
#[must_use]
pub fn cargo_target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Cargo's home: sources of dependencies.
#[must_use]
pub fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    env::var_os("CARGO_HOME").map_or_else(|| home().join(".cargo"), PathBuf::from)
}

/// Folder of Lateen's own programs: `LATEEN_BIN`, or where this program was built.
#[must_use]
pub fn own_programs() -> PathBuf {
    env::var_os("LATEEN_BIN").map_or_else(built, PathBuf::from)
}

/// The program of this crate, also from its tests.
#[must_use]
pub fn own_program() -> PathBuf {
    built().join("lateen-cluster")
}

/// Where this program was built.
fn built() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    let folder = own.parent().unwrap_or(&own);
    // Test programs lie one folder deeper.
    let deps = folder.file_name().is_some_and(|name| name == "deps");
    folder.parent().filter(|_| deps).unwrap_or(folder).to_owned()
}

/// A program on `PATH`, or where system programs are when `PATH` does not say so.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/go/bin"].map(PathBuf::from);
    let mut folders = env::split_paths(&path).chain(system);
    folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
}

/// A real Kubernetes on this machine, for tests.
#[derive(Debug, Parser)]
#[command(name = "lateen-cluster", version)]
pub struct Cli {
    /// Folder of all clusters
    #[arg(long, global = true, default_value = crate::cluster::CLUSTERS, value_name = "DIR")]
    pub dir: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub command: Verb,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Bring a cluster up
    Up {
        /// Its name
        #[arg(default_value = "dev")]
        name: String,
        /// How many nodes it has
        #[arg(long, default_value_t = 1, value_name = "N")]
        nodes: u8,
    },
    /// End a cluster and remove everything of it, also what a killed one has left
    Down {
        /// Its name
        #[arg(default_value = "dev")]
        name: String,
    },
    /// List clusters
    Ls,
    /// Run kubectl for a cluster
    Kubectl {
        /// Its name
        name: String,
        /// Arguments of kubectl
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Run a command in the namespaces of a node
    Exec {
        /// Name of the cluster
        name: String,
        /// Number of the node
        #[arg(long, default_value_t = 1, value_name = "N")]
        node: u8,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Import image archives on every node
    Load {
        /// Name of the cluster
        name: String,
        /// The archives
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Kill a component, which is then started again: kube-apiserver, etcd, kubelet, containerd ...
    Kill {
        /// Name of the cluster
        name: String,
        /// The component
        component: String,
    },
    /// Prove, in a cluster made for it, what is claimed of the mesh
    E2e(Settings),
    /// Make namespaces and start the holder
    #[command(hide = true)]
    Enter {
        /// Folder of the cluster
        folder: PathBuf,
    },
    /// Bring up and keep a cluster
    #[command(hide = true)]
    Hold {
        /// Folder of the cluster
        folder: PathBuf,
    },
    /// Bring up and keep a node
    #[command(hide = true)]
    Node {
        /// Folder of the cluster
        folder: PathBuf,
        /// Number of the node
        node: u8,
    },
}
