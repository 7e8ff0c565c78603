//! Opening a connection to an endpoint: TCP with its source address and time limit, then TLS.
//!
//! Knows sockets and rustls; what to connect to and with which configuration is told by
//! [`super::cluster`].

use super::error::UpstreamError;
use super::stream::Stream;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// The IPv6 twin of 127.0.0.6, the source by which redirection knows the inbound leg.
const INBOUND_SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// TLS to start once TCP stands.
#[derive(Debug, Clone)]
pub(super) struct TlsStart {
    pub(super) config: Arc<ClientConfig>,
    /// Server name, also when none is sent.
    pub(super) name: ServerName<'static>,
}

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub(super) address: SocketAddr,
    pub(super) source: Option<IpAddr>,
    pub(super) timeout: Duration,
    pub(super) tls: Option<TlsStart>,
}

/// Connects; the time limit covers TCP and TLS together.
pub(super) async fn dial(dial: Dial) -> Result<Stream, UpstreamError> {
    let address = dial.address;
    match tokio::time::timeout(dial.timeout, establish(dial)).await {
        Ok(done) => done,
        Err(_) => Err(UpstreamError::ConnectTimeout(address)),
    }
}

async fn establish(dial: Dial) -> Result<Stream, UpstreamError> {
    let address = dial.address;
    let tcp = connect_tcp(address, dial.source)
        .await
        .map_err(|e| UpstreamError::Connect { address, reason: words(&e) })?;
    let Some(tls) = dial.tls else { return Ok(Stream::Plain(tcp)) };
    let stream = TlsConnector::from(tls.config)
        .connect(tls.name, tcp)
        .await
        .map_err(|e| UpstreamError::Tls { address, reason: e.to_string() })?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// The system's words for an error, without its number.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words).to_owned()
}

async fn connect_tcp(address: SocketAddr, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source_for(source, address) {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

/// The source address in the family of the destination.
fn source_for(source: Option<IpAddr>, destination: SocketAddr) -> Option<IpAddr> {
    let source = source?;
    match (source.is_ipv4(), destination.is_ipv4()) {
        (true, true) | (false, false) => Some(source),
        (true, false) => Some(IpAddr::V6(INBOUND_SOURCE_V6)),
        (false, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_follows_the_family_of_the_destination() {
        let v4: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let v6: SocketAddr = "[fd00::1]:80".parse().unwrap();
        let six: IpAddr = "127.0.0.6".parse().unwrap();
        assert_eq!(source_for(Some(six), v4), Some(six));
        assert_eq!(source_for(Some(six), v6), Some("::6".parse().unwrap()));
        assert_eq!(source_for(None, v4), None);
    }
}
