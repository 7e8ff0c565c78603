//! TLS that ends here: rustls configurations of listeners, made once and again after rotation,
//! and the handshake.
//!
//! Keys and anchors come through [`TlsMaterials`]. A new generation of materials means new
//! configurations with new ticket keys, so no session outlives the trust it was made under.

use super::client_judge::ClientJudge;
use super::own_certificates::OwnCertificates;
use super::peer;
use crate::config::{Name, ServerTls};
use crate::http::DownstreamTls;
use crate::upstream::tls::{TlsError, TlsMaterials};
use parking_lot::Mutex;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Acceptor, NoClientAuth, ServerConfig, WebPkiClientVerifier};
use rustls::{ProtocolVersion, ServerConnection};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

/// Configurations kept before all are forgotten; a mesh has a handful.
const MAX_KNOWN: usize = 64;
/// Protocol with which Istio's TCP metadata exchange begins. It is not spoken here, so it is
/// never agreed on; the client then leaves it out.
const PEER_EXCHANGE: &str = "istio-peer-exchange";

/// Why there is no TLS with a client.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// No configuration could be made.
    #[error(transparent)]
    Config(#[from] TlsError),
    /// It took too long.
    #[error("TLS handshake took longer than {0:?}")]
    TimedOut(Duration),
    /// It failed.
    #[error("TLS handshake: {0}")]
    Failed(#[from] std::io::Error),
    /// The client's certificate cannot be used.
    #[error("client certificate: {0}")]
    Peer(#[from] peer::CertificateError),
}

/// The TLS configurations of all listeners, for all workers.
#[derive(Debug)]
pub struct ServerConfigs {
    materials: Arc<dyn TlsMaterials>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    generation: u64,
    configs: Vec<(Arc<ServerTls>, Arc<Prepared>)>,
}

/// What one TLS context needs for its handshakes.
#[derive(Debug)]
struct Prepared {
    config: Arc<ServerConfig>,
    /// For clients that share no application protocol with us: rustls would refuse them, the
    /// mesh goes on without.
    without_alpn: Arc<ServerConfig>,
    own: Arc<OwnCertificates>,
}

impl ServerConfigs {
    /// No configuration yet; all will be made of `materials`.
    #[must_use]
    pub fn new(materials: Arc<dyn TlsMaterials>) -> Self {
        Self { materials, known: Mutex::default() }
    }

    fn prepared(&self, tls: &Arc<ServerTls>) -> Result<Arc<Prepared>, TlsError> {
        let generation = self.materials.generation();
        let mut known = self.known.lock();
        if known.generation != generation || known.configs.len() > MAX_KNOWN {
            *known = Known { generation, configs: Vec::new() };
        }
        let same = |own: &Arc<ServerTls>| Arc::ptr_eq(own, tls) || own == tls;
        if let Some((_, prepared)) = known.configs.iter().find(|(own, _)| same(own)) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(prepare(tls, &*self.materials)?);
        known.configs.push((Arc::clone(tls), Arc::clone(&prepared)));
        Ok(prepared)
    }

    /// Does the handshake with a client.
    ///
    /// # Errors
    /// When materials are missing, the client fails to prove who it is, or time is up.
    pub async fn accept(
        &self,
        stream: TcpStream,
        tls: &Arc<ServerTls>,
        limit: Duration,
    ) -> Result<(Box<TlsStream<TcpStream>>, DownstreamTls), HandshakeError> {
        let prepared = self.prepared(tls)?;
        let shaken = tokio::time::timeout(limit, Box::pin(handshake(stream, &prepared)));
        let stream = shaken.await.map_err(|_| HandshakeError::TimedOut(limit))??;
        let facts = facts(stream.get_ref().1, &prepared)?;
        Ok((Box::new(stream), facts))
    }
}

async fn handshake(
    stream: TcpStream,
    prepared: &Prepared,
) -> std::io::Result<TlsStream<TcpStream>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let shared = start.client_hello().alpn().is_none_or(|mut offered| {
        offered.any(|protocol| prepared.config.alpn_protocols.iter().any(|own| own == protocol))
    });
    let config = if shared { &prepared.config } else { &prepared.without_alpn };
    start.into_stream(Arc::clone(config)).await
}

fn facts(
    connection: &ServerConnection,
    prepared: &Prepared,
) -> Result<DownstreamTls, peer::CertificateError> {
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let local_uris = prepared.own.uris(connection.server_name());
    let peer = match leaf {
        Some(der) => Some(peer::peer(der, local_uris, SystemTime::now())?),
        None => None,
    };
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3".to_owned()),
        Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2".to_owned()),
        _ => None,
    };
    Ok(DownstreamTls {
        sni: connection.server_name().map(str::to_owned),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        version,
        peer,
        local_uris: local_uris.to_vec(),
    })
}

fn prepare(tls: &ServerTls, materials: &dyn TlsMaterials) -> Result<Prepared, TlsError> {
    let refuse = |e: &dyn std::fmt::Display| TlsError::Config(e.to_string());
    let key = |name: &Name| {
        materials.certificate(name).ok_or_else(|| TlsError::NotReady(name.to_string()))
    };
    let keys = tls.certificates.iter().map(key).collect::<Result<_, _>>()?;
    let own = Arc::new(OwnCertificates::new(keys).map_err(|e| refuse(&e))?);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] =
        if tls.tls13_only { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|e| refuse(&e))?
        .with_client_cert_verifier(client_verifier(tls, materials)?)
        .with_cert_resolver(Arc::clone(&own) as Arc<_>);
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|e| refuse(&e))?;
    config.send_tls13_tickets = 1;
    let mut without_alpn = config.clone();
    without_alpn.alpn_protocols = Vec::new();
    config.alpn_protocols = tls
        .alpn
        .iter()
        .filter(|protocol| *protocol != PEER_EXCHANGE)
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    Ok(Prepared { config: Arc::new(config), without_alpn: Arc::new(without_alpn), own })
}

fn client_verifier(
    tls: &ServerTls,
    materials: &dyn TlsMaterials,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(name) = &tls.validation else { return Ok(Arc::new(NoClientAuth)) };
    let anchors = materials.anchors(name).ok_or_else(|| TlsError::NotReady(name.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(anchors, provider);
    let builder =
        if tls.require_client_certificate { builder } else { builder.allow_unauthenticated() };
    let chain = builder.build().map_err(|e| TlsError::Config(e.to_string()))?;
    if tls.subject_alt_names.is_empty() {
        return Ok(chain);
    }
    Ok(Arc::new(ClientJudge::new(chain, tls.subject_alt_names.clone())))
}
