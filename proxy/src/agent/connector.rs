//! Connections to the control plane: TCP, with TLS by the mesh's root unless plaintext is set.
//!
//! Roots are read from their file at each connection, so a rotated root needs no restart.

use crate::settings::ControlPlane;
use hyper_util::rt::TokioIo;
use lateen_identity::{BundleError, TrustBundle, tls};
use lateen_xds::client::Backoff;
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// Between attempts.
pub const BACKOFF: Backoff =
    Backoff { base: Duration::from_millis(500), max: Duration::from_secs(5) };
/// Metric that dashboards ask for: connections of discovery.
pub const CONNECTED: &str = "envoy_cluster_upstream_cx_active{cluster_name=\"xds-grpc\"}";
/// Longest time for TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(3);
/// How often a silent connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long it has to answer.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Why the control plane could not be connected to.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Roots cannot be read.
    #[error("{}: {source}", path.display())]
    Roots {
        /// File.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Roots cannot be used.
    #[error("{}: {source}", path.display())]
    Bundle {
        /// File.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The address is malformed.
    #[error("control plane address `{0}` is not HOST:PORT")]
    Address(String),
    /// The name to check is malformed.
    #[error(transparent)]
    Name(#[from] InvalidDnsNameError),
    /// Nobody answers there, or not whom we trust.
    #[error("{address}: {source}")]
    Unreached {
        /// Address.
        address: String,
        /// Why.
        source: io::Error,
    },
}

/// A gRPC channel to `address`, connected at first use.
///
/// # Errors
/// When roots or address cannot be used.
pub fn channel(address: &str, to: &ControlPlane) -> Result<Channel, ConnectError> {
    let bad = || ConnectError::Address(address.to_owned());
    let (uri, connector) = connector(address, to)?;
    // tonic refuses https without its own TLS, so the endpoint is http and the origin is set.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    let endpoint = endpoint
        .origin(uri)
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(true);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Connects to `address` and hangs up: whether the control plane is there, and is the one we trust.
///
/// # Errors
/// When it is not, or roots or address cannot be used.
pub async fn reach(address: &str, to: &ControlPlane) -> Result<(), ConnectError> {
    let (uri, mut connector) = connector(address, to)?;
    let connected = tokio::time::timeout(CONNECT, connector.call(uri)).await;
    let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let unreached = |source| ConnectError::Unreached { address: address.to_owned(), source };
    connected.map(drop).map_err(unreached)
}

/// Connects to `address`; the URI is what the server is told of it.
fn connector(address: &str, to: &ControlPlane) -> Result<(Uri, Connector), ConnectError> {
    let bad = || ConnectError::Address(address.to_owned());
    // The scheme names the protocol to the server; TLS is the connector's.
    let scheme = if to.plaintext { "http" } else { "https" };
    let uri: Uri = format!("{scheme}://{address}").parse().map_err(|_| bad())?;
    let host = uri.host().ok_or_else(bad)?.to_owned();
    uri.port_u16().ok_or_else(bad)?;
    let tls = if to.plaintext { None } else { Some(start(to, &host)?) };
    Ok((uri, Connector { address: Arc::from(address), tls }))
}

fn start(to: &ControlPlane, host: &str) -> Result<Tls, ConnectError> {
    let path = || to.roots.clone();
    let pem =
        std::fs::read(&to.roots).map_err(|source| ConnectError::Roots { path: path(), source })?;
    let bundle = TrustBundle::from_pem(&pem)
        .map_err(|source| ConnectError::Bundle { path: path(), source })?;
    let config = tls::dns_client_config(&bundle, &["h2"])?;
    let name = to.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
    Ok(Tls { config: TlsConnector::from(Arc::new(config)), name: ServerName::try_from(name)? })
}

#[derive(Clone)]
struct Tls {
    config: TlsConnector,
    name: ServerName<'static>,
}

#[derive(Clone)]
struct Connector {
    address: Arc<str>,
    tls: Option<Tls>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(&*this.address).await?;
            tcp.set_nodelay(true)?;
            Ok(TokioIo::new(match this.tls {
                None => Connection::Plain(tcp),
                Some(tls) => {
                    let stream = tls.config.connect(tls.name, tcp).await?;
                    Connection::Tls(Box::new(stream))
                }
            }))
        })
    }
}

/// A connection to the control plane.
#[derive(Debug)]
pub enum Connection {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
