//! The certificate service: signs workload certificates.
//!
//! The identity comes from the verified caller alone; whatever names the request carries are not
//! looked at. The lifetime asked for is honoured up to a bound.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use lateen_identity::{Ca, SigningRequest, SpiffeId, Subject, TrustDomain};
use lateen_xds::istio::ca_server::CertificateAuthority;
use lateen_xds::istio::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};

use crate::caller::{Callers, VerifiedPeer, refusal};
use crate::serve::metrics::Metrics;
use crate::token::ServiceAccount;

/// Lifetime of a certificate for which none was asked.
const DEFAULT_TTL: Duration = Duration::from_secs(86_400);

/// Signs certificates for verified callers.
#[derive(Debug)]
pub struct CertificateService {
    ca: Arc<ArcSwap<Ca>>,
    callers: Arc<Callers>,
    trust_domain: TrustDomain,
    max_ttl: Duration,
    metrics: Arc<Metrics>,
}

impl CertificateService {
    /// A service that signs with the `ca` in force for at most `max_ttl`.
    #[must_use]
    pub fn new(
        ca: Arc<ArcSwap<Ca>>,
        callers: Arc<Callers>,
        trust_domain: TrustDomain,
        max_ttl: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { ca, callers, trust_domain, max_ttl, metrics }
    }

    /// Signs one request for an account.
    ///
    /// # Errors
    /// `InvalidArgument` when the request is malformed, `Internal` when signing fails.
    pub fn sign(
        &self,
        account: &ServiceAccount,
        request: &IstioCertificateRequest,
        now: SystemTime,
    ) -> Result<IstioCertificateResponse, Status> {
        let csr = SigningRequest::from_pem(&request.csr).map_err(|error| {
            self.metrics.csr_parsing_errors.inc();
            Status::invalid_argument(error.to_string())
        })?;
        let id = SpiffeId::workload(&self.trust_domain, &account.namespace, &account.name)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let lifetime = lifetime(request.validity_duration, self.max_ttl)?;
        let issued =
            self.ca.load().sign(&csr, &Subject::Workload(id), lifetime, now).map_err(|error| {
                self.metrics.csr_sign_errors.inc();
                Status::internal(format!("the certificate could not be signed: {error}"))
            })?;
        self.metrics.certificates_issued.inc();
        Ok(IstioCertificateResponse { cert_chain: issued.chain })
    }
}

/// The lifetime to sign for: what was asked, at most the bound; nothing asked is the default.
fn lifetime(asked_seconds: i64, bound: Duration) -> Result<Duration, Status> {
    match u64::try_from(asked_seconds) {
        Ok(0) => Ok(DEFAULT_TTL.min(bound)),
        Ok(seconds) => Ok(Duration::from_secs(seconds).min(bound)),
        Err(_) => Err(Status::invalid_argument("validity_duration is negative")),
    }
}

impl CertificateAuthority for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.csr_count.inc();
        let peer = request.extensions().get::<VerifiedPeer>();
        let identified = self.callers.identify(request.metadata(), peer).await;
        let account = identified.map(|caller| caller.account).map_err(|error| {
            self.metrics.authentication_failures.inc();
            tracing::warn!(%error, "certificate request refused");
            refusal(&error)
        })?;
        let response = self.sign(&account, request.get_ref(), SystemTime::now())?;
        tracing::debug!(namespace = %account.namespace, account = %account.name, "certificate issued");
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests {
    use super::{CertificateService, lifetime};
    use crate::caller::Callers;
    use crate::serve::metrics::Metrics;
    use crate::token::tests::{ISSUER, sign, signer};
    use crate::token::{AUDIENCE, ServiceAccount, TokenVerifier};
    use arc_swap::ArcSwap;
    use lateen_identity::ca::CaFiles;
    use lateen_identity::{Ca, PeerCertificate, SpiffeId, TrustDomain, WorkloadKey};
    use lateen_xds::istio::IstioCertificateRequest;
    use lateen_xds::istio::ca_server::CertificateAuthority;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};
    use tonic::{Code, Request};

    fn service() -> (CertificateService, jsonwebtoken::EncodingKey) {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let files = CaFiles::create(&domain, SystemTime::now()).unwrap();
        let callers = Callers::new(domain.clone(), None);
        let (key, keys) = signer();
        callers.set_verifier(TokenVerifier::new(keys, ISSUER));
        let ca = Arc::new(ArcSwap::from_pointee(Ca::from_files(&files).unwrap()));
        let bound = Duration::from_secs(3600);
        let metrics = Arc::new(Metrics::default());
        (CertificateService::new(ca, Arc::new(callers), domain, bound, metrics), key)
    }

    fn csr(seconds: i64) -> IstioCertificateRequest {
        // The request names another identity than the caller's.
        let id: SpiffeId = "spiffe://cluster.local/ns/kube-system/sa/admin".parse().unwrap();
        let csr = WorkloadKey::generate().unwrap().request(&id).unwrap();
        IstioCertificateRequest { csr, validity_duration: seconds, ..Default::default() }
    }

    fn leaf(chain: &[String]) -> PeerCertificate {
        let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
        PeerCertificate::from_der(&der).unwrap()
    }

    #[test]
    fn the_identity_is_the_callers_and_never_the_requests() {
        let (service, _) = service();
        let account = ServiceAccount { namespace: "shop".into(), name: "cart".into() };
        let now = SystemTime::now();
        let chain = service.sign(&account, &csr(86_400), now).unwrap().cert_chain;
        assert!(chain.len() > 1, "leaf and root at least");
        let leaf = leaf(&chain);
        assert_eq!(leaf.spiffe_id().unwrap().to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert!(leaf.not_after <= now + Duration::from_secs(3601), "bounded");
    }

    #[test]
    fn lifetimes_are_bounded() {
        let hour = Duration::from_secs(3600);
        assert_eq!(lifetime(0, hour).unwrap(), hour);
        assert_eq!(lifetime(60, hour).unwrap(), Duration::from_secs(60));
        assert_eq!(lifetime(-1, hour).unwrap_err().code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn who_is_not_believed_gets_nothing() {
        let (service, key) = service();
        let refused = service.create_certificate(Request::new(csr(0))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let token = sign(
            &key,
            &json!({"iss": ISSUER, "aud": AUDIENCE, "exp": now + 60,
                "sub": "system:serviceaccount:shop:cart"}),
        );
        let with_token = |body| {
            let mut request = Request::new(body);
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
            request
        };
        let issued = service.create_certificate(with_token(csr(0))).await.unwrap();
        assert!(issued.get_ref().cert_chain.len() > 1);
        let junk = IstioCertificateRequest { csr: "junk".into(), ..Default::default() };
        let refused = service.create_certificate(with_token(junk)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}
