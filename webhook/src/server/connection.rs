//! One connection of the webhook's server: how it is spoken to, and how it ends so that no request on
//! its way is lost.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::{Limits, Shared, respond};

/// Bytes of a body that a peer may send before it is asked for more: a large pod in one go.
const STREAM_WINDOW: u32 = 1 << 20;

/// How long a connection must be silent before it is closed, where its peer is not told first.
///
/// A request may be on its way, and the API server does not send it again when it finds the
/// connection closed: a POST is not for the transport to repeat. It speaks HTTP/1.1 with webhooks
/// (Kubernetes `apiserver/pkg/util/webhook/client.go`), which has no word for "no more requests" but a
/// header of the last answer.
const QUIET: Duration = Duration::from_millis(500);

/// Serves a connection until its peer leaves, it is idle for too long, or `shutdown`.
pub(super) async fn serve(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    shutdown: CancellationToken,
) {
    let limits = shared.webhook.limits;
    match timeout(limits.patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => converse(shared, stream, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "webhook: TLS handshake failed"),
        Err(_) => tracing::debug!("webhook: TLS handshake took too long"),
    }
}

async fn converse(shared: Arc<Shared>, stream: TlsStream<TcpStream>, shutdown: CancellationToken) {
    let limits = shared.webhook.limits;
    let multiplexed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let activity = Arc::new(Activity::default());
    // The end of this connection; that of the server is its end too.
    let ends = shutdown.child_token();
    let (busy, ending) = (Arc::clone(&activity), ends.clone());
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (shared, busy, ending) = (Arc::clone(&shared), Arc::clone(&busy), ending.clone());
        async move {
            let _request = busy.request();
            let mut response = respond(&shared, request).await;
            if ending.is_cancelled() && !multiplexed {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let builder = protocols(&limits);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return note(ended),
        () = shutdown.cancelled() => {}
        () = activity.idle(limits.idle) => ends.cancel(),
    }
    // HTTP/2 says which requests were taken; those after them are sent again elsewhere.
    let silence = async {
        match multiplexed {
            true => drop(timeout(QUIET, activity.first()).await),
            false => activity.idle(QUIET).await,
        }
    };
    tokio::select! {
        ended = &mut connection => return note(ended),
        () = silence => {}
    }
    connection.as_mut().graceful_shutdown();
    // A peer that does not take its answers does not hold the connection either.
    match timeout(limits.patience.max(limits.drain), connection).await {
        Ok(ended) => note(ended),
        Err(_) => tracing::debug!("webhook: connection did not end and is cut"),
    }
}

/// HTTP/1.1 and HTTP/2, within bounds.
fn protocols(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        .max_buf_size(limits.headers.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW)
        .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
        .max_concurrent_streams(u32::try_from(limits.requests).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.patience)
        .keep_alive_timeout(limits.patience);
    builder
}

fn note(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(error, "webhook: connection ended");
    }
}

/// Requests of one connection.
#[derive(Debug, Default)]
struct Activity {
    begun: AtomicU64,
    ended: AtomicU64,
    first: Notify,
}

struct Running<'a>(&'a Activity);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Activity {
    fn request(&self) -> Running<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.first.notify_one();
        Running(self)
    }

    /// Ends once there has been a request.
    async fn first(&self) {
        if self.begun.load(Ordering::Relaxed) == 0 {
            self.first.notified().await;
        }
    }

    /// Ends once there was no request for a whole `span`.
    async fn idle(&self, span: Duration) {
        let mut before = u64::MAX;
        loop {
            // Ended first: a request in between then counts as running.
            let ended = self.ended.load(Ordering::Relaxed);
            let begun = self.begun.load(Ordering::Relaxed);
            if ended == begun && begun == before {
                return;
            }
            before = begun;
            tokio::time::sleep(span).await;
        }
    }
}
