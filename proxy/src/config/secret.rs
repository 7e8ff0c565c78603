//! TLS contexts: what a handshake offers and demands; and secrets that come by discovery. Other keys
//! live in [`crate::upstream::tls`].

use super::{Name, StringMatch};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;

/// Begins the name of a secret that is a certificate and a key in files: `file-cert:CHAIN~KEY`.
pub const FILE_CERT: &str = "file-cert:";
/// Begins the name of a secret that is a file with trust anchors.
pub const FILE_ROOT: &str = "file-root:";

/// TLS that a listener terminates (`DownstreamTlsContext`).
#[derive(Debug, Clone, PartialEq)]
pub struct ServerTls {
    /// SDS names of the certificates (`default` is the workload's own); the one that carries the
    /// server name asked for is shown, else the first.
    pub certificates: Vec<Name>,
    /// SDS name of the trust anchors of client certificates (`ROOTCA`).
    pub validation: Option<Name>,
    /// A client certificate is demanded.
    pub require_client_certificate: bool,
    /// Accepted client identities; empty accepts every certificate that the anchors cover.
    pub subject_alt_names: Vec<StringMatch>,
    /// Application protocols, most wanted first.
    pub alpn: Vec<String>,
    /// TLS 1.2 is not spoken.
    pub tls13_only: bool,
}

/// TLS that is started towards an endpoint (`UpstreamTlsContext`).
#[derive(Debug, Clone, PartialEq)]
pub struct ClientTls {
    /// SDS name of the client certificate; `None` sends none.
    pub certificate: Option<Name>,
    /// Trust anchors of the server's certificate.
    pub validation: Validation,
    /// Identities the server may have; empty accepts every certificate that is covered.
    pub subject_alt_names: Vec<StringMatch>,
    /// Server name; `None` sends none, or the host with `auto_sni`.
    pub sni: Option<String>,
    /// Server name is the request's host.
    pub auto_sni: bool,
    /// Application protocols, most wanted first.
    pub alpn: Vec<String>,
}

/// How a server certificate is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validation {
    /// By the anchors of this SDS name (`ROOTCA`).
    Sds(Name),
    /// By anchors in this file.
    File(String),
    /// By the anchors of the operating system.
    System,
    /// Not at all (`insecureSkipVerify`).
    None,
}

/// Begins the name of a secret that comes by discovery: `kubernetes://NAME`.
pub const DISCOVERED: &str = "kubernetes://";

/// A secret that came by discovery. What it holds is never printed.
#[derive(Clone)]
pub struct Secret {
    kind: SecretKind,
    body: Vec<u8>,
}

/// What a secret is.
#[derive(Clone)]
pub enum SecretKind {
    /// A certificate and its key.
    Certificate(Arc<CertifiedKey>),
    /// Authorities.
    Authorities(Arc<RootCertStore>),
}

impl Secret {
    /// A secret that came as `body`.
    #[must_use]
    pub fn new(kind: SecretKind, body: Vec<u8>) -> Self {
        Self { kind, body }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &SecretKind {
        &self.kind
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.kind {
            SecretKind::Certificate(_) => "Secret(certificate)",
            SecretKind::Authorities(_) => "Secret(authorities)",
        })
    }
}

impl fmt::Debug for SecretKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Certificate(_) => "Certificate",
            Self::Authorities(_) => "Authorities",
        })
    }
}
