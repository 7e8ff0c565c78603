//! The Kubernetes cluster that a control plane runs in: its API server, and who we are there.
//!
//! Knows nothing of what is read or written.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;

use crate::settings::Settings;

/// A cluster and our place in it.
#[derive(Clone)]
pub struct Cluster {
    /// Client of the API server.
    pub client: Client,
    /// Our namespace.
    pub namespace: String,
    /// Our pod: unique among the replicas.
    pub pod: String,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .field("pod", &self.pod)
            .finish_non_exhaustive()
    }
}

/// Why there is no API server.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// The file given by a flag cannot be used.
    #[error("--kubeconfig {file}: {source}")]
    Kubeconfig {
        /// The file.
        file: String,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// Nothing says where it is.
    #[error(
        "{0}; lateend runs in a pod, or with --kubeconfig FILE, or without Kubernetes from \
         --config-dir DIR"
    )]
    Nowhere(#[source] Box<InferConfigError>),
    /// No client can be made of what was said.
    #[error("no client for the API server: {0}")]
    Client(#[source] Box<kube::Error>),
}

impl Cluster {
    /// The cluster that the settings name. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When nothing says where the API server is, or how it says so cannot be used.
    pub async fn of(settings: &Settings) -> Result<Self, ClusterError> {
        let mut config = match &settings.kubeconfig {
            Some(file) => from_file(file).await?,
            None => Config::infer().await.map_err(|it| ClusterError::Nowhere(Box::new(it)))?,
        };
        let agent = concat!("lateend/", env!("CARGO_PKG_VERSION"));
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
        let client = Client::try_from(config).map_err(|it| ClusterError::Client(Box::new(it)))?;
        let pod = settings.pod_name.clone().unwrap_or_else(made_up);
        Ok(Self { client, namespace: settings.namespace.clone(), pod })
    }
}

async fn from_file(file: &Path) -> Result<Config, ClusterError> {
    let unusable = |source: KubeconfigError| ClusterError::Kubeconfig {
        file: file.display().to_string(),
        source: Box::new(source),
    };
    let parsed = Kubeconfig::read_from(file).map_err(unusable)?;
    Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.map_err(unusable)
}

/// A name that no other replica has: two that called themselves alike would both lead.
fn made_up() -> String {
    format!("lateend-{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::made_up;

    #[test]
    fn made_up_names_differ() {
        assert_ne!(made_up(), made_up());
    }
}
