//! Client side TLS: rustls configurations for clusters, made once and again after rotation.
//!
//! Keys and anchors come through [`TlsMaterials`], which the agent implements over the
//! workload's identity. Live connections keep the certificate they started with; a new
//! generation of materials makes new configurations for new connections.

use super::verify::{Judge, NameRule};
use crate::config::{ClientTls, Validation};
use arc_swap::ArcSwapOption;
use rustls::client::{ClientConfig, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where certificates, keys and anchors of secret names (`default`, `ROOTCA`) are had.
pub trait TlsMaterials: Send + Sync + fmt::Debug {
    /// Grows with every change of any material.
    fn generation(&self) -> u64;
    /// The certificate chain and key of this secret name; `None` while there is none.
    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>>;
    /// The trust anchors of this secret name; `None` while there are none.
    fn anchors(&self, name: &str) -> Option<Arc<RootCertStore>>;
}

/// Why no TLS configuration could be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// The identity has not been issued yet.
    #[error("secret {0} is not there yet (has the CA issued the workload certificate?)")]
    NotReady(String),
    /// A file with anchors cannot be used.
    #[error("trust anchors in {path}: {reason}")]
    Anchors {
        /// File.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// rustls refused.
    #[error("TLS configuration: {0}")]
    Config(String),
}

/// The application protocols of HTTP over mutual TLS between sidecars.
pub const ALPN_HTTP1: &[&str] = &["istio-http/1.1", "istio", "http/1.1"];
/// Likewise for HTTP/2.
pub const ALPN_HTTP2: &[&str] = &["istio-h2", "istio", "h2"];

/// Which protocols a handshake offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Those of the cluster's TLS context.
    Cluster,
    /// [`ALPN_HTTP1`] (filter `istio.alpn`).
    MeshHttp1,
    /// [`ALPN_HTTP2`] (filter `istio.alpn`).
    MeshHttp2,
    /// The cluster's if it has some, else `http/1.1`.
    Http1,
    /// The cluster's if it has some, else `h2`.
    Http2,
}

/// The TLS configurations of one cluster, one for each [`Offer`].
#[derive(Debug, Default)]
pub struct ClientConfigs {
    slots: [ArcSwapOption<(u64, Arc<ClientConfig>)>; 5],
}

impl ClientConfigs {
    /// The configuration for `offer`, built at first use and after every rotation.
    ///
    /// # Errors
    /// When materials are missing or unusable.
    pub fn get(
        &self,
        tls: &ClientTls,
        offer: Offer,
        materials: &dyn TlsMaterials,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let slot = match offer {
            Offer::Cluster => &self.slots[0],
            Offer::MeshHttp1 => &self.slots[1],
            Offer::MeshHttp2 => &self.slots[2],
            Offer::Http1 => &self.slots[3],
            Offer::Http2 => &self.slots[4],
        };
        let generation = materials.generation();
        if let Some(known) = slot.load().as_ref()
            && known.0 == generation
        {
            return Ok(Arc::clone(&known.1));
        }
        let config = Arc::new(build(tls, offer, materials)?);
        slot.store(Some(Arc::new((generation, Arc::clone(&config)))));
        Ok(config)
    }
}

fn build(
    tls: &ClientTls,
    offer: Offer,
    materials: &dyn TlsMaterials,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let names = name_rule(tls);
    let judge = match anchors(&tls.validation, materials)? {
        Some(roots) => Judge::anchored(roots, names, &provider),
        None => Judge::careless(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Config(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(judge));
    let mut config = match &tls.certificate {
        Some(name) => {
            let key =
                materials.certificate(name).ok_or_else(|| TlsError::NotReady(name.to_string()))?;
            builder.with_client_cert_resolver(Arc::new(Fixed(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(tls, offer);
    config.enable_sni = tls.sni.is_some() || tls.auto_sni;
    config.resumption = Resumption::in_memory_sessions(64);
    Ok(config)
}

fn protocols(tls: &ClientTls, offer: Offer) -> Vec<Vec<u8>> {
    let bytes = |names: &[&str]| names.iter().map(|p| p.as_bytes().to_vec()).collect();
    match offer {
        Offer::MeshHttp1 => bytes(ALPN_HTTP1),
        Offer::MeshHttp2 => bytes(ALPN_HTTP2),
        Offer::Http1 if tls.alpn.is_empty() => bytes(&["http/1.1"]),
        Offer::Http2 if tls.alpn.is_empty() => bytes(&["h2"]),
        Offer::Cluster | Offer::Http1 | Offer::Http2 => {
            tls.alpn.iter().map(|p| p.as_bytes().to_vec()).collect()
        }
    }
}

/// Names given are compared; without names, a certificate from public anchors (or one asked for
/// by the request's host) must at least carry the name that was asked for.
fn name_rule(tls: &ClientTls) -> NameRule {
    if !tls.subject_alt_names.is_empty() {
        NameRule::OneOf(tls.subject_alt_names.clone())
    } else if tls.validation == Validation::System
        || (tls.auto_sni && !matches!(tls.validation, Validation::Sds(_)))
    {
        NameRule::ServerName
    } else {
        NameRule::Any
    }
}

fn anchors(
    validation: &Validation,
    materials: &dyn TlsMaterials,
) -> Result<Option<Arc<RootCertStore>>, TlsError> {
    match validation {
        Validation::Sds(name) => {
            materials.anchors(name).map(Some).ok_or_else(|| TlsError::NotReady(name.to_string()))
        }
        Validation::File(path) => read_anchors(Path::new(path)).map(|roots| Some(Arc::new(roots))),
        Validation::System => system_anchors().map(|roots| Some(Arc::new(roots))),
        Validation::None => Ok(None),
    }
}

fn system_anchors() -> Result<RootCertStore, TlsError> {
    const PLACES: [&str; 3] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ];
    let found = PLACES.iter().find(|path| Path::new(path).exists());
    read_anchors(Path::new(found.unwrap_or(&PLACES[0])))
}

/// Trust anchors from a PEM file.
///
/// # Errors
/// When the file has none.
pub(crate) fn read_anchors(path: &Path) -> Result<RootCertStore, TlsError> {
    let refuse = |reason: String| TlsError::Anchors { path: path.display().to_string(), reason };
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_file_iter(path).map_err(|e| refuse(e.to_string()))? {
        let der = der.map_err(|e| refuse(e.to_string()))?;
        roots.add_parsable_certificates([der]);
    }
    if roots.is_empty() {
        return Err(refuse("no usable certificate".to_owned()));
    }
    Ok(roots)
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Fixed {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
