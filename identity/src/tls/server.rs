//! Configurations of servers.
//!
//! The certificate is looked up at every handshake; sessions are not resumed across a rotation of
//! roots, because tickets are off: a revoked root must not live on in tickets.

use super::{ClientVerifier, HotCredential, TlsError, protocols, provider, refused};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use std::sync::Arc;

/// What is demanded of clients.
#[derive(Debug, Clone)]
pub enum ClientAuth {
    /// Nothing.
    None,
    /// What the verifier says.
    Verify(Arc<ClientVerifier>),
}

/// A server that shows the credential in force.
///
/// # Errors
/// When rustls refuses.
pub fn server_config(
    credential: Arc<HotCredential>,
    clients: ClientAuth,
    alpn: &[&str],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(&e))?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Verify(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_cert_resolver(credential);
    config.alpn_protocols = protocols(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
