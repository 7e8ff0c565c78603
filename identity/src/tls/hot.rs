//! Certificates and roots that can be swapped while handshakes run.
//!
//! Readers never wait. A handshake sees either the old or the new, never a mixture.

use crate::{Credential, TrustBundle};
use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// The credential in force; empty until there is one.
#[derive(Debug, Default)]
pub struct HotCredential(ArcSwapOption<Credential>);

impl HotCredential {
    /// Holds nothing yet.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Holds this credential.
    #[must_use]
    pub fn new(credential: Credential) -> Self {
        Self(ArcSwapOption::from_pointee(credential))
    }

    /// Puts another in force for all handshakes from now on.
    pub fn set(&self, credential: Credential) {
        self.0.store(Some(Arc::new(credential)));
    }

    /// The one in force.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Credential>> {
        self.0.load_full()
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|credential| Arc::clone(credential.certified()))
    }
}

impl ResolvesServerCert for HotCredential {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for HotCredential {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified().filter(|key| key.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// The roots in force.
#[derive(Debug)]
pub struct HotBundle(ArcSwap<TrustBundle>);

impl HotBundle {
    /// Holds these roots.
    #[must_use]
    pub fn new(bundle: TrustBundle) -> Self {
        Self(ArcSwap::from_pointee(bundle))
    }

    /// Puts others in force for all handshakes from now on.
    pub fn set(&self, bundle: TrustBundle) {
        self.0.store(Arc::new(bundle));
    }

    /// Those in force.
    #[must_use]
    pub fn get(&self) -> Arc<TrustBundle> {
        self.0.load_full()
    }
}
