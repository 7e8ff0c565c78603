//! Proxyless gRPC: what an agent is for, where applications speak xDS themselves.
//!
//! [`bootstrap`] tells gRPC libraries where things are, [`socket`] is where they come to, [`relay`] passes
//! what they say on to the control plane with the workload's own credentials. Certificates are files
//! ([`super::certificate_files`]). Must not know what is discovered.

mod authority_header;
pub mod bootstrap;
pub mod relay;
pub mod socket;
