//! Requests of gRPC libraries in C over a Unix socket, made such that hyper takes them.
//!
//! These libraries name the percent-encoded path of the socket as `:authority` of a discovery stream, for
//! example `etc%2Fistio%2Fproxy%2FXDS`. RFC 3986 allows that, hyper resets the stream as malformed. Each `%`
//! there becomes `-` on its way in: no length changes, and what a compressed header refers to later is
//! the same for both sides. Everything else passes as it is. Must not know what is asked.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

/// Bytes before the first frame.
const PREFACE: usize = 24;
/// Bytes before the payload of a frame.
const FRAME_HEAD: usize = 9;
/// Largest payload that hyper takes as configured here.
const MAX_PAYLOAD: usize = 16 << 10;
/// Type of the frames that begin a request.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const AUTHORITY: &[u8] = b":authority";
/// Place of that name in the table that both sides know from the start.
const AUTHORITY_INDEX: usize = 1;

/// A connection of an application.
#[derive(Debug)]
pub(super) struct Lenient<S> {
    inner: S,
    frames: Frames,
    /// What was read and may be handed on.
    read: Vec<u8>,
    handed_on: usize,
}

impl<S: AsyncRead + Unpin> Lenient<S> {
    /// A connection whose first bytes came in time.
    ///
    /// # Errors
    /// When they did not, or it ended before.
    pub(super) async fn begun(mut inner: S, within: Duration) -> io::Result<Self> {
        let mut preface = [0; PREFACE];
        timeout(within, inner.read_exact(&mut preface)).await??;
        let (mut frames, mut read) = (Frames::default(), Vec::new());
        frames.push(&preface, &mut read);
        Ok(Self { inner, frames, read, handed_on: 0 })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.handed_on == this.read.len() {
            (this.read, this.handed_on) = (Vec::new(), 0);
            let mut bytes = [0; 4096];
            let mut chunk = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                // The end; what is left is no whole frame, which is for hyper to judge.
                this.read = std::mem::take(&mut this.frames.held);
                if this.read.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            this.frames.push(chunk.filled(), &mut this.read);
        }
        let rest = &this.read[this.handed_on..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        this.handed_on += count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// The frames of a connection, as they come in.
#[derive(Debug)]
struct Frames {
    /// Bytes that pass before the next frame begins.
    passing: usize,
    /// The beginning of a frame, or as much of one of headers as there is.
    held: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { passing: PREFACE, held: Vec::new() }
    }
}

impl Frames {
    /// Takes bytes, and gives those that can go on.
    fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let (pass, rest) = bytes.split_at(self.passing.min(bytes.len()));
                out.extend_from_slice(pass);
                self.passing -= pass.len();
                bytes = rest;
                continue;
            }
            let wanted = self.wanted() - self.held.len();
            let (more, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.held.extend_from_slice(more);
            bytes = rest;
            if self.held.len() == self.wanted() {
                self.release(out);
            }
        }
    }

    /// How much must be held before the frame can go on.
    fn wanted(&self) -> usize {
        match self.head() {
            Some((HEADERS, payload)) if payload <= MAX_PAYLOAD => FRAME_HEAD + payload,
            _ => FRAME_HEAD,
        }
    }

    /// Type and length of the frame that is held.
    fn head(&self) -> Option<(u8, usize)> {
        let [a, b, c, kind, ..] = self.held[..] else { return None };
        (self.held.len() >= FRAME_HEAD)
            .then(|| (kind, usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)))
    }

    /// Lets a frame go on: of headers, corrected, and of others what is there.
    fn release(&mut self, out: &mut Vec<u8>) {
        let Some((_, payload)) = self.head() else { return };
        if self.held.len() == FRAME_HEAD {
            self.passing = payload;
        } else {
            let flags = self.held[4];
            let padding = usize::from(flags & PADDED != 0);
            let priority = if flags & PRIORITY != 0 { 5 } else { 0 };
            if let Some(block) = self.held.get_mut(FRAME_HEAD + padding + priority..) {
                correct(block);
            }
        }
        out.append(&mut self.held);
    }
}

/// Corrects the authority in a block of headers (RFC 7541), as far as the block can be read.
fn correct(block: &mut [u8]) {
    let mut at = 0;
    while let Some(end) = correct_field(block, at) {
        at = end;
    }
}

/// Corrects one field; gives where the next one begins.
fn correct_field(block: &mut [u8], at: usize) -> Option<usize> {
    let first = *block.get(at)?;
    let prefix = match first {
        // A field of the table.
        0x80.. => return integer(block, at, 7).map(|(_, end)| end),
        0x40..0x80 => 6,
        // The size of the table.
        0x20..0x40 => return integer(block, at, 5).map(|(_, end)| end),
        0..0x20 => 4,
    };
    let (index, mut at) = integer(block, at, prefix)?;
    let mut authority = index == AUTHORITY_INDEX;
    if index == 0 {
        let (name, end) = text(block, at)?;
        authority = block.get(name)? == AUTHORITY;
        at = end;
    }
    let compressed = *block.get(at)? & 0x80 != 0;
    let (value, end) = text(block, at)?;
    if authority && !compressed {
        for byte in block.get_mut(value)?.iter_mut().filter(|byte| **byte == b'%') {
            *byte = b'-';
        }
    }
    Some(end)
}

/// Where a text is, and where what follows begins.
fn text(block: &[u8], at: usize) -> Option<(std::ops::Range<usize>, usize)> {
    let (length, begin) = integer(block, at, 7)?;
    let end = begin.checked_add(length).filter(|end| *end <= block.len())?;
    Some((begin..end, end))
}

/// A number whose first bits are the last `prefix` of a byte, and where what follows begins.
fn integer(block: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & mask;
    let mut at = at + 1;
    if value < mask {
        return Some((value, at));
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(at)?);
        value += (byte & 0x7f) << shift;
        at += 1;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};
    use tokio::io::AsyncWriteExt;

    /// A request as the library in C begins it, after the preface.
    fn request(authority: &[u8], flags: u8) -> Vec<u8> {
        let mut block = Vec::new();
        if flags & PADDED != 0 {
            block.push(0);
        }
        if flags & PRIORITY != 0 {
            block.extend([0; 5]);
        }
        let mut field = |first: u8, parts: &[&[u8]]| {
            block.push(first);
            for part in parts {
                block.push(u8::try_from(part.len()).unwrap());
                block.extend_from_slice(part);
            }
        };
        field(0x40, &[b":path", b"/a%2Fb"]);
        field(0x40, &[AUTHORITY, authority]);
        field(0x83, &[]);
        field(0x41, &[authority]);
        field(0x40, &[b"te", b"trail%ers"]);
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        let head = [0, length[0], length[1], HEADERS, flags, 0, 0, 0, 1];
        [&head[..], &block].concat()
    }

    fn pushed(chunks: &[&[u8]]) -> Vec<u8> {
        let (mut frames, mut out) = (Frames::default(), Vec::new());
        chunks.iter().for_each(|chunk| frames.push(chunk, &mut out));
        out.append(&mut frames.held);
        out
    }

    fn connection(authority: &[u8], flags: u8) -> Vec<u8> {
        let data = [0, 0, 3, 0, 0, 0, 0, 0, 1, b'%', b'%', b'%'];
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        [&preface[..], &data, &request(authority, flags), &data].concat()
    }

    #[test]
    fn the_authority_is_corrected_and_nothing_else_however_bytes_come() {
        for flags in [4, 4 | PADDED, 4 | PRIORITY, 4 | PADDED | PRIORITY] {
            let given = connection(b"etc%2Fistio%2FXDS", flags);
            let expected = connection(b"etc-2Fistio-2FXDS", flags);
            for cut in 0..given.len() {
                assert_eq!(pushed(&[&given[..cut], &given[cut..]]), expected, "{cut}");
            }
            let single: Vec<&[u8]> = given.chunks(1).collect();
            assert_eq!(pushed(&single), expected);
        }
        let good = connection(b"localhost", 4);
        assert_eq!(pushed(&[&good]), good);
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_in_time_is_let_go() {
        let (mut peer, own) = tokio::io::duplex(64);
        peer.write_all(b"PRI * HTTP/2").await.unwrap();
        let error = Lenient::begun(own, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        let told = timeout(Duration::from_secs(5), peer.read_u8()).await.expect("the end");
        assert_eq!(told.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn nothing_is_lost_of_a_connection_that_began() {
        let given = connection(b"a%b", 4);
        let (mut peer, own) = tokio::io::duplex(given.len());
        peer.write_all(&given).await.unwrap();
        drop(peer);
        let mut begun = Lenient::begun(own, Duration::from_secs(5)).await.unwrap();
        let mut read = Vec::new();
        begun.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, connection(b"a-b", 4));
    }

    proptest! {
        #[test]
        fn any_bytes_pass_in_any_pieces(bytes in vec(any::<u8>(), 0..200), cut in 0..200_usize) {
            let all = [&connection(b"a%b", 4), &bytes[..]].concat();
            let cut = cut.min(all.len());
            let whole = pushed(&[&all]);
            assert_eq!(whole.len(), all.len());
            assert_eq!(pushed(&[&all[..cut], &all[cut..]]), whole);
        }

        #[test]
        fn a_block_of_any_bytes_loses_no_more_than_percent_signs(bytes in vec(any::<u8>(), 0..100)) {
            let mut block = bytes.clone();
            correct(&mut block);
            for (after, before) in block.iter().zip(&bytes) {
                assert!(after == before || (*before, *after) == (b'%', b'-'));
            }
        }
    }
}
