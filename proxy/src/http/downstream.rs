//! What HTTP needs to know of the downstream connection: addresses, TLS, direction.

use crate::config::Direction;
use http::HeaderValue;
use std::net::SocketAddr;
use std::sync::Arc;

/// Facts about a downstream connection.
#[derive(Debug, Clone)]
pub struct Downstream {
    /// The client.
    pub peer: SocketAddr,
    /// Our end; the original destination where traffic is redirected.
    pub local: SocketAddr,
    /// Where the connection was going before redirection.
    pub original_dst: Option<SocketAddr>,
    /// Which way.
    pub direction: Direction,
    /// TLS that was terminated.
    pub tls: Option<Arc<DownstreamTls>>,
}

/// TLS of a downstream connection.
#[derive(Debug, Clone, Default)]
pub struct DownstreamTls {
    /// Server name the client asked for.
    pub sni: Option<String>,
    /// Application protocol agreed on.
    pub alpn: Option<Vec<u8>>,
    /// TLS version, `TLSv1.3`.
    pub version: Option<String>,
    /// The client's certificate, if it had one that was verified.
    pub peer: Option<PeerCertificate>,
    /// URI names of our own certificate (`By=` of `x-forwarded-client-cert`).
    pub local_uris: Vec<String>,
}

/// A verified client certificate.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificate {
    /// URI names, SPIFFE ID first.
    pub uris: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Subject in RFC 2253 form.
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub hash: String,
    /// The element this connection adds to `x-forwarded-client-cert`, made once.
    pub forwarded: Option<HeaderValue>,
}

impl DownstreamTls {
    /// Makes the element of `x-forwarded-client-cert`, once for the connection.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        if let Some(peer) = &mut self.peer {
            let element = super::forwarded::certificate_element(&self.local_uris, peer);
            peer.forwarded = HeaderValue::try_from(element).ok();
        }
        self
    }
}

impl Downstream {
    /// Where the connection was going: before redirection, or to our own address (which under
    /// TPROXY is the destination).
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        self.original_dst.unwrap_or(self.local)
    }

    /// The client proved who it is.
    #[must_use]
    pub fn is_mutual_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.peer.is_some())
    }

    /// `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}
