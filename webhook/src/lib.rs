//! Sidecar injection.
//!
//! Whether a pod gets a sidecar ([`policy`]), what it gets ([`inject()`]), the patch that says so
//! ([`patch`]), and the webhook around it: its registration ([`hooks`]), what stands in for it
//! while it is away ([`fallback`]), what is said of it ([`explain`], [`audit`]), its messages ([`admission`], and [`validation`] for Istio's kinds),
//! its HTTPS server ([`server`]) and the API server's side of a call ([`client`], [`selectors`]). Everything but server and
//! client is pure. Must not know how settings are read or who watches the cluster.

pub mod admission;
pub mod audit;
pub mod changes;
pub mod client;
pub mod conditions;
pub mod explain;
pub mod fallback;
mod gotemplate;
pub mod hooks;
pub mod inject;
mod json;
mod kube;
pub mod patch;
pub mod policy;
pub mod selectors;
pub mod server;
pub mod settings;
pub mod stats;
pub mod strategic_merge;
pub mod stream;
pub mod validation;
mod yaml;

pub use inject::{AdmissionContext, InjectError, Injection, inject};
pub use policy::Reason;
pub use settings::InjectionSettings;
