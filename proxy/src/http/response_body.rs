//! The body of a response on its way downstream: bytes at hand or the upstream's, with what has
//! to happen when it ends (connection back to the pool, record to the sink).

use super::flags::Flags;
use super::headers::grpc_status;
use super::record::Exchange;
use crate::upstream::{Busy, Lease, Slot};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Why a response body ended early.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// The upstream failed in the middle.
    #[error("response body from upstream: {0}")]
    Upstream(#[from] hyper::Error),
    /// The route's timeout ended.
    #[error("route timeout in the middle of the response")]
    Timeout,
    /// Nothing came for too long.
    #[error("stream idle timeout")]
    Idle,
}

/// What an upstream response holds on to until it has been read.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: Option<Lease>,
    pub(super) _busy: Busy,
    pub(super) _slots: [Option<Slot>; 2],
}

/// Time limits of a response body; none are armed unless configured.
#[derive(Debug, Default)]
pub(super) struct BodyLimits {
    pub(super) deadline: Option<Pin<Box<Sleep>>>,
    pub(super) idle: Option<IdleLimit>,
}

/// How long nothing may pass. Most bodies never wait, so the timer is made by the first that does.
#[derive(Debug)]
pub(super) struct IdleLimit {
    limit: Duration,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleLimit {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), timer: None }
    }

    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let end = self.last + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            if end <= Instant::now() {
                return true;
            }
            timer.as_mut().reset(end);
        }
        false
    }
}

#[derive(Debug)]
enum Inner {
    Ready(Option<Bytes>),
    Upstream(Box<Streaming>),
}

#[derive(Debug)]
struct Streaming {
    incoming: Incoming,
    held: Option<Held>,
    limits: BodyLimits,
}

/// Body of a downstream response.
#[derive(Debug)]
pub struct ResponseBody {
    inner: Inner,
    exchange: Option<Exchange>,
}

impl ResponseBody {
    /// Bytes at hand. `sent` tells whether they will be sent (not for `HEAD`).
    pub(super) fn ready(bytes: Bytes, mut exchange: Exchange, sent: bool) -> Self {
        if sent {
            exchange.record.bytes_sent = bytes.len() as u64;
        }
        exchange.complete = true;
        let bytes = if sent && !bytes.is_empty() { Some(bytes) } else { None };
        Self { inner: Inner::Ready(bytes), exchange: Some(exchange) }
    }

    /// Bytes without an exchange that ends with them.
    pub(super) fn bare(bytes: Bytes) -> Self {
        Self { inner: Inner::Ready((!bytes.is_empty()).then_some(bytes)), exchange: None }
    }

    /// The upstream's body.
    pub(super) fn upstream(
        incoming: Incoming,
        held: Held,
        limits: BodyLimits,
        mut exchange: Exchange,
    ) -> Self {
        let mut held = Some(held);
        if incoming.is_end_stream() {
            exchange.complete = true;
            release(&mut held);
        }
        let streaming = Streaming { incoming, held, limits };
        Self { inner: Inner::Upstream(Box::new(streaming)), exchange: Some(exchange) }
    }

    fn fail(&mut self, flag: Flags, details: &'static str) {
        if let Some(exchange) = &mut self.exchange {
            exchange.note(flag, details);
        }
    }
}

/// The response is whole: its connection may serve the next request.
fn release(held: &mut Option<Held>) {
    if let Some(mut held) = held.take()
        && let Some(lease) = held.lease.take()
    {
        lease.finish();
    }
}

impl Streaming {
    fn expired(&mut self, cx: &mut Context<'_>) -> Option<ResponseError> {
        if let Some(deadline) = &mut self.limits.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Some(ResponseError::Timeout);
        }
        if let Some(idle) = &mut self.limits.idle
            && idle.is_over(cx)
        {
            return Some(ResponseError::Idle);
        }
        None
    }

    fn touch(&mut self) {
        if let Some(idle) = &mut self.limits.idle {
            idle.last = Instant::now();
        }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, ResponseError>>>;

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        let streaming = match &mut this.inner {
            Inner::Ready(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Inner::Upstream(streaming) => streaming,
        };
        match Pin::new(&mut streaming.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                streaming.touch();
                let ended = frame.is_trailers() || streaming.incoming.is_end_stream();
                if ended {
                    release(&mut streaming.held);
                }
                if let Some(exchange) = &mut this.exchange {
                    count(exchange, &frame, ended);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.fail(
                    Flags::UPSTREAM_TERMINATION,
                    "upstream_reset_after_response_started{connection_termination}",
                );
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                release(&mut streaming.held);
                if let Some(exchange) = &mut this.exchange {
                    exchange.complete = true;
                }
                Poll::Ready(None)
            }
            Poll::Pending => match streaming.expired(cx) {
                None => Poll::Pending,
                Some(ResponseError::Idle) => {
                    this.fail(Flags::IDLE_TIMEOUT, "stream_idle_timeout");
                    Poll::Ready(Some(Err(ResponseError::Idle)))
                }
                Some(error) => {
                    this.fail(Flags::UPSTREAM_TIMEOUT, "response_timeout");
                    Poll::Ready(Some(Err(error)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Ready(bytes) => bytes.is_none(),
            Inner::Upstream(streaming) => streaming.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Ready(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Upstream(streaming) => streaming.incoming.size_hint(),
        }
    }
}

fn count(exchange: &mut Exchange, frame: &Frame<Bytes>, ended: bool) {
    if let Some(data) = frame.data_ref() {
        exchange.record.bytes_sent += data.len() as u64;
        if let Some(counter) = &mut exchange.grpc {
            counter.feed(data);
        }
    } else if let Some(trailers) = frame.trailers_ref()
        && let Some(status) = grpc_status(trailers)
    {
        exchange.record.grpc_status = Some(status);
    }
    if ended {
        exchange.complete = true;
    }
}
