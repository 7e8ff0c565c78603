//! The body of a request on its way upstream, as one type without boxing.
//!
//! A body that may have to be sent again is kept (up to a limit) while it streams, so the first
//! attempt never waits for the whole of it. Knows no routes and no retry rules.

use super::grpc_frames::FrameCounter;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

/// Why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The downstream connection failed.
    #[error("request body from downstream: {0}")]
    Downstream(#[from] hyper::Error),
    /// A newer attempt of the same request took the body over.
    #[error("request body was taken over by another attempt")]
    Superseded,
}

/// What has passed of a request body.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes of data read from downstream.
    pub bytes: Cell<u64>,
    /// gRPC messages, where they are to be counted.
    pub grpc: Cell<Option<FrameCounter>>,
    /// When data passed last.
    pub last: Cell<Option<Instant>>,
    /// When the end was seen.
    pub ended_at: Cell<Option<Instant>>,
}

impl Meter {
    /// The end was seen.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended_at.get().is_some()
    }

    fn add(&self, data: &[u8]) {
        self.bytes.set(self.bytes.get() + data.len() as u64);
        self.last.set(Some(Instant::now()));
        if let Some(mut counter) = self.grpc.get() {
            counter.feed(data);
            self.grpc.set(Some(counter));
        }
    }

    fn end(&self) {
        if self.ended_at.get().is_none() {
            self.ended_at.set(Some(Instant::now()));
        }
    }
}

/// Body of an upstream request.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// Bytes at hand (mirrored requests).
    Full(Option<Bytes>),
    /// The downstream body as it comes.
    Stream(Incoming, Rc<Meter>),
    /// The downstream body, kept for another attempt.
    Replay(Replay),
}

/// One attempt's view of a body that is kept for further attempts.
#[derive(Debug)]
pub struct Replay {
    shared: Rc<RefCell<Kept>>,
    attempt: u32,
    next: usize,
    remaining: Option<u64>,
}

#[derive(Debug)]
struct Kept {
    incoming: Incoming,
    meter: Rc<Meter>,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    length: Option<u64>,
    size: usize,
    limit: usize,
    overflow: bool,
    attempt: u32,
}

/// The owner of a kept body: makes one [`RequestBody`] for each attempt.
#[derive(Debug, Clone)]
pub struct Replayable(Rc<RefCell<Kept>>);

impl Replayable {
    /// Keeps up to `limit` bytes of `incoming`.
    #[must_use]
    pub fn new(incoming: Incoming, meter: Rc<Meter>, limit: usize) -> Self {
        let length = incoming.size_hint().exact();
        Self(Rc::new(RefCell::new(Kept {
            incoming,
            meter,
            chunks: Vec::new(),
            trailers: None,
            length,
            size: 0,
            limit,
            overflow: length.is_some_and(|n| n > limit as u64),
            attempt: 0,
        })))
    }

    /// The body for the next attempt; earlier ones end with [`BodyError::Superseded`].
    #[must_use]
    pub fn attempt(&self) -> RequestBody {
        let mut kept = self.0.borrow_mut();
        kept.attempt += 1;
        RequestBody::Replay(Replay {
            shared: Rc::clone(&self.0),
            attempt: kept.attempt,
            next: 0,
            remaining: kept.length,
        })
    }

    /// The whole body, once it has been read to its end and all of it was kept.
    #[must_use]
    pub fn collected(&self) -> Option<Bytes> {
        let kept = self.0.borrow();
        if kept.overflow || !kept.meter.is_ended() {
            return None;
        }
        match kept.chunks.as_slice() {
            [] => Some(Bytes::new()),
            [only] => Some(only.clone()),
            many => Some(many.concat().into()),
        }
    }

    /// Whether everything that was read is still here.
    #[must_use]
    pub fn can_repeat(&self) -> bool {
        !self.0.borrow().overflow
    }
}

impl Kept {
    fn keep(&mut self, data: &Bytes) {
        if self.overflow {
            return;
        }
        if self.size + data.len() > self.limit {
            self.overflow = true;
            self.chunks = Vec::new();
        } else {
            self.size += data.len();
            self.chunks.push(data.clone());
        }
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Replay {
    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        let mut kept = self.shared.borrow_mut();
        if kept.attempt != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if !kept.overflow
            && let Some(chunk) = kept.chunks.get(self.next).cloned()
        {
            self.next += 1;
            self.remaining = self.remaining.map(|n| n.saturating_sub(chunk.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if kept.meter.is_ended() {
            let trailers = kept.trailers.clone();
            if trailers.is_some() && self.next == kept.chunks.len() {
                self.next += 1;
                return Poll::Ready(trailers.map(|map| Ok(Frame::trailers(map))));
            }
            return Poll::Ready(None);
        }
        let kept = &mut *kept;
        match poll_metered(&mut kept.incoming, &kept.meter, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    kept.keep(data);
                    self.next += 1;
                    self.remaining = self.remaining.map(|n| n.saturating_sub(data.len() as u64));
                } else if let Some(trailers) = frame.trailers_ref() {
                    kept.trailers = Some(trailers.clone());
                    kept.meter.end();
                    self.next += 1;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            other => other,
        }
    }

    fn is_end(&self) -> bool {
        let kept = self.shared.borrow();
        kept.attempt == self.attempt
            && self.next >= kept.chunks.len()
            && (kept.meter.is_ended() && kept.trailers.is_none())
    }
}

fn poll_metered(incoming: &mut Incoming, meter: &Meter, cx: &mut Context<'_>) -> Polled {
    match Pin::new(&mut *incoming).poll_frame(cx) {
        Poll::Ready(Some(Ok(frame))) => {
            if let Some(data) = frame.data_ref() {
                meter.add(data);
                if incoming.is_end_stream() {
                    meter.end();
                }
            }
            Poll::Ready(Some(Ok(frame)))
        }
        Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
        Poll::Ready(None) => {
            meter.end();
            Poll::Ready(None)
        }
        Poll::Pending => Poll::Pending,
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Stream(incoming, meter) => poll_metered(incoming, meter, cx),
            Self::Replay(replay) => replay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(data)) => data.is_empty(),
            Self::Stream(incoming, _) => incoming.is_end_stream(),
            Self::Replay(replay) => replay.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(data)) => SizeHint::with_exact(data.len() as u64),
            Self::Stream(incoming, _) => incoming.size_hint(),
            Self::Replay(replay) => {
                replay.remaining.map_or_else(SizeHint::new, SizeHint::with_exact)
            }
        }
    }
}
