//! Small servers on loopback: one gives bytes back, one tells what it was asked over HTTP/1.1.
//!
//! They run until dropped, on the runtime of the test.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A server that lives as long as this value.
#[derive(Debug)]
pub struct EchoServer {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EchoServer {
    /// Gives every byte back until the client ends.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn tcp() -> Self {
        Self::start(|stream| async move {
            let (mut read, mut write) = stream.into_split();
            tokio::io::copy(&mut read, &mut write).await.map(|_| ())
        })
        .await
    }

    /// Answers 200 with the method, path, headers (one a line) and body it was sent.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub async fn http() -> Self {
        Self::start(|stream| async move {
            let service = service_fn(tell);
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            served.await.map_err(std::io::Error::other)
        })
        .await
    }

    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, task }
    }
}

async fn tell(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let mut text = format!("{} {}\n", head.method, head.uri);
    for (name, value) in &head.headers {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
    }
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&body.collect().await?.to_bytes()));
    Ok(Response::new(Full::new(Bytes::from(text))))
}
