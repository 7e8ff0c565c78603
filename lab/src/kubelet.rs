//! The kubelet: carries out pod specifications as processes.
//!
//! Must not know where pods come from; what it asks and tells goes through [`ApiServer`].

mod action;
mod check;
mod create;
mod environment;
mod expand;
mod facts;
#[cfg(test)]
mod fake;
mod image;
mod judge;
mod logs;
mod order;
mod pod;
mod process;
mod quantity;
mod rights;
mod status;
mod supervise;
mod volumes;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lateen_api::core::{Pod, PodSpec, PodStatus};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::launch::{Join, Process};
use crate::node::NodeContext;
use crate::runtime::cni::Network;
use facts::Facts;
use pod::PodContext;

/// What the kubelet asks and tells the API server.
pub trait ApiServer: fmt::Debug + Send + Sync + 'static {
    /// Texts of a ConfigMap.
    fn config_map(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, String>>;
    /// Contents of a Secret.
    fn secret(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, Vec<u8>>>;
    /// A service account token.
    ///
    /// # Errors
    /// Why there is none.
    fn token(&self, request: &TokenRequest) -> Result<String, String>;
    /// Takes the status of a pod.
    fn pod_status(&self, key: &PodKey, status: PodStatus);
    /// Takes something people should know about a pod.
    fn event(&self, key: &PodKey, reason: &str, message: &str);
}

/// A pod, and which of those that had its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Unique id.
    pub uid: String,
}

/// A wish for a service account token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The pod it is for.
    pub pod: PodKey,
    /// Whose token.
    pub service_account: String,
    /// For whom; `None`: the API server.
    pub audience: Option<String>,
    /// Lifetime.
    pub seconds: u64,
}

/// A command to be run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Container; `None`: the first that is not a sidecar.
    pub container: Option<String>,
    /// As root in the pod's network namespace instead.
    pub root: bool,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// A pod that cannot be run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct CheckError {
    /// The field, from the root of the pod.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// Why a request to the kubelet failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KubeletError(pub String);

/// Whether a pod can be run here.
///
/// # Errors
/// The field that cannot be honoured.
pub fn check(pod: &PodSpec) -> Result<(), CheckError> {
    check::check(pod)
}

/// When a lab goes, pods have no more than this to end.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Where a pod says nothing.
const GRACE_SECONDS: u64 = 30;

/// A pod that was taken.
#[derive(Debug, Clone)]
struct Taken {
    context: Arc<PodContext>,
    end: watch::Sender<Option<Duration>>,
    /// Closed when nothing is left of it.
    gone: CancellationToken,
}

#[derive(Debug)]
struct Inner {
    node: Arc<NodeContext>,
    api: Arc<dyn ApiServer>,
    pods: Mutex<BTreeMap<PodKey, Taken>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A handle to the kubelet.
#[derive(Debug, Clone)]
pub struct Kubelet {
    inner: Arc<Inner>,
}

impl Kubelet {
    /// A kubelet on a node that was started. Needs a runtime to be called in.
    #[must_use]
    pub fn new(node: &NodeContext, api: Arc<dyn ApiServer>) -> Self {
        let inner = Inner {
            node: Arc::new(node.clone()),
            api,
            pods: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        inner.tasks.spawn(logs::bound(node.state.join("logs"), inner.stop.clone()));
        Self { inner: Arc::new(inner) }
    }

    /// Runs an admitted pod; returns at once. What cannot be read is told as an event.
    pub fn run(&self, pod: serde_json::Value) {
        let inner = &self.inner;
        let pod: Pod = match serde_json::from_value(pod) {
            Ok(pod) => pod,
            Err(e) => {
                tracing::error!("a pod cannot be read: {e}");
                return;
            }
        };
        let key = PodKey {
            namespace: pod.metadata.namespace_or_empty().to_owned(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        };
        let names = [&key.namespace, &key.name, &key.uid];
        if let Some(name) = names.into_iter().find(|name| !check::is_name(name)) {
            let text = format!("{name:?} cannot be the namespace, name or uid of a pod");
            inner.api.event(&key, "InvalidPod", &text);
            return;
        }
        let network = match self.network() {
            Ok(network) => network,
            Err(text) => {
                inner.api.event(&key, "NetworkNotReady", &text);
                return;
            }
        };
        let facts = Facts {
            key: key.clone(),
            pod,
            addresses: Vec::new(),
            node: inner.node.node_name.clone(),
            node_addresses: inner.node.gateway.to_vec(),
        };
        let mut pods = inner.pods.lock();
        if pods.contains_key(&key) || inner.stop.is_cancelled() {
            return;
        }
        let context = PodContext::new(Arc::clone(&inner.node), Arc::clone(&inner.api), facts);
        let (end, ended) = watch::channel(None);
        let taken = Taken { context: Arc::new(context), end, gone: CancellationToken::new() };
        let work = worker::run(Arc::clone(&taken.context), network, ended);
        let gone = taken.gone.clone().drop_guard();
        pods.insert(key, taken);
        inner.tasks.spawn(async move {
            work.await;
            drop(gone);
        });
    }

    /// Ends a pod; returns when nothing of it is left.
    pub async fn remove(&self, key: &PodKey) {
        self.end(key, Duration::MAX).await;
    }

    async fn end(&self, key: &PodKey, most: Duration) {
        let Some(taken) = self.inner.pods.lock().get(key).cloned() else { return };
        let seconds = taken.context.facts().pod.spec.termination_grace_period_seconds;
        let grace = Duration::from_secs(seconds.unwrap_or(GRACE_SECONDS)).min(most);
        taken.end.send_modify(|end| {
            end.get_or_insert(grace);
        });
        taken.gone.cancelled().await;
        self.inner.pods.lock().remove(key);
    }

    /// Runs a command in a container and gives its exit status.
    ///
    /// # Errors
    /// When there is no such container, or the command cannot be started.
    pub async fn exec(&self, exec: Exec, stdio: [OwnedFd; 3]) -> Result<i32, KubeletError> {
        let join = self.join(&exec).map_err(KubeletError)?;
        let done = process::join(&self.inner.node, &join, process::stdio(stdio)).await;
        done.map_err(KubeletError)
    }

    fn join(&self, exec: &Exec) -> Result<Join, String> {
        let pods = self.inner.pods.lock();
        let mut found = pods.iter().rev();
        let found = found.find(|(key, _)| key.namespace == exec.namespace && key.name == exec.pod);
        let pod = found.map(|(_, taken)| Arc::clone(&taken.context));
        let pod = pod.ok_or_else(|| format!("there is no pod {}/{}", exec.namespace, exec.pod))?;
        drop(pods);
        if exec.root {
            return self.join_network(&pod, exec);
        }
        let facts = pod.facts();
        let spec = &facts.pod.spec;
        let first = spec.containers.first().map(|container| container.name.as_str());
        let name = exec.container.as_deref().or(first).unwrap_or_default();
        let mut all = spec.init_containers.iter().chain(&spec.containers);
        if !all.any(|container| container.name == name) {
            let all = spec.containers.iter().chain(&spec.init_containers);
            let names: Vec<&str> = all.map(|container| container.name.as_str()).collect();
            return Err(format!(
                "pod {}: no container {name:?}, but {}",
                exec.pod,
                names.join(", ")
            ));
        }
        let running = pod.running.lock().get(name).cloned();
        let handle = running.ok_or_else(|| {
            let state = status::state_json(&pod.record(name).state);
            format!("pod {}: container {name} does not run now: {state}", exec.pod)
        })?;
        let process = Process { command: exec.command.clone(), ..handle.process.clone() };
        Ok(Join { container: Some(handle.pid), network: handle.network.clone(), process })
    }

    /// Root of the node, with its files, in the network of a pod.
    fn join_network(&self, pod: &PodContext, exec: &Exec) -> Result<Join, String> {
        let network = pod.network.get().cloned();
        let network = network.ok_or_else(|| format!("pod {} has no network yet", exec.pod))?;
        let path = format!("{}:{}", self.inner.node.binaries.display(), create::PATH);
        let environment = [("PATH", path), ("HOME", "/".to_owned())];
        let process = Process {
            command: exec.command.clone(),
            environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
            folder: "/".into(),
            groups: vec![0],
            capabilities: rights::ALL,
            ..Process::default()
        };
        Ok(Join { container: None, network, process })
    }

    /// File with the output of a container.
    #[must_use]
    pub fn log(&self, key: &PodKey, container: &str) -> PathBuf {
        logs::path(&self.inner.node.state, key, container)
    }

    /// Ends all pods, at once; each has a few seconds at most.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        let keys: Vec<PodKey> = self.inner.pods.lock().keys().cloned().collect();
        join_all(keys.iter().map(|key| self.end(key, SHUTDOWN))).await;
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn network(&self) -> Result<Network, String> {
        let file = self.inner.node.network_file();
        let failed = |e: &dyn fmt::Display| format!("{}: {e}", file.display());
        let text = std::fs::read(&file).map_err(|e| failed(&e))?;
        let list = serde_json::from_slice(&text).map_err(|e| failed(&e))?;
        Ok(Network::new(list, vec![self.inner.node.binaries.clone()]))
    }
}
