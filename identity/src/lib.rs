//! Identities of workloads: SPIFFE IDs, keys, certificates, trust, rotation and TLS.
//!
//! A workload makes a key and a signing request ([`WorkloadKey`]); a [`Ca`] signs it; chain and
//! key together are a [`Credential`]. [`TrustBundle`] holds the roots. [`tls`] builds rustls
//! configurations over both, swappable while connections live. Who may have which identity, and
//! how requests travel, is not decided here.

mod bundle;
pub mod ca;
mod credential;
mod key;
mod peer;
mod rotation;
mod spiffe;
pub mod tls;

pub use bundle::{BundleError, TrustBundle};
pub use ca::{Ca, CaError, Issued, Subject};
pub use credential::{Credential, CredentialError};
pub use key::{KeyError, SigningRequest, WorkloadKey};
pub use peer::{PeerCertificate, PeerError};
pub use rotation::Rotation;
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
