//! Connections of one worker to one endpoint, ready for HTTP.
//!
//! HTTP/1.1 connections wait in a stack (the warmest is used first); HTTP/2 connections are
//! shared by streams. A connection is driven by its own task in the worker's task group.

use super::body::RequestBody;
use super::limits::Slot;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Streams on one HTTP/2 connection before another is opened (servers commonly allow 100).
const STREAMS_PER_CONNECTION: usize = 100;

/// Facts about a connection, shared by everything that uses it.
#[derive(Debug)]
pub struct ConnectionFacts {
    /// Server name it was opened with, where that depends on the request.
    pub(super) sni: Option<Arc<str>>,
    /// The peer's address is the endpoint's; this is our own.
    pub local: Option<std::net::SocketAddr>,
    /// TLS is spoken.
    pub tls: bool,
    pub(super) served: Cell<u32>,
    pub(super) _slot: Option<Slot>,
}

#[derive(Debug)]
struct IdleHttp1 {
    sender: http1::SendRequest<RequestBody>,
    facts: Rc<ConnectionFacts>,
    since: Instant,
}

#[derive(Debug)]
struct SharedHttp2 {
    sender: http2::SendRequest<RequestBody>,
    facts: Rc<ConnectionFacts>,
    streams: Rc<Cell<usize>>,
    since: Rc<Cell<Instant>>,
}

/// Connections to one endpoint.
#[derive(Debug, Default)]
pub(super) struct Pool {
    http1: RefCell<Vec<IdleHttp1>>,
    http2: RefCell<Vec<SharedHttp2>>,
    /// Lets one request at a time open an HTTP/2 connection; counts the failures.
    pub(super) opening: tokio::sync::Mutex<()>,
    pub(super) failures: RefCell<(u64, Option<super::UpstreamError>)>,
    /// A connection came back.
    pub(super) released: tokio::sync::Notify,
    retired: Cell<bool>,
}

/// A connection lent to one request.
#[derive(Debug)]
pub enum Lease {
    /// All of an HTTP/1.1 connection.
    Http1(Http1Lease),
    /// A stream of an HTTP/2 connection.
    Http2(Http2Lease),
}

/// An HTTP/1.1 connection lent to one request.
#[derive(Debug)]
pub struct Http1Lease {
    sender: http1::SendRequest<RequestBody>,
    facts: Rc<ConnectionFacts>,
    pool: Rc<Pool>,
    reused: bool,
    max_requests: u32,
}

/// A stream of an HTTP/2 connection.
#[derive(Debug)]
pub struct Http2Lease {
    sender: http2::SendRequest<RequestBody>,
    facts: Rc<ConnectionFacts>,
    streams: Rc<Cell<usize>>,
    since: Rc<Cell<Instant>>,
    reused: bool,
}

/// Why a request got no answer on a connection.
#[derive(Debug)]
pub struct SendFailure {
    /// What hyper says.
    pub error: hyper::Error,
    /// The request, when nothing of it was written.
    pub unsent: Option<Box<Request<RequestBody>>>,
}

impl Lease {
    /// Facts about the connection.
    #[must_use]
    pub fn facts(&self) -> &Rc<ConnectionFacts> {
        match self {
            Self::Http1(lease) => &lease.facts,
            Self::Http2(lease) => &lease.facts,
        }
    }

    /// HTTP/2 is spoken.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The connection carried other requests before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Http1(lease) => lease.reused,
            Self::Http2(lease) => lease.reused,
        }
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// # Errors
    /// When the connection fails; with the request, if it can be sent elsewhere untouched.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let sent = match self {
            Self::Http1(lease) => lease.sender.try_send_request(request).await,
            Self::Http2(lease) => lease.sender.try_send_request(request).await,
        };
        sent.map_err(|mut failure: TrySendError<Request<RequestBody>>| {
            let unsent = failure.take_message().map(Box::new);
            SendFailure { error: failure.into_error(), unsent }
        })
    }

    /// Gives the connection back once the response has been read to its end.
    pub fn finish(self) {
        if let Self::Http1(lease) = self {
            lease.give_back();
        }
    }
}

impl Http1Lease {
    fn give_back(self) {
        let served = self.facts.served.get().saturating_add(1);
        self.facts.served.set(served);
        let worn = self.max_requests != 0 && served >= self.max_requests;
        if worn || self.pool.retired.get() || self.sender.is_closed() {
            return;
        }
        let idle = IdleHttp1 { sender: self.sender, facts: self.facts, since: Instant::now() };
        self.pool.http1.borrow_mut().push(idle);
        self.pool.released.notify_one();
    }
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        self.streams.set(self.streams.get().saturating_sub(1));
        self.since.set(Instant::now());
    }
}

impl Pool {
    /// An idle HTTP/1.1 connection, the one used last first.
    pub(super) fn idle_http1(
        self: &Rc<Self>,
        sni: Option<&Arc<str>>,
        (max_requests, limit): (u32, Option<Duration>),
    ) -> Option<Lease> {
        let mut idle = self.http1.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let Some(candidate) = idle.get(at) else { break };
            // A server that keeps connections no longer than we do may be closing it right now.
            let stale = limit.is_some_and(|limit| candidate.since.elapsed() >= limit);
            if stale || candidate.sender.is_closed() {
                drop(idle.remove(at));
            } else if candidate.sender.is_ready() && candidate.facts.sni.as_ref() == sni {
                let IdleHttp1 { sender, facts, .. } = idle.remove(at);
                let pool = Rc::clone(self);
                return Some(Lease::Http1(Http1Lease {
                    sender,
                    facts,
                    pool,
                    reused: true,
                    max_requests,
                }));
            }
        }
        None
    }

    pub(super) fn new_http1(
        self: &Rc<Self>,
        sender: http1::SendRequest<RequestBody>,
        facts: Rc<ConnectionFacts>,
        max_requests: u32,
    ) -> Lease {
        let pool = Rc::clone(self);
        Lease::Http1(Http1Lease { sender, facts, pool, reused: false, max_requests })
    }

    /// A stream on an open HTTP/2 connection, the least used first.
    pub(super) fn stream_http2(&self, sni: Option<&Arc<str>>, max_requests: u32) -> Option<Lease> {
        let mut open = self.http2.borrow_mut();
        open.retain(|c| {
            let worn = max_requests != 0 && c.facts.served.get() >= max_requests;
            !c.sender.is_closed() && !worn
        });
        let best = open
            .iter()
            .filter(|c| c.facts.sni.as_ref() == sni && c.streams.get() < STREAMS_PER_CONNECTION)
            .min_by_key(|c| c.streams.get())?;
        Some(Lease::Http2(best.lend(true)))
    }

    pub(super) fn new_http2(
        &self,
        sender: http2::SendRequest<RequestBody>,
        facts: Rc<ConnectionFacts>,
    ) -> Lease {
        let shared = SharedHttp2 {
            sender,
            facts,
            streams: Rc::new(Cell::new(0)),
            since: Rc::new(Cell::new(Instant::now())),
        };
        let lease = shared.lend(false);
        if !self.retired.get() {
            self.http2.borrow_mut().push(shared);
        }
        Lease::Http2(lease)
    }

    /// The endpoint is gone or its transport changed: nothing is kept any more.
    pub(super) fn retire(&self) {
        self.retired.set(true);
        self.http1.borrow_mut().clear();
        self.http2.borrow_mut().clear();
    }

    /// Closes connections idle for `limit`; true while any is left.
    pub(super) fn sweep(&self, now: Instant, limit: Option<Duration>) -> bool {
        let fresh =
            |since: Instant| limit.is_none_or(|limit| now.saturating_duration_since(since) < limit);
        let mut http1 = self.http1.borrow_mut();
        http1.retain(|c| !c.sender.is_closed() && fresh(c.since));
        let mut http2 = self.http2.borrow_mut();
        http2.retain(|c| !c.sender.is_closed() && (c.streams.get() > 0 || fresh(c.since.get())));
        !http1.is_empty() || !http2.is_empty()
    }
}

impl SharedHttp2 {
    fn lend(&self, reused: bool) -> Http2Lease {
        self.streams.set(self.streams.get() + 1);
        self.facts.served.set(self.facts.served.get().saturating_add(1));
        Http2Lease {
            sender: self.sender.clone(),
            facts: Rc::clone(&self.facts),
            streams: Rc::clone(&self.streams),
            since: Rc::clone(&self.since),
            reused,
        }
    }
}
