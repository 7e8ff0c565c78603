//! The authority is exchanged under admissions, and none fails: at no moment does a replica show a
//! certificate that the API server does not believe.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use lateen_identity::TrustBundle;
use lateen_identity::tls::dns_client_config;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::authority::root;
use crate::daemon::{Bench, Lateend, SYSTEM, bundles};
use crate::front::Front;

const HOOKS: &str = "mutatingwebhookconfiguration istio-sidecar-injector";
const OVERLAP: [&str; 2] = ["--root-overlap", "3s"];

pub(crate) async fn client(bench: &Bench) -> Client {
    let parsed = Kubeconfig::read_from(bench.server.kubeconfig()).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(parsed, &options).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Creates pods (in rehearsal) until `stop`; how many were injected.
async fn admit(client: Client, stop: CancellationToken) -> usize {
    let pods = Api::<Pod>::namespaced(client, "shop");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap();
    let params = PostParams { dry_run: true, field_manager: None };
    let mut injected = 0;
    while !stop.is_cancelled() {
        let admitted = pods.create(&params, &pod).await;
        let spec =
            admitted.unwrap_or_else(|error| panic!("after {injected}: {error}")).spec.unwrap();
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        assert!(all.into_iter().any(|it| it.name == "istio-proxy"), "not injected");
        injected += 1;
    }
    injected
}

/// Shakes hands with a replica as the API server would with the bundle of now, until `stop`.
async fn believe(
    client: Client,
    replica: SocketAddr,
    seen: Arc<AtomicUsize>,
    stop: CancellationToken,
) {
    let configurations = Api::<MutatingWebhookConfiguration>::all(client);
    while !stop.is_cancelled() {
        let configuration = configurations.get("istio-sidecar-injector").await.unwrap();
        for hook in configuration.webhooks.unwrap() {
            let bundle = TrustBundle::from_pem(&hook.client_config.ca_bundle.unwrap().0).unwrap();
            let connector = TlsConnector::from(Arc::new(dns_client_config(&bundle, &[]).unwrap()));
            let stream = TcpStream::connect(replica).await.unwrap();
            let name = format!("istiod.{SYSTEM}.svc").try_into().unwrap();
            connector.connect(name, stream).await.unwrap();
            seen.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn secret((certificate, key): &(String, String), roots: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "cacerts", "namespace": SYSTEM},
        "stringData": {"ca-cert.pem": certificate, "ca-key.pem": key, "root-cert.pem": roots},
    })
    .to_string()
}

async fn replicas(bench: &Bench) -> [Lateend; 2] {
    let replicas = ["lateend-0", "lateend-1"].map(|name| bench.lateend(name, &OVERLAP));
    for replica in &replicas {
        replica.until_ready().await;
    }
    replicas
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn another_authority_takes_over_and_no_admission_fails() {
    let mut bench = Bench::start().await;
    bench.server.start_controllers().await.unwrap();
    let replicas = replicas(&bench).await;
    let front = Front::of(&bench, replicas.iter().map(|it| it.webhook).collect()).await;
    Front::apply(&bench, &front.configuration(&["namespace", "object"])).await;
    let whole = |object: &serde_json::Value| bundles(object).iter().all(|it| !it.is_empty());
    bench.until(HOOKS, whole).await;
    bench.kubectl("create namespace shop").await;
    bench.kubectl("label namespace shop istio-injection=enabled").await;
    bench.until("serviceaccount default -n shop", |_| true).await;

    let (stop, handshakes) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for replica in &replicas {
        let (client, seen) = (client(&bench).await, Arc::clone(&handshakes));
        tasks.push(tokio::spawn(believe(client, replica.webhook, seen, stop.clone())));
    }
    let admissions = tokio::spawn(admit(client(&bench).await, stop.clone()));

    // From the own authority to a plugged-in one, and from that to another.
    let before = bundles(&bench.object(HOOKS).await.unwrap())[0].clone();
    let (second, third) = (root("second"), root("third"));
    for (next, former) in [(&second, before.as_str()), (&third, second.0.as_str())] {
        bench.apply(&secret(next, &next.0)).await;
        let begun = Instant::now();
        let both = |object: &serde_json::Value| {
            bundles(object)
                .iter()
                .all(|it| it.contains(former.trim()) && it.contains(next.0.trim()))
        };
        bench.until(HOOKS, both).await;
        let published = Instant::now();
        for replica in &replicas {
            let times = if std::ptr::eq(next, &second) { 1 } else { 2 };
            while replica.log().matches("the new authority signs").count() < times {
                assert!(begun.elapsed() < Duration::from_secs(60), "{}", replica.log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        assert!(published.elapsed() > Duration::from_secs(2), "not before it was believed");
        // The former root stays for a while after that, and goes.
        bench
            .until(HOOKS, |object| bundles(object).iter().all(|it| it.trim() == next.0.trim()))
            .await;
    }
    // The API server connects anew for each bundle: five of them, and the last is in force.
    let waited = Instant::now();
    while front.connections.load(Ordering::Relaxed) < 5 {
        assert!(waited.elapsed() < Duration::from_secs(60), "it keeps its connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    let (admitted, shaken) = (admissions.await.unwrap(), handshakes.load(Ordering::Relaxed));
    let connections = front.connections.load(Ordering::Relaxed);
    println!("{admitted} admissions over {connections} connections, {shaken} handshakes");
    assert!(admitted > 100 && shaken > 100, "{admitted} {shaken}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_replica_is_ready_when_the_api_server_would_believe_it() {
    let bench = Bench::start().await;
    let first = root("first");
    bench.apply(&secret(&first, &first.0)).await;
    let mut old = bench.lateend("lateend-old", &OVERLAP);
    old.until_ready().await;
    let front = Front::of(&bench, vec![old.webhook]).await;
    Front::apply(&bench, &front.configuration(&["namespace"])).await;
    bench.until(HOOKS, |object| bundles(object)[0].trim() == first.0.trim()).await;
    old.kill();
    // Restarted with another authority, while the Lease is still the dead one's: nobody may write,
    // and the bundle holds only the root of before.
    let second = root("second");
    bench.apply(&secret(&second, &second.0)).await;
    let new = bench.lateend("lateend-new", &OVERLAP);
    let text =
        new.until(|status, text| status == 503 && text.contains("webhook: the caBundle")).await;
    assert!(text.contains("istio-sidecar-injector, hook namespace.sidecar-injector"), "{text}");
    new.until_ready().await;
    let object = bench.object(HOOKS).await.unwrap();
    let bundle = &bundles(&object)[0];
    assert!(bundle.contains(second.0.trim()) && bundle.contains(first.0.trim()), "{bundle}");
}
