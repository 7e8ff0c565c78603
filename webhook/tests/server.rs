//! The webhook over real TLS: reviews, broken requests, limits, a change of settings, shutdown.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NAME: &str = "istiod.istio-system.svc";

fn certificates() -> (String, rustls::ServerConfig) {
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

struct Running {
    address: SocketAddr,
    roots: String,
    webhook: Webhook,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

fn injector(values: Option<&Value>) -> Injector {
    let settings = InjectionSettings::from_sources(values, None, Options::default()).unwrap();
    Injector { settings, namespaces: BTreeMap::new() }
}

async fn start(limits: Limits) -> Running {
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

impl Running {
    fn endpoint(&self, path: &str) -> Endpoint {
        Endpoint { address: self.address, server_name: NAME.to_owned(), path: path.to_owned() }
    }

    async fn call(&self, path: &str, review: &Value) -> Result<client::Outcome, CallError> {
        let patience = Duration::from_secs(5);
        client::call(&self.endpoint(path), self.roots.as_bytes(), review, patience).await
    }

    /// Sends bytes as they are and gives the status line of the answer.
    async fn raw(&self, request: &[u8]) -> String {
        let mut roots = rustls::RootCertStore::empty();
        use rustls_pki_types::pem::PemObject as _;
        roots
            .add(rustls_pki_types::CertificateDer::from_pem_slice(self.roots.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut stream = connector.connect(NAME.try_into().unwrap(), stream).await.unwrap();
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

    fn counter(&self, name: &str) -> u64 {
        let snapshot = self.webhook.counters.snapshot();
        snapshot.iter().find(|(known, _)| *known == name).unwrap().1
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap().unwrap();
    }
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
           "spec": {"containers": [{"name": "web", "image": "a/web:1"}]}})
}

fn review() -> Value {
    client::build_review(&pod(), "shop", "uid-1", false)
}

#[tokio::test]
async fn a_pod_is_injected_over_tls() {
    let server = start(Limits::default()).await;
    let outcome = server.call("/inject?timeout=10s", &review()).await.unwrap();
    assert!(outcome.allowed, "{outcome:?}");
    let mut injected = pod();
    client::apply(&mut injected, &outcome).unwrap();
    assert_eq!(injected["spec"]["initContainers"][1]["name"], "istio-proxy");
    assert_eq!(server.counter("sidecar_injection_requests_total"), 1);
    assert_eq!(server.counter("sidecar_injection_success_total"), 1);
    server.stop().await;
}

#[tokio::test]
async fn the_path_sets_the_environment() {
    let server = start(Limits::default()).await;
    let outcome = server.call("/inject/cluster/c-2/net/n-2", &review()).await.unwrap();
    let mut injected = pod();
    client::apply(&mut injected, &outcome).unwrap();
    let env = injected["spec"]["initContainers"][1]["env"].as_array().unwrap().clone();
    let value = |name: &str| env.iter().find(|v| v["name"] == name).unwrap()["value"].clone();
    assert_eq!(value("ISTIO_META_CLUSTER_ID"), "c-2");
    assert_eq!(value("ISTIO_META_NETWORK"), "n-2");
    assert_eq!(injected["metadata"]["labels"]["topology.istio.io/network"], "n-2");
    server.stop().await;
}

#[tokio::test]
async fn the_certificate_must_chain_and_name_the_service() {
    let server = start(Limits::default()).await;
    let (other_roots, _) = certificates();
    let patience = Duration::from_secs(5);
    let endpoint = server.endpoint("/inject");
    let stranger = client::call(&endpoint, other_roots.as_bytes(), &review(), patience).await;
    assert!(matches!(stranger, Err(CallError::Connection { .. })), "{stranger:?}");
    let misnamed = Endpoint { server_name: "other.svc".to_owned(), ..endpoint };
    let misnamed = client::call(&misnamed, server.roots.as_bytes(), &review(), patience).await;
    assert!(matches!(misnamed, Err(CallError::Connection { .. })), "{misnamed:?}");
    server.stop().await;
}

#[tokio::test]
async fn bad_requests_are_answered_by_what_is_wrong() {
    let server = start(Limits { body: 64 * 1024, ..Limits::default() }).await;
    let post = |headers: &str, body: &str| {
        format!("POST /inject HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}").into_bytes()
    };
    let json = "content-type: application/json\r\n";
    let chunk = "a".repeat(8192);
    let chunked = format!("{:x}\r\n{chunk}\r\n", chunk.len()).repeat(10);
    let cases = [
        (post("content-type: text/plain\r\ncontent-length: 2\r\n", "{}"), "415"),
        (post("content-length: 2\r\n", "{}"), "415"),
        (post(&format!("{json}content-length: 0\r\n"), ""), "400"),
        (post(&format!("{json}content-length: 10485760\r\n"), ""), "413"),
        (post(&format!("{json}transfer-encoding: chunked\r\n"), &chunked), "413"),
        (post(&format!("{json}content-length: 1\r\n"), "{"), "200"),
        (b"GET /inject HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), "405"),
        (b"POST /other HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec(), "404"),
        (b"POST /injected HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec(), "404"),
        (b"POST /inject/cluster HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".to_vec(), "400"),
        (b"nonsense\r\n\r\n".to_vec(), "400"),
        (post(&format!("{json}x: {}\r\n", "h".repeat(100 * 1024)), ""), "431"),
    ];
    for (request, expected) in cases {
        let line = server.raw(&request).await;
        let start = String::from_utf8_lossy(&request).chars().take(120).collect::<String>();
        assert!(line.contains(expected), "{start:?}: {line}");
    }
    assert!(server.counter("sidecar_injection_failure_total") >= 7);
    assert!(server.call("/inject", &review()).await.unwrap().allowed);
    server.stop().await;
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let limits = Limits { patience: Duration::from_millis(200), ..Limits::default() };
    let server = start(limits).await;
    let request = b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                    content-length: 100\r\n\r\n{";
    let line = server.raw(request).await;
    assert!(line.contains("408"), "{line}");
    server.stop().await;
}

#[tokio::test]
async fn a_peer_without_tls_does_no_harm() {
    let server = start(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"POST /inject HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _closed = stream.read_to_end(&mut rest).await;
    assert!(server.call("/inject", &review()).await.unwrap().allowed);
    server.stop().await;
}

#[tokio::test]
async fn settings_change_without_a_restart() {
    let server = start(Limits::default()).await;
    let values = json!({"global": {"proxy": {"autoInject": "disabled"}}});
    server.webhook.injector.store(Arc::new(injector(Some(&values))));
    let outcome = server.call("/inject", &review()).await.unwrap();
    assert!(outcome.allowed && outcome.patch.is_none());
    assert!(outcome.warnings[0].contains("skipped.default-policy"), "{outcome:?}");
    assert_eq!(server.counter("sidecar_injection_skip_total"), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_denial_reaches_the_client() {
    let server = start(Limits::default()).await;
    let mut review = review();
    review["request"]["object"]["metadata"]["annotations"] =
        json!({"traffic.sidecar.istio.io/includeInboundPorts": "x"});
    let outcome = server.call("/inject", &review).await.unwrap();
    assert!(!outcome.allowed && outcome.code == 400);
    assert!(outcome.message.contains("traffic.sidecar.istio.io/includeInboundPorts"));
    server.stop().await;
}

#[tokio::test]
async fn many_at_once_are_all_answered() {
    let server = Arc::new(start(Limits { connections: 8, ..Limits::default() }).await);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let server = Arc::clone(&server);
        calls.spawn(async move { server.call("/inject", &review()).await.unwrap().allowed });
    }
    while let Some(allowed) = calls.join_next().await {
        assert!(allowed.unwrap());
    }
    assert_eq!(server.counter("sidecar_injection_success_total"), 64);
    Arc::into_inner(server).unwrap().stop().await;
}
