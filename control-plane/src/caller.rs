//! Who calls: the service account behind a gRPC request.
//!
//! A caller proves itself by a service account token, or by a workload certificate of this mesh
//! that the TLS handshake has already verified. The token verifier may be replaced while requests
//! are served. Knows nothing of what callers ask for.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use lateen_identity::{PeerCertificate, TrustDomain};
use rustls::pki_types::CertificateDer;
use tonic::metadata::MetadataMap;

use crate::token::{ServiceAccount, TokenError, TokenVerifier, bearer};

/// The certificate a client showed in a verified TLS handshake; attached to each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct VerifiedPeer(pub(crate) Option<CertificateDer<'static>>);

/// Checks callers.
#[derive(Debug)]
pub struct Callers {
    verifier: ArcSwapOption<TokenVerifier>,
    trust_domain: TrustDomain,
}

impl Callers {
    /// Believes nobody until a verifier is set.
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { verifier: ArcSwapOption::empty(), trust_domain }
    }

    /// Puts another verifier in force.
    pub fn set_verifier(&self, verifier: TokenVerifier) {
        self.verifier.store(Some(Arc::new(verifier)));
    }

    /// The service account behind a request.
    ///
    /// # Errors
    /// When neither token nor certificate says who it is.
    pub(crate) fn identify(
        &self,
        metadata: &MetadataMap,
        peer: Option<&VerifiedPeer>,
    ) -> Result<ServiceAccount, TokenError> {
        if let Some(value) = metadata.get("authorization") {
            let value = value.to_str().map_err(|_| TokenError::Missing)?;
            return self.token(bearer(value)?);
        }
        peer.and_then(|peer| self.certificate(peer)).ok_or(TokenError::Missing)
    }

    fn token(&self, token: &str) -> Result<ServiceAccount, TokenError> {
        let verifier = self.verifier.load_full();
        let verifier = verifier.ok_or_else(|| {
            TokenError::Refused("this control plane has no keys: give --token-jwks".to_owned())
        })?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        verifier.verify(token, now.as_secs())
    }

    fn certificate(&self, peer: &VerifiedPeer) -> Option<ServiceAccount> {
        let id = PeerCertificate::from_der(peer.0.as_ref()?).ok()?.spiffe_id().ok()?;
        if *id.trust_domain() != self.trust_domain {
            return None;
        }
        let (namespace, name) = id.namespace_and_account()?;
        Some(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}
