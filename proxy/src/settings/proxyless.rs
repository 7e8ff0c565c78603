//! What is written and served for applications that speak xDS themselves.

use super::{Environment, Role, SettingsError};
use lateen_api::names::{env, path};
use std::path::{Path, PathBuf};

/// Where the certificate is written to, for applications that read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFolder {
    /// The folder; it is there already.
    pub folder: PathBuf,
    /// The files are for whatever user the applications of this pod run as. As in Istio's agent, in
    /// Kubernetes only: there, the folder is a volume of the pod.
    pub shared: bool,
}

impl CertificateFolder {
    pub(super) fn read(env: &Environment) -> Option<Self> {
        let folder = env.text(env::OUTPUT_CERTS);
        let shared = !env.text("KUBERNETES_SERVICE_HOST").is_empty();
        (!folder.is_empty()).then(|| Self { folder: PathBuf::from(folder), shared })
    }
}

/// An agent without data path: applications come to the control plane through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxyless {
    /// Bootstrap file of gRPC libraries.
    pub bootstrap: PathBuf,
    /// Socket of discovery, beside it.
    pub socket: PathBuf,
}

impl Proxyless {
    /// `None` where there is a data path.
    ///
    /// # Errors
    /// When it would be a gateway, or the applications could not find the socket.
    pub(super) fn read(env: &Environment, role: Role) -> Result<Option<Self>, SettingsError> {
        if !env.flag(env::DISABLE_ENVOY)? {
            return Ok(None);
        }
        if role != Role::Sidecar {
            return Err(SettingsError::Unsupported {
                name: env::DISABLE_ENVOY.to_owned(),
                value: env.text(env::DISABLE_ENVOY).to_owned(),
                advice: "a gateway is its data path: leave it empty",
            });
        }
        let text = env.or(env::GRPC_XDS_BOOTSTRAP, path::GRPC_BOOTSTRAP);
        let bootstrap = PathBuf::from(text);
        let folder = bootstrap.parent().filter(|_| bootstrap.is_absolute());
        let socket = folder.map(|folder: &Path| folder.join("XDS"));
        let socket = socket.ok_or_else(|| SettingsError::Value {
            name: env::GRPC_XDS_BOOTSTRAP.to_owned(),
            value: text.to_owned(),
            expected: "an absolute path of a file",
        })?;
        Ok(Some(Self { bootstrap, socket }))
    }
}
