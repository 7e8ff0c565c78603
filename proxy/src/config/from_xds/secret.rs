//! Secrets that come by discovery: certificates with their keys, and authorities.
//!
//! Read and checked here, so that what cannot be used is refused with the reason and the one before
//! stays in force. Nothing of a key is ever in a message.

use super::{At, Refusal};
use crate::config::{Secret, SecretKind};
use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use tls::secret::Type;

/// Takes a secret; `body` is what it came as, by which equal ones are told.
///
/// # Errors
/// When it is of another type, or cannot be used.
pub fn secret(proto: &tls::Secret, body: &[u8]) -> Result<Secret, Refusal> {
    take(proto).map(|kind| Secret::new(kind, body.to_vec())).of("secret", &proto.name)
}

fn take(proto: &tls::Secret) -> Result<SecretKind, Refusal> {
    match &proto.r#type {
        Some(Type::TlsCertificate(given)) => {
            certificate(given).map(SecretKind::Certificate).at("tls_certificate")
        }
        Some(Type::ValidationContext(given)) => {
            authorities(given).map(SecretKind::Authorities).at("validation_context")
        }
        _ => Err(Refusal::new("is neither a certificate nor authorities")),
    }
}

fn certificate(given: &tls::TlsCertificate) -> Result<Arc<CertifiedKey>, Refusal> {
    let chain = pem(given.certificate_chain.as_ref()).at("certificate_chain")?;
    let chain = certificates(chain).at("certificate_chain")?;
    let key = pem(given.private_key.as_ref()).at("private_key")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| Refusal::new("is no private key in PEM"))
        .at("private_key")?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map(Arc::new)
        .map_err(|error| Refusal::new(format!("certificate and key cannot be used: {error}")))
}

fn authorities(given: &tls::CertificateValidationContext) -> Result<Arc<RootCertStore>, Refusal> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem(given.trusted_ca.as_ref()).at("trusted_ca")?)? {
        store
            .add(certificate)
            .map_err(|error| Refusal::new(format!("cannot be used: {error}")))
            .at("trusted_ca")?;
    }
    Ok(Arc::new(store))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Refusal> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Refusal::new("holds no certificates in PEM")),
    }
}

fn pem(source: Option<&DataSource>) -> Result<&[u8], Refusal> {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        Some(Specifier::InlineString(text)) => Ok(text.as_bytes()),
        _ => Err(Refusal::new("must be given in place")),
    }
}
