//! Sockets of the DNS proxy, UDP and TCP.

use super::answer::{Answer, answer, encode, respond};
use super::forward::Upstream;
use crate::config::Snapshot;
use arc_swap::ArcSwap;
use hickory_proto::op::{Message, ResponseCode};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Queries in flight upstream.
const MAX_QUERIES: usize = 512;
/// Open TCP connections.
const MAX_CONNECTIONS: usize = 128;
/// Longest silence on a TCP connection.
const IDLE: Duration = Duration::from_secs(10);
/// Largest UDP query.
const MAX_QUERY: usize = 4096;
/// UDP answers without EDNS.
const PLAIN_UDP: usize = 512;
/// UDP answers at most.
const MAX_UDP: usize = 1232;
/// TCP answers.
const MAX_TCP: usize = u16::MAX as usize;

/// The DNS proxy.
#[derive(Debug)]
pub struct Server {
    config: Arc<ArcSwap<Snapshot>>,
    search: Vec<String>,
    upstream: Upstream,
    queries: Semaphore,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Server {
    /// Answers from the names in force; `search` as in the pod's `resolv.conf`.
    #[must_use]
    pub fn new(
        config: Arc<ArcSwap<Snapshot>>,
        search: Vec<String>,
        upstream: Upstream,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            search,
            upstream,
            queries: Semaphore::new(MAX_QUERIES),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            tasks,
        })
    }

    /// The answer to a packet; `None` when it is not even a query that can be refused.
    async fn reply(&self, packet: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let query = match Message::from_vec(packet) {
            Ok(query) => query,
            Err(error) => {
                tracing::debug!(%error, "malformed DNS query");
                return refuse_unread(packet);
            }
        };
        let limit = match (over_tcp, &query.edns) {
            (true, _) => MAX_TCP,
            (false, Some(edns)) => usize::from(edns.max_payload()).clamp(PLAIN_UDP, MAX_UDP),
            (false, None) => PLAIN_UDP,
        };
        let names = Arc::clone(&self.config.load().names);
        match answer(&query, &names, &self.search) {
            Answer::Ours(response) => encode(&response, limit),
            Answer::Forward => {
                let answered = match self.queries.try_acquire() {
                    Ok(_permit) => self.upstream.ask(packet, over_tcp).await,
                    Err(_) => None,
                };
                answered
                    .or_else(|| encode(&respond(&query, ResponseCode::ServFail, Vec::new()), limit))
            }
        }
    }
}

/// A format error for a packet whose header at least is there and is a query.
fn refuse_unread(packet: &[u8]) -> Option<Vec<u8>> {
    const RESPONSE: u8 = 0x80;
    const FORMAT_ERROR: u8 = 1;
    let [high, low, flags, ..] = *packet else { return None };
    if packet.len() < 12 || flags & RESPONSE != 0 {
        return None;
    }
    let mut header = vec![0; 12];
    header[..3].copy_from_slice(&[high, low, flags | RESPONSE]);
    header[3] = FORMAT_ERROR;
    Some(header)
}

/// Serves on this address until cancelled.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    server: Arc<Server>,
    address: SocketAddr,
    end: CancellationToken,
) -> io::Result<()> {
    let udp = Arc::new(UdpSocket::bind(address).await?);
    let tcp = TcpListener::bind(address).await?;
    let tasks = server.tasks.clone();
    tasks.spawn(serve_tcp(Arc::clone(&server), tcp, end.clone()));
    serve_udp(server, udp, end).await;
    Ok(())
}

async fn serve_udp(server: Arc<Server>, socket: Arc<UdpSocket>, end: CancellationToken) {
    let mut buffer = vec![0; MAX_QUERY];
    let waiting = Arc::new(Semaphore::new(2 * MAX_QUERIES));
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = end.cancelled() => return,
        };
        // Errors here are of packets sent before (nobody listens there any more).
        let Ok((length, client)) = received else { continue };
        let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else { continue };
        let packet = buffer[..length].to_vec();
        let (server, socket) = (Arc::clone(&server), Arc::clone(&socket));
        let tasks = server.tasks.clone();
        tasks.spawn(async move {
            let _permit = permit;
            if let Some(answer) = server.reply(&packet, false).await
                && let Err(error) = socket.send_to(&answer, client).await
            {
                tracing::debug!(%client, %error, "DNS answer not sent");
            }
        });
    }
}

async fn serve_tcp(server: Arc<Server>, listener: TcpListener, end: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&server.connections).try_acquire_owned() else { continue };
        let (server, end) = (Arc::clone(&server), end.clone());
        let tasks = server.tasks.clone();
        tasks.spawn(async move {
            let _permit = permit;
            tokio::select! {
                served = converse(&server, stream) => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "DNS connection ended");
                    }
                }
                () = end.cancelled() => {}
            }
        });
    }
}

async fn converse(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            let mut packet = vec![0; length];
            stream.read_exact(&mut packet).await?;
            io::Result::Ok(packet)
        };
        let packet = match tokio::time::timeout(IDLE, read).await {
            Ok(Ok(packet)) => packet,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let Some(answer) = server.reply(&packet, true).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}
