//! What the node agent reads from and writes to the API server.
//!
//! [`watch`] follows the node's pods, [`daemonset`] tells an uninstall from an upgrade, [`denied`]
//! says which permission is missing. Must not know network namespaces or files.

pub mod daemonset;
pub mod denied;
pub mod events;
pub mod trim;
pub mod watch;

use std::time::Duration;

use denied::{Access, explain};
use kube::{Client, Config};
use tokio::time::timeout;

/// A request is answered within this or not at all.
const ANSWER: Duration = Duration::from_secs(3);
/// An API server that does not even take a connection is away.
const CONNECT: Duration = Duration::from_secs(3);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither a pod's ServiceAccount nor a kubeconfig.
    #[error(
        "no way to the API server: {0}; run it in a pod with a ServiceAccount, or name a kubeconfig in KUBECONFIG"
    )]
    Configuration(#[from] Box<kube::config::InferConfigError>),
    /// Certificates or addresses in the configuration are unusable.
    #[error("the configuration of the API server's client is unusable: {0}")]
    Client(#[from] kube::Error),
}

/// A client by the pod's ServiceAccount, or by a kubeconfig. Connects to nothing yet.
///
/// # Errors
/// When there is no usable configuration.
pub async fn client() -> Result<Client, ClientError> {
    let mut config = Config::infer().await.map_err(Box::new)?;
    config.connect_timeout = Some(CONNECT);
    Ok(Client::try_from(config)?)
}

/// The answer to a request, or what to say of its absence.
///
/// # Errors
/// Why there is none.
pub async fn within<T>(
    access: Access<'_>,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, String> {
    match timeout(ANSWER, request).await {
        Ok(answer) => answer.map_err(|error| explain(access, &error)),
        Err(_) => {
            let Access { verb, resource, .. } = access;
            let seconds = ANSWER.as_secs();
            Err(format!("the API server did not answer within {seconds} s ({verb} {resource})"))
        }
    }
}
