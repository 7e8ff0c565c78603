//! One HTTP/1.1 request to the application, on a connection of its own, with a bounded answer.

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// Connecting, or bytes.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// The answer is larger than allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// What is done with an answer beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It is cut off.
    Cut,
    /// It is an error.
    Refuse,
}

/// Sends a request over `io` and reads at most `limit` bytes of its body.
pub(super) async fn send<IO>(
    io: IO,
    request: Request<Empty<Bytes>>,
    (limit, beyond): (usize, Beyond),
) -> Result<Response<Bytes>, RequestError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let (head, mut body) = response.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                if beyond == Beyond::Refuse {
                    return Err(RequestError::TooLarge(limit));
                }
                bytes.extend_from_slice(&data[..limit - bytes.len()]);
                break;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Response::from_parts(head, bytes.freeze()))
    };
    let mut exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        answer = exchange.as_mut() => answer,
        ended = connection.as_mut() => {
            ended?;
            exchange.await
        }
    }
}
