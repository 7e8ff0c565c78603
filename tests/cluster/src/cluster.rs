//! A whole cluster on this machine: control plane, kubelets, containers, Services, names.
//!
//! It is one tree of processes in namespaces of its own. The first of them, the holder, is the
//! init of their pid namespace: when it ends, by whatever hand, the kernel ends all of them, and
//! with the namespaces go interfaces and mounts. What is left then, cgroups and one folder, is
//! removed by [`Cluster::down`].

mod cgroups;
mod documents;
mod end;
mod enter;
mod forward;
mod hold;
mod images;
mod mounts;
mod network;
mod node;
mod plan;
mod supervise;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::binaries;
use crate::process::tail;
use crate::progress::say;
use crate::{ClusterError, Kubectl};

pub use enter::enter;
pub use hold::hold;
pub use images::BUSYBOX;
pub use node::{enter_node, run_node};
pub use plan::Plan;

/// Folder of all clusters.
pub const CLUSTERS: &str = "/var/tmp/lateen-clusters";
/// How long a cluster may take to come up, its programs being there.
const UP: Duration = Duration::from_secs(300);
/// Between two looks at the log of the holder.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// A cluster that is up, or its remains.
#[derive(Debug, Clone)]
pub struct Cluster {
    folder: PathBuf,
    plan: Plan,
}

impl Cluster {
    /// Brings a cluster up and waits until its nodes are ready and names are answered.
    ///
    /// # Errors
    /// What is missing, or which component failed, with its log.
    pub async fn up(clusters: &Path, name: &str, nodes: u8) -> Result<Self, ClusterError> {
        plan::check_name(name)?;
        if !nix::unistd::getuid().is_root() {
            let text =
                "a cluster needs root: it makes namespaces, mounts and cgroups; run with sudo";
            return Err(ClusterError::Other(text.to_owned()));
        }
        has_all_programs()?;
        let folder = clusters.join(name);
        if let Ok(there) = Self::find(clusters, name) {
            if there.is_up() {
                let text = format!("cluster {name} is up already: lateen-cluster down {name}");
                return Err(ClusterError::Other(text));
            }
            say(&format!("removing what is left of an earlier cluster {name} ..."));
            there.down().await?;
        }
        binaries::kubernetes(binaries::Version::V1_36).await?;
        binaries::coredns().await?;
        let (plan, listener) = Plan::make(clusters, name, nodes)?;
        plan.write(&folder)?;
        let cluster = Self { folder, plan };
        enter::start(&cluster.folder, listener)?;
        let came = cluster.watch().await;
        if came.is_err() {
            end::kill(&cluster.folder).await;
        }
        came.map(|()| cluster)
    }

    /// The cluster `name`, up or not.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(clusters: &Path, name: &str) -> Result<Self, ClusterError> {
        let folder = clusters.join(name);
        let plan = Plan::read(&folder)?;
        Ok(Self { folder, plan })
    }

    /// All clusters.
    #[must_use]
    pub fn all(clusters: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir(clusters).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names.iter().filter_map(|name| Self::find(clusters, name.to_str()?).ok()).collect()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// What it is made of.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folder of the components' logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// A kubeconfig with all rights, for this machine.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Whether its holder runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        end::holder(&self.folder).is_some()
    }

    /// `kubectl` for it.
    ///
    /// # Errors
    /// When Go cannot build it.
    pub async fn kubectl(&self) -> Result<Kubectl, ClusterError> {
        Ok(Kubectl::new(&binaries::kubectl().await?, &self.kubeconfig()))
    }

    /// Ends it and removes everything.
    ///
    /// # Errors
    /// What cannot be removed.
    pub async fn down(self) -> Result<(), ClusterError> {
        end::down(&self.folder, &self.plan).await
    }

    /// A command in the namespaces of node `number`, from 1.
    ///
    /// # Errors
    /// When the node does not run.
    pub fn exec(&self, number: u8, program: impl AsRef<OsStr>) -> Result<Command, ClusterError> {
        let pid = end::node(&self.folder, number).ok_or_else(|| {
            ClusterError::Other(format!("node {number} of cluster {} does not run", self.name()))
        })?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={pid}"));
        command.args(["--mount", "--net", "--uts", "--ipc", "--pid", "--"]).arg(program);
        command.env("KUBECONFIG", self.folder.join("kubeconfig-inside")).kill_on_drop(true);
        Ok(command)
    }

    /// Runs a command in the namespaces of node `number` and gives what it prints.
    ///
    /// # Errors
    /// When the node does not run, or with what the command says when it fails.
    pub async fn output(&self, number: u8, words: &[&str]) -> Result<String, ClusterError> {
        let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
        let output = self.exec(number, program)?.args(arguments).output().await;
        let program = (*program).to_owned();
        let output = output.map_err(|source| ClusterError::Start { program, source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(ClusterError::Command { command: words.join(" "), status: output.status, text })
    }

    /// What containerd of node 1 has counted, in Prometheus' text.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn container_metrics(&self) -> Result<String, ClusterError> {
        let url = format!("http://{}/v1/metrics", documents::METRICS);
        self.output(1, &["busybox", "wget", "-qO-", &url]).await
    }

    /// Imports image archives on every node.
    ///
    /// # Errors
    /// When an archive cannot be read or containerd refuses it.
    pub async fn load(&self, archives: &[PathBuf]) -> Result<(), ClusterError> {
        for number in 1..=self.plan.nodes {
            for archive in archives {
                let input = std::fs::File::open(archive).map_err(ClusterError::file(archive))?;
                let mut command = self.exec(number, "ctr")?;
                command.args(["--namespace=k8s.io", "images", "import", "-"]);
                let output = command.stdin(Stdio::from(input)).output().await;
                let failed = |source| ClusterError::Start { program: "ctr".to_owned(), source };
                let output = output.map_err(failed)?;
                if !output.status.success() {
                    return Err(ClusterError::Command {
                        command: format!("ctr images import {}", archive.display()),
                        status: output.status,
                        text: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Kills a component of the control plane or of node 1; it is started again.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&self, component: &str) -> Result<(), ClusterError> {
        let file = supervise::pid_file(&self.folder, component);
        let pid = std::fs::read_to_string(&file).map_err(ClusterError::file(&file))?;
        self.output(1, &["kill", "-KILL", pid.trim()]).await.map(drop)
    }

    /// Tells what the holder says until the cluster is ready.
    async fn watch(&self) -> Result<(), ClusterError> {
        let log = self.logs().join("holder.log");
        let ready = self.folder.join("ready");
        let start = std::time::Instant::now();
        let mut told = 0;
        loop {
            let is_ready = ready.exists();
            let is_up = self.is_up();
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            for line in lines.get(told..).unwrap_or_default() {
                say(line);
            }
            told = lines.len();
            if is_ready {
                return Ok(());
            }
            let seconds = start.elapsed().as_secs();
            if !is_up || start.elapsed() > UP {
                let what = format!("cluster {} is not up", self.name());
                let tail = tail(&log);
                return Err(ClusterError::Late { what, seconds, last: None, log, tail });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Says of everything that is missing on this machine how to get it.
fn has_all_programs() -> Result<(), ClusterError> {
    let programs = ["etcd", "containerd", "ctr", "runc", "ip", "nft", "iptables", "busybox"];
    let tools = ["setpriv", "nsenter"];
    let looks = programs.iter().chain(&tools).map(|program| binaries::machine(program).map(drop));
    let missing = looks.chain([mounts::has_plugins()]).filter_map(Result::err);
    let missing: Vec<_> = missing.map(|error| error.to_string()).collect();
    if missing.is_empty() { Ok(()) } else { Err(ClusterError::Other(missing.join("\n"))) }
}
