//! Certificates and roots in force, as the data path reads them.
//!
//! `default` is the workload's own certificate, `ROOTCA` the roots of the mesh; other secret
//! names are unknown here. A certificate stays in force until another takes its place.

use crate::upstream::tls::TlsMaterials;
use arc_swap::ArcSwapOption;
use lateen_identity::tls::HotCredential;
use lateen_identity::{Credential, TrustBundle};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Secret name of the workload's certificate.
pub const OWN: &str = "default";
/// Secret name of the mesh's roots.
pub const ROOTS: &str = "ROOTCA";

/// The identity of this workload, swappable.
#[derive(Debug, Default)]
pub struct Materials {
    credential: HotCredential,
    bundle: ArcSwapOption<TrustBundle>,
    generation: AtomicU64,
}

impl Materials {
    /// Puts a certificate and roots in force for handshakes from now on.
    pub fn set(&self, credential: Credential, bundle: TrustBundle) {
        self.bundle.store(Some(Arc::new(bundle)));
        self.credential.set(credential);
        self.generation.fetch_add(1, Ordering::Release);
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
}

impl TlsMaterials for Materials {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        (name == OWN).then(|| self.credential())?.map(|own| Arc::clone(own.certified()))
    }

    fn anchors(&self, name: &str) -> Option<Arc<RootCertStore>> {
        (name == ROOTS).then(|| self.bundle())?.map(|bundle| bundle.anchors())
    }
}
