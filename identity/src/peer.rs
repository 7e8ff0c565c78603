//! What a certificate says about who holds it: names, subject, lifetime, fingerprint.
//!
//! Parsing only; whether the certificate is to be believed is decided in [`crate::tls`].

use crate::{SpiffeError, SpiffeId};
use aws_lc_rs::digest::{SHA256, digest};
use std::fmt::Write;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{Oid, OidRegistry};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerError {
    /// Not X.509.
    #[error("certificate cannot be read: {0}")]
    Malformed(String),
    /// It has no SPIFFE ID, or more than one.
    #[error("a workload certificate has exactly one URI name, this one has {0}")]
    UriCount(usize),
    /// Its URI is no SPIFFE ID.
    #[error(transparent)]
    Spiffe(#[from] SpiffeError),
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// URI names.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Subject in RFC 2253 form; empty for workloads.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub hash: String,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// It may sign other certificates.
    pub is_ca: bool,
}

impl PeerCertificate {
    /// Reads a DER certificate.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn from_der(der: &[u8]) -> Result<Self, PeerError> {
        let malformed = |e: String| PeerError::Malformed(e);
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|e| malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes after its end".to_owned()));
        }
        let (mut uris, mut dns) = (Vec::new(), Vec::new());
        let names = certificate.subject_alternative_name().map_err(|e| malformed(e.to_string()))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                _ => {}
            }
        }
        let validity = certificate.validity();
        Ok(Self {
            uris,
            dns,
            subject: rfc2253(certificate.subject()),
            hash: hex(digest(&SHA256, der).as_ref()),
            serial: hex(certificate.raw_serial()),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
            is_ca: certificate.is_ca(),
        })
    }

    /// The SPIFFE ID: the one URI name.
    ///
    /// # Errors
    /// When there is none, more than one, or it is no SPIFFE ID.
    pub fn spiffe_id(&self) -> Result<SpiffeId, PeerError> {
        let [uri] = self.uris.as_slice() else {
            return Err(PeerError::UriCount(self.uris.len()));
        };
        Ok(uri.parse()?)
    }
}

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let shifted = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    shifted.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Most specific part first, without spaces, special characters escaped.
fn rfc2253(name: &X509Name<'_>) -> String {
    let registry = OidRegistry::default().with_x509();
    let parts: Vec<_> = name.iter_rdn().collect();
    let texts = parts.iter().rev().map(|rdn| {
        let attributes: Vec<_> = rdn.iter().map(|a| attribute(a, &registry)).collect();
        attributes.join("+")
    });
    texts.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>, registry: &OidRegistry<'_>) -> String {
    let kind = attribute.attr_type();
    let key = short_name(kind).map_or_else(
        || registry.get(kind).map_or_else(|| kind.to_id_string(), |e| e.sn().to_owned()),
        ToOwned::to_owned,
    );
    let value = attribute.as_str().unwrap_or_default();
    let mut escaped = String::with_capacity(value.len());
    for (place, c) in value.char_indices() {
        let edge = (place == 0 && (c == ' ' || c == '#')) || (place + 1 == value.len() && c == ' ');
        if edge || ",+\"\\<>;".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    format!("{key}={escaped}")
}

fn short_name(kind: &Oid<'_>) -> Option<&'static str> {
    Some(match kind.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    #[test]
    fn subjects_are_written_most_specific_first_and_escaped() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Sail, Inc");
        params.distinguished_name.push(DnType::CommonName, "mast");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let peer = PeerCertificate::from_der(certificate.der()).unwrap();
        assert_eq!(peer.subject, "CN=mast,O=Sail\\, Inc");
        assert_eq!(peer.dns, ["a.example"]);
        assert_eq!(peer.hash.len(), 64);
        assert_eq!(peer.spiffe_id(), Err(PeerError::UriCount(0)));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(PeerCertificate::from_der(b"").is_err());
        assert!(PeerCertificate::from_der(&[0x30, 0x80, 0, 0]).is_err());
    }
}
