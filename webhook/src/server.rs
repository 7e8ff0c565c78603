//! The webhook's HTTPS server.
//!
//! `POST /inject`, with the environment of the proxy optionally in the path, and `POST /validate`.
//! Everything is bounded: connections, requests at once, headers, bodies, time. Settings are one
//! snapshot that the owner swaps; certificates are the resolver's business in the TLS configuration
//! it is given.

mod connection;
mod path;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::{self, Answer, Injector, ReviewResponse};
use crate::stats::{Counters, Outcome};
use crate::validation::{self, Verdict};

pub use path::{PathError, environment};

/// Bounds of the server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Requests that are read and answered at once; more are answered 503.
    pub requests: usize,
    /// Largest body, bytes.
    pub body: usize,
    /// Bytes of all bodies at once; one that has no room left is answered 503.
    pub bodies: usize,
    /// Largest headers, bytes.
    pub headers: usize,
    /// For the TLS handshake, for the headers and for the body of a request, each.
    pub patience: Duration,
    /// How long a connection may carry no request; a peer that says nothing must not keep others out.
    pub idle: Duration,
    /// How long open requests may take after shutdown was asked for, or a connection was idle.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            requests: 64,
            body: 6 * 1024 * 1024,
            bodies: 16 * 1024 * 1024,
            headers: 32 * 1024,
            patience: Duration::from_secs(10),
            // Longer than clients keep idle connections (Go: 90 s), so that it is they who close them.
            idle: Duration::from_secs(120),
            drain: Duration::from_secs(5),
        }
    }
}

/// What the server answers from.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Settings and namespaces in force.
    pub injector: Arc<ArcSwap<Injector>>,
    /// Counters, read by the owner.
    pub counters: Arc<Counters>,
    /// Bounds.
    pub limits: Limits,
}

/// Serves until `shutdown`, then lets open requests end.
///
/// # Errors
/// The listener's address can no longer be asked for; nothing else ends the server.
pub async fn serve(
    webhook: Webhook,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "webhook serves");
    let acceptor = TlsAcceptor::from(tls);
    let connections = Arc::new(Semaphore::new(webhook.limits.connections));
    let shared = Arc::new(Shared {
        requests: Semaphore::new(webhook.limits.requests),
        room: Semaphore::new(webhook.limits.bodies.min(Semaphore::MAX_PERMITS)),
        webhook,
    });
    let mut open = JoinSet::new();
    let connected = |(stream, permit): Accepted| {
        let connection =
            connection::serve(Arc::clone(&shared), acceptor.clone(), stream, shutdown.clone());
        async move {
            connection.await;
            drop(permit);
        }
    };
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            accepted = accept(&listener, &connections) => accepted,
        };
        if let Some(accepted) = accepted {
            open.spawn(connected(accepted));
        }
    }
    for accepted in queued(listener, &connections)? {
        open.spawn(connected(accepted));
    }
    let drained =
        timeout(shared.webhook.limits.drain, async { while open.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(connections = open.len(), "webhook closes connections that did not end");
        open.shutdown().await;
    }
    Ok(())
}

struct Shared {
    webhook: Webhook,
    requests: Semaphore,
    /// A permit for each byte of all bodies.
    room: Semaphore,
}

/// A connection, and its place among those that may be.
type Accepted = (TcpStream, OwnedSemaphorePermit);

/// Closes the listener and gives the connections that the kernel had taken for it: they would be reset.
fn queued(listener: TcpListener, connections: &Arc<Semaphore>) -> io::Result<Vec<Accepted>> {
    let listener = listener.into_std()?;
    let mut queued = Vec::new();
    while let Ok(permit) = Arc::clone(connections).try_acquire_owned() {
        let Ok((stream, _)) = listener.accept() else { break };
        stream.set_nonblocking(true)?;
        queued.push((TcpStream::from_std(stream)?, permit));
    }
    Ok(queued)
}

/// Accepts a connection once there is room for one. A failure (no file descriptors, say) costs a
/// pause, not the server.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Answers leave at once, also beside a window update that is not acknowledged yet.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "webhook: TCP_NODELAY");
            }
            Some((stream, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "webhook cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn respond<B>(shared: &Shared, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Webhook { injector, counters, .. } = &shared.webhook;
    let route = request.uri().path();
    if route == "/validate" {
        return match receive(shared, request).await {
            Ok((body, _permit)) => json(&tell(validation::answer(&body.bytes)).review),
            Err((status, message)) => plain(status, message),
        };
    }
    if route != "/inject" && !route.starts_with("/inject/") {
        return plain(StatusCode::NOT_FOUND, "not found; there are /inject and /validate");
    }
    counters.request();
    let failed = |status, message: &str| {
        counters.outcome(Outcome::Failed);
        plain(status, message)
    };
    let environment = match environment(route) {
        Ok(environment) => environment,
        Err(error) => return failed(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let (body, _permit) = match receive(shared, request).await {
        Ok(received) => received,
        Err((status, message)) => return failed(status, message),
    };
    let answer = admission::answer(&body.bytes, &injector.load(), &environment);
    record(counters, &answer);
    json(&answer.review)
}

/// Why a request is not answered.
type Refusal = (StatusCode, &'static str);

/// The body of a request, and the permit to answer it.
async fn receive<B>(
    shared: &Shared,
    request: Request<B>,
) -> Result<(Taken<'_>, SemaphorePermit<'_>), Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limits = &shared.webhook.limits;
    if request.method() != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "expected POST"));
    }
    let Ok(permit) = shared.requests.try_acquire() else {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again"));
    };
    if !is_json(&request) {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected application/json"));
    }
    let declared = request.body().size_hint().lower();
    if declared > u64::try_from(limits.body).unwrap_or(u64::MAX) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, "body is too large"));
    }
    let body = read(request.into_body(), limits, &shared.room).await?;
    if body.bytes.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "no body found"));
    }
    Ok((body, permit))
}

fn json(review: &ReviewResponse) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(serde_json::to_vec(review).unwrap_or_default()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn is_json<B>(request: &Request<B>) -> bool {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("application/json")
    })
}

/// A body, and the room it takes until it is dropped.
struct Taken<'a> {
    bytes: Vec<u8>,
    room: Option<SemaphorePermit<'a>>,
}

async fn collect<B>(body: B, limit: usize, room: &Semaphore) -> Result<Taken<'_>, Refusal>
where
    B: Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    let mut taken = Taken { bytes: Vec::new(), room: None };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "body cannot be read"))?;
        let Ok(data) = frame.into_data() else { continue };
        if taken.bytes.len() + data.len() > limit {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, "body is too large"));
        }
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let Ok(more) = room.try_acquire_many(size) else {
            let message = "bodies of other requests take all room; try again";
            return Err((StatusCode::SERVICE_UNAVAILABLE, message));
        };
        match &mut taken.room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        taken.bytes.extend_from_slice(&data);
    }
    Ok(taken)
}

async fn read<'a, B>(body: B, limits: &Limits, room: &'a Semaphore) -> Result<Taken<'a>, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match timeout(limits.patience, collect(body, limits.body, room)).await {
        Ok(taken) => taken,
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "body took too long")),
    }
}

/// One line per decision, the counters, and what somebody is to be told.
fn record(counters: &Counters, answer: &Answer) {
    let Answer { review, reason, namespace, name, dry_run, .. } = answer;
    let outcome = if !review.response.allowed {
        Outcome::Failed
    } else if reason.injects() {
        Outcome::Injected
    } else {
        Outcome::Skipped
    };
    counters.outcome(outcome);
    counters.decision(*reason);
    if let Some(decided) = answer.to_tell() {
        counters.tell(|| decided);
    }
    let uid = review.response.uid.as_str();
    match &review.response.status {
        Some(status) => tracing::warn!(
            %reason, namespace, name, uid, dry_run, message = status.message.as_str(),
            "pod denied"
        ),
        None => tracing::info!(%reason, namespace, name, uid, dry_run, "pod decided"),
    }
}

/// One line per refused object.
fn tell(verdict: Verdict) -> Verdict {
    if let Some(status) = &verdict.review.response.status {
        tracing::info!(object = verdict.object, message = status.message, "object refused");
    }
    verdict
}

fn plain(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(message.to_owned()));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
