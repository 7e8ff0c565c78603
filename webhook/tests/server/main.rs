//! The webhook over real TLS: reviews, broken requests, limits, a change of settings, shutdown.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod bad_input;
mod running;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use lateen_webhook::client::{self, CallError, Endpoint};
use lateen_webhook::server::Limits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::running::{certificates, injector, pod, post_and_keep, post_over, review, start};

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

/// An API server does not ask again when a new connection is closed before the answer.
#[tokio::test]
async fn connections_made_before_the_end_bring_one_request() {
    let server = start(Limits::default()).await;
    let quiet = [server.tls(&[]).await, server.tls(&[b"http/1.1"]).await];
    // The server has no turn until the next await: the kernel takes this one for it.
    let queued = std::net::TcpStream::connect(server.address).unwrap();
    server.shutdown.cancel();
    queued.set_nonblocking(true).unwrap();
    let queued = server.tls_over(TcpStream::from_std(queued).unwrap(), &[]).await;
    for stream in quiet.into_iter().chain([queued]) {
        let answer = post_over(stream, review().to_string().as_bytes()).await;
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
    }
    server.stop().await;
}

/// Nor does it when a connection that it kept is closed while it sends.
#[tokio::test]
async fn connections_that_were_kept_bring_one_more_request_after_the_end_has_begun() {
    let server = start(Limits::default()).await;
    let mut kept = server.tls(&[b"http/1.1"]).await;
    let first = post_and_keep(&mut kept, review().to_string().as_bytes()).await;
    assert!(first.starts_with("HTTP/1.1 200") && !first.contains("connection: close"), "{first}");
    server.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let last = post_and_keep(&mut kept, review().to_string().as_bytes()).await;
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "{last}");
    assert_eq!(kept.read(&mut [0]).await.unwrap(), 0);
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
    assert_eq!(outcome.reason.as_deref(), Some("skipped.default-policy"));
    assert!(outcome.warnings.is_empty(), "who did not ask is not told: {outcome:?}");
    assert_eq!(server.webhook.counters.reasons(), [("skipped.default-policy", 1)]);
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
