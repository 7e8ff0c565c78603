//! Keys of workloads and their signing requests (PKCS #10).
//!
//! A key is made in memory and never written. A request is only taken when its signature proves
//! that the asker has the key; what names it asks for is not trusted and not even kept.

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use std::fmt;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::SpiffeId;

/// Longest signing request that is read; one with an RSA-4096 key has less than 2 KiB.
const MAX_REQUEST: usize = 32 << 10;

/// Why a key or request cannot be made or taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The library or the system's randomness failed.
    #[error("key: {0}")]
    Generate(String),
    /// Not a signing request.
    #[error("certificate signing request: {0}")]
    Request(String),
    /// It was not signed with the key it names.
    #[error("certificate signing request: its signature does not verify")]
    Signature,
}

/// A workload's private key (ECDSA P-256).
pub struct WorkloadKey(KeyPair);

impl WorkloadKey {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(generate)?;
        Ok(Self(pair))
    }

    /// A signing request for this identity, PEM.
    ///
    /// # Errors
    /// When signing fails.
    pub fn request(&self, id: &SpiffeId) -> Result<String, KeyError> {
        let uri = id.to_string().try_into().map_err(generate)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri)];
        let request = params.serialize_request(&self.0).map_err(generate)?;
        request.pem().map_err(generate)
    }

    /// The key in PKCS #8 form.
    #[must_use]
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    /// The key as PKCS #8 PEM. It is a secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorkloadKey")
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shape that map_err wants")]
fn generate(error: rcgen::Error) -> KeyError {
    KeyError::Generate(error.to_string())
}

/// A signing request whose signature was verified: a public key and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest(SubjectPublicKeyInfo);

impl SigningRequest {
    /// Reads a PEM request and verifies its signature.
    ///
    /// # Errors
    /// When it is malformed, too long, signed wrongly, or of an unsupported kind of key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.len() > MAX_REQUEST {
            return Err(KeyError::Request(format!("longer than {MAX_REQUEST} bytes")));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| KeyError::Request(e.to_string()))?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|e| KeyError::Request(e.to_string()))?;
        if !rest.is_empty() {
            return Err(KeyError::Request("bytes after its end".to_owned()));
        }
        request.verify_signature().map_err(|_| KeyError::Signature)?;
        let info = request.certification_request_info.subject_pki.raw;
        let key =
            SubjectPublicKeyInfo::from_der(info).map_err(|e| KeyError::Request(e.to_string()))?;
        Ok(Self(key))
    }

    pub(crate) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn id() -> SpiffeId {
        "spiffe://cluster.local/ns/a/sa/b".parse().unwrap()
    }

    #[test]
    fn a_request_proves_its_key() {
        let key = WorkloadKey::generate().unwrap();
        let request = SigningRequest::from_pem(&key.request(&id()).unwrap()).unwrap();
        let other = WorkloadKey::generate().unwrap();
        let foreign = SigningRequest::from_pem(&other.request(&id()).unwrap()).unwrap();
        assert_ne!(request, foreign);
    }

    #[test]
    fn an_altered_request_is_refused() {
        let pem = WorkloadKey::generate().unwrap().request(&id()).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
        let mut der = STANDARD.decode(body).unwrap();
        let place = der.windows(8).position(|w| w == b"/ns/a/sa").unwrap();
        der[place + 4] = b'x';
        let altered = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode(der)
        );
        assert_eq!(SigningRequest::from_pem(&altered), Err(KeyError::Signature));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "x",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            assert!(matches!(SigningRequest::from_pem(text), Err(KeyError::Request(_))), "{text}");
        }
        assert!(SigningRequest::from_pem(&"x".repeat(MAX_REQUEST + 1)).is_err());
    }
}
