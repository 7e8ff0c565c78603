//! Injection: admissions over HTTPS at a fixed rate, answered by the webhook's own server in a process
//! of its own on one core; one pod after the other with two thousand environment variables; what
//! that process holds; and how many reviews one core answers without a wire.

mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lateen_webhook::admission::{Injector, answer};
use lateen_webhook::client::build_review;
use lateen_webhook::settings::{InjectionSettings, Options};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::figure::{Figure, percentile};
use crate::process::output;
use server::Server;

pub(crate) use server::serve_alone;

const NAME: &str = "istiod.istio-system.svc";
/// Admissions a second, and for how long.
const RATE: u64 = 1_000;
const SECONDS: usize = 15;
/// Large pods, one after the other.
const LARGE: usize = 200;
const VARIABLES: usize = 2_000;
/// How long reviews are answered without a wire.
const BARE: Duration = Duration::from_secs(3);

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
        let at_rate = server.resident_mib()?;
        let mut large = large(&sender).await?;
        let (median, tail) = (percentile(&mut all, 50), percentile(&mut all, 99));
        // A virtual machine stands still now and then; the median second shows the webhook.
        let second = percentile(&mut tails, 50);
        let large = percentile(&mut large, 99);
        Ok(vec![
            Figure::at_most("injection: p50 at 1,000 admissions/s", median, 2.0, "ms"),
            Figure::at_most("injection: p99 of the median second", second, 2.0, "ms"),
            Figure::at_most("injection: p99 of all seconds", tail, 2.0, "ms"),
            Figure::at_most("injection: p99 of pods with 2,000 variables", large, 5.0, "ms"),
            Figure::at_most("injection: resident memory at that rate", at_rate, 20.0, "MiB"),
            Figure::at_most(
                "injection: peak memory, large pods included",
                server.peak_mib()?,
                20.0,
                "MiB",
            ),
            Figure::at_least("injection: reviews answered by one core", bare()?, 5_000.0, "/s"),
        ])
    });
    drop(server);
    measured
}

/// Reviews a second, from bytes to bytes, one after the other.
fn bare() -> anyhow::Result<f64> {
    let settings = InjectionSettings::from_sources(None, None, Options::default())?;
    let injector = Injector { settings, namespaces: BTreeMap::new() };
    let body = build_review(&shop(), "shop", "uid-1", false).to_string();
    let (mut count, begun) = (0_u32, Instant::now());
    while begun.elapsed() < BARE {
        let answer = answer(body.as_bytes(), &injector, &BTreeMap::new());
        let text = serde_json::to_vec(&answer.review)?;
        ensure!(answer.reason.injects() && text.len() > 1000, "a pod was not injected");
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
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
