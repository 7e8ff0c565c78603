//! Configurations of clients.
//!
//! Towards the control plane host names count ([`dns_client_config`]); towards workloads SPIFFE
//! identities count ([`workload_client_config`]).

use super::{
    HotBundle, HotCredential, TlsError, WorkloadServerVerifier, protocols, provider, refused,
};
use crate::{SpiffeId, TrustBundle};
use rustls::ClientConfig;
use rustls::client::Resumption;
use std::sync::Arc;

/// A client that checks the server's DNS name against these roots, and shows no certificate.
///
/// # Errors
/// When rustls refuses.
pub fn dns_client_config(bundle: &TrustBundle, alpn: &[&str]) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(&e))?
        .with_root_certificates(bundle.anchors())
        .with_no_client_auth();
    config.alpn_protocols = protocols(alpn);
    Ok(config)
}

/// A client that shows the credential in force and accepts servers with one of these identities.
///
/// # Errors
/// When rustls refuses.
pub fn workload_client_config(
    credential: Arc<HotCredential>,
    bundle: Arc<HotBundle>,
    identities: impl IntoIterator<Item = SpiffeId>,
    alpn: &[&str],
) -> Result<ClientConfig, TlsError> {
    let verifier = WorkloadServerVerifier::new(bundle, identities);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(credential);
    config.alpn_protocols = protocols(alpn);
    // A resumed session would outlive the check of identities of another configuration.
    config.resumption = Resumption::disabled();
    Ok(config)
}
