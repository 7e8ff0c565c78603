//! A node: containerd, kubelet and kube-proxy in mounts of their own, and, from the second node
//! on, in a network of their own.

use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use super::documents::{self, CONTAINERD, Machine, NETWORKS};
use super::{Plan, mounts, network, supervise};
use crate::ClusterError;
use crate::binaries::{self, Version};
use crate::process::{Process, Start, words};

/// How long a component may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Bit of the capability to make a process less likely to be killed.
const SYS_RESOURCE: u32 = 24;

/// The verb's first part: enters namespaces. Called while this process has one thread.
///
/// # Errors
/// What the machine does not allow.
pub fn enter_node(folder: &Path, node: u8) -> Result<(), ClusterError> {
    let refused = |error| ClusterError::Other(format!("namespaces of node {node}: {error}"));
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC, node > 1);
    unshare(flags).map_err(refused)?;
    sethostname(Plan::read(folder)?.node_name(node)).map_err(refused)?;
    let own = folder.join(format!("node{node}"));
    std::fs::create_dir_all(&own).map_err(ClusterError::file(&own))?;
    let entered = own.join("entered");
    std::fs::write(&entered, "").map_err(ClusterError::file(&entered))
}

/// The verb's second part: starts the programs of the node and keeps them.
///
/// # Errors
/// What could not be made.
pub async fn run_node(folder: &Path, node: u8) -> Result<(), ClusterError> {
    let plan = Plan::read(folder)?;
    let own = folder.join(format!("node{node}"));
    if node > 1 {
        network::settings()?;
        interface().await?;
        network::run(&network::other(&plan, node))?;
    }
    let machine = Machine { overlay: mounts::overlay_works(&own), resource: has_resource() };
    mounts::node(&own)?;
    let starter = Starter { folder, own: &own, plan: &plan, node };
    let mut components = Vec::new();
    components.push(starter.containerd(machine).await?);
    components.push(starter.proxy().await?);
    components.push(starter.kubelet().await?);
    supervise::keep(&starter.pids(), components).await;
    Ok(())
}

/// Waits until the holder has given us an interface.
async fn interface() -> Result<(), ClusterError> {
    let start = std::time::Instant::now();
    loop {
        let text = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
        if text.contains(network::UPLINK) {
            return Ok(());
        }
        if start.elapsed() > READY {
            let text = format!("no interface {} after {} s", network::UPLINK, READY.as_secs());
            return Err(ClusterError::Other(text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn has_resource() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    bits.is_some_and(|bits| bits >> SYS_RESOURCE & 1 == 1)
}

struct Starter<'a> {
    folder: &'a Path,
    own: &'a Path,
    plan: &'a Plan,
    node: u8,
}

impl Starter<'_> {
    /// Where process ids are written: those of node 1 beside those of the control plane.
    fn pids(&self) -> std::path::PathBuf {
        if self.node == 1 { self.folder.to_owned() } else { self.own.to_owned() }
    }

    fn start(
        &self,
        program: &Path,
        arguments: &[String],
    ) -> Result<(Start, Process), ClusterError> {
        let mut start = Start::new(program, words(arguments), &self.own.join("logs"));
        if self.node == 1 {
            start.logs = self.folder.join("logs");
        }
        let process = supervise::start(&self.pids(), &start)?;
        Ok((start, process))
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), ClusterError> {
        std::fs::write(path, text).map_err(ClusterError::file(path))
    }

    async fn containerd(&self, machine: Machine) -> Result<(Start, Process), ClusterError> {
        let network = documents::network(self.plan, self.node);
        self.write(&Path::new(NETWORKS).join("10-bridge.conflist"), &format!("{network:#}\n"))?;
        let config = self.own.join("containerd.toml");
        self.write(&config, &documents::containerd(machine))?;
        let arguments = [format!("--config={}", config.display())];
        let (start, mut process) = self.start(&binaries::machine("containerd")?, &arguments)?;
        let ctr = binaries::machine("ctr")?;
        let archive = self.folder.join("node-images.tar");
        process
            .until("takes no images", READY, || async {
                let mut command = tokio::process::Command::new(&ctr);
                command.arg(format!("--address={CONTAINERD}")).arg("--namespace=k8s.io");
                command.args(["images", "import"]).arg(&archive);
                let output = command.output().await.map_err(|error| error.to_string())?;
                let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                if output.status.success() { Ok(()) } else { Err(text) }
            })
            .await?;
        Ok((start, process))
    }

    async fn proxy(&self) -> Result<(Start, Process), ClusterError> {
        let config = self.own.join("kube-proxy.json");
        let kubeconfig = self.folder.join("kubeconfig-proxy");
        let text = documents::proxy(self.plan, self.node, &kubeconfig).to_string();
        self.write(&config, &text)?;
        let programs = binaries::kubernetes(Version::V1_36).await?;
        self.start(&programs.join("kube-proxy"), &[format!("--config={}", config.display())])
    }

    async fn kubelet(&self) -> Result<(Start, Process), ClusterError> {
        let name = self.plan.node_name(self.node);
        let config = self.own.join("kubelet.json");
        let certificates = self.folder.join("certificates");
        let text = documents::kubelet(self.plan, self.node, &certificates).to_string();
        self.write(&config, &text)?;
        let kubeconfig = self.folder.join(format!("kubeconfig-{name}"));
        let arguments = [
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--hostname-override={name}"),
            format!("--node-ip={}", self.plan.node_addresses(self.node).join(",")),
        ];
        let programs = binaries::kubernetes(Version::V1_36).await?;
        self.start(&programs.join("kubelet"), &arguments)
    }
}
