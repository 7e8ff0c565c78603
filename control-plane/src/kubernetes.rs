//! What is written to the API server: the authority's Secret, the root certificate of every
//! namespace, the CA bundle of the webhooks, what injects while they are away, events; and who of the
//! replicas writes. And what is looked at there: pods without their sidecar, whether the webhook is
//! reached.
//!
//! What to write given what is there is decided by pure functions; thin shells around them watch
//! and write. Reading the mesh's objects is not done here.

pub mod ask;
pub mod auditor;
pub mod ca_bundle;
pub mod decisions;
pub mod denied;
pub mod election;
pub mod events;
pub mod fallback;
pub mod lease;
pub mod mirror;
pub mod owner;
pub mod root_certificates;
pub mod roots;
pub mod secret;
pub mod self_test;
pub mod succession;
pub mod vault;
pub mod webhooks;

/// Field manager of everything that is written here.
pub const MANAGER: &str = "lateend";
