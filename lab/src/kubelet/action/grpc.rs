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
    use super::{question, verdict};

    #[test]
    fn messages_are_those_of_the_health_service() {
        assert_eq!(question("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab").as_ref(), [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        assert_eq!(verdict(&[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        assert!(verdict(&[0, 0, 0, 0, 2, 8, 2]).is_err());
        assert!(verdict(&[0, 0, 0, 0, 0]).is_err());
        assert!(verdict(&[]).is_err());
    }
}
