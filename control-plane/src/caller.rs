//! Who calls: the service account behind a gRPC request.
//!
//! A caller proves itself by a service account token, or by a workload certificate of this mesh
//! that the TLS handshake has already verified. Tokens are checked with the keys of a file, which may
//! be replaced while requests are served, or else by the API server. Knows nothing of what callers
//! ask for.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use lateen_identity::{PeerCertificate, TrustDomain};
use rustls::pki_types::CertificateDer;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::review::Reviewer;
use crate::token::{Caller, ServiceAccount, TokenError, TokenVerifier, bearer};

/// The certificate a client showed in a verified TLS handshake; attached to each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct VerifiedPeer(pub(crate) Option<CertificateDer<'static>>);

/// Checks callers.
#[derive(Debug)]
pub struct Callers {
    verifier: ArcSwapOption<TokenVerifier>,
    reviewer: Option<Arc<Reviewer>>,
    trust_domain: TrustDomain,
}

impl Callers {
    /// Believes no token until a verifier is set, but what `reviewer` believes.
    #[must_use]
    pub fn new(trust_domain: TrustDomain, reviewer: Option<Arc<Reviewer>>) -> Self {
        Self { verifier: ArcSwapOption::empty(), reviewer, trust_domain }
    }

    /// Puts another verifier in force; the API server is not asked any more.
    pub fn set_verifier(&self, verifier: TokenVerifier) {
        self.verifier.store(Some(Arc::new(verifier)));
    }

    /// Who is behind a request.
    ///
    /// # Errors
    /// When neither token nor certificate says who it is.
    pub(crate) fn identify<'a>(
        &'a self,
        metadata: &MetadataMap,
        peer: Option<&VerifiedPeer>,
    ) -> impl Future<Output = Result<Caller, TokenError>> + Send + use<'a> {
        let token = metadata.get("authorization").map(|value| {
            let value = value.to_str().map_err(|_| TokenError::Missing)?;
            bearer(value).map(str::to_owned)
        });
        let certified = peer.and_then(|peer| self.certificate(peer)).map(Caller::from);
        async move {
            let Some(token) = token else { return certified.ok_or(TokenError::Missing) };
            match (self.token(&token?).await, certified) {
                // The certificate alone is enough for those who show no token.
                (Err(TokenError::Unavailable(_)), Some(caller)) => Ok(caller),
                (answer, _) => answer,
            }
        }
    }

    async fn token(&self, token: &str) -> Result<Caller, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        match (self.verifier.load_full(), &self.reviewer) {
            (Some(verifier), _) => verifier.verify(token, now).map(Caller::from),
            (None, Some(reviewer)) => reviewer.review(token, now).await,
            (None, None) => Err(TokenError::Refused(
                "this control plane has no keys: give --token-jwks".to_owned(),
            )),
        }
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

/// What a caller is told who is not believed, or not yet.
pub(crate) fn refusal(error: &TokenError) -> Status {
    match error {
        TokenError::Unavailable(_) => Status::unavailable(error.to_string()),
        _ => Status::unauthenticated(error.to_string()),
    }
}
