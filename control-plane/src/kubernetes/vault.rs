//! The Secrets of the authority: reads them, and makes one where there is none.
//!
//! Making is a create, never an update: of replicas that start at once one wins, and the others
//! take over what won. Decides nothing; see [`super::secret`].

use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use lateen_identity::TrustDomain;
use lateen_identity::ca::CaFiles;

use super::MANAGER;
use super::ask::{Failure, Trouble, ask};
use super::denied::Tried;
use super::secret::{Data, OWN, PLUGGED_IN, Taken, choose, own_secret};
use crate::cluster::Cluster;
use crate::serve::readiness::Readiness;

/// The part of readiness that waits for the authority.
pub const PART: &str = "certificate authority";

/// Where the authority is kept.
#[derive(Debug)]
pub struct Vault {
    api: Api<Secret>,
    namespace: String,
}

impl Vault {
    /// The one of our namespace.
    #[must_use]
    pub fn new(cluster: &Cluster) -> Self {
        let api = Api::namespaced(cluster.client.clone(), &cluster.namespace);
        Self { api, namespace: cluster.namespace.clone() }
    }

    /// Takes over the authority that is there, else makes one; waits until one or the other can be
    /// done, and says meanwhile what it waits for.
    pub async fn open(&self, domain: &TrustDomain, readiness: &Arc<Readiness>) -> Taken {
        let mut trouble = Trouble::none("the authority's Secret", Arc::clone(readiness));
        loop {
            let text = match self.look().await {
                Ok(Some(taken)) => {
                    trouble.over();
                    tracing::info!(
                        secret = taken.secret, namespace = %self.namespace,
                        root = %taken.ca.certificate().hash, "the authority is taken over"
                    );
                    return taken;
                }
                Ok(None) => match self.make(domain).await {
                    // Whatever is there now is what counts.
                    Ok(()) => continue,
                    Err(text) => text,
                },
                Err(text) => text,
            };
            readiness.waits(PART, text.clone());
            tokio::time::sleep(trouble.again(text)).await;
        }
    }

    /// The authority that is there; `None` when there is none.
    ///
    /// # Errors
    /// With what cannot be read or used, in words.
    pub async fn look(&self) -> Result<Option<Taken>, String> {
        let read = |name| async move {
            let tried = Tried::new("get", "secrets").named(name).within(&self.namespace);
            let secret = ask(tried, self.api.get_opt(name)).await;
            let data = |secret: Secret| -> Data { secret.data.unwrap_or_default() };
            secret.map(|it| it.map(data)).map_err(|failure| failure.to_string())
        };
        let (plugged_in, own) = (read(PLUGGED_IN).await?, read(OWN).await?);
        choose(&self.namespace, plugged_in.as_ref(), own.as_ref(), SystemTime::now())
            .map_err(|error| error.to_string())
    }

    async fn make(&self, domain: &TrustDomain) -> Result<(), String> {
        let files =
            CaFiles::create(domain, SystemTime::now()).map_err(|error| error.to_string())?;
        let secret = own_secret(&self.namespace, &files);
        let params =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let tried = Tried::new("create", "secrets").within(&self.namespace);
        match ask(tried, self.api.create(&params, &secret)).await {
            Ok(_) => {
                tracing::info!(secret = OWN, namespace = %self.namespace, "a new authority is made");
                Ok(())
            }
            Err(failure) if is_there(&failure) => Ok(()),
            Err(failure) => Err(failure.to_string()),
        }
    }
}

fn is_there(failure: &Failure) -> bool {
    failure.status().is_some_and(kube::core::Status::is_already_exists)
}
