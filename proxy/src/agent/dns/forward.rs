//! Asking upstream servers: the packet goes on as it came and the answer comes back as it is.
//!
//! Each query has a socket of its own, so its port is a chance for nobody else; what comes from
//! elsewhere or with another id is not taken.

use super::resolv_conf::ResolvConf;
use futures_util::future::select_ok;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Largest answer taken over UDP.
const MAX_UDP: usize = 4096;

/// Upstream servers.
#[derive(Debug, Clone)]
pub struct Upstream {
    servers: Vec<SocketAddr>,
    patience: Duration,
    parallel: bool,
}

impl Upstream {
    /// The servers of `conf`; each has `patience` to answer.
    #[must_use]
    pub fn new(conf: &ResolvConf, patience: Duration, parallel: bool) -> Self {
        Self { servers: conf.servers.clone(), patience, parallel }
    }

    /// Asks upstream servers; `None` when none answers in time.
    pub(super) async fn ask(&self, query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        if self.parallel && !self.servers.is_empty() {
            let all = self.servers.iter().map(|server| {
                Box::pin(async move { self.ask_one(*server, query, over_tcp).await.ok_or(()) })
            });
            return select_ok(all).await.ok().map(|(answer, _)| answer);
        }
        for server in &self.servers {
            if let Some(answer) = self.ask_one(*server, query, over_tcp).await {
                return Some(answer);
            }
        }
        None
    }

    async fn ask_one(&self, server: SocketAddr, query: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let exchange =
            async { if over_tcp { tcp(server, query).await } else { udp(server, query).await } };
        match timeout(self.patience, exchange).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%server, %error, "upstream name server failed");
                None
            }
            Err(_) => {
                tracing::debug!(%server, "upstream name server did not answer");
                None
            }
        }
    }
}

async fn udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MAX_UDP];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(query, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    if answers(query, &answer) { Ok(answer) } else { Err(io::Error::other("another id")) }
}

/// Whether `answer` is a response with the id of `query`.
fn answers(query: &[u8], answer: &[u8]) -> bool {
    const RESPONSE: u8 = 0x80;
    answer.len() >= 12 && query.get(..2) == answer.get(..2) && answer[2] & RESPONSE != 0
}
