//! WebSocket (RFC 6455): the handshake and an echo of data frames.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::reply::Body;

/// What RFC 6455 section 1.3 appends to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Largest frame that is echoed.
const MAX_FRAME: u64 = 1 << 20;
const OPCODE_CLOSE: u8 = 8;
const OPCODE_PING: u8 = 9;
const OPCODE_PONG: u8 = 10;

/// The value of `sec-websocket-accept` for a key.
pub(super) fn accept_key(key: &[u8]) -> String {
    let joined = [key, GUID.as_bytes()].concat();
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &joined))
}

/// Answers the handshake; the frames are echoed by a task that ends with the connection.
pub(super) fn accept(request: &mut Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(Empty::<Bytes>::new().boxed());
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let accept = accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(request);
    drop(tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                if let Err(error) = echo(TokioIo::new(upgraded)).await {
                    tracing::debug!(%error, "websocket ended early");
                }
            }
            Err(error) => tracing::debug!(%error, "websocket handshake was given up"),
        }
    }));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(value) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    response
}

/// A WebSocket frame, unmasked.
pub(super) struct FrameIn {
    pub(super) opcode: u8,
    pub(super) payload: Vec<u8>,
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let frame = read_frame(&mut stream).await?;
        let opcode = if frame.opcode == OPCODE_PING { OPCODE_PONG } else { frame.opcode };
        write_frame(&mut stream, opcode, &frame.payload, None).await?;
        if frame.opcode == OPCODE_CLOSE {
            return stream.shutdown().await;
        }
    }
}

/// Reads one frame and takes off its mask.
pub(super) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<FrameIn> {
    let first = stream.read_u8().await?;
    let second = stream.read_u8().await?;
    let length = match second & 0x7f {
        126 => u64::from(stream.read_u16().await?),
        127 => stream.read_u64().await?,
        short => u64::from(short),
    };
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length as u64 <= MAX_FRAME)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "frame is over 1 MiB"))?;
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    apply_mask(&mut payload, mask);
    Ok(FrameIn { opcode: first & 0x0f, payload })
}

/// Writes one final frame, masked where a mask is given (clients must).
pub(super) async fn write_frame(
    stream: &mut (impl AsyncWrite + Unpin),
    opcode: u8,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) -> io::Result<()> {
    let mut frame = vec![0x80 | opcode];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => frame.push(masked | short),
        (_, Ok(medium)) => {
            frame.push(masked | 126);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.push(masked | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let mut payload = payload.to_vec();
    if let Some(mask) = mask {
        frame.extend(mask);
        apply_mask(&mut payload, mask);
    }
    frame.append(&mut payload);
    stream.write_all(&frame).await?;
    stream.flush().await
}

fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_follows_the_example_of_rfc_6455() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[tokio::test]
    async fn frames_survive_masking_at_every_length_form() {
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            let mut wire = Vec::new();
            write_frame(&mut wire, 2, &payload, Some([1, 2, 3, 4])).await.unwrap();
            let frame = read_frame(&mut wire.as_slice()).await.unwrap();
            assert_eq!((frame.opcode, frame.payload), (2, payload));
        }
    }
}
