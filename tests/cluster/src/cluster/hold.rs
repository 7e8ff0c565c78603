//! The holder: init of the cluster's processes, host of its control plane, starter of its nodes.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::plan::PORT;
use super::{Plan, cgroups, documents, forward, images, mounts, network, supervise};
use crate::binaries::{self, Version};
use crate::certificates::{Certificates, Signed, Subject};
use crate::components::{self, ApiServerFlags};
use crate::process::{Process, Start, words};
use crate::progress::say;
use crate::{ClusterError, Kubectl, kubeconfig};

/// How long a component may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(120);
/// Where etcd listens.
const ETCD: [&str; 2] = ["http://127.0.0.1:2379", "http://127.0.0.1:2380"];
/// Between two looks at a node that is being made.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The verb: brings the cluster in `folder` up and keeps it, until told to end.
///
/// # Errors
/// What could not be made.
pub async fn hold(folder: &Path) -> Result<(), ClusterError> {
    if std::process::id() != 1 {
        let text = "the holder is started by `lateen-cluster up`, in namespaces of its own";
        return Err(ClusterError::Other(text.to_owned()));
    }
    let signals = |error| ClusterError::Other(format!("SIGTERM: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let plan = Plan::read(folder)?;
    let listener = forward::listener()
        .map_err(|error| ClusterError::Other(format!("listener of the API server: {error}")))?;
    mounts::holder()?;
    network::settings()?;
    network::run(&network::first(&plan))?;
    cgroups::make(&plan)?;
    let forwarding = forward::forward(listener, PORT);
    let work = async {
        let mut holder = Holder::new(folder, plan).await?;
        let components = holder.bring_up().await?;
        supervise::keep(folder, components).await;
        Ok(())
    };
    tokio::select! {
        done = work => done,
        () = forwarding => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

type Components = Vec<(Start, Process)>;

struct Holder<'a> {
    folder: &'a Path,
    plan: Plan,
    start: Instant,
    certificates: Certificates,
    kubectl: Kubectl,
    programs: std::path::PathBuf,
    components: Components,
}

impl<'a> Holder<'a> {
    async fn new(folder: &'a Path, plan: Plan) -> Result<Self, ClusterError> {
        let programs = binaries::kubernetes(Version::V1_36).await?;
        let certificates = Certificates::make(&folder.join("certificates"))?;
        let admin = Subject { file: "admin", user: "admin", group: "system:masters" };
        let admin = certificates.sign(admin, &[])?;
        let outside = format!("https://127.0.0.1:{}", plan.port);
        let inside = format!("https://127.0.0.1:{PORT}");
        let authority = certificates.path("ca.crt");
        kubeconfig::write(&folder.join("kubeconfig"), &outside, &authority, &admin)?;
        kubeconfig::write(&folder.join("kubeconfig-inside"), &inside, &authority, &admin)?;
        let kubectl = Kubectl::new(&programs.join("kubectl"), &folder.join("kubeconfig-inside"));
        let (start, components) = (Instant::now(), Vec::new());
        Ok(Self { folder, plan, start, certificates, kubectl, programs, components })
    }

    async fn bring_up(&mut self) -> Result<Components, ClusterError> {
        self.tell("etcd and API server");
        self.etcd()?;
        self.api_server().await?;
        self.tell("controllers, scheduler, nodes");
        self.controllers()?;
        images::write(self.folder).await?;
        for node in 1..=self.plan.nodes {
            self.node(node).await?;
        }
        self.kubectl.apply(&documents::coredns(&self.plan)).await?;
        for node in 1..=self.plan.nodes {
            let name = format!("node/{}", self.plan.node_name(node));
            self.last_until(
                "has no ready node",
                &["wait", "--for=condition=Ready", &name, "--timeout=1s"],
            )
            .await?;
        }
        self.tell("nodes are ready; CoreDNS");
        let dns =
            ["rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=1s"];
        self.last_until("runs no CoreDNS", &dns).await?;
        let ready = self.folder.join("ready");
        std::fs::write(&ready, "").map_err(ClusterError::file(&ready))?;
        self.tell("ready");
        Ok(std::mem::take(&mut self.components))
    }

    fn tell(&self, text: &str) {
        say(&format!("[{:5.1} s] {text}", self.start.elapsed().as_secs_f64()));
    }

    fn add(&mut self, program: &Path, arguments: &[String]) -> Result<(), ClusterError> {
        let start = Start::new(program, words(arguments), &self.folder.join("logs"));
        let process = supervise::start(self.folder, &start)?;
        self.components.push((start, process));
        Ok(())
    }

    fn etcd(&mut self) -> Result<(), ClusterError> {
        let arguments = components::etcd(&self.folder.join("etcd"), ETCD[0], ETCD[1]);
        self.add(&binaries::machine("etcd")?, &arguments)
    }

    async fn api_server(&mut self) -> Result<(), ClusterError> {
        let addresses = self.plan.node_addresses(1);
        let own = addresses.first().map_or("127.0.0.1", String::as_str);
        let service = self.plan.api_address();
        let subject = Subject { file: "apiserver", user: "kube-apiserver", group: "" };
        let names = [
            "localhost",
            "127.0.0.1",
            own,
            &service,
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let serving = self.certificates.sign(subject, &names)?;
        let subject =
            Subject { file: "kubelet-client", user: "kube-apiserver", group: "system:masters" };
        let kubelet_client = self.certificates.sign(subject, &[])?;
        let certificates = self.certificates.path("");
        let flags = ApiServerFlags {
            bind: "0.0.0.0",
            advertise: own,
            port: PORT,
            etcd: ETCD[0],
            service_range: &self.plan.service_ranges().join(","),
            certificates: &certificates,
            serving: &serving,
            kubelet_client: Some(&kubelet_client),
        };
        let arguments = components::api_server(&flags);
        self.add(&self.programs.join("kube-apiserver"), &arguments)?;
        self.last_until("is not ready", &["get", "--raw", "/readyz"]).await
    }

    fn controllers(&mut self) -> Result<(), ClusterError> {
        let manager = self.client("controller-manager", "system:kube-controller-manager")?;
        let arguments = components::controller_manager(&manager, &self.certificates.path(""));
        self.add(&self.programs.join("kube-controller-manager"), &arguments)?;
        let scheduler = self.client("scheduler", "system:kube-scheduler")?;
        self.add(&self.programs.join("kube-scheduler"), &components::scheduler(&scheduler))?;
        self.client("proxy", "system:kube-proxy").map(drop)
    }

    /// A kubeconfig for a user.
    fn client(&self, file: &str, user: &str) -> Result<std::path::PathBuf, ClusterError> {
        let signed = self.certificates.sign(Subject { file, user, group: "" }, &[])?;
        self.write_config(file, &signed)
    }

    fn write_config(
        &self,
        file: &str,
        signed: &Signed,
    ) -> Result<std::path::PathBuf, ClusterError> {
        let addresses = self.plan.node_addresses(1);
        let address = addresses.first().map_or("127.0.0.1", String::as_str);
        let path = self.folder.join(format!("kubeconfig-{file}"));
        let url = format!("https://{address}:{PORT}");
        kubeconfig::write(&path, &url, &self.certificates.path("ca.crt"), signed)?;
        Ok(path)
    }

    /// Starts the process of a node and joins it to the network.
    async fn node(&mut self, node: u8) -> Result<(), ClusterError> {
        let name = self.plan.node_name(node);
        let user = format!("system:node:{name}");
        let subject = Subject { file: &name, user: &user, group: "system:nodes" };
        let addresses = self.plan.node_addresses(node);
        let mut names: Vec<_> = addresses.iter().map(String::as_str).collect();
        names.push(&name);
        let signed = self.certificates.sign(subject, &names)?;
        self.write_config(&name, &signed)?;
        let own =
            std::env::current_exe().map_err(ClusterError::file(Path::new("/proc/self/exe")))?;
        let folder = self.folder.display().to_string();
        let arguments = words(["node", &folder, &node.to_string()]);
        let start = Start { name, ..Start::new(&own, arguments, &self.folder.join("logs")) };
        let mut process = supervise::start(self.folder, &start)?;
        if node > 1 {
            let entered = self.folder.join(format!("node{node}/entered"));
            process
                .until("did not enter its namespaces", READY, || {
                    let there = entered.exists().then_some(()).ok_or_else(String::new);
                    async { there }
                })
                .await?;
            network::run(&network::join(&self.plan, node, process.id()))?;
        }
        self.components.push((start, process));
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }

    /// Waits until `kubectl` succeeds; what is started last is whose log may say why not.
    async fn last_until(&mut self, what: &str, arguments: &[&str]) -> Result<(), ClusterError> {
        let kubectl = &self.kubectl;
        let Some((_, process)) = self.components.last_mut() else { return Ok(()) };
        let look =
            || async { kubectl.run(arguments).await.map(drop).map_err(|error| error.to_string()) };
        process.until(what, READY, look).await
    }
}
