//! One exchange with the certificate authority: key, request, answer, checked.
//!
//! The token is read anew each time, because it is rotated under us. Neither key nor token is ever
//! logged.

use super::connector::{ConnectError, channel};
use crate::settings::ControlPlane;
use lateen_identity::{
    BundleError, Credential, CredentialError, KeyError, SpiffeId, TrustBundle, WorkloadKey,
};
use lateen_xds::istio::IstioCertificateRequest;
use lateen_xds::istio::ca_client::CertificateClient;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::{Request, Status};

/// Longest time for one exchange.
const EXCHANGE: Duration = Duration::from_secs(8);
/// Largest token that is read.
const MAX_TOKEN: u64 = 64 << 10;

/// Why no certificate was had.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The control plane cannot be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The token cannot be read.
    #[error("{}: {source}", path.display())]
    Token {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The token or a configured header cannot be sent.
    #[error("{0} cannot be sent as a header")]
    Header(String),
    /// No key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The authority refused or was not there.
    #[error("certificate authority: {}: {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// It did not answer in time.
    #[error("certificate authority did not answer within {EXCHANGE:?}")]
    Slow,
    /// Its answer has no root.
    #[error(
        "certificate authority answered {0} certificates, at least a leaf and a root are needed"
    )]
    TooShort(usize),
    /// Its answer cannot be used.
    #[error("certificate authority answered: {0}")]
    Chain(#[from] CredentialError),
    /// Its roots cannot be used.
    #[error("certificate authority answered: {0}")]
    Roots(#[from] BundleError),
}

/// What the authority gave, checked, and as it came.
#[derive(Debug)]
pub struct Issued {
    /// Certificate and key.
    pub credential: Credential,
    /// Roots of the mesh.
    pub bundle: TrustBundle,
    /// The key again: it can be had as text.
    pub key: WorkloadKey,
    /// Certificate and intermediates, PEM, leaf first.
    pub chain: Vec<String>,
    /// Roots, PEM.
    pub roots: String,
}

/// Makes a key and has it certified.
///
/// # Errors
/// When anything on the way fails; nothing is kept then.
pub async fn certify(
    to: &ControlPlane,
    cluster: &str,
    id: &SpiffeId,
    lifetime: Duration,
) -> Result<Issued, AuthorityError> {
    let key = WorkloadKey::generate()?;
    let mut request = Request::new(IstioCertificateRequest {
        csr: key.request(id)?,
        validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    *request.metadata_mut() = metadata(to, cluster, &to.authority_headers)?;
    let mut client = CertificateClient::new(channel(&to.authority, to)?);
    let answer = tokio::time::timeout(EXCHANGE, client.create_certificate(request))
        .await
        .map_err(|_| AuthorityError::Slow)?
        .map_err(|status| AuthorityError::Refused(Box::new(status)))?;
    let mut chain = answer.into_inner().cert_chain;
    if chain.len() < 2 {
        return Err(AuthorityError::TooShort(chain.len()));
    }
    let roots = chain.pop().unwrap_or_default();
    let bundle = TrustBundle::from_pem(roots.as_bytes())?;
    let credential = Credential::new(chain.iter().map(String::as_str), &key)?;
    Ok(Issued { credential, bundle, key, chain, roots })
}

/// What goes with every call to the control plane: token, cluster, configured headers.
///
/// # Errors
/// When the token cannot be read or something cannot be sent.
pub fn metadata(
    to: &ControlPlane,
    cluster: &str,
    headers: &[(String, String)],
) -> Result<MetadataMap, AuthorityError> {
    let mut metadata = MetadataMap::new();
    let mut add = |name: &str, value: &str| {
        let refuse = || AuthorityError::Header(name.to_owned());
        let key = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| refuse())?;
        let mut value = MetadataValue::try_from(value).map_err(|_| refuse())?;
        value.set_sensitive(name == "authorization");
        metadata.insert(key, value);
        Ok::<_, AuthorityError>(())
    };
    add("clusterid", cluster)?;
    for (name, value) in headers {
        add(name, value)?;
    }
    if !to.plaintext {
        add("authorization", &format!("Bearer {}", token(&to.token)?))?;
    }
    Ok(metadata)
}

fn token(path: &Path) -> Result<String, AuthorityError> {
    use std::io::Read;
    let failed = |source| AuthorityError::Token { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_TOKEN).read_to_string(&mut text).map_err(failed)?;
    Ok(text.trim().to_owned())
}
