//! HTTP and HTTPS requests of probes and hooks, as kubelets send them: certificates are not
//! looked at.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lateen_api::core::HttpGet;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// More of an answer is not read.
const MAX_BODY: usize = 10 << 10;

/// Sends the request; gives status and body.
pub(super) async fn get(get: &HttpGet, host: String, port: u16) -> Result<(u16, String), String> {
    let failed = |e: io::Error| format!("{host} port {port}: {e}");
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(failed)?;
    let request = request(get, &host, port)?;
    if !get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(host.clone()).map_err(|e| format!("{host}: {e}"))?;
    let connector = TlsConnector::from(Arc::new(careless().map_err(|e| e.to_string())?));
    let stream = connector.connect(name, stream).await.map_err(failed)?;
    exchange(stream, request).await
}

fn request(get: &HttpGet, host: &str, port: u16) -> Result<Request<Empty<Bytes>>, String> {
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = path.parse().map_err(|e| format!("path {path:?}: {e}"))?;
    let headers = request.headers_mut();
    let authority =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let authority = HeaderValue::from_str(&authority).map_err(|e| format!("host {host:?}: {e}"))?;
    headers.insert(HOST, authority);
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.36"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    add(headers, get)?;
    Ok(request)
}

/// Headers of the specification take the place of ours.
fn add(headers: &mut HeaderMap, get: &HttpGet) -> Result<(), String> {
    let mut given = HeaderMap::new();
    for header in &get.http_headers {
        let text = |key: &str| header[key].as_str().unwrap_or_default();
        let (name, value) = (text("name"), text("value"));
        let failed = |e: &dyn std::fmt::Display| format!("header {name:?}: {e}");
        let key: HeaderName = name.parse().map_err(|e| failed(&e))?;
        given.append(key, HeaderValue::from_str(value).map_err(|e| failed(&e))?);
    }
    headers.extend(given);
    Ok(())
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<(u16, String), String> {
    let failed = |e: hyper::Error| format!("HTTP: {e}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        // A body that is too long or breaks off says nothing about health.
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = answer.as_mut() => answer,
        ended = connection => {
            ended.map_err(failed)?;
            answer.await
        }
    }
}

fn careless() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Careless(Arc::clone(&provider)));
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

/// Takes every certificate.
#[derive(Debug)]
struct Careless(Arc<CryptoProvider>);

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, aws_lc_rs, get, request};
    use lateen_testkit::echo::EchoServer;
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    #[test]
    fn headers_of_the_specification_replace_ours() {
        let get = json!({"port": 80, "path": "a?b", "httpHeaders": [{"name": "host", "value": "h"},
            {"name": "X", "value": "1"}, {"name": "X", "value": "2"}]});
        let request = request(&serde_json::from_value(get).unwrap(), "fd00::1", 80).unwrap();
        assert_eq!(request.uri(), "/a?b");
        assert_eq!(request.headers()["host"], "h");
        assert_eq!(request.headers().get_all("x").iter().count(), 2);
    }

    #[tokio::test]
    async fn requests_reach_a_server() {
        let server = EchoServer::http().await;
        let spec = json!({"port": 80, "path": "/ready"});
        let spec = serde_json::from_value(spec).unwrap();
        let host = server.address.ip().to_string();
        let (status, body) = get(&spec, host, server.address.port()).await.unwrap();
        assert_eq!(status, 200);
        assert!(body.starts_with("GET /ready"), "{body}");
        assert!(body.contains("kube-probe"), "{body}");
    }

    #[tokio::test]
    async fn any_certificate_is_taken() {
        let made = rcgen::generate_simple_self_signed(["elsewhere.test".to_owned()]).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy").await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        };
        let spec = json!({"port": 1, "scheme": "HTTPS", "path": "/live"});
        let spec = serde_json::from_value(spec).unwrap();
        let asked = get(&spec, address.ip().to_string(), address.port());
        let (request, answer) = tokio::join!(serve, asked);
        assert!(request.starts_with("GET /live HTTP/1.1"), "{request}");
        assert_eq!(answer.unwrap(), (503, "busy".to_owned()));
    }
}
