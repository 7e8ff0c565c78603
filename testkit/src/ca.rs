//! A certificate authority in memory, with credentials for workloads and servers of a test mesh.

use lateen_identity::ca::CaFiles;
use lateen_identity::tls::HotBundle;
use lateen_identity::{Ca, Credential, SpiffeId, Subject, TrustDomain};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A CA of trust domain `cluster.local`.
#[derive(Debug)]
pub struct TestCa {
    ca: Ca,
    domain: TrustDomain,
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCa {
    /// A new root.
    ///
    /// # Panics
    /// When the system has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let domain = TrustDomain::parse("cluster.local").expect("a constant name");
        let files = CaFiles::create(&domain, SystemTime::now()).expect("randomness");
        Self { ca: Ca::from_files(&files).expect("just made"), domain }
    }

    /// The authority itself.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Its roots, swappable.
    #[must_use]
    pub fn bundle(&self) -> Arc<HotBundle> {
        Arc::new(HotBundle::new(self.ca.bundle().clone()))
    }

    /// The identity of a service account.
    ///
    /// # Panics
    /// When a name cannot stand in a SPIFFE ID.
    #[must_use]
    pub fn id(&self, namespace: &str, account: &str) -> SpiffeId {
        SpiffeId::workload(&self.domain, namespace, account).expect("names for a SPIFFE ID")
    }

    /// A certificate of an hour for a service account.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn workload(&self, namespace: &str, account: &str) -> Credential {
        self.issue(&Subject::Workload(self.id(namespace, account)))
    }

    /// A certificate of an hour for DNS names.
    ///
    /// # Panics
    /// When it cannot be signed.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> Credential {
        self.issue(&Subject::Server(names.iter().map(ToString::to_string).collect()))
    }

    fn issue(&self, subject: &Subject) -> Credential {
        let hour = Duration::from_secs(3600);
        self.ca.issue(subject, hour, SystemTime::now()).expect("a fresh CA signs")
    }
}
