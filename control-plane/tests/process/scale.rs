//! How long a large mesh takes: the first start, many proxies at once, and one endpoint that changes.
//!
//! Prints figures and is not run by default; they mean something in release mode only:
//! `cargo test --release -p lateen-control-plane --test process scale -- --ignored --nocapture`.

use std::fmt::Write;
use std::time::{Duration, Instant};

use lateen_xds::discovery::DeltaDiscoveryRequest;
use lateen_xds::type_url::{CLUSTER, ENDPOINTS, LISTENER, NAME_TABLE, ROUTES};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{Proxy, plaintext};
use crate::daemon::{Daemon, Home};

const NAMESPACES: usize = 20;
const SERVICES: usize = 50;
const PODS: usize = 10;
/// Changes that are measured.
const CHANGES: usize = 40;

fn address(namespace: usize, service: usize, pod: usize) -> String {
    format!("10.{}.{service}.{}", namespace + 1, pod + 1)
}

/// Everything of a service but its endpoints.
fn service(namespace: usize, service: usize) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: n{namespace}}}\n\
         spec:\n  clusterIP: 10.96.{namespace}.{service}\n  selector: {{app: s{service}}}\n  \
         ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: tcp, port: 9000}}]\n"
    );
    for pod in 0..PODS {
        let ip = address(namespace, service, pod);
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: s{service}-{pod}\n  \
             namespace: n{namespace}\n  labels: {{app: s{service}, version: v1, \
             security.istio.io/tlsMode: istio, pod-template-hash: abc}}\n\
             spec: {{serviceAccountName: s{service}, containers: [{{name: app}}]}}\n\
             status: {{podIP: {ip}, podIPs: [{{ip: {ip}}}]}}\n"
        )
        .unwrap();
    }
    text
}

/// The endpoints of a service, the first so many of its pods.
fn slice(namespace: usize, service: usize, pods: usize) -> String {
    let endpoints: Vec<String> = (0..pods)
        .map(|pod| format!("{{addresses: [{}]}}", address(namespace, service, pod)))
        .collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s{service}-x, \
         namespace: n{namespace}, labels: {{kubernetes.io/service-name: s{service}}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: 8080}}, {{name: tcp, port: 9000}}]\n\
         endpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// Subscribes to everything as a sidecar does; tells when it is in sync, then when endpoints come.
async fn sidecar(index: usize, daemon: std::net::SocketAddr, told: mpsc::Sender<Instant>) {
    let (namespace, of) = (index % NAMESPACES, (index / NAMESPACES) % SERVICES);
    let pod = (index / NAMESPACES / SERVICES) % PODS;
    let ip = address(namespace, of, pod);
    let node = format!("sidecar~{ip}~s{of}-{pod}.n{namespace}~n{namespace}.svc.cluster.local");
    let mut proxy = Proxy::open(plaintext(daemon).await, None, &node, CLUSTER).await.unwrap();
    let clusters = proxy.response().await;
    proxy.answer(&clusters, None).await;
    let named = clusters.resources.iter().map(|it| it.name.clone());
    let named = named.filter(|name| name.starts_with("outbound|")).collect();
    let ask = |type_url: &str, names: Vec<String>| DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    };
    for request in [
        ask(ENDPOINTS, named),
        ask(LISTENER, Vec::new()),
        ask(ROUTES, vec!["80".to_owned()]),
        ask(NAME_TABLE, Vec::new()),
    ] {
        let type_url = request.type_url.clone();
        proxy.send(request).await;
        let response = proxy.response().await;
        assert_eq!(response.type_url, type_url);
        assert!(!response.resources.is_empty());
        proxy.answer(&response, None).await;
    }
    told.send(Instant::now()).await.unwrap();
    drop(clusters);
    while let Ok(response) = proxy.forever().await {
        if response.type_url == ENDPOINTS {
            told.send(Instant::now()).await.unwrap();
        }
        proxy.answer(&response, None).await;
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn changes(home: &Home, heard: &mut mpsc::Receiver<Instant>, proxies: usize) -> Vec<f64> {
    let mut last = Vec::new();
    for change in 0..CHANGES {
        let (namespace, service) = (change % NAMESPACES, change % SERVICES);
        let text = slice(namespace, service, PODS - 1);
        let begun = Instant::now();
        home.put(&format!("n{namespace}-s{service}-slice.yaml"), &text);
        let mut latest = begun;
        for _ in 0..proxies {
            let heard = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await;
            latest = latest.max(heard.unwrap().unwrap());
        }
        last.push(milliseconds(latest - begun));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    last.sort_by(f64::total_cmp);
    last
}

fn figures(daemon: &Daemon, what: &str) {
    println!("{what}: lateend has {} MiB", daemon.memory());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures: see the head of the file"]
async fn scale() {
    #[expect(clippy::disallowed_methods, reason = "the setting of this test")]
    let proxies = std::env::var("LATEEN_PROXIES").map_or(100, |it| it.parse().unwrap());
    let home = Home::new();
    for namespace in 0..NAMESPACES {
        for number in 0..SERVICES {
            home.put(&format!("n{namespace}-s{number}.yaml"), &service(namespace, number));
            let text = slice(namespace, number, PODS);
            home.put(&format!("n{namespace}-s{number}-slice.yaml"), &text);
        }
    }
    let begun = Instant::now();
    let daemon = home.start().await;
    println!("start to serving: {:.0} ms", milliseconds(begun.elapsed()));
    figures(&daemon, "serving nobody");
    let (told, mut heard) = mpsc::channel(4096);
    let mut all = JoinSet::new();
    let begun = Instant::now();
    for index in 0..proxies {
        all.spawn(sidecar(index, daemon.plaintext, told.clone()));
    }
    for _ in 0..proxies {
        heard.recv().await.unwrap();
    }
    println!("{proxies} proxies in sync: {:.0} ms", milliseconds(begun.elapsed()));
    figures(&daemon, "all in sync");
    let last = changes(&home, &mut heard, proxies).await;
    let at = |share: usize| last[(last.len() - 1) * share / 100];
    println!(
        "one endpoint to the last of {proxies}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        at(50),
        at(99),
        at(100)
    );
    figures(&daemon, "after changes");
}
