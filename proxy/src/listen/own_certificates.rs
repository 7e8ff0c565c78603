//! Our certificates of one TLS context, and which of them a client is shown.

use super::peer::{CertificateError, subject_alt_names};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The certificates of a TLS context, at least one.
#[derive(Debug)]
pub(super) struct OwnCertificates(Vec<Own>);

#[derive(Debug)]
struct Own {
    key: Arc<CertifiedKey>,
    uris: Vec<String>,
    dns: Vec<String>,
}

impl OwnCertificates {
    /// Reads the names of each certificate.
    ///
    /// # Errors
    /// When one is not an X.509 certificate.
    pub(super) fn new(keys: Vec<Arc<CertifiedKey>>) -> Result<Self, CertificateError> {
        let own = keys.into_iter().map(|key| {
            let (uris, dns) = match key.cert.first() {
                Some(leaf) => subject_alt_names(leaf)?,
                None => (Vec::new(), Vec::new()),
            };
            Ok(Own { key, uris, dns })
        });
        own.collect::<Result<_, _>>().map(Self)
    }

    /// The one that carries `server_name`, exactly before by wildcard, else the first.
    fn choose(&self, server_name: Option<&str>) -> Option<&Own> {
        let (Some(name), true) = (server_name, self.0.len() > 1) else { return self.0.first() };
        let carries = |fits: fn(&str, &str) -> bool| {
            self.0.iter().find(|own| own.dns.iter().any(|dns| fits(dns, name)))
        };
        carries(str::eq_ignore_ascii_case).or_else(|| carries(covers)).or_else(|| self.0.first())
    }

    /// URI names of the certificate that a client with this server name is shown.
    pub(super) fn uris(&self, server_name: Option<&str>) -> &[String] {
        self.choose(server_name).map_or(&[], |own| &own.uris)
    }
}

/// `*.suffix` stands for one label.
fn covers(dns: &str, name: &str) -> bool {
    let (Some(suffix), Some((_, rest))) = (dns.strip_prefix("*."), name.split_once('.')) else {
        return false;
    };
    suffix.eq_ignore_ascii_case(rest)
}

impl ResolvesServerCert for OwnCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name()).map(|own| Arc::clone(&own.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn certificates(names: &[&str]) -> OwnCertificates {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let make = |name: &&str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![(*name).to_owned()]).unwrap();
            let der = params.self_signed(&key).unwrap().der().clone();
            let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            Arc::new(CertifiedKey::from_der(vec![der], key, &provider).unwrap())
        };
        OwnCertificates::new(names.iter().map(make).collect()).unwrap()
    }

    #[test]
    fn the_certificate_follows_the_server_name() {
        let all = certificates(&["a.test", "*.wild.test", "x.wild.test"]);
        for (name, wanted) in [
            (None, "a.test"),
            (Some("A.test"), "a.test"),
            (Some("x.wild.test"), "x.wild.test"),
            (Some("y.wild.test"), "*.wild.test"),
            (Some("z.y.wild.test"), "a.test"),
            (Some("other.test"), "a.test"),
        ] {
            assert_eq!(all.choose(name).unwrap().dns, [wanted], "{name:?}");
        }
    }
}
