//! Why no upstream connection or endpoint could be had.
//!
//! The words are those operators know from Envoy; the HTTP and TCP front ends turn them into
//! response flags. Nothing here knows requests or responses.

use std::net::SocketAddr;

/// Why a cluster gave no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// The snapshot has no such cluster.
    #[error("cluster {0} is not known to this proxy")]
    UnknownCluster(String),
    /// No endpoint may be picked.
    #[error("no healthy upstream in cluster {0}")]
    NoHealthyHost(String),
    /// The cluster sends to the original destination, and the connection has none.
    #[error("cluster {0} needs an original destination and the connection has none")]
    NoOriginalDestination(String),
    /// A circuit breaker is open.
    #[error("circuit breaker of cluster {cluster} is open: {limit}")]
    Overflow {
        /// Cluster name.
        cluster: String,
        /// Which limit.
        limit: &'static str,
    },
    /// TCP connect did not end in time.
    #[error("connection timeout to {0}")]
    ConnectTimeout(SocketAddr),
    /// TCP connect failed.
    #[error("delayed connect error: {reason}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the kernel said.
        reason: String,
    },
    /// TLS configuration or handshake failed.
    #[error("TLS to {address}: {reason}")]
    Tls {
        /// Where to.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The HTTP/2 or HTTP/1 preface failed.
    #[error("HTTP handshake with {address}: {reason}")]
    Http {
        /// Where to.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
}

impl UpstreamError {
    /// Envoy's short response flag.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match self {
            Self::UnknownCluster(_) => "NC",
            Self::NoHealthyHost(_) | Self::NoOriginalDestination(_) => "UH",
            Self::Overflow { .. } => "UO",
            Self::ConnectTimeout(_)
            | Self::Connect { .. }
            | Self::Tls { .. }
            | Self::Http { .. } => "UF",
        }
    }

    /// The failure is one of connecting (`connect-failure` of a retry policy).
    #[must_use]
    pub fn is_connect_failure(&self) -> bool {
        self.flag() == "UF"
    }
}
