//! Injection: admissions over HTTPS at a fixed rate, answered by the webhook's own server on one
//! core; and one pod after the other with two thousand environment variables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lateen_webhook::InjectionSettings;
use lateen_webhook::admission::Injector;
use lateen_webhook::client::build_review;
use lateen_webhook::server::{Limits, Webhook, serve};
use lateen_webhook::settings::Options;
use lateen_webhook::stats::Counters;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::figure::{Figure, percentile};
use crate::process::output;

const NAME: &str = "istiod.istio-system.svc";
/// Admissions a second, and for how long.
const RATE: u64 = 1_000;
const SECONDS: usize = 15;
/// Large pods, one after the other.
const LARGE: usize = 200;
const VARIABLES: usize = 2_000;

/// Latency of an admission as the API server sees it.
pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    output(std::process::Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let server = Server::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(async {
        let sender = connect(&server).await?;
        // What is made only once (pages, tables) is not what is measured.
        load(&sender).await?;
        let (mut all, mut tails) = (Vec::new(), Vec::new());
        for _ in 0..SECONDS {
            let mut millis = load(&sender).await?;
            tails.push(percentile(&mut millis, 99));
            all.append(&mut millis);
        }
        let mut large = large(&sender).await?;
        let (median, tail) = (percentile(&mut all, 50), percentile(&mut all, 99));
        // A virtual machine stands still now and then; the median second shows the webhook.
        let second = percentile(&mut tails, 50);
        Ok(vec![
            Figure::at_most("injection: p50 at 1,000 admissions/s", median, 2.0, "ms"),
            Figure::at_most("injection: p99 of the median second", second, 2.0, "ms"),
            Figure::at_most("injection: p99 of all seconds", tail, 2.0, "ms"),
            Figure::at_most(
                "injection: p99 of pods with 2,000 variables",
                percentile(&mut large, 99),
                5.0,
                "ms",
            ),
        ])
    });
    server.stop()?;
    measured
}

/// The webhook's server in a thread of its own, on the last core this process may use.
struct Server {
    address: SocketAddr,
    root: CertificateDer<'static>,
    shutdown: CancellationToken,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let (root, tls) = certificates()?;
        let settings = InjectionSettings::from_sources(None, None, Options::default())?;
        let injector = Injector { settings, namespaces: BTreeMap::new() };
        let webhook = Webhook {
            injector: Arc::new(ArcSwap::from_pointee(injector)),
            counters: Arc::new(Counters::default()),
            limits: Limits::default(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        let end = shutdown.clone();
        let thread = thread::Builder::new().name("webhook".to_owned()).spawn(move || {
            stay_on_one_core()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                anyhow::Ok(serve(webhook, listener, Arc::new(tls), end).await?)
            })
        })?;
        Ok(Self { address, root, shutdown, thread })
    }

    fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.thread.join().map_err(|_| anyhow!("the webhook's server failed"))?
    }
}

fn stay_on_one_core() -> anyhow::Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rev().find(|core| allowed.is_set(*core).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("this process may use no core")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

fn certificates() -> anyhow::Result<(CertificateDer<'static>, rustls::ServerConfig)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let root = params.self_signed(&key)?.der().clone();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate()?;
    let leaf =
        CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&leaf_key, &issuer)?.der().clone();
    let key = PrivateKeyDer::try_from(leaf_key.serialize_der()).map_err(|e| anyhow!(e))?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((root, config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// One HTTP/2 connection, as the API server keeps one.
async fn connect(server: &Server) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server.root.clone())?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    stream.set_nodelay(true)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(NAME.try_into()?, stream).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A second of admissions, sent whether or not earlier ones are answered; milliseconds of each.
async fn load(sender: &SendRequest<Full<Bytes>>) -> anyhow::Result<Vec<f64>> {
    let body = Bytes::from(build_review(&shop(), "shop", "uid-1", false).to_string());
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
    let mut open = JoinSet::new();
    for _ in 0..RATE {
        ticks.tick().await;
        open.spawn(admit(sender.clone(), body.clone()));
    }
    let mut millis = Vec::new();
    while let Some(took) = open.join_next().await {
        millis.push(took??);
    }
    Ok(millis)
}

async fn large(sender: &SendRequest<Full<Bytes>>) -> anyhow::Result<Vec<f64>> {
    let mut pod = shop();
    let variable = |n| json!({"name": format!("VARIABLE_{n}"), "value": format!("value {n}")});
    pod["spec"]["containers"][0]["env"] = (0..VARIABLES).map(variable).collect();
    let body = Bytes::from(build_review(&pod, "shop", "uid-1", false).to_string());
    let mut millis = Vec::with_capacity(LARGE);
    for _ in 0..LARGE {
        millis.push(admit(sender.clone(), body.clone()).await?);
    }
    Ok(millis)
}

async fn admit(mut sender: SendRequest<Full<Bytes>>, body: Bytes) -> anyhow::Result<f64> {
    let started = Instant::now();
    let request = http::Request::post(format!("https://{NAME}/inject?timeout=10s"))
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let took = started.elapsed().as_secs_f64() * 1000.0;
    ensure!(status.is_success(), "the webhook answered {status}");
    let answer: Value = serde_json::from_slice(&body)?;
    ensure!(answer["response"]["patch"].is_string(), "no patch came back: {answer}");
    Ok(took)
}

/// A pod as a Deployment of a shop makes it.
fn shop() -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": 5});
    let token = json!({"name": "kube-api-access-x", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
    let env: Vec<Value> =
        (0..12).map(|n| json!({"name": format!("SETTING_{n}"), "value": "on"})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "cart-7d9c5b8f6-", "namespace": "shop",
            "labels": {"app": "cart", "version": "v1", "pod-template-hash": "7d9c5b8f6"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "name": "cart-7d9c5b8f6", "uid": "1", "controller": true}],
        },
        "spec": {
            "serviceAccountName": "cart", "securityContext": {"runAsNonRoot": true},
            "containers": [{
                "name": "cart", "image": "registry.example/cart:1", "env": env,
                "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9090}],
                "readinessProbe": probe("/ready"), "livenessProbe": probe("/live"),
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "volumeMounts": [token],
            }],
            "volumes": [{"name": "kube-api-access-x", "projected": {"sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]}}],
        },
    })
}
