//! What a certificate says of its owner: SPIFFE ID and other names, subject, fingerprint.

use crate::http::PeerCertificate;
use crate::http::forwarded::certificate_element;
use http::HeaderValue;
use rustls_pki_types::CertificateDer;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// A certificate cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("certificate cannot be read: {0}")]
pub struct CertificateError(String);

/// Reads a verified client certificate. `local_uris` are the URI names of our own one.
///
/// # Errors
/// When it is not an X.509 certificate, or has expired by `now` (a resumed TLS session is not
/// verified again).
pub fn peer(
    der: &CertificateDer<'_>,
    local_uris: &[String],
    now: SystemTime,
) -> Result<PeerCertificate, CertificateError> {
    let certificate = parse(der)?;
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    if seconds > end {
        return Err(CertificateError("it has expired".to_owned()));
    }
    let (uris, dns) = names(&certificate);
    let mut peer = PeerCertificate {
        uris,
        dns,
        subject: subject(certificate.subject()),
        hash: fingerprint(der),
        forwarded: None,
    };
    peer.forwarded = HeaderValue::try_from(certificate_element(local_uris, &peer)).ok();
    Ok(peer)
}

/// The URI and DNS names of a certificate.
///
/// # Errors
/// When it is not an X.509 certificate.
pub fn subject_alt_names(
    der: &CertificateDer<'_>,
) -> Result<(Vec<String>, Vec<String>), CertificateError> {
    parse(der).map(|certificate| names(&certificate))
}

fn parse<'d>(der: &'d CertificateDer<'_>) -> Result<X509Certificate<'d>, CertificateError> {
    X509Certificate::from_der(der)
        .map(|(_, certificate)| certificate)
        .map_err(|e| CertificateError(e.to_string()))
}

/// URI and DNS names.
fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<String>) {
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                _ => {}
            }
        }
    }
    (uris, dns)
}

fn fingerprint(der: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut out, byte| {
        let written = write!(out, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
        out
    })
}

/// A name as RFC 2253 writes it: last part first, no spaces.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let written = parts.iter().rev().map(|part| {
        let attributes = part.iter().map(|attribute| {
            let oid = attribute.attr_type();
            let key =
                oid2abbrev(oid, oid_registry()).map_or_else(|_| oid.to_id_string(), str::to_owned);
            format!("{key}={}", escape(attribute.as_str().unwrap_or_default()))
        });
        attributes.collect::<Vec<_>>().join("+")
    });
    written.collect::<Vec<_>>().join(",")
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (i, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == '#' && i == 0)
            || (c == ' ' && (i == 0 || i == last));
        if special {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use std::time::Duration;

    const ID: &str = "spiffe://cluster.local/ns/shop/sa/front";

    fn certificate() -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["front.shop".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(ID.try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "a, b");
        params.distinguished_name.push(DnType::CommonName, "front");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn names_subject_and_fingerprint_are_read() {
        let der = certificate();
        let peer = peer(&der, &["spiffe://me".to_owned()], SystemTime::now()).unwrap();
        assert_eq!(peer.uris, [ID]);
        assert_eq!(peer.dns, ["front.shop"]);
        assert_eq!(peer.subject, r"CN=front,O=a\, b");
        assert_eq!(peer.hash.len(), 64);
        let forwarded = peer.forwarded.unwrap();
        let text = forwarded.to_str().unwrap();
        assert!(text.starts_with(&format!("By=spiffe://me;Hash={};Subject=", peer.hash)), "{text}");
        assert!(text.ends_with(&format!(";URI={ID};DNS=front.shop")), "{text}");
        assert_eq!(subject_alt_names(&der).unwrap().0, [ID]);
    }

    #[test]
    fn expired_certificates_are_refused() {
        let far = UNIX_EPOCH + Duration::from_secs(3_000_000_000);
        assert!(peer(&certificate(), &[], far).is_err());
        assert!(subject_alt_names(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
