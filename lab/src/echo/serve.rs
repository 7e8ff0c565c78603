//! Listening: one port carries every protocol, told apart by the first bytes.
//!
//! What an HTTP request is answered with stands in `reply`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Persona, reply};

/// Longest word that begins an HTTP request.
const HTTP_WORDS: [&[u8]; 9] = [
    b"GET ",
    b"PUT ",
    b"POST ",
    b"HEAD ",
    b"PATCH ",
    b"TRACE ",
    b"DELETE ",
    b"OPTIONS ",
    b"PRI * ",
];

/// A server that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No port was named.
    #[error("no port to listen on: name at least one with --port")]
    NoPorts,
    /// A port is taken or not allowed.
    #[error("cannot listen on port {port}: {source}")]
    Listen {
        /// Port.
        port: u16,
        /// Reason.
        source: io::Error,
    },
}

/// Serves `ports` on all addresses until `stop`, then lets open requests end for up to 5 s.
///
/// # Errors
/// When a port cannot be listened on.
pub async fn serve(
    persona: Persona,
    ports: &[u16],
    stop: CancellationToken,
) -> Result<(), ServeError> {
    if ports.is_empty() {
        return Err(ServeError::NoPorts);
    }
    let persona = Arc::new(persona);
    let mut listeners = JoinSet::new();
    for port in ports {
        let listener =
            listen(*port).map_err(|source| ServeError::Listen { port: *port, source })?;
        listeners.spawn(accept(listener, *port, Arc::clone(&persona), stop.clone()));
    }
    while listeners.join_next().await.is_some() {}
    Ok(())
}

/// A dual-stack listener, or an IPv4 one where the machine has no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    let six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    bind(Domain::IPV6, six).or_else(|error| match error.raw_os_error() {
        Some(code) if code == nix::libc::EAFNOSUPPORT => {
            bind(Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        _ => Err(error),
    })
}

fn bind(domain: Domain, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, port: u16, persona: Arc<Persona>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(carry(stream, peer, port, Arc::clone(&persona), stop.clone()));
            }
            Err(error) => tracing::warn!(port, %error, "a connection could not be accepted"),
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), ended).await.is_err() {
        tracing::warn!(port, "connections were still open after 5 s");
    }
}

async fn carry(
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    persona: Arc<Persona>,
    stop: CancellationToken,
) {
    let served = match is_http(&stream).await {
        Ok(true) => http(stream, peer, port, persona, stop).await,
        Ok(false) => raw(stream).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::debug!(port, %peer, %error, "connection ended early");
    }
}

/// Looks at the first bytes without taking them.
async fn is_http(stream: &TcpStream) -> io::Result<bool> {
    let mut head = [0; 8];
    loop {
        let seen = stream.peek(&mut head).await?;
        let Some(start) = head.get(..seen) else { return Ok(false) };
        if seen == 0 || !could_be_http(start) {
            return Ok(false);
        }
        if HTTP_WORDS.iter().any(|word| start.starts_with(word)) {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn could_be_http(start: &[u8]) -> bool {
    HTTP_WORDS.iter().any(|word| {
        let common = word.len().min(start.len());
        word.get(..common) == start.get(..common)
    })
}

async fn http(
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    persona: Arc<Persona>,
    stop: CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let service = service_fn(move |request| {
        let persona = Arc::clone(&persona);
        async move { reply::answer(&persona, port, peer, request).await }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        done = connection.as_mut() => return done.map_err(io::Error::other),
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

/// Sends back what comes.
async fn raw(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let got = stream.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..got).filter(|bytes| !bytes.is_empty()) else {
            return stream.shutdown().await;
        };
        stream.write_all(bytes).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::could_be_http;

    #[test]
    fn http_is_told_from_other_bytes_by_its_first_word() {
        assert!(could_be_http(b"G"));
        assert!(could_be_http(b"PRI * HT"));
        assert!(!could_be_http(b"ping"));
        assert!(!could_be_http(b"\x16\x03\x01"));
    }
}
