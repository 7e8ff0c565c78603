//! The client: one HTTP request, one TCP exchange, one WebSocket exchange. Repeating and
//! counting stand in `load`.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TE, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::websocket;

/// Largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is not one this client takes.
    #[error("{0:?} is not a URL of the form http://HOST[:PORT]/PATH")]
    Url(String),
    /// Name not found, nothing listening, connection lost.
    #[error("cannot reach {authority}: {source}")]
    Connect {
        /// Host and port.
        authority: String,
        /// Reason.
        source: io::Error,
    },
    /// The connection broke, or what came is not HTTP.
    #[error("request to {authority} failed: {message}")]
    Exchange {
        /// Host and port.
        authority: String,
        /// Reason.
        message: String,
    },
    /// It took too long.
    #[error("no answer from {authority} within {} ms", .after.as_millis())]
    Timeout {
        /// Host and port.
        authority: String,
        /// Limit.
        after: Duration,
    },
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Trailers, empty where there are none.
    pub trailers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// A request that can be sent many times.
#[derive(Debug, Clone)]
pub struct Call {
    uri: Uri,
    authority: String,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
    http2: bool,
}

impl Call {
    /// A GET request for `url`.
    ///
    /// # Errors
    /// When the URL is not `http://`.
    pub fn get(url: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?.clone();
        if uri.scheme_str() != Some("http") {
            return Err(bad());
        }
        let port = authority.port_u16().unwrap_or(80);
        let authority = format!("{}:{port}", authority.host());
        Ok(Self {
            uri,
            authority,
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            http2: false,
        })
    }

    /// The same with another method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// The same with these headers.
    #[must_use]
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = headers;
        self
    }

    /// The same with a body.
    #[must_use]
    pub fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }

    /// The same over HTTP/2 by prior knowledge.
    #[must_use]
    pub fn http2(mut self, on: bool) -> Self {
        self.http2 = on;
        self
    }

    /// The same as a gRPC call of one message: framed, posted, over HTTP/2.
    #[must_use]
    pub fn grpc(mut self, message: &[u8]) -> Self {
        // A message whose length does not fit four bytes is sent without one, and refused.
        let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
        self.body = [&[0], length.as_slice(), message].concat().into();
        let grpc = HeaderValue::from_static("application/grpc");
        self.headers.insert(CONTENT_TYPE, grpc);
        self.headers.insert(TE, HeaderValue::from_static("trailers"));
        self.method(Method::POST).http2(true)
    }

    /// Host and port the request goes to.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        if self.http2 {
            *request.version_mut() = Version::HTTP_2;
            *request.uri_mut() = self.uri.clone();
        } else {
            let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = path.parse().unwrap_or_default();
            if !request.headers().contains_key(HOST)
                && let Some(host) = self.uri.authority()
                && let Ok(host) = HeaderValue::from_str(host.as_str())
            {
                request.headers_mut().insert(HOST, host);
            }
        }
        request
    }
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// A connection that carries one request at a time.
pub struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
    authority: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects to where `call` goes.
    ///
    /// # Errors
    /// When nothing answers there.
    pub async fn open(call: &Call) -> Result<Self, ClientError> {
        let authority = call.authority.clone();
        let connect = |source| ClientError::Connect { authority: authority.clone(), source };
        let stream = TcpStream::connect(&call.authority).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let broken = |error: hyper::Error| connect(io::Error::other(error));
        let stream = TokioIo::new(stream);
        let (sender, driver) = if call.http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(broken)?;
            (Sender::Two(sender), tokio::spawn(async move { drop(connection.await) }))
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(broken)?;
            (Sender::One(sender), tokio::spawn(async move { drop(connection.await) }))
        };
        Ok(Self { sender, driver, authority: call.authority.clone() })
    }

    /// Whether another request can be sent.
    pub async fn ready(&mut self) -> bool {
        match &mut self.sender {
            Sender::One(sender) => sender.ready().await.is_ok(),
            Sender::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not HTTP.
    pub async fn send(&mut self, call: &Call) -> Result<Answer, ClientError> {
        let authority = self.authority.clone();
        let failed = |error: &dyn std::error::Error| ClientError::Exchange {
            authority: authority.clone(),
            message: chain(error),
        };
        let request = call.request();
        let response = match &mut self.sender {
            Sender::One(sender) => sender.send_request(request).await,
            Sender::Two(sender) => sender.send_request(request).await,
        };
        let (head, body) = response.map_err(|error| failed(&error))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER);
        let body = body.collect().await.map_err(|error| failed(error.as_ref()))?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: body.to_bytes(),
        })
    }
}

/// An error with its causes, since the cause is what helps.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// One request on a connection of its own.
///
/// # Errors
/// As [`Connection::open`] and [`Connection::send`], and when `limit` passes.
pub async fn once(call: &Call, limit: Duration) -> Result<Answer, ClientError> {
    let exchange = async { Connection::open(call).await?.send(call).await };
    tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
        Err(ClientError::Timeout { authority: call.authority.clone(), after: limit })
    })
}

/// GET on a connection of its own.
///
/// # Errors
/// As [`once`].
pub async fn get(url: &str, headers: HeaderMap, limit: Duration) -> Result<Answer, ClientError> {
    once(&Call::get(url)?.headers(headers), limit).await
}

/// Sends `payload` over TCP and reads as many bytes back.
///
/// # Errors
/// When the connection cannot be made or ends before everything came back.
pub async fn tcp(authority: &str, payload: &[u8]) -> Result<Vec<u8>, ClientError> {
    let exchange = async {
        let mut stream = TcpStream::connect(authority).await?;
        stream.write_all(payload).await?;
        let mut back = vec![0; payload.len()];
        stream.read_exact(&mut back).await?;
        Ok(back)
    };
    exchange
        .await
        .map_err(|source| ClientError::Connect { authority: authority.to_owned(), source })
}

/// Opens a WebSocket at `url`, sends one text message and reads the answer.
///
/// # Errors
/// When the handshake is refused or the connection breaks.
pub async fn web_socket(url: &str, message: &str) -> Result<String, ClientError> {
    let mut headers = HeaderMap::new();
    let key = "bGF0ZWVuLXNhbXBsZS1rZXk=";
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static(key));
    let call = Call::get(url)?.headers(headers);
    let failed =
        |message: String| ClientError::Exchange { authority: call.authority.clone(), message };
    let stream = TcpStream::connect(&call.authority)
        .await
        .map_err(|source| ClientError::Connect { authority: call.authority.clone(), source })?;
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| failed(chain(&error)))?;
    let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let response =
        sender.send_request(call.request()).await.map_err(|error| failed(chain(&error)))?;
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(failed(format!("no upgrade: {}", response.status())));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| failed(chain(&error)))?;
    let mut stream = TokioIo::new(upgraded);
    let exchange = async {
        websocket::write_frame(&mut stream, 1, message.as_bytes(), Some([9, 8, 7, 6])).await?;
        websocket::read_frame(&mut stream).await
    };
    let frame = exchange.await.map_err(|error| failed(error.to_string()))?;
    driver.abort();
    Ok(String::from_utf8_lossy(&frame.payload).into_owned())
}
