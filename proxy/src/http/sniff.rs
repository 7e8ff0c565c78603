//! Telling HTTP/2 from HTTP/1 by the first bytes, and giving those bytes back.

use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The client connection preface of HTTP/2 (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preface {
    /// HTTP/1.x, or something the HTTP/1 parser will refuse.
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// The client left without a word, or said nothing for too long.
    Nothing,
}

/// Reads until it is known what is spoken; gives what was read.
pub(super) async fn sniff<IO: AsyncRead + Unpin>(
    io: &mut IO,
    limit: Option<Duration>,
) -> io::Result<(Preface, Bytes)> {
    match limit.filter(|limit| !limit.is_zero()) {
        None => read_preface(io).await,
        Some(limit) => tokio::time::timeout(limit, read_preface(io))
            .await
            .unwrap_or(Ok((Preface::Nothing, Bytes::new()))),
    }
}

async fn read_preface<IO: AsyncRead + Unpin>(io: &mut IO) -> io::Result<(Preface, Bytes)> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        if io.read_buf(&mut read).await? == 0 {
            let preface = if read.is_empty() { Preface::Nothing } else { Preface::Http1 };
            return Ok((preface, read.freeze()));
        }
        if read.starts_with(HTTP2_PREFACE) {
            return Ok((Preface::Http2, read.freeze()));
        }
        if !HTTP2_PREFACE.starts_with(&read) {
            return Ok((Preface::Http1, read.freeze()));
        }
    }
}

/// A stream of which the first bytes were read already.
#[derive(Debug)]
pub(super) struct Rewound<IO> {
    io: IO,
    read: Bytes,
}

impl<IO> Rewound<IO> {
    pub(super) fn new(io: IO, read: Bytes) -> Self {
        Self { io, read }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Rewound<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(self.read.get(..count).unwrap_or_default());
        self.read.advance(count);
        if self.read.is_empty() {
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Rewound<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prefaces_are_told_apart_and_given_back() {
        for (sent, wanted) in [
            ("GET / HTTP/1.1\r\n\r\n", Preface::Http1),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Preface::Http2),
            ("PRI * HTTP/1.1\r\n\r\n", Preface::Http1),
            ("", Preface::Nothing),
        ] {
            let mut io = sent.as_bytes();
            let (preface, read) = sniff(&mut io, None).await.unwrap();
            assert_eq!(preface, wanted, "{sent:?}");
            let mut all = String::new();
            Rewound::new(io, read).read_to_string(&mut all).await.unwrap();
            assert_eq!(all, sent);
        }
    }
}
