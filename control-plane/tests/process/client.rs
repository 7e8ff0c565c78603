//! A proxy of a test: discovery and certificates, in plaintext or over TLS.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use lateen_identity::{SpiffeId, TrustBundle, WorkloadKey};
use lateen_xds::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen_xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use lateen_xds::envoy::core::Node;
use lateen_xds::istio::IstioCertificateRequest;
use lateen_xds::istio::ca_client::CertificateClient;
use lateen_xds::pb::google::rpc::Status as Refusal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::daemon::PATIENCE;

/// A channel in plaintext.
pub(crate) async fn plaintext(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

#[derive(Clone)]
struct Connector {
    address: SocketAddr,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
            let stream = TcpStream::connect(address).await?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}

/// A certificate with its key, as a workload keeps it.
pub(crate) struct Held {
    pub(crate) chain: Vec<String>,
    pub(crate) key: WorkloadKey,
}

/// A channel over TLS that trusts `roots` and shows what is held.
pub(crate) async fn secure(address: SocketAddr, roots: &str, held: Option<&Held>) -> Channel {
    try_secure(address, roots, held).await.unwrap()
}

/// The same; an error where the handshake is refused.
pub(crate) async fn try_secure(
    address: SocketAddr,
    roots: &str,
    held: Option<&Held>,
) -> Result<Channel, tonic::transport::Error> {
    let bundle = TrustBundle::from_pem(roots.as_bytes()).unwrap();
    let anchors: Arc<RootCertStore> = bundle.anchors();
    let config = ClientConfig::builder_with_provider(lateen_identity::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(anchors);
    let mut config = match held {
        None => config.with_no_client_auth(),
        Some(held) => {
            let chain = held.chain.iter();
            let chain = chain.map(|it| CertificateDer::from_pem_slice(it.as_bytes()).unwrap());
            config.with_client_auth_cert(chain.collect(), held.key.to_der()).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = Connector { address, tls: TlsConnector::from(Arc::new(config)) };
    let endpoint = Endpoint::from_static("http://istiod.istio-system.svc");
    endpoint.connect_with_connector(connector).await
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Asks for a certificate; `csr` replaces the real request.
pub(crate) async fn certificate(
    channel: Channel,
    token: Option<&str>,
    csr: Option<&str>,
) -> Result<Held, Status> {
    let key = WorkloadKey::generate().unwrap();
    let id: SpiffeId = "spiffe://cluster.local/ns/kube-system/sa/admin".parse().unwrap();
    let csr = csr.map_or_else(|| key.request(&id).unwrap(), str::to_owned);
    let message = IstioCertificateRequest { csr, validity_duration: 3600, ..Default::default() };
    let answer =
        CertificateClient::new(channel).create_certificate(with_token(message, token)).await?;
    Ok(Held { chain: answer.into_inner().cert_chain, key })
}

/// A discovery stream.
pub(crate) struct Proxy {
    sender: mpsc::Sender<DeltaDiscoveryRequest>,
    answers: Streaming<DeltaDiscoveryResponse>,
}

impl Proxy {
    /// Opens a stream and says nothing.
    pub(crate) async fn silent(channel: Channel, token: Option<&str>) -> Result<Self, Status> {
        let (sender, receiver) = mpsc::channel(16);
        let request = with_token(ReceiverStream::new(receiver), token);
        let answers = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(usize::MAX)
            .delta_aggregated_resources(request)
            .await?
            .into_inner();
        Ok(Self { sender, answers })
    }

    /// Opens a stream and asks for everything of a type.
    pub(crate) async fn open(
        channel: Channel,
        token: Option<&str>,
        node: &str,
        type_url: &str,
    ) -> Result<Self, Status> {
        let proxy = Self::silent(channel, token).await?;
        let node = Some(Node { id: node.to_owned(), ..Node::default() });
        proxy
            .send(DeltaDiscoveryRequest {
                node,
                type_url: type_url.to_owned(),
                ..DeltaDiscoveryRequest::default()
            })
            .await;
        Ok(proxy)
    }

    pub(crate) async fn send(&self, request: DeltaDiscoveryRequest) {
        self.sender.send(request).await.unwrap();
    }

    /// The next response.
    pub(crate) async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("an answer")
    }

    /// The next response, whenever it comes.
    pub(crate) async fn forever(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        self.answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended"))
    }

    /// The next response, which must be one.
    pub(crate) async fn response(&mut self) -> DeltaDiscoveryResponse {
        self.next().await.unwrap().expect("a response, not the end")
    }

    /// Answers a response; with a reason, refuses it.
    pub(crate) async fn answer(&self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) {
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: refusal.map(|reason| Refusal {
                code: 3,
                message: reason.to_owned(),
                ..Refusal::default()
            }),
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }
}

/// Names of the resources of a response.
pub(crate) fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}
