//! A webhook over real TLS that answers what the test says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A root and a server certificate for `name`.
pub(crate) fn certificates(name: &str) -> (String, rustls::ServerConfig) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (root.pem(), config)
}

/// A webhook that answers each review with the next of its responses, and keeps what it was asked.
#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) address: SocketAddr,
    pub(crate) roots: String,
    pub(crate) asked: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    pub(crate) async fn start(responses: Vec<Value>) -> Self {
        let (roots, config) = certificates("hook.test.svc");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        tokio::spawn(async move {
            for mut response in responses {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let review = read_review(&mut stream).await;
                response["uid"] = review["request"]["uid"].clone();
                seen.lock().unwrap().push(review);
                let body = json!({
                    "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                    "response": response,
                })
                .to_string();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self { address, roots, asked }
    }

    pub(crate) fn hook(&self, policy: &str) -> Value {
        json!({
            "name": "one.test", "failurePolicy": policy, "timeoutSeconds": 2,
            "clientConfig": {
                "service": {"namespace": "test", "name": "hook", "path": "/inject"},
                "caBundle": STANDARD.encode(&self.roots),
            },
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                       "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"mesh": "yes"}},
        })
    }
}

async fn read_review(stream: &mut (impl AsyncReadExt + Unpin)) -> Value {
    let mut text = Vec::new();
    loop {
        text.push(stream.read_u8().await.unwrap());
        if text.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(text).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /inject "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}
