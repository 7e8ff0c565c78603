//! The health check of gRPC, asked over HTTP/2 without TLS.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use crate::echo::client::{Call, Connection};

const SERVING: u8 = 1;

/// Asks whether `service` is serving.
pub(super) async fn check(address: IpAddr, port: u16, service: &str) -> Result<(), String> {
    let authority = SocketAddr::new(address, port);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("user-agent", HeaderValue::from_static("kube-probe/1.36"));
    let call = Call::get(&format!("http://{authority}/grpc.health.v1.Health/Check"))
        .map_err(|e| e.to_string())?
        .method(Method::POST)
        .headers(headers)
        .body(question(service))
        .http2(true);
    let mut connection = Connection::open(&call).await.map_err(|e| e.to_string())?;
    let answer = connection.send(&call).await.map_err(|e| e.to_string())?;
    let status = answer.trailers.get("grpc-status").or_else(|| answer.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        None | Some(b"0") => verdict(&answer.body),
        Some(code) => Err(format!("gRPC status {}", String::from_utf8_lossy(code))),
    }
}

/// `HealthCheckRequest { service }` as one message.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    // Longer names than a byte can count are cut: no service has them.
    let short = service.as_bytes().get(..service.len().min(127)).unwrap_or_default();
    if !short.is_empty() {
        message.push(0x0a);
        message.extend(u8::try_from(short.len()));
        message.extend_from_slice(short);
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

/// `HealthCheckResponse { status }` of one message.
fn verdict(body: &[u8]) -> Result<(), String> {
    match body.get(5..) {
        Some([0x08, SERVING, ..]) => Ok(()),
        Some([0x08, status, ..]) => Err(format!("health status {status}, not SERVING")),
        // The status 0, UNKNOWN, is left out on the wire.
        Some([]) => Err("health status UNKNOWN, not SERVING".to_owned()),
        _ => Err("the answer is no health status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, HeaderMap, HeaderValue, check, question, verdict};
    use http::{HeaderName, Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;

    #[test]
    fn messages_are_those_of_the_health_service() {
        assert_eq!(question("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab").as_ref(), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert!(verdict(&[0, 0, 0, 0, 2, 8, 2]).is_err());
        assert!(verdict(&[0, 0, 0, 0, 0]).is_err());
        assert!(verdict(&[]).is_err());
    }

    /// A health service that answers one call: `status` in a message, or `code` without one.
    async fn serve(listener: TcpListener, status: u8, code: &'static str) -> (String, Vec<u8>) {
        let (stream, _) = listener.accept().await.unwrap();
        let (asked, mut question) = tokio::sync::mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            let asked = asked.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes().to_vec();
                asked.send((head.uri.path().to_owned(), body)).unwrap();
                let message = [0, 0, 0, 0, 2, 8, status];
                let body = if code == "0" { message.to_vec() } else { Vec::new() };
                let trailers = HeaderMap::from_iter([(
                    HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static(code),
                )]);
                let body = Full::new(Bytes::from(body)).with_trailers(async { Some(Ok(trailers)) });
                Ok::<_, hyper::Error>(Response::new(body))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new());
        let connection = connection.serve_connection(TokioIo::new(stream), service);
        // The client goes away when it has its answer.
        drop(connection.await);
        question.recv().await.unwrap()
    }

    #[tokio::test]
    async fn a_service_is_asked_over_http2() {
        for (status, code, wanted) in
            [(1, "0", ""), (2, "0", "not SERVING"), (0, "12", "gRPC status 12")]
        {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let served = tokio::spawn(serve(listener, status, code));
            let answer = check(address.ip(), address.port(), "cart").await;
            assert_eq!(answer.is_ok(), wanted.is_empty(), "{answer:?}");
            assert!(answer.err().unwrap_or_default().contains(wanted), "{status} {code}");
            let (path, question) = served.await.unwrap();
            assert_eq!(path, "/grpc.health.v1.Health/Check");
            assert_eq!(question, super::question("cart"));
        }
    }
}
