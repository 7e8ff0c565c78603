//! Copying between two streams, both ways at once, each way ending by itself.
//!
//! A connection that says nothing holds no buffer: bytes are read into one buffer that all
//! connections of a worker share and written on at once; only what the other side does not take
//! is kept, and no more is read until it has gone.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Size of the buffer that the connections of a worker share: the most one read takes.
const SHARED_BUFFER: usize = 64 * 1024;
/// Stands for no limit.
const VERY_LONG: Duration = Duration::from_secs(365 * 24 * 3600);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SHARED_BUFFER].into_boxed_slice());
}

/// Bytes carried, readable while they are.
#[derive(Debug, Default)]
pub struct Traffic {
    /// From the client.
    pub received: Cell<u64>,
    /// To the client.
    pub sent: Cell<u64>,
}

/// Time limits of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// End when nothing passes for this long.
    pub idle: Option<Duration>,
    /// End after this long, whatever passes.
    pub whole: Option<Duration>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both sides had said all.
    Both,
    /// Nothing passed for too long.
    Idle,
    /// It was open too long.
    TooLong,
}

/// Copies until both sides have ended, one fails, or a limit is reached.
///
/// # Errors
/// When reading or writing fails on either side.
pub async fn relay<A, B>(
    mut client: A,
    upstream: &mut B,
    traffic: &Traffic,
    limits: Limits,
) -> io::Result<Ended>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let active = Cell::new(Instant::now());
    let (mut up, mut down) = (Way::default(), Way::default());
    let copying = poll_fn(|cx| {
        let one = up.poll(
            cx,
            &mut client,
            upstream,
            &Progress { count: &traffic.received, active: &active },
        );
        let other = down.poll(
            cx,
            upstream,
            &mut client,
            &Progress { count: &traffic.sent, active: &active },
        );
        match (one, other) {
            (Poll::Ready(Err(e)), _) | (_, Poll::Ready(Err(e))) => Poll::Ready(Err(e)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    });
    let mut copying = pin!(copying);
    let idle = limits.idle.unwrap_or(VERY_LONG);
    let mut idle_timer = pin!(tokio::time::sleep(idle));
    let mut whole_timer = pin!(tokio::time::sleep(limits.whole.unwrap_or(VERY_LONG)));
    loop {
        tokio::select! {
            biased;
            done = copying.as_mut() => return done.map(|()| Ended::Both),
            () = idle_timer.as_mut(), if limits.idle.is_some() => {
                if active.get().elapsed() >= idle {
                    return Ok(Ended::Idle);
                }
                idle_timer.as_mut().reset(active.get() + idle);
            }
            () = whole_timer.as_mut(), if limits.whole.is_some() => return Ok(Ended::TooLong),
        }
    }
}

struct Progress<'a> {
    count: &'a Cell<u64>,
    active: &'a Cell<Instant>,
}

impl Progress<'_> {
    fn made(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.count.set(self.count.get().saturating_add(bytes));
        self.active.set(Instant::now());
    }
}

/// One way of a connection.
#[derive(Debug, Default)]
struct Way {
    /// What the other side has not taken yet.
    rest: Vec<u8>,
    /// How much of `rest` it has taken.
    taken: usize,
    unflushed: bool,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    Closing,
    Closed,
}

impl Way {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        progress: &Progress<'_>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.phase {
                Phase::Closed => return Poll::Ready(Ok(())),
                Phase::Closing => {
                    ready!(self.poll_rest(cx, to))?;
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.phase = Phase::Closed;
                }
                Phase::Open => {
                    ready!(self.poll_rest(cx, to))?;
                    match self.poll_through(cx, from, to, progress) {
                        Poll::Ready(Ok(0)) => self.phase = Phase::Closing,
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                        Poll::Pending => {
                            if self.unflushed {
                                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                                self.unflushed = false;
                            }
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }

    /// Writes what is left over, then lets go of its memory.
    fn poll_rest<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while let Some(left) = self.rest.get(self.taken..).filter(|left| !left.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.taken += count,
            }
        }
        if self.taken > 0 {
            self.rest = Vec::new();
            self.taken = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes on what was read; gives how much that was, 0 at the end.
    fn poll_through<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        progress: &Progress<'_>,
    ) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|shared| {
            let mut buffer = ReadBuf::new(shared);
            match ready!(Pin::new(from).poll_read(cx, &mut buffer)) {
                Ok(()) => {}
                // TLS that ends without saying so has ended.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                Err(e) => return Poll::Ready(Err(e)),
            }
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(0));
            }
            progress.made(read.len());
            self.unflushed = true;
            let mut left = read;
            while !left.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, left) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(count)) => left = left.get(count..).unwrap_or_default(),
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => {
                        self.rest.extend_from_slice(left);
                        break;
                    }
                }
            }
            Poll::Ready(Ok(read.len()))
        })
    }
}
