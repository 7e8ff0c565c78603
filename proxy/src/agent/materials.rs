//! Certificates and roots in force, as the data path reads them.
//!
//! `default` is the workload's own certificate, `ROOTCA` the roots of the mesh;
//! `file-cert:CHAIN~KEY` and `file-root:FILE` are files, read when the first handshake needs them
//! and again with every change of the workload's certificate; `kubernetes://NAME` came by discovery.
//! Other secret names are unknown here.
//! A certificate stays in force until another takes its place.

use crate::config::{DISCOVERED, FILE_CERT, FILE_ROOT, Name, Secret, SecretKind};
use crate::upstream::tls::{TlsMaterials, read_anchors};
use arc_swap::{ArcSwap, ArcSwapOption};
use lateen_identity::tls::HotCredential;
use lateen_identity::{Credential, TrustBundle};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Secret name of the workload's certificate.
pub const OWN: &str = "default";
/// Secret name of the mesh's roots.
pub const ROOTS: &str = "ROOTCA";
/// The identity of this workload, swappable.
#[derive(Debug, Default)]
pub struct Materials {
    credential: HotCredential,
    bundle: ArcSwapOption<TrustBundle>,
    /// What came by discovery.
    secrets: ArcSwap<HashMap<Name, Arc<Secret>>>,
    generation: AtomicU64,
    /// When the certificate is due to be renewed, ms since the epoch.
    renew_at_ms: AtomicU64,
}

impl Materials {
    /// Puts a certificate and roots in force for handshakes from now on.
    pub fn set(&self, credential: Credential, bundle: TrustBundle, renew_at: SystemTime) {
        self.bundle.store(Some(Arc::new(bundle)));
        self.credential.set(credential);
        self.renew_at_ms.store(epoch_ms(renew_at), Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Puts what came by discovery in force for handshakes from now on.
    pub fn set_secrets(&self, secrets: &HashMap<Name, Arc<Secret>>) {
        if **self.secrets.load() != *secrets {
            self.secrets.store(Arc::new(secrets.clone()));
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// The certificate in force.
    #[must_use]
    pub fn credential(&self) -> Option<Arc<Credential>> {
        self.credential.get()
    }

    /// The roots in force.
    #[must_use]
    pub fn bundle(&self) -> Option<Arc<TrustBundle>> {
        self.bundle.load_full()
    }

    /// When the certificate is due to be renewed, ms since the epoch; 0 without one.
    #[must_use]
    pub fn renew_at_ms(&self) -> u64 {
        self.renew_at_ms.load(Ordering::Acquire)
    }
}

/// Milliseconds since the epoch.
pub(in crate::agent) fn epoch_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl TlsMaterials for Materials {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        if name == OWN {
            return self.credential().map(|own| Arc::clone(own.certified()));
        }
        if name.starts_with(DISCOVERED) {
            return match self.secrets.load().get(name)?.kind() {
                SecretKind::Certificate(key) => Some(Arc::clone(key)),
                SecretKind::Authorities(_) => None,
            };
        }
        let (chain, key) = name.strip_prefix(FILE_CERT)?.split_once('~')?;
        match read_certificate(Path::new(chain), Path::new(key)) {
            Ok(read) => Some(Arc::new(read)),
            Err(reason) => {
                tracing::warn!(name, reason, "certificate cannot be used");
                None
            }
        }
    }

    fn anchors(&self, name: &str) -> Option<Arc<RootCertStore>> {
        if name == ROOTS {
            return self.bundle().map(|bundle| bundle.anchors());
        }
        if name.starts_with(DISCOVERED) {
            return match self.secrets.load().get(name)?.kind() {
                SecretKind::Authorities(roots) => Some(Arc::clone(roots)),
                SecretKind::Certificate(_) => None,
            };
        }
        match read_anchors(Path::new(name.strip_prefix(FILE_ROOT)?)) {
            Ok(roots) => Some(Arc::new(roots)),
            Err(error) => {
                tracing::warn!(name, %error, "roots cannot be used");
                None
            }
        }
    }
}

/// A certificate chain with its key, both as PEM.
fn read_certificate(chain: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let wrong =
        |path: &Path, reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(chain, &error))?;
    let own = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(certificates, own, &provider).map_err(|error| wrong(chain, &error))
}
