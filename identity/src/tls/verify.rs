//! Judging peers: chain to the roots in force, then SPIFFE identity.
//!
//! Workload certificates carry one URI name and no DNS name, so host names are not compared;
//! identities are. Signatures of handshakes are checked as rustls does by itself.

use super::HotBundle;
use crate::{PeerCertificate, SpiffeId, TrustBundle, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use webpki::{EndEntityCert, KeyUsage};

/// Whether a chain (leaf first) leads to a bundle, as a server's at `now`.
///
/// # Errors
/// What is wrong with it.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<(), Error> {
    let (leaf, rest) =
        chain.split_first().ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = UnixTime::since_unix_epoch(since);
    chain_to(bundle, leaf, rest, (KeyUsage::server_auth(), now))
}

fn chain_to(
    bundle: &TrustBundle,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    (usage, now): (KeyUsage, UnixTime),
) -> Result<(), Error> {
    let end = EndEntityCert::try_from(leaf).map_err(|e| refuse(&e))?;
    let algorithms = algorithms().all;
    end.verify_for_usage(algorithms, &bundle.anchors().roots, intermediates, now, usage, None, None)
        .map(|_path| ())
        .map_err(|e| refuse(&e))
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    aws_lc_rs::default_provider().signature_verification_algorithms
}

fn refuse(error: &webpki::Error) -> Error {
    Error::InvalidCertificate(match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(rustls::OtherError(Arc::new(std::io::Error::other(
            other.to_string(),
        )))),
    })
}

fn identity(certificate: &CertificateDer<'_>) -> Result<SpiffeId, Error> {
    PeerCertificate::from_der(certificate).and_then(|peer| peer.spiffe_id()).map_err(|e| {
        Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(e))))
    })
}

/// Judges clients: chain to the roots in force and a SPIFFE ID of a known trust domain.
#[derive(Debug)]
pub struct ClientVerifier {
    bundle: Arc<HotBundle>,
    trust_domains: BTreeSet<TrustDomain>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientVerifier {
    /// Accepts clients of these trust domains (of any when there are none); with `mandatory` a
    /// client without certificate is refused.
    #[must_use]
    pub fn new(
        bundle: Arc<HotBundle>,
        trust_domains: impl IntoIterator<Item = TrustDomain>,
        mandatory: bool,
    ) -> Self {
        let trust_domains = trust_domains.into_iter().collect();
        Self { bundle, trust_domains, mandatory, algorithms: algorithms() }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let usage = (KeyUsage::client_auth(), now);
        chain_to(&self.bundle.get(), end_entity, intermediates, usage)?;
        let id = identity(end_entity)?;
        if self.trust_domains.is_empty() || self.trust_domains.contains(id.trust_domain()) {
            return Ok(ClientCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Judges servers that are workloads: chain to the roots in force, and one of the identities.
#[derive(Debug)]
pub struct WorkloadServerVerifier {
    bundle: Arc<HotBundle>,
    identities: BTreeSet<SpiffeId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl WorkloadServerVerifier {
    /// Accepts servers with one of these identities, and no others.
    #[must_use]
    pub fn new(bundle: Arc<HotBundle>, identities: impl IntoIterator<Item = SpiffeId>) -> Self {
        Self { bundle, identities: identities.into_iter().collect(), algorithms: algorithms() }
    }
}

impl ServerCertVerifier for WorkloadServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usage = (KeyUsage::server_auth(), now);
        chain_to(&self.bundle.get(), end_entity, intermediates, usage)?;
        if self.identities.contains(&identity(end_entity)?) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
