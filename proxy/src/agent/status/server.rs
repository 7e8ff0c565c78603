//! Small HTTP/1.1 servers for the agent's ports.

use super::pages::{Pages, Site};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections of one port.
const MAX_CONNECTIONS: usize = 256;
/// Longest time for a request head; also ends idle connections.
const HEAD: Duration = Duration::from_secs(30);
/// Largest request head.
const MAX_HEAD: usize = 16 << 10;

/// A socket on this port: loopback only, or every address of both families.
///
/// # Errors
/// When the port cannot be had.
pub async fn bind(port: u16, loopback: bool) -> io::Result<TcpListener> {
    let (v6, v4) = if loopback {
        (None, Ipv4Addr::LOCALHOST)
    } else {
        (Some(Ipv6Addr::UNSPECIFIED), Ipv4Addr::UNSPECIFIED)
    };
    if let Some(v6) = v6
        && let Ok(listener) = TcpListener::bind(SocketAddr::from((v6, port))).await
    {
        return Ok(listener);
    }
    TcpListener::bind(SocketAddr::from((v4, port))).await
}

/// Serves a site until cancelled.
pub async fn serve(
    listener: TcpListener,
    site: Site,
    pages: Arc<Pages>,
    tasks: TaskTracker,
    end: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = end.cancelled() => return,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (pages, end) = (Arc::clone(&pages), end.clone());
        tasks.spawn(async move {
            let _place = place;
            converse(stream, peer, (site, pages), end).await;
        });
    }
}

async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    (site, pages): (Site, Arc<Pages>),
    end: CancellationToken,
) {
    let from_loopback = peer.ip().to_canonical().is_loopback();
    let service = service_fn(move |request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(Box::pin(pages.answer(site, request, from_loopback)).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "agent connection ended");
    }
}
