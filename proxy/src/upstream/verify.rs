//! Judging a server's certificate: chain to the anchors, then identity.
//!
//! Workload certificates carry a SPIFFE URI and no DNS name, so the usual host name check does
//! not apply; the names the control plane lists are compared with every URI and DNS name of the
//! certificate.

use crate::config::StringMatch;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Which identity is accepted of a certificate that the anchors cover.
#[derive(Debug)]
pub(super) enum NameRule {
    /// Every one.
    Any,
    /// One of the certificate's URI or DNS names matches one of these.
    OneOf(Vec<StringMatch>),
    /// The server name of the handshake.
    ServerName,
}

/// A verifier of server certificates.
#[derive(Debug)]
pub(super) struct Judge {
    roots: Option<Arc<RootCertStore>>,
    names: NameRule,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Judge {
    pub(super) fn anchored(
        roots: Arc<RootCertStore>,
        names: NameRule,
        provider: &CryptoProvider,
    ) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { roots: Some(roots), names, algorithms }
    }

    /// Accepts everything that proves possession of its key (`insecureSkipVerify`).
    pub(super) fn careless(provider: &CryptoProvider) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { roots: None, names: NameRule::Any, algorithms }
    }

    fn check_names(
        &self,
        certificate: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
    ) -> Result<(), Error> {
        match &self.names {
            NameRule::Any => Ok(()),
            NameRule::ServerName => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)
            }
            NameRule::OneOf(wanted) => {
                let parsed = webpki::EndEntityCert::try_from(certificate)
                    .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
                let known = parsed
                    .valid_uri_names()
                    .chain(parsed.valid_dns_names())
                    .any(|name| wanted.iter().any(|matcher| matcher.matches(name)));
                if known {
                    Ok(())
                } else {
                    Err(Error::InvalidCertificate(CertificateError::NotValidForName))
                }
            }
        }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                roots,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        self.check_names(end_entity, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
