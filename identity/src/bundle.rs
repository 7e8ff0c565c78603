//! The roots a workload trusts.
//!
//! Built from PEM, once for each set of roots; an empty bundle is refused, because it would
//! either trust nobody or, worse, be taken for "no check".

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use thiserror::Error;

/// Most roots in one bundle.
const MAX_ROOTS: usize = 256;

/// Why a text is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BundleError {
    /// Not PEM.
    #[error("trust bundle: {0}")]
    Pem(String),
    /// No certificate in it.
    #[error("trust bundle holds no certificate")]
    Empty,
    /// Too many.
    #[error("trust bundle holds more than {MAX_ROOTS} certificates")]
    TooMany,
    /// A certificate cannot be a trust anchor.
    #[error("certificate {index} of the trust bundle: {reason}")]
    Anchor {
        /// Position, from 1.
        index: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Roots, as certificates and as anchors.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    roots: Vec<CertificateDer<'static>>,
    anchors: Arc<RootCertStore>,
}

impl TrustBundle {
    /// Reads every certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none, or one cannot be an anchor.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BundleError> {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|e| BundleError::Pem(e.to_string()))?;
        Self::from_der(roots)
    }

    /// A bundle of these certificates.
    ///
    /// # Errors
    /// When there is none, or one cannot be an anchor.
    pub fn from_der(roots: Vec<CertificateDer<'static>>) -> Result<Self, BundleError> {
        if roots.is_empty() {
            return Err(BundleError::Empty);
        }
        if roots.len() > MAX_ROOTS {
            return Err(BundleError::TooMany);
        }
        let mut anchors = RootCertStore::empty();
        for (place, root) in roots.iter().enumerate() {
            anchors
                .add(root.clone())
                .map_err(|e| BundleError::Anchor { index: place + 1, reason: e.to_string() })?;
        }
        Ok(Self { roots, anchors: Arc::new(anchors) })
    }

    /// The certificates.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The certificates as trust anchors.
    #[must_use]
    pub fn anchors(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.anchors)
    }
}

impl PartialEq for TrustBundle {
    fn eq(&self, other: &Self) -> bool {
        self.roots == other.roots
    }
}

impl Eq for TrustBundle {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bundle_is_refused() {
        assert_eq!(TrustBundle::from_pem(b"").unwrap_err(), BundleError::Empty);
        let junk = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(TrustBundle::from_pem(junk), Err(BundleError::Anchor { index: 1, .. })));
    }
}
