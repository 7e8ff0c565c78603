//! Looking at the first bytes of a connection without taking them.
//!
//! Bytes are peeked at, so whoever serves the connection reads them again; nothing is copied.
//! Connections whose listener wants no inspection are not waited for, so protocols in which the
//! server speaks first work there.

use super::client_hello::{self, ClientHello, Parsed};
use super::http_sniff::{self, Sniffed};
use crate::config::Inspect;
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::AsRawFd;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Size of the first look; most first flights fit.
const FIRST_LOOK: usize = 1024;
/// Largest look, bytes.
const LARGEST_LOOK: usize = http_sniff::MAX_LENGTH + 1;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The client begins TLS.
    pub tls: Option<ClientHello>,
    /// The client speaks plaintext HTTP: `http/1.0`, `http/1.1` or `h2c`.
    pub http: Option<&'static str>,
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The client said nothing in time, and the listener does not go on without.
    #[error("the client sent too little in time")]
    TimedOut,
    /// The client left without a word.
    #[error("the client left before it said anything")]
    Left,
    /// Reading failed.
    #[error("reading the first bytes: {0}")]
    Io(#[from] io::Error),
}

/// Which inspectors run.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    tls: bool,
    http: bool,
}

/// Runs the inspectors of a listener for a connection to `port`.
///
/// # Errors
/// When the client leaves, reading fails, or time is up and the listener does not go on.
pub async fn inspect(
    stream: &TcpStream,
    rules: &Inspect,
    port: u16,
) -> Result<Found, InspectError> {
    let wanted = Wanted {
        tls: rules.tls.as_ref().is_some_and(|predicate| predicate.enabled(port)),
        http: rules.http.as_ref().is_some_and(|predicate| predicate.enabled(port)),
    };
    if !wanted.tls && !wanted.http {
        return Ok(Found::default());
    }
    let looking = look(stream, wanted);
    let Some(limit) = rules.timeout else { return looking.await };
    match tokio::time::timeout(limit, looking).await {
        Ok(found) => found,
        Err(_) if rules.continue_on_timeout => Ok(Found::default()),
        Err(_) => Err(InspectError::TimedOut),
    }
}

async fn look(stream: &TcpStream, wanted: Wanted) -> Result<Found, InspectError> {
    let mut buffer = vec![0; FIRST_LOOK];
    let mut known = 0;
    loop {
        let (length, ended) = peek(stream, &mut buffer, known).await?;
        if let Some(found) = judge(buffer.get(..length).unwrap_or_default(), wanted) {
            return Ok(found);
        }
        if length == 0 {
            return Err(InspectError::Left);
        }
        if ended || length >= LARGEST_LOOK {
            return Ok(Found::default());
        }
        if length == buffer.len() {
            buffer.resize((buffer.len() * 4).min(LARGEST_LOOK), 0);
        }
        known = length;
    }
}

/// Waits until more than `known` bytes are there, or no more will come. Gives how many there
/// are and whether these are all.
async fn peek(stream: &TcpStream, buffer: &mut [u8], known: usize) -> io::Result<(usize, bool)> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        let ended = ready.is_read_closed();
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        // What is there already is no news: by saying so, the next wait is for what comes.
        let peeked = stream.try_io(Interest::READABLE, || {
            let length = recv(stream.as_raw_fd(), buffer, flags)?;
            let news = length > known || length == 0 || ended;
            if news { Ok(length) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        match peeked {
            Ok(length) => return Ok((length, ended || length == 0)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// What the bytes say, if that is certain already.
fn judge(bytes: &[u8], wanted: Wanted) -> Option<Found> {
    if wanted.tls {
        match client_hello::parse(bytes) {
            Parsed::More => return None,
            Parsed::Hello(hello) => return Some(Found { tls: Some(hello), http: None }),
            Parsed::NotTls => {}
        }
    }
    if !wanted.http {
        return Some(Found::default());
    }
    match http_sniff::sniff(bytes) {
        Sniffed::More => None,
        Sniffed::NotHttp => Some(Found::default()),
        Sniffed::Http(protocol) => Some(Found { tls: None, http: Some(protocol) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortPredicate;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn rules(timeout: Option<u64>, continue_on_timeout: bool) -> Inspect {
        Inspect {
            tls: Some(PortPredicate::default()),
            http: Some(PortPredicate { disabled: vec![(25, 26)] }),
            timeout: timeout.map(Duration::from_millis),
            continue_on_timeout,
            ..Inspect::default()
        }
    }

    #[tokio::test]
    async fn slow_requests_are_recognised_and_left_whole() {
        let (mut client, mut server) = pair().await;
        let request = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
        let writer = tokio::spawn(async move {
            for byte in request {
                client.write_all(&[*byte]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let found = inspect(&server, &rules(None, false), 80).await.unwrap();
        assert_eq!(found, Found { tls: None, http: Some("http/1.1") });
        writer.await.unwrap();
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, request);
    }

    #[tokio::test]
    async fn large_first_flights_are_seen_whole() {
        let (mut client, server) = pair().await;
        let target = "x".repeat(20_000);
        client.write_all(format!("GET /{target} HTTP/1.1\r\n").as_bytes()).await.unwrap();
        let found = inspect(&server, &rules(None, false), 80).await.unwrap();
        assert_eq!(found.http, Some("http/1.1"));
    }

    #[tokio::test]
    async fn the_end_of_bytes_is_noticed() {
        let (mut client, server) = pair().await;
        client.write_all(b"GET /half").await.unwrap();
        client.shutdown().await.unwrap();
        let found = inspect(&server, &rules(None, false), 80).await.unwrap();
        assert_eq!(found, Found::default());
        let (client, server) = pair().await;
        drop(client);
        let left = inspect(&server, &rules(None, false), 80).await;
        assert!(matches!(left, Err(InspectError::Left)));
    }

    #[tokio::test]
    async fn silence_ends_as_the_listener_says() {
        let (_client, server) = pair().await;
        let refused = inspect(&server, &rules(Some(20), false), 80).await;
        assert!(matches!(refused, Err(InspectError::TimedOut)));
        let found = inspect(&server, &rules(Some(20), true), 80).await.unwrap();
        assert_eq!(found, Found::default());
    }

    #[tokio::test]
    async fn ports_without_inspection_are_not_waited_for() {
        let (_client, server) = pair().await;
        let http_only = Inspect { tls: None, ..rules(None, false) };
        assert_eq!(inspect(&server, &http_only, 25).await.unwrap(), Found::default());
    }
}
