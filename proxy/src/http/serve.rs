//! Serving a downstream connection: HTTP/1.1 or HTTP/2, keep-alive, idle time, drain.

use super::downstream::Downstream;
use super::handle::handle;
use super::response_body::ResponseBody;
use super::session::{HttpWorker, Session};
use super::sniff::{Preface, Rewound, sniff};
use crate::config::HttpManager;
use crate::upstream::LocalTasks;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// Largest request head, as Envoy's `max_request_headers_kb`.
const MAX_HEAD: usize = 60 * 1024;
/// HTTP/2 streams a client may have open at once.
const MAX_STREAMS: u32 = 1024;
/// Resets a client may cause before its connection is closed (rapid reset).
const MAX_RESETS: usize = 100;

/// How long the client of a draining HTTP/1 connection must have been silent before it is closed.
const QUIET: Duration = Duration::from_secs(1);
/// Stands for no limit.
const VERY_LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// How a connection ended that did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Reading or writing failed before HTTP began.
    #[error("downstream connection: {0}")]
    Io(#[from] std::io::Error),
    /// HTTP failed.
    #[error("downstream HTTP: {0}")]
    Http(#[from] hyper::Error),
}

struct App(Rc<Session>);

impl Service<Request<Incoming>> for App {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let session = Rc::clone(&self.0);
        Box::pin(async move { Ok(handle(session, request).await) })
    }
}

/// Serves HTTP on `io` until the client leaves, the connection idles too long, or `drain` is
/// cancelled and what is in flight has ended.
///
/// # Errors
/// When the connection breaks in the middle of something.
pub async fn serve<IO>(
    worker: Rc<HttpWorker>,
    mut io: IO,
    downstream: Rc<Downstream>,
    manager: Arc<HttpManager>,
    drain: CancellationToken,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let idle_timeout = manager.idle_timeout;
    let (preface, read) = match negotiated(&downstream) {
        // What hyper waits for has its limits below.
        Some(Preface::Http1) => (Preface::Http1, bytes::Bytes::new()),
        // For the preface of HTTP/2 hyper would wait without an end.
        agreed => match first_words(&mut io, idle_timeout, &drain).await? {
            (Preface::Nothing, read) => (Preface::Nothing, read),
            (found, read) => (agreed.unwrap_or(found), read),
        },
    };
    let session = Session::new(worker, downstream, manager);
    let io = TokioIo::new(Rewound::new(io, read));
    let app = App(Rc::clone(&session));
    match preface {
        Preface::Nothing => Ok(()),
        Preface::Http1 => {
            let mut builder = http1::Builder::new();
            // hyper takes no more than 100 headers, as Envoy; saying so would cost a list of them.
            builder.max_header_size(MAX_HEAD).max_buf_size(64 * 1024);
            let connection = pin!(builder.serve_connection(io, app).with_upgrades());
            run(connection, |c| c.graceful_shutdown(), &session, (&drain, true)).await
        }
        Preface::Http2 => {
            let tasks = session.worker.upstreams.tasks().clone();
            let mut builder = http2::Builder::new(LocalTasks(tasks));
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_pending_accept_reset_streams(MAX_RESETS)
                .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
            let connection = pin!(builder.serve_connection(io, app));
            run(connection, |c| c.graceful_shutdown(), &session, (&drain, false)).await
        }
    }
}

/// What the client speaks, and what it has said.
///
/// A connection may be accepted before its first request arrives, and a drain may begin between the
/// two or have begun before: the client cannot know, so it is given time to say what it came for.
async fn first_words<IO: AsyncRead + Unpin>(
    io: &mut IO,
    limit: Option<Duration>,
    drain: &CancellationToken,
) -> std::io::Result<(Preface, bytes::Bytes)> {
    let mut sniffed = pin!(sniff(io, limit));
    tokio::select! {
        biased;
        found = sniffed.as_mut() => return found,
        () = drain.cancelled() => {}
    }
    let silence = Ok((Preface::Nothing, bytes::Bytes::new()));
    tokio::time::timeout(QUIET, sniffed).await.unwrap_or(silence)
}

/// What the TLS handshake agreed on, if that says which HTTP is spoken.
fn negotiated(downstream: &Downstream) -> Option<Preface> {
    match downstream.tls.as_ref()?.alpn.as_deref()? {
        b"h2" | b"istio-h2" => Some(Preface::Http2),
        b"http/1.1" | b"http/1.0" | b"istio-http/1.1" | b"istio-http/1.0" => Some(Preface::Http1),
        _ => None,
    }
}

/// Drives a connection; drain and idle time end it after the requests in flight.
///
/// This runs whenever the connection moves, several times a request. Drain and timer wake the task
/// once they were asked, so afterwards only their flags are looked at.
async fn run<C>(
    mut connection: Pin<&mut C>,
    shutdown: impl Fn(Pin<&mut C>),
    session: &Session,
    (drain, soft): (&CancellationToken, bool),
) -> Result<(), ServeError>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut limit = session.manager.idle_timeout.filter(|limit| !limit.is_zero());
    let mut idle = pin!(tokio::time::sleep(limit.unwrap_or(VERY_LONG)));
    let mut drained = pin!(drain.cancelled());
    let (mut registered, mut draining, mut ending) = (false, false, false);
    poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Ok(ended?));
        }
        if ending {
            return Poll::Pending;
        }
        if !registered {
            registered = true;
            // What they say is looked at below.
            let _registered = (drained.as_mut().poll(cx), idle.as_mut().poll(cx));
        }
        if !draining && drain.is_cancelled() {
            draining = true;
            // A client that speaks just now must not be cut off: it is told with its next answer.
            // One that says nothing for a while is not about to.
            if soft {
                session.close_soon();
                limit = Some(limit.map_or(QUIET, |limit| limit.min(QUIET)));
                idle.as_mut().reset(tokio::time::Instant::now());
            } else {
                ending = true;
            }
        }
        if let Some(limit) = limit {
            ending = ending || is_idle(session, limit, idle.as_mut(), cx);
        }
        if ending {
            shutdown(connection.as_mut());
            return connection.as_mut().poll(cx).map(|ended| Ok(ended?));
        }
        Poll::Pending
    })
    .await
}

/// Whether the connection has carried nothing for `limit`; sets the timer anew if not.
fn is_idle(
    session: &Session,
    limit: Duration,
    mut timer: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> bool {
    while timer.is_elapsed() {
        let since = session.idle_since().unwrap_or_else(Instant::now);
        if since.elapsed() >= limit {
            return true;
        }
        timer.as_mut().reset(tokio::time::Instant::from_std(since + limit));
        if timer.as_mut().poll(cx).is_pending() {
            return false;
        }
    }
    false
}
