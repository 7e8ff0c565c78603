//! Accepting connections for gRPC: plaintext, and TLS with what the handshake told.
//!
//! Every connection carries its peer's address and, over TLS, the certificate the peer showed. One
//! on which nothing is said is closed after a while, and all are cut soon after the stop, because
//! a server that ends in order waits for each. Knows nothing of what is served over them.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;

use crate::caller::VerifiedPeer;

/// Longest time a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest wait for the first byte after it.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// What connections have to end by themselves after the stop.
const GRACE: Duration = Duration::from_millis(500);
/// Connections whose handshake is done and that wait to be served.
const ACCEPTED: usize = 64;
/// Connections of one port at once, those in their handshake among them.
const CONNECTIONS: usize = 20_000;
/// Pause after the system refused to accept (out of descriptors), so that it is not asked hotly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

impl fmt::Display for PeerAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A connection, the room it takes, and what ends it.
#[derive(Debug)]
pub struct Connection {
    carrier: Carrier,
    _room: OwnedSemaphorePermit,
    /// Until the first byte is there.
    silence: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// A connection of either kind.
#[derive(Debug)]
enum Carrier {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS, handshake done.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What requests on a connection can know of it.
#[derive(Debug, Clone, Default)]
pub struct ConnectionInfo {
    peer: Option<SocketAddr>,
    certificate: VerifiedPeer,
}

impl ConnectionInfo {
    /// Address of the peer.
    #[must_use]
    pub fn peer(&self) -> Option<PeerAddress> {
        self.peer.map(PeerAddress)
    }

    /// Certificate of the peer, verified.
    pub(crate) fn certificate(&self) -> VerifiedPeer {
        self.certificate.clone()
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        match &self.carrier {
            Carrier::Plain(stream) => {
                ConnectionInfo { peer: stream.peer_addr().ok(), ..ConnectionInfo::default() }
            }
            Carrier::Tls(stream) => {
                let (tcp, session) = stream.get_ref();
                let leaf = session.peer_certificates().and_then(|chain| chain.first());
                ConnectionInfo {
                    peer: tcp.peer_addr().ok(),
                    certificate: VerifiedPeer(leaf.map(|leaf| leaf.clone().into_owned())),
                }
            }
        }
    }
}

/// Puts what is known of the connection where services look for it.
///
/// # Errors
/// Never; the signature is that of an interceptor.
pub fn with_peer(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    let info = request.extensions().get::<ConnectionInfo>().cloned().unwrap_or_default();
    if let Some(peer) = info.peer() {
        request.extensions_mut().insert(peer);
    }
    request.extensions_mut().insert(info.certificate());
    Ok(request)
}

/// Listens; on the unspecified IPv6 address for IPv4 too, and on IPv4 alone where the machine has
/// no IPv6.
///
/// # Errors
/// When the port cannot be had.
pub async fn bind(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((address, port)).await {
        Err(error)
            if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                && error.kind() != io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind(("0.0.0.0", port)).await
        }
        other => other,
    }
}

/// Accepts until `stop`; with `tls`, hands over connections whose handshake is done.
#[must_use]
pub fn incoming(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(ACCEPTED);
    let acceptor = tls.map(TlsAcceptor::from);
    let (handshakes, cut) = (tasks.clone(), CancellationToken::new());
    let cutting = cut.clone().drop_guard();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    tasks.spawn(async move {
        loop {
            let permit = tokio::select! {
                () = stop.cancelled() => break,
                permit = Arc::clone(&room).acquire_owned() => permit,
            };
            let Ok(permit) = permit else { break };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, sender, stop) = (acceptor.clone(), sender.clone(), stop.clone());
            let cut = Box::pin(cut.clone().cancelled_owned());
            handshakes.spawn(async move {
                let Some(carrier) = shake_hands(stream, acceptor, stop).await else { return };
                let silence = Some(Box::pin(tokio::time::sleep(FIRST_BYTE)));
                let connection = Connection { carrier, _room: permit, silence, cut };
                // The server may have stopped meanwhile; then the connection is closed.
                drop(sender.send(Ok(connection)).await);
            });
        }
        drop((listener, sender));
        tokio::time::sleep(GRACE).await;
        drop(cutting);
    });
    ReceiverStream::new(receiver)
}

/// The connection, ready to be served; `None` when it is not worth it.
async fn shake_hands(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    stop: CancellationToken,
) -> Option<Carrier> {
    // Without it, small responses wait for the peer's delayed acknowledgement.
    drop(stream.set_nodelay(true));
    let Some(acceptor) = acceptor else { return Some(Carrier::Plain(stream)) };
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    let done = tokio::select! {
        () = stop.cancelled() => return None,
        done = handshake => done,
    };
    match done {
        Ok(Ok(stream)) => Some(Carrier::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = match &mut this.carrier {
            Carrier::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Carrier::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if read.is_ready() {
            this.silence = None;
            return read;
        }
        if this.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        match &mut this.silence {
            Some(silence) => silence
                .as_mut()
                .poll(context)
                .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said"))),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().carrier {
            Carrier::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Carrier::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Plain(stream) => Pin::new(stream).poll_flush(context),
            Carrier::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().carrier {
            Carrier::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Carrier::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
