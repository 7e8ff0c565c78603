//! The certificate authority: signs what it is told to sign.
//!
//! It decides about lifetimes only as far as its own certificate reaches; who may have which name
//! is the caller's to say. Time comes in as a value. [`directory`] keeps one in files.

pub mod directory;

use crate::{BundleError, Credential, CredentialError, KeyError, PeerCertificate, PeerError};
use crate::{SigningRequest, SpiffeId, TrustBundle, TrustDomain, WorkloadKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use time::OffsetDateTime;

/// Lifetime of a root made here.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 86_400);
/// Certificates are valid from this long before they are made, for clocks that are behind.
pub const BACKDATE: Duration = Duration::from_secs(120);

/// Why a CA cannot be made, read, or sign.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CaError {
    /// Its key cannot be read.
    #[error("CA key: {0}")]
    Key(String),
    /// Its certificate cannot be read or is none of a CA.
    #[error("CA certificate: {0}")]
    Certificate(String),
    /// Key and certificate do not belong together.
    #[error("the CA key is not the key of the CA certificate")]
    Mismatch,
    /// Its roots cannot be read.
    #[error(transparent)]
    Roots(#[from] BundleError),
    /// The chain does not lead to the roots.
    #[error("the CA certificate does not lead to a certificate of root-cert.pem: {0}")]
    Untrusted(String),
    /// The CA's certificate has ended.
    #[error("the CA certificate has ended")]
    Ended,
    /// The wanted lifetime is nothing.
    #[error("a certificate with a lifetime of nothing was asked for")]
    NoLifetime,
    /// A name cannot stand in a certificate.
    #[error("name `{0}` cannot stand in a certificate")]
    Name(String),
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(String),
    /// Key and certificate just issued do not fit.
    #[error(transparent)]
    Credential(#[from] CredentialError),
}

impl From<KeyError> for CaError {
    fn from(error: KeyError) -> Self {
        Self::Key(error.to_string())
    }
}

impl From<PeerError> for CaError {
    fn from(error: PeerError) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A workload, client and server.
    Workload(SpiffeId),
    /// A server known by DNS names.
    Server(Vec<String>),
}

/// An issued certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// PEM texts: leaf, intermediates, and all roots as the last one.
    pub chain: Vec<String>,
    /// End of validity.
    pub not_after: SystemTime,
}

/// A certificate authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    own: PeerCertificate,
    intermediates: Vec<String>,
    roots: String,
    bundle: TrustBundle,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca").field("subject", &self.own.subject).finish_non_exhaustive()
    }
}

/// The four texts of a CA: what is kept in files.
#[derive(Clone)]
pub struct CaFiles {
    /// Certificate that signs.
    pub certificate: String,
    /// Its key. A secret.
    pub key: String,
    /// Roots.
    pub roots: String,
    /// From the signing certificate towards the root; may be empty.
    pub chain: String,
}

impl fmt::Debug for CaFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaFiles").field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl CaFiles {
    /// Makes a self-signed root of ten years (ECDSA P-256).
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn create(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial()?);
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(now + ROOT_LIFETIME);
        let pem = params.self_signed(&key).map_err(sign)?.pem();
        Ok(Self {
            certificate: pem.clone(),
            key: key.serialize_pem(),
            roots: pem.clone(),
            chain: pem,
        })
    }
}

impl Ca {
    /// A CA from its four texts.
    ///
    /// # Errors
    /// When they are malformed, do not belong together, or do not lead to the roots.
    pub fn from_files(files: &CaFiles) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(&files.key).map_err(|e| CaError::Key(e.to_string()))?;
        let bad = |e: String| CaError::Certificate(e);
        let der = CertificateDer::from_pem_slice(files.certificate.as_bytes())
            .map_err(|e| bad(e.to_string()))?;
        let own = PeerCertificate::from_der(&der)?;
        if !own.is_ca {
            return Err(bad("it may not sign certificates (basic constraints)".to_owned()));
        }
        if !key_fits(&der, &key) {
            return Err(CaError::Mismatch);
        }
        let bundle = TrustBundle::from_pem(files.roots.as_bytes())?;
        let intermediates = intermediates(&der, &files.chain, &bundle)?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| bad(e.to_string()))?;
        let texts = intermediates.iter().map(to_pem).collect();
        let ca = Self { issuer, own, intermediates: texts, roots: files.roots.clone(), bundle };
        ca.prove()?;
        Ok(ca)
    }

    /// Signs a request.
    ///
    /// # Errors
    /// When the CA's own certificate has ended, or a name is malformed.
    pub fn sign(
        &self,
        request: &SigningRequest,
        subject: &Subject,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        self.issue_for(request.public_key(), subject, lifetime, now)
    }

    /// Makes a key and a certificate for it; for servers in the CA's own process.
    ///
    /// # Errors
    /// As [`Ca::sign`].
    pub fn issue(
        &self,
        subject: &Subject,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Credential, CaError> {
        let key = WorkloadKey::generate()?;
        let issued = self.issue_for(key.pair(), subject, lifetime, now)?;
        Ok(Credential::new(issued.chain.iter().map(String::as_str), &key)?)
    }

    /// The roots.
    #[must_use]
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// The roots, PEM.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots
    }

    /// What the signing certificate says.
    #[must_use]
    pub fn certificate(&self) -> &PeerCertificate {
        &self.own
    }

    fn issue_for(
        &self,
        key: &impl PublicKeyData,
        subject: &Subject,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        if lifetime.is_zero() {
            return Err(CaError::NoLifetime);
        }
        if now >= self.own.not_after {
            return Err(CaError::Ended);
        }
        // Beyond what time can express the CA's own end is nearer anyway.
        let wanted = now.checked_add(lifetime).unwrap_or(self.own.not_after);
        let not_after = wanted.min(self.own.not_after);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names(subject)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match subject {
            Subject::Workload(_) => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Subject::Server(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        params.not_before = OffsetDateTime::from(now - BACKDATE);
        params.not_after = OffsetDateTime::from(not_after);
        let leaf = params.signed_by(key, &self.issuer).map_err(sign)?.pem();
        let mut chain = vec![leaf];
        chain.extend(self.intermediates.iter().cloned());
        chain.push(self.roots.clone());
        Ok(Issued { chain, not_after })
    }

    /// Signs a throw-away certificate and verifies it as a peer would.
    fn prove(&self) -> Result<(), CaError> {
        let start = self.own.not_before + BACKDATE;
        let now = start.min(self.own.not_after - Duration::from_secs(1));
        let subject = Subject::Server(vec!["ca-check.invalid".to_owned()]);
        let credential = self.issue(&subject, Duration::from_secs(3600), now)?;
        crate::tls::verify_chain(&credential.certified().cert, &self.bundle, now)
            .map_err(|e| CaError::Untrusted(e.to_string()))
    }
}

/// What stands between a leaf and the roots: the signing certificate and its chain, as far as
/// they are no roots themselves.
fn intermediates(
    own: &CertificateDer<'static>,
    chain: &str,
    bundle: &TrustBundle,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let mut found = vec![own.clone()];
    for der in CertificateDer::pem_slice_iter(chain.as_bytes()) {
        let der = der.map_err(|e| CaError::Certificate(format!("cert-chain.pem: {e}")))?;
        if !found.contains(&der) {
            found.push(der);
        }
    }
    found.retain(|der| !bundle.roots().contains(der));
    Ok(found)
}

fn key_fits(der: &CertificateDer<'_>, key: &KeyPair) -> bool {
    x509_parser::parse_x509_certificate(der)
        .is_ok_and(|(_, c)| c.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

fn names(subject: &Subject) -> Result<Vec<SanType>, CaError> {
    let ia5 = |text: &str| text.to_owned().try_into().map_err(|_| CaError::Name(text.to_owned()));
    match subject {
        Subject::Workload(id) => Ok(vec![SanType::URI(ia5(&id.to_string())?)]),
        Subject::Server(names) => {
            names.iter().map(|name| Ok(SanType::DnsName(ia5(name)?))).collect()
        }
    }
}

/// 127 random bits: positive, and unique without bookkeeping.
fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Sign("no randomness".to_owned()))?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn to_pem(der: &CertificateDer<'static>) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|b| char::from(*b)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[expect(clippy::needless_pass_by_value, reason = "shape that map_err wants")]
fn sign(error: rcgen::Error) -> CaError {
    CaError::Sign(error.to_string())
}
