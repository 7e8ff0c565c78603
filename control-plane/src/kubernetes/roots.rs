//! Sets of root certificates: what a bundle in the API server holds, and what it should hold.
//!
//! Compared by certificate, not by text: how a text was wrapped or in which order it stands is no
//! reason to write it again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_identity::{BundleError, PeerCertificate, TrustBundle};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::fmt;
use std::time::SystemTime;

/// Characters in a line of PEM.
const LINE: usize = 64;

/// Root certificates, each once, in the order in which they came.
#[derive(Clone, Default)]
pub struct Roots(Vec<CertificateDer<'static>>);

impl fmt::Debug for Roots {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.iter().map(|root| PeerCertificate::from_der(root).map(|it| it.hash));
        out.debug_list().entries(all).finish()
    }
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.holds(other) && other.holds(self)
    }
}

impl Eq for Roots {}

impl Roots {
    /// What is legible in a PEM text; the rest of it is nothing.
    #[must_use]
    pub fn of_pem(text: &[u8]) -> Self {
        let mut roots = Self::default();
        for der in CertificateDer::pem_slice_iter(text).flatten() {
            if PeerCertificate::from_der(&der).is_ok() {
                roots.add(&der);
            }
        }
        roots
    }

    /// The roots of a trust bundle.
    #[must_use]
    pub fn of_bundle(bundle: &TrustBundle) -> Self {
        let mut roots = Self::default();
        bundle.roots().iter().for_each(|root| roots.add(root));
        roots
    }

    /// Adds a root, if it is not there.
    pub fn add(&mut self, root: &CertificateDer<'static>) {
        if !self.0.contains(root) {
            self.0.push(root.clone());
        }
    }

    /// These and others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let mut both = self.clone();
        others.0.iter().for_each(|root| both.add(root));
        both
    }

    /// Those of which `keep` says so.
    #[must_use]
    pub fn filtered(&self, keep: impl FnMut(&&CertificateDer<'static>) -> bool) -> Self {
        Self(self.0.iter().filter(keep).cloned().collect())
    }

    /// Those that have not ended.
    #[must_use]
    pub fn lasting(&self, now: SystemTime) -> Self {
        let lasts = |root: &&CertificateDer<'static>| {
            PeerCertificate::from_der(root).is_ok_and(|it| it.not_after > now)
        };
        self.filtered(lasts)
    }

    /// Whether all of `others` are in it.
    #[must_use]
    pub fn holds(&self, others: &Self) -> bool {
        others.0.iter().all(|root| self.0.contains(root))
    }

    /// Whether a root is in it.
    #[must_use]
    pub fn has(&self, root: &CertificateDer<'_>) -> bool {
        self.0.iter().any(|it| it == root)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The certificates.
    pub fn iter(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.0.iter()
    }

    /// As a trust bundle.
    ///
    /// # Errors
    /// When there is none, or one cannot be an anchor.
    pub fn bundle(&self) -> Result<TrustBundle, BundleError> {
        TrustBundle::from_der(self.0.clone())
    }

    /// As a PEM text.
    #[must_use]
    pub fn pem(&self) -> String {
        let mut text = String::new();
        for root in &self.0 {
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            let encoded = STANDARD.encode(root);
            let mut rest = encoded.as_str();
            while !rest.is_empty() {
                let (line, after) = rest.split_at(rest.len().min(LINE));
                text.push_str(line);
                text.push('\n');
                rest = after;
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Roots;
    use lateen_identity::TrustDomain;
    use lateen_identity::ca::{CaFiles, ROOT_LIFETIME};
    use std::time::SystemTime;

    /// The texts of a new authority.
    pub(crate) fn authority() -> CaFiles {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        CaFiles::create(&domain, SystemTime::now()).unwrap()
    }

    /// A new root.
    pub(crate) fn root() -> Roots {
        Roots::of_pem(authority().roots.as_bytes())
    }

    #[test]
    fn they_are_compared_by_certificate() {
        let (a, b) = (root(), root());
        assert_ne!(a, b);
        assert_eq!(a.and(&b), b.and(&a).and(&a));
        assert_eq!(Roots::of_pem(a.and(&b).pem().as_bytes()), a.and(&b));
        assert!(a.and(&b).holds(&a) && !a.holds(&b) && !a.holds(&a.and(&b)));
        let crlf = a.pem().replace('\n', "\r\n");
        assert_eq!(Roots::of_pem(crlf.as_bytes()), a);
    }

    #[test]
    fn rubbish_is_nothing() {
        assert!(Roots::of_pem(b"\n").is_empty());
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(Roots::of_pem(junk.as_bytes()).is_empty());
        let a = root();
        assert_eq!(Roots::of_pem(format!("{junk}{}", a.pem()).as_bytes()), a);
    }

    #[test]
    fn what_has_ended_goes() {
        let a = root();
        let now = SystemTime::now();
        assert_eq!(a.lasting(now), a);
        assert!(a.lasting(now + 2 * ROOT_LIFETIME).is_empty());
    }
}
