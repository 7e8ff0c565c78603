//! Application probes that the kubelet sends to us because the application demands mutual TLS.
//!
//! The probe is repeated to the pod's own address from the source address that redirection lets
//! through. Answers go back bounded; certificates are not checked, as the kubelet does not.

use super::client::{Beyond, RequestError, send};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::Deserialize;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Largest body that goes back.
const MAX_BODY: usize = 10 << 10;
/// Sources that redirection leaves alone.
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// Why probers cannot be read.
#[derive(Debug, Error)]
#[error("ISTIO_KUBE_APP_PROBERS: {0}")]
pub struct ProberError(#[from] serde_json::Error);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prober {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpProbe>,
    grpc: Option<GrpcProbe>,
    #[serde(default)]
    timeout_seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    path: String,
    port: u16,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<ProbeHeader>,
}

#[derive(Debug, Deserialize)]
struct ProbeHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct TcpProbe {
    port: u16,
}

#[derive(Debug, Deserialize)]
struct GrpcProbe {
    port: u16,
    service: Option<String>,
}

/// All probes of the pod, by path.
#[derive(Debug)]
pub struct Probers {
    all: HashMap<String, Prober>,
    to: IpAddr,
}

impl Probers {
    /// From the JSON of `ISTIO_KUBE_APP_PROBERS`; probes go to `to`.
    ///
    /// # Errors
    /// When it is no such JSON.
    pub fn parse(json: &str, to: IpAddr) -> Result<Self, ProberError> {
        let all = if json.is_empty() { HashMap::new() } else { serde_json::from_str(json)? };
        Ok(Self { all, to })
    }

    /// The answer to a probe; `headers` are those of the kubelet's request.
    pub(super) async fn probe(&self, path: &str, headers: &HeaderMap) -> Response<Bytes> {
        let Some(prober) = self.all.get(path) else {
            return plain(StatusCode::BAD_REQUEST, format!("no probe is configured for {path}\n"));
        };
        let timeout = Duration::from_secs(prober.timeout_seconds.max(1));
        let run = Box::pin(self.run(prober, headers));
        match tokio::time::timeout(timeout, run).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "probe timed out\n".to_owned()),
        }
    }

    async fn run(
        &self,
        prober: &Prober,
        head: &HeaderMap,
    ) -> Result<Response<Bytes>, RequestError> {
        if let Some(get) = &prober.http_get {
            return self.http(get, head).await;
        }
        if let Some(tcp) = &prober.tcp_socket {
            self.connect(tcp.port).await?;
            return Ok(plain(StatusCode::OK, String::new()));
        }
        let Some(grpc) = &prober.grpc else {
            return Err(io::Error::other("the probe has no handler").into());
        };
        let stream = self.connect(grpc.port).await?;
        if serves(stream, grpc.service.as_deref().unwrap_or_default()).await? {
            Ok(plain(StatusCode::OK, String::new()))
        } else {
            Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, "not serving\n".to_owned()))
        }
    }

    async fn http(&self, get: &HttpGet, head: &HeaderMap) -> Result<Response<Bytes>, RequestError> {
        let request = request(get, head, SocketAddr::new(self.to, get.port))?;
        let stream = self.connect(get.port).await?;
        let response = if get.scheme.eq_ignore_ascii_case("https") {
            let tls = TlsConnector::from(Arc::new(careless()?));
            let name = ServerName::from(self.to);
            let stream = tls.connect(name, stream).await?;
            send(stream, request, (MAX_BODY, Beyond::Cut)).await?
        } else {
            send(stream, request, (MAX_BODY, Beyond::Cut)).await?
        };
        // Where it points is not ours to follow; that it answers is what was asked.
        let status =
            if response.status().is_redirection() { StatusCode::OK } else { response.status() };
        let mut answer = Response::new(response.into_body());
        *answer.status_mut() = status;
        Ok(answer)
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let address = SocketAddr::new(self.to, port);
        let (socket, source) = match self.to {
            IpAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::V4(SOURCE_V4)),
            IpAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::V6(SOURCE_V6)),
        };
        // Without redirection the IPv6 source is no address of this host.
        if let Err(error) = socket.bind(SocketAddr::new(source, 0)) {
            tracing::debug!(%error, %source, "probing from another source");
        }
        socket.connect(address).await
    }
}

/// The request to the application: the kubelet's headers, then those of the probe.
fn request(get: &HttpGet, head: &HeaderMap, to: SocketAddr) -> io::Result<Request<Empty<Bytes>>> {
    let path = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let mut request = Request::get(path).body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let headers = request.headers_mut();
    for (name, value) in head {
        if ![header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
            .contains(name)
        {
            headers.append(name, value.clone());
        }
    }
    let host = head.get(header::HOST).and_then(|host| host.to_str().ok());
    let host =
        host.and_then(|host| host.rsplit_once(':').map(|(name, _)| name)).unwrap_or_default();
    let host = if host.is_empty() { to.to_string() } else { format!("{host}:{}", to.port()) };
    headers.insert(header::HOST, HeaderValue::try_from(host).map_err(io::Error::other)?);
    for ProbeHeader { name, value } in &get.http_headers {
        let name = HeaderName::try_from(name.as_str()).map_err(io::Error::other)?;
        headers.insert(name, HeaderValue::try_from(value.as_str()).map_err(io::Error::other)?);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// `grpc.health.v1.Health/Check` without TLS.
async fn serves(stream: TcpStream, service: &str) -> Result<bool, RequestError> {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let request = Request::post("http://health/grpc.health.v1.Health/Check")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(health_request(service)))
        .map_err(io::Error::other)?;
    let exchange = async {
        let mut body = sender.send_request(request).await?.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > MAX_BODY {
                return Err(RequestError::TooLarge(MAX_BODY));
            }
        }
        Ok(bytes)
    };
    let bytes = tokio::select! {
        bytes = exchange => bytes?,
        ended = connection => {
            ended?;
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    };
    // One message, its field 1 (status) is 1 (serving).
    Ok(bytes.get(5..).is_some_and(|message| message.starts_with(&[0x08, 0x01])))
}

fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    let short = &service.as_bytes()[..service.len().min(127)];
    if !short.is_empty() {
        message.push(0x0a);
        message.extend(u8::try_from(short.len()));
        message.extend_from_slice(short);
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

fn plain(status: StatusCode, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    response
}

fn careless() -> io::Result<ClientConfig> {
    let provider = lateen_identity::tls::provider();
    let verifier = Arc::new(Careless(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

/// Takes every certificate, as kubelets do when they probe.
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
