//! A webhook over real TLS, and peers of it that say what they like.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lateen_webhook::InjectionSettings;
use lateen_webhook::admission::Injector;
use lateen_webhook::client::{self, CallError, Endpoint};
use lateen_webhook::server::{Limits, Webhook, serve};
use lateen_webhook::settings::Options;
use lateen_webhook::stats::Counters;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

const NAME: &str = "istiod.istio-system.svc";

pub(crate) fn certificates() -> (String, rustls::ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![NAME.to_owned()])
        .unwrap()
        .signed_by(&leaf_key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (root.pem(), config)
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) roots: String,
    pub(crate) webhook: Webhook,
    pub(crate) shutdown: CancellationToken,
    pub(crate) task: JoinHandle<std::io::Result<()>>,
}

pub(crate) fn injector(values: Option<&Value>) -> Injector {
    let settings = InjectionSettings::from_sources(values, None, Options::default()).unwrap();
    Injector { settings, namespaces: BTreeMap::new() }
}

pub(crate) async fn start(limits: Limits) -> Running {
    let (roots, config) = certificates();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let webhook = Webhook {
        injector: Arc::new(ArcSwap::from_pointee(injector(None))),
        counters: Arc::new(Counters::default()),
        limits,
    };
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve(webhook.clone(), listener, Arc::new(config), shutdown.clone()));
    Running { address, roots, webhook, shutdown, task }
}

/// As long as the API server waits where a webhook does not say how long (`timeoutSeconds`).
const PATIENCE: Duration = Duration::from_secs(10);

impl Running {
    pub(crate) fn endpoint(&self, path: &str) -> Endpoint {
        Endpoint { address: self.address, server_name: NAME.to_owned(), path: path.to_owned() }
    }

    pub(crate) async fn call(
        &self,
        path: &str,
        review: &Value,
    ) -> Result<client::Outcome, CallError> {
        client::call(&self.endpoint(path), self.roots.as_bytes(), review, PATIENCE).await
    }

    /// A connection on which nothing was said yet.
    pub(crate) async fn tls(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        self.tls_over(TcpStream::connect(self.address).await.unwrap(), protocols).await
    }

    pub(crate) async fn tls_over(
        &self,
        stream: TcpStream,
        protocols: &[&[u8]],
    ) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        use rustls_pki_types::pem::PemObject as _;
        roots
            .add(rustls_pki_types::CertificateDer::from_pem_slice(self.roots.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        connector.connect(NAME.try_into().unwrap(), stream).await.unwrap()
    }

    /// Posts a body as it is and gives the answer's.
    pub(crate) async fn post(&self, body: &[u8]) -> Value {
        post_over(self.tls(&[]).await, body).await
    }

    /// Sends bytes as they are and gives the status line of the answer.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.tls(&[]).await;
        // The server may answer and close before it has read everything.
        let written = stream.write_all(request).await;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.windows(2).any(|window| window == b"\r\n") {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => answer.extend_from_slice(&buffer[..count]),
            }
        }
        let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        if line.is_empty() { format!("closed ({})", written.is_ok()) } else { line }
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let snapshot = self.webhook.counters.snapshot();
        snapshot.iter().find(|(known, _)| *known == name).unwrap().1
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap().unwrap();
    }
}

/// Posts a body as it is and gives the answer's.
pub(crate) async fn post_over(mut stream: TlsStream<TcpStream>, body: &[u8]) -> Value {
    write(&mut stream, body, "connection: close\r\n").await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let start = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    serde_json::from_slice(&answer[start + 4..]).unwrap()
}

/// Posts a body on a connection that is to stay, and gives the head of the answer.
pub(crate) async fn post_and_keep(stream: &mut TlsStream<TcpStream>, body: &[u8]) -> String {
    write(stream, body, "").await;
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).await.unwrap() > 0, "closed after {head:?}");
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    head
}

async fn write(stream: &mut TlsStream<TcpStream>, body: &[u8], more: &str) {
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
}

pub(crate) fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
           "spec": {"containers": [{"name": "web", "image": "a/web:1"}]}})
}

pub(crate) fn review() -> Value {
    client::build_review(&pod(), "shop", "uid-1", false)
}
