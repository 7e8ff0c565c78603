//! A certificate chain with its key, ready for handshakes.
//!
//! Made from what a CA answered and the key that was asked for; that the two belong together is
//! checked once, here. Roots are not part of the chain that is shown to peers.

use crate::{KeyError, PeerCertificate, PeerError, WorkloadKey};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use std::time::SystemTime;
use thiserror::Error;

/// Most certificates in a chain.
const MAX_CHAIN: usize = 16;

/// Why chain and key cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialError {
    /// Not PEM.
    #[error("certificate chain: {0}")]
    Pem(String),
    /// No certificate.
    #[error("certificate chain is empty")]
    Empty,
    /// Too many certificates.
    #[error("certificate chain is longer than {MAX_CHAIN}")]
    TooLong,
    /// The leaf cannot be read.
    #[error(transparent)]
    Leaf(#[from] PeerError),
    /// rustls refuses the key, or it is another certificate's.
    #[error("private key: {0}")]
    Key(String),
    /// No key could be made.
    #[error(transparent)]
    Generate(#[from] KeyError),
}

/// A certificate chain with its key.
#[derive(Debug, Clone)]
pub struct Credential {
    certified: Arc<CertifiedKey>,
    leaf: PeerCertificate,
}

impl Credential {
    /// The chain a CA answered (leaf first, one or more certificates in each text) with the key
    /// it was asked for. Self-signed certificates behind the leaf are roots and are left out.
    ///
    /// # Errors
    /// When the chain is malformed or not this key's.
    pub fn new<'t>(
        chain: impl IntoIterator<Item = &'t str>,
        key: &WorkloadKey,
    ) -> Result<Self, CredentialError> {
        Self::build(chain, &key.to_der())
    }

    /// Chain and key from PEM texts, such as files.
    ///
    /// # Errors
    /// When either is malformed or they do not belong together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, CredentialError> {
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|e| CredentialError::Key(e.to_string()))?;
        Self::build([chain], &key)
    }

    fn build<'t>(
        chain: impl IntoIterator<Item = &'t str>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialError> {
        let mut certificates = Vec::new();
        for text in chain {
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                certificates.push(certificate.map_err(|e| CredentialError::Pem(e.to_string()))?);
            }
            if certificates.len() > MAX_CHAIN {
                return Err(CredentialError::TooLong);
            }
        }
        let leaf = PeerCertificate::from_der(certificates.first().ok_or(CredentialError::Empty)?)?;
        let mut place = 0;
        certificates.retain(|certificate| {
            place += 1;
            place == 1 || !is_self_signed(certificate)
        });
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(certificates, key.clone_key(), &provider)
            .map_err(|e| CredentialError::Key(e.to_string()))?;
        Ok(Self { certified: Arc::new(certified), leaf })
    }

    /// For handshakes.
    #[must_use]
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// What the leaf says.
    #[must_use]
    pub fn leaf(&self) -> &PeerCertificate {
        &self.leaf
    }

    /// Whether it is within its lifetime.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        now >= self.leaf.not_before && now < self.leaf.not_after
    }
}

fn is_self_signed(der: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(der)
        .is_ok_and(|(_, c)| c.subject() == c.issuer() && c.subject().iter_rdn().next().is_some())
}
