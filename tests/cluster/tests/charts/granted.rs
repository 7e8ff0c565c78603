//! lateend with what the charts grant and nothing more, called by an API server through what the
//! charts register.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lateen_cluster::api_server::ApiServer;
use lateen_cluster::binaries::{self, Version};
use lateen_cluster::{ClusterError, Kubectl};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::helm::{chart, helm, release};

const PATIENCE: Duration = Duration::from_secs(60);
/// A rule that its schema allows and that means nothing.
const SENSELESS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec: {host: cart, subsets: [{name: v1}, {name: v1}]}
";
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop}
spec: {containers: [{name: cart, image: cart}]}
";

const OWN_POD: &str = "
apiVersion: v1
kind: Pod
metadata: {generateName: own-, namespace: istio-system}
spec: {containers: [{name: own, image: own}]}
";

/// A replica; ended with the test.
struct Lateend {
    child: Child,
    webhook: u16,
    log: PathBuf,
}

impl Drop for Lateend {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Starts a replica as the service account of the chart.
async fn start(server: &ApiServer, folder: &Path) -> Lateend {
    let kubectl = server.kubectl();
    let token = kubectl.run(["create", "token", "istiod", "-n", "istio-system"]).await.unwrap();
    let view = kubectl.json(&["config", "view", "--raw", "--flatten"]).await;
    let mut config: Value = view.unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let kubeconfig = folder.join("kubeconfig");
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let held: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = held.iter().map(|it| it.local_addr().unwrap().port()).collect();
    drop(held);
    let log = folder.join("lateend.log");
    let flags = ["--grpc-port", "--secure-port", "--monitoring-port", "--webhook-port"];
    let child = Command::new(binaries::lateen("lateend").unwrap())
        .args(["--audit-every=1s", "--self-test-every=1s"])
        .args(["--address", "127.0.0.1", "--pod-name", "istiod-a", "--kubeconfig"])
        .arg(kubeconfig)
        .args(flags.iter().zip(&ports).map(|(flag, port)| format!("{flag}={port}")))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    Lateend { child, webhook: ports[3], log }
}

/// Leads the API server from the chart's Service to the replica: here is no network of Services.
async fn lead(kubectl: &Kubectl, port: u16) {
    kubectl.run(["delete", "service", "istiod", "-n", "istio-system"]).await.unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "istiod", "namespace": "istio-system"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    kubectl.apply(&service.to_string()).await.unwrap();
    for (kind, name) in [
        ("mutatingwebhookconfiguration", "istio-sidecar-injector"),
        ("validatingwebhookconfiguration", "istiod-default-validator"),
    ] {
        let found = kubectl.json(&["get", kind, name]).await.unwrap();
        let count = found["webhooks"].as_array().unwrap().len();
        let path = |index| format!("/webhooks/{index}/clientConfig/service/port");
        let patch =
            (0..count).map(|index| json!({"op": "add", "path": path(index), "value": port}));
        let patch = Value::Array(patch.collect()).to_string();
        kubectl.run(["patch", kind, name, "--type=json", "--patch", &patch]).await.unwrap();
    }
}

/// Asks again until the API server answers as wanted.
async fn until(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<String, ClusterError>,
    wanted: impl Fn(&Result<String, ClusterError>) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = ask().await;
        if wanted(&said) {
            return;
        }
        assert!(Instant::now() < end, "{what}: {said:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn lateend_does_all_its_work_with_what_is_granted() {
    let mut server = ApiServer::start(Version::V1_36).await.unwrap();
    // Garbage collection takes along what lateend wrote.
    server.start_controllers().await.unwrap();
    let kubectl = server.kubectl();
    for namespace in ["istio-system", "shop"] {
        kubectl.run(["create", "namespace", namespace]).await.unwrap();
    }
    kubectl.run(["label", "namespace", "shop", "istio-injection=enabled"]).await.unwrap();
    for (name, set) in [
        ("base", "base.validationFailurePolicy=Fail"),
        ("lateend", "sidecarInjectorWebhook.fallback=true"),
    ] {
        let folder = chart(name).display().to_string();
        let (release, namespace) = release(name);
        let words = ["install", release, &folder, "-n", namespace, "--set", set];
        helm(&words, Some(server.kubeconfig())).await.unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let lateend = start(&server, folder.path()).await;
    lead(kubectl, lateend.webhook).await;
    let create = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    until(
        "a senseless rule is refused by lateend",
        async || kubectl.feed(create, SENSELESS).await,
        |said| {
            said.as_ref().is_err_and(|error| {
                error.to_string().contains("validation.istio.io")
                    && error.to_string().contains("spec.subsets[1]")
            })
        },
    )
    .await;
    until(
        "a pod is injected",
        async || kubectl.feed(create, POD).await,
        |said| said.as_ref().is_ok_and(|pod| pod.contains("\"istio-proxy\"")),
    )
    .await;
    // What the self-test asks for, and no more than that.
    let program = binaries::kubectl().await.unwrap();
    let own = Kubectl::new(&program, &folder.path().join("kubeconfig"));
    let test = ["create", "--dry-run=server", "-f", "-"];
    until("a dry run as lateend", async || own.feed(test, OWN_POD).await, Result::is_ok).await;
    until(
        "lateend creates no pod in earnest",
        async || own.feed(["create", "-f", "-"], OWN_POD).await,
        |said| said.as_ref().is_err_and(|error| error.to_string().contains("a dry run only")),
    )
    .await;
    let maps = ["get", "configmap", "istio-ca-root-cert", "-n", "shop"];
    until("the root certificate", async || kubectl.run(maps).await, Result::is_ok).await;
    let policy = ["get", "mutatingadmissionpolicy", "istio-sidecar-injector-fallback"];
    until("the fallback's policy", async || kubectl.run(policy).await, Result::is_ok).await;
    let log = std::fs::read_to_string(&lateend.log).unwrap();
    assert!(!log.contains("may not"), "{log}");
    assert!(!log.contains("cannot patch") && !log.contains("forbidden"), "{log}");
    drop(lateend);
    helm(&["uninstall", "istiod", "-n", "istio-system"], Some(server.kubeconfig())).await.unwrap();
    until("the root certificate goes", async || kubectl.run(maps).await, Result::is_err).await;
    until("the policy goes", async || kubectl.run(policy).await, Result::is_err).await;
}
