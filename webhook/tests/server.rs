//! The webhook over real TLS: reviews, broken requests, limits, a change of settings, shutdown.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
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
use tokio_rustls::client::TlsStream;
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

    /// A connection on which nothing was said yet.
    async fn tls(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
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
        let stream = TcpStream::connect(self.address).await.unwrap();
        connector.connect(NAME.try_into().unwrap(), stream).await.unwrap()
    }

    /// Posts a body as it is and gives the answer's.
    async fn post(&self, body: &[u8]) -> Value {
        let mut stream = self.tls(&[]).await;
        let head = format!(
            "POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let start = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        serde_json::from_slice(&answer[start + 4..]).unwrap()
    }

    /// Sends bytes as they are and gives the status line of the answer.
    async fn raw(&self, request: &[u8]) -> String {
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
async fn rules_of_the_mesh_are_judged_beside() {
    let server = start(Limits::default()).await;
    let review = |hosts: &Value| {
        let rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "web"}, "spec": {"hosts": hosts, "tcp": [
                {"route": [{"destination": {"host": "web"}}]},
            ]},
        });
        client::build_review(&rule, "shop", "uid-2", false)
    };
    let fine = server.call("/validate?timeout=10s", &review(&json!(["web"]))).await.unwrap();
    assert!(fine.allowed, "{fine:?}");
    let refused = server.call("/validate", &review(&json!("web"))).await.unwrap();
    assert!(!refused.allowed && refused.message.contains("spec.hosts"), "{refused:?}");
    assert_eq!(server.counter("sidecar_injection_requests_total"), 0);
    assert!(server.raw(b"GET /validate HTTP/1.1\r\nhost: x\r\n\r\n").await.contains("405"));
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
async fn silent_connections_do_not_keep_others_out() {
    let limits = Limits { connections: 2, idle: Duration::from_millis(100), ..Limits::default() };
    let server = start(limits).await;
    let mut silent = Vec::new();
    for protocol in [&b"h2"[..], b"http/1.1"] {
        silent.push(server.tls(&[protocol]).await);
    }
    assert!(server.call("/inject", &review()).await.unwrap().allowed);
    for mut stream in silent {
        let mut rest = Vec::new();
        let _closed = stream.read_to_end(&mut rest).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn broken_reviews_are_refused_with_what_is_wrong() {
    let server = start(Limits::default()).await;
    let good = review().to_string();
    let cut = good[..good.len() - 40].to_owned();
    let deep = good.replace("\"a/web:1\"", &format!("{}{}", "[".repeat(500), "]".repeat(500)));
    let old = good.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let future = good.replace("admission.k8s.io/v1", "admission.k8s.io/v2");
    let cases = [
        (cut.as_str(), "cannot be read: EOF"),
        (&deep, "recursion limit"),
        (&future, "admission.k8s.io/v2"),
        ("{\"apiVersion\":", "cannot be read: EOF"),
        ("null", "cannot be read"),
        ("[\"admission.k8s.io/v1\", \"AdmissionReview\", null]", "cannot be read"),
    ];
    for (body, needle) in cases {
        let answer = server.post(body.as_bytes()).await;
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        let response = &answer["response"];
        assert_eq!((&response["allowed"], &response["patch"]), (&json!(false), &Value::Null));
        assert_eq!(response["status"]["reason"], "denied.review");
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(needle), "{message}");
    }
    let answer = server.post(old.as_bytes()).await;
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
    assert_eq!(answer["response"]["allowed"], true);
    server.stop().await;
}

#[tokio::test]
async fn the_patch_fits_the_bytes_that_were_sent() {
    let server = start(Limits::default()).await;
    // Numbers, escapes and the order of members as no parser of ours would write them.
    let pod = r#"{"spec":{"x":1e2,"big":18446744073709551615,"containers":[{"image":"a\u002fweb:1",
        "name":"web","unknown":{"b":[1,{"a":null}],"a":0.10}}],"volumes":null},
        "kind":"Pod","metadata":{"generateName":"w-","annotations":{"a\/b~c":"\ud83d\ude00"}},
        "apiVersion":"v1"}"#;
    let review = format!(
        r#"{{"request":{{"operation":"CREATE","namespace":"shop","uid":"u","object":{pod},"kind":
        {{"version":"v1","kind":"Pod","group":""}}}},"kind":"AdmissionReview",
        "apiVersion":"admission.k8s.io/v1"}}"#
    );
    let answer = server.post(review.as_bytes()).await;
    let patch = answer["response"]["patch"].as_str().unwrap();
    let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let original: Value = serde_json::from_str(pod).unwrap();
    let mut patched = original.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched["spec"]["initContainers"][1]["name"], "istio-proxy");
    for unchanged in ["/spec/x", "/spec/big", "/spec/containers/0", "/metadata/generateName"] {
        assert_eq!(patched.pointer(unchanged), original.pointer(unchanged), "{unchanged}");
    }
    assert_eq!(patched["metadata"]["annotations"]["a/b~c"], "\u{1f600}");
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
