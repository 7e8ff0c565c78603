//! An API server alone, on loopback and without root: for webhooks, resource definitions, charts
//! and clients, on each version of Kubernetes. It ends with this value or with this process.
//!
//! No node: pods are accepted and stay pending.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::binaries::{self, Version};
use crate::certificates::{Certificates, Signed, Subject};
use crate::components::{self, ApiServerFlags};
use crate::process::{Process, Start, words};
use crate::{ClusterError, Kubectl, kubeconfig};

/// How long a component may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(120);
/// How long a component may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// Addresses of Services.
const SERVICES: &str = "10.96.0.0/16";

/// A running API server with its etcd.
#[derive(Debug)]
pub struct ApiServer {
    // Ended in this order.
    controllers: Option<Process>,
    server: Option<Process>,
    _etcd: Process,
    programs: PathBuf,
    certificates: Certificates,
    serving: Signed,
    etcd_url: String,
    port: u16,
    kubectl: Kubectl,
    folder: TempDir,
}

impl ApiServer {
    /// Starts an API server of `version` and waits until it is ready.
    ///
    /// # Errors
    /// When a program is missing or a component does not become ready.
    pub async fn start(version: Version) -> Result<Self, ClusterError> {
        let programs = binaries::kubernetes(version).await?;
        let kubectl = binaries::kubectl().await?;
        let etcd = binaries::machine("etcd")?;
        let folder = tempfile::Builder::new().prefix("lateen-api-").tempdir();
        let folder = folder.map_err(ClusterError::file(Path::new("temporary folder")))?;
        let certificates = Certificates::make(&folder.path().join("certificates"))?;
        let serving = serving(&certificates)?;
        let [client, peer, port] = free_ports()?;
        let url = |port| format!("http://127.0.0.1:{port}");
        let data = folder.path().join("etcd");
        let arguments = words(components::etcd(&data, &url(client), &url(peer)));
        let etcd = Process::start(&Start::new(&etcd, arguments, folder.path()))?;
        let admin = Subject { file: "admin", user: "admin", group: "system:masters" };
        let admin = certificates.sign(admin, &[])?;
        let config = folder.path().join("kubeconfig");
        let address = format!("https://127.0.0.1:{port}");
        kubeconfig::write(&config, &address, &certificates.path("ca.crt"), &admin)?;
        let mut started = Self {
            controllers: None,
            server: None,
            _etcd: etcd,
            programs,
            certificates,
            serving,
            etcd_url: url(client),
            port,
            kubectl: Kubectl::new(&kubectl, &config),
            folder,
        };
        started.resume().await?;
        Ok(started)
    }

    /// Starts the controller manager beside it: service accounts, namespaces that go away, garbage
    /// collection, endpoints.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_controllers(&mut self) -> Result<(), ClusterError> {
        let programs = binaries::kubernetes(Version::V1_36).await?;
        let certificates = self.certificates.path("");
        let config = self.kubeconfig();
        let program = programs.join("kube-controller-manager");
        let arguments = words(components::controller_manager(config, &certificates));
        let mut controllers = Process::start(&Start::new(&program, arguments, self.folder.path()))?;
        let account = ["get", "serviceaccount", "default", "--namespace=default"];
        controllers.until("makes no service accounts", READY, || self.look(&account)).await?;
        self.controllers = Some(controllers);
        Ok(())
    }

    /// Its kubeconfig, with all rights.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        self.kubectl.kubeconfig()
    }

    /// `kubectl` for it.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("kube-apiserver.log")
    }

    /// Ends the API server; etcd keeps what it knew.
    pub async fn pause(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(GRACE).await;
        }
    }

    /// Starts it again after [`Self::pause`], on the same port, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn resume(&mut self) -> Result<(), ClusterError> {
        if self.server.is_some() {
            return Ok(());
        }
        let certificates = self.certificates.path("");
        let flags = ApiServerFlags {
            bind: "127.0.0.1",
            advertise: "127.0.0.1",
            port: self.port,
            etcd: &self.etcd_url,
            service_range: SERVICES,
            certificates: &certificates,
            serving: &self.serving,
            kubelet_client: None,
        };
        let program = self.programs.join("kube-apiserver");
        let arguments = words(components::api_server(&flags));
        let mut server = Process::start(&Start::new(&program, arguments, self.folder.path()))?;
        server.until("is not ready", READY, || self.look(&["get", "--raw", "/readyz"])).await?;
        self.server = Some(server);
        Ok(())
    }

    async fn look(&self, arguments: &[&str]) -> Result<(), String> {
        self.kubectl.run(arguments).await.map(drop).map_err(|error| error.to_string())
    }
}

fn serving(certificates: &Certificates) -> Result<Signed, ClusterError> {
    let subject = Subject { file: "apiserver", user: "kube-apiserver", group: "" };
    let names = ["localhost", "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"];
    certificates.sign(subject, &names)
}

/// Ports that nobody has at this moment.
fn free_ports() -> Result<[u16; 3], ClusterError> {
    let none = |error| ClusterError::Other(format!("no free port on 127.0.0.1: {error}"));
    let mut ports = [0; 3];
    // Held together, so that they differ.
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(none)?;
        *port = listener.local_addr().map_err(none)?.port();
        held.push(listener);
    }
    Ok(ports)
}
