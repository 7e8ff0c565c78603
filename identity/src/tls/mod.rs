//! rustls configurations over identities that change while connections live.
//!
//! [`HotCredential`] and [`HotBundle`] hold what is in force now; configurations read them at
//! every handshake, so rotation needs no new configuration. The crypto provider is always given
//! explicitly (aws-lc-rs); nothing depends on a process-wide default.

mod client;
mod hot;
mod server;
mod verify;

pub use client::{dns_client_config, workload_client_config};
pub use hot::{HotBundle, HotCredential};
pub use server::{ClientAuth, server_config};
pub use verify::{ClientVerifier, WorkloadServerVerifier, verify_chain};

use rustls::crypto::CryptoProvider;
use std::sync::Arc;
use thiserror::Error;

/// Why no configuration could be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("TLS configuration: {0}")]
pub struct TlsError(String);

/// The crypto provider of all connections.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn refused(error: &rustls::Error) -> TlsError {
    TlsError(error.to_string())
}

fn protocols(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| name.as_bytes().to_vec()).collect()
}
