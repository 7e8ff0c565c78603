//! The kubelet: carries out pod specifications as processes.
//!
//! Must not know where pods come from; what it asks and tells goes through [`ApiServer`].

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use lateen_api::core::{PodSpec, PodStatus};

use crate::node::NodeContext;

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
pub fn check(_pod: &PodSpec) -> Result<(), CheckError> {
    Ok(())
}

/// A handle to the kubelet.
#[derive(Debug, Clone)]
pub struct Kubelet {
    state: PathBuf,
}

impl Kubelet {
    /// A kubelet on a node.
    #[must_use]
    pub fn new(node: &NodeContext, _api: Arc<dyn ApiServer>) -> Self {
        Self { state: node.state.clone() }
    }

    /// Runs an admitted pod; returns at once.
    pub fn run(&self, _pod: serde_json::Value) {}

    /// Ends a pod; returns when nothing of it is left.
    pub async fn remove(&self, _key: &PodKey) {}

    /// Runs a command in a container and gives its exit status.
    ///
    /// # Errors
    /// When there is no such container, or the command cannot be started.
    pub async fn exec(&self, exec: Exec, _stdio: [OwnedFd; 3]) -> Result<i32, KubeletError> {
        Err(KubeletError(format!("{}: exec is not made yet", exec.pod)))
    }

    /// File with the output of a container.
    #[must_use]
    pub fn log(&self, key: &PodKey, container: &str) -> PathBuf {
        self.state.join("logs").join(format!("{}_{}_{container}.log", key.namespace, key.name))
    }

    /// Ends all pods.
    pub async fn shutdown(&self) {}
}
