//! The API server and its controllers, with a control plane and a kubelet that do what the test
//! says.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at what it does not expect")]

mod hook;

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lateen_api::core::PodStatus;
use lateen_lab::api_server::builtin;
use lateen_lab::api_server::cluster::Cluster;
use lateen_lab::api_server::controller::{Controller, Folders, Runner};
use lateen_lab::api_server::manifest::{ManifestText, read};
use lateen_lab::api_server::published::Published;
use lateen_lab::api_server::token::Signer;
use lateen_lab::api_server::view::PodRow;
use lateen_lab::kubelet::{ApiServer, PodKey, TokenRequest};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(20);

/// A kubelet that keeps what it is told.
#[derive(Debug, Default)]
struct Told {
    run: Mutex<Vec<Value>>,
    removed: Mutex<Vec<PodKey>>,
}

impl Runner for Told {
    fn run(&self, pod: Value) {
        self.run.lock().unwrap().push(pod);
    }

    fn remove<'a>(&'a self, key: &'a PodKey) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.removed.lock().unwrap().push(key.clone());
        Box::pin(std::future::ready(()))
    }
}

struct Bench {
    folder: TempDir,
    cluster: Cluster,
    controller: Controller,
    told: Arc<Told>,
    running: watch::Sender<bool>,
}

/// Says after each change of the configuration that it is loaded, and refuses ConfigMaps named
/// `unloved`.
async fn control_plane(config: &Path, published: &Path, running: &watch::Receiver<bool>) {
    let (mut before, mut version) = (String::new(), 0_u64);
    loop {
        let text = std::fs::read_to_string(config.join("cluster.yaml")).unwrap_or_default();
        if text != before && *running.borrow() {
            version += 1;
            let refused = text.contains("\"unloved\"");
            let finding = json!({
                "severity": "Error", "path": "data", "message": "is not loved",
                "object": {"kind": "ConfigMap", "namespace": "default", "name": "unloved"},
                "file": "cluster.yaml", "line": 4,
            });
            let findings = if refused { vec![finding] } else { Vec::new() };
            let status = json!({"version": version, "findings": findings}).to_string();
            std::fs::write(published.join(".status"), status).unwrap();
            std::fs::rename(published.join(".status"), published.join("status.json")).unwrap();
            before = text;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Bench {
    fn new(webhooks: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["config", "published", "pods"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let file = path("published").join("mutatingwebhookconfiguration.json");
        std::fs::write(file, webhooks.to_string()).unwrap();
        let published = Arc::new(Published::watch(&path("published")).unwrap());
        let gateway = ["10.244.0.1".parse().unwrap(), "fd00:10:244::1".parse().unwrap()];
        let objects = builtin::objects(&gateway, "2026-01-01T00:00:00Z");
        let cluster = Cluster::new(objects, Signer::generate().unwrap(), published);
        let told = Arc::new(Told::default());
        let folders =
            Folders { state: folder.path().to_owned(), config: path("config"), pods: path("pods") };
        let (running, receiver) = watch::channel(true);
        let runner: Arc<Told> = Arc::clone(&told);
        let runs = receiver.clone();
        let controller = Controller::start(cluster.clone(), runner, folders, receiver);
        let (config, published) = (path("config"), path("published"));
        tokio::spawn(async move { control_plane(&config, &published, &runs).await });
        Self { folder, cluster, controller, told, running }
    }

    async fn apply(&self, text: &str) -> Result<Vec<String>, String> {
        let text = ManifestText { name: "t.yaml".to_owned(), text: text.to_owned() };
        let batch = read(&[text]).unwrap();
        match self.controller.apply(&batch).await {
            Ok(applied) => Ok(applied.warnings.iter().map(ToString::to_string).collect()),
            Err(findings) => {
                Err(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
            }
        }
    }

    /// Waits until `look` finds something in the rows.
    async fn until<T>(&self, what: &str, look: impl Fn(&[PodRow]) -> Option<T>) -> T {
        let mut revision = self.cluster.revision();
        let search = async {
            loop {
                revision.mark_unchanged();
                if let Some(found) = look(&self.cluster.rows()) {
                    return found;
                }
                // The kubelet is told after the revision: look again soon.
                let soon = Duration::from_millis(20);
                drop(tokio::time::timeout(soon, revision.changed()).await);
            }
        };
        tokio::time::timeout(LIMIT, search)
            .await
            .unwrap_or_else(|_| panic!("{what} did not come: {:#?}", self.cluster.rows()))
    }

    /// Waits until the kubelet was told to run `count` pods in all, and gives the last one.
    async fn run(&self, count: usize) -> Value {
        self.until(&format!("pod {count}"), |_| {
            let run = self.told.run.lock().unwrap();
            (run.len() >= count).then(|| run[count - 1].clone())
        })
        .await
    }

    fn ready(&self, pod: &Value) {
        let status: PodStatus = serde_json::from_value(json!({
            "phase": "Running", "podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }))
        .unwrap();
        self.cluster.pod_status(&key(pod), status);
    }

    fn config(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("config/cluster.yaml")).unwrap()
    }
}

fn key(pod: &Value) -> PodKey {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
    PodKey { namespace: text("namespace"), name: text("name"), uid: text("uid") }
}

fn deployment(replicas: u32, image: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\n\
         spec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n\
         \x20 template:\n    metadata: {{labels: {{app: web}}}}\n\
         \x20   spec: {{containers: [{{name: web, image: {image}, ports: [{{containerPort: 8080}}]}}]}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n\
         spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
    )
}

fn none() -> Value {
    json!({"webhooks": []})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_pods_and_endpoints() {
    let bench = Bench::new(&none());
    assert!(bench.apply(&deployment(1, "a")).await.unwrap().is_empty());
    let pod = bench.run(1).await;
    let name = pod["metadata"]["name"].as_str().unwrap();
    let hash = pod["metadata"]["labels"]["pod-template-hash"].as_str().unwrap();
    assert!(name.starts_with(&format!("web-{hash}-")), "{name}");
    assert_eq!(pod["spec"]["nodeName"], "lab");
    let file = bench.folder.path().join(format!("pods/default_{name}.json"));
    let stored: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(stored["metadata"]["uid"], pod["metadata"]["uid"]);
    assert!(!bench.cluster.is_settled());
    bench.ready(&pod);
    bench.until("a ready row", |rows| rows[0].ready.then_some(())).await;
    assert!(bench.cluster.is_settled());
    assert_eq!(bench.cluster.rows()[0].reason, "skipped.not-selected");
    let endpoint = async {
        while !bench.config().contains("\"addresses\":[\"10.244.0.9\"]") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, endpoint).await.expect("the endpoint is not written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_template_replaces_pods_when_it_is_ready() {
    let bench = Bench::new(&none());
    bench.apply(&deployment(1, "a")).await.unwrap();
    let old = bench.run(1).await;
    bench.ready(&old);
    bench.apply(&deployment(1, "b")).await.unwrap();
    let new = bench.run(2).await;
    assert!(bench.told.removed.lock().unwrap().is_empty(), "the old one went too early");
    bench.ready(&new);
    bench.until("the end of the old pod", |rows| (rows.len() == 1).then_some(())).await;
    assert_eq!(*bench.told.removed.lock().unwrap(), [key(&old)]);
    assert_eq!(std::fs::read_dir(bench.folder.path().join("pods")).unwrap().count(), 1);
    bench.apply(&deployment(0, "b")).await.unwrap();
    bench.until("no pods", |rows| rows.is_empty().then_some(())).await;
    assert!(bench.cluster.is_settled());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_control_plane_refuses_is_not_taken() {
    let bench = Bench::new(&none());
    let bad = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: beside}\n---\n\
               apiVersion: v1\nkind: ConfigMap\nmetadata: {name: unloved}\n";
    let said = bench.apply(bad).await.unwrap_err();
    assert_eq!(said, "t.yaml:5: ConfigMap default/unloved: data: is not loved");
    assert!(bench.cluster.config_map("default", "beside").is_none());
    bench
        .apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: good}\ndata: {a: b}")
        .await
        .unwrap();
    assert_eq!(bench.cluster.config_map("default", "good").unwrap()["a"], "b");
    assert!(!bench.config().contains("unloved"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_control_plane_it_is_taken_and_said() {
    let bench = Bench::new(&none());
    bench.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: n1}").await.unwrap();
    bench.running.send_replace(false);
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: late, namespace: n1}";
    let warnings = bench.apply(text).await.unwrap();
    assert!(warnings[0].contains("lateen lab component start lateend"), "{warnings:?}");
    assert!(bench.cluster.config_map("n1", "late").is_some());
    bench.running.send_replace(true);
    let again = bench.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: n2}").await.unwrap();
    assert!(again.is_empty(), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_nowhere_keeps_pods_from_being_made() {
    let hook = |policy: &str| {
        json!({"webhooks": [{
            "name": "h", "failurePolicy": policy,
            "clientConfig": {"service": {"namespace": "istio-system", "name": "nowhere"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                       "resources": ["pods"]}],
        }]})
    };
    let bench = Bench::new(&hook("Fail"));
    bench.apply(&deployment(1, "a")).await.unwrap();
    let row = bench
        .until("a second attempt", |rows| {
            rows.iter().find(|row| row.events.iter().any(|event| event.count > 1)).cloned()
        })
        .await;
    assert_eq!(row.reason, "failed.webhook-call");
    assert!(row.why.contains("no Service istio-system/nowhere"), "{}", row.why);
    assert!(bench.told.run.lock().unwrap().is_empty());
    let file = bench.folder.path().join("published/mutatingwebhookconfiguration.json");
    std::fs::write(file, hook("Ignore").to_string()).unwrap();
    bench.run(1).await;
    assert_eq!(bench.cluster.rows()[0].reason, "skipped.hook-failed");
}

/// Makes the Service of a webhook, with an endpoint where the webhook is.
fn service_of(webhook: &hook::Webhook) -> String {
    let (address, port) = (webhook.address.ip(), webhook.address.port());
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: test, labels: {{mesh: 'yes'}}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: hook, namespace: test}}\n\
         spec: {{ports: [{{port: 443}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: hook, namespace: test, labels: {{kubernetes.io/service-name: hook}}}}\n\
         addressType: IPv4\nendpoints: [{{addresses: [{address}]}}]\nports: [{{port: {port}}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_denies_refuses_the_whole_call() {
    let denial = json!({
        "allowed": false,
        "status": {"message": "annotation x is odd", "code": 400, "reason": "denied.annotation"},
    });
    let webhook =
        hook::Webhook::start(vec![denial, json!({"allowed": true}), json!({"allowed": true})])
            .await;
    let bench = Bench::new(&json!({"webhooks": [webhook.hook("Fail")]}));
    bench.apply(&service_of(&webhook)).await.unwrap();
    let meshed = deployment(1, "a").replace("{name: web}", "{name: web, namespace: test}");
    let said = bench.apply(&meshed).await.unwrap_err();
    assert!(said.starts_with("t.yaml:1: Deployment test/web: spec.template: "), "{said}");
    assert!(said.contains("annotation x is odd"), "{said}");
    assert!(!bench.config().contains("\"name\":\"web\""), "the Service was taken");
    assert!(bench.cluster.rows().is_empty());
    bench.apply(&meshed).await.unwrap();
    let pod = bench.run(1).await;
    assert_eq!(pod["metadata"]["namespace"], "test");
    let asked = webhook.asked.lock().unwrap();
    let dry: Vec<&Value> = asked.iter().map(|review| &review["request"]["dryRun"]).collect();
    assert_eq!(dry, [true, true, false]);
    assert!(asked[0]["request"]["object"]["metadata"]["name"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_its_service_account() {
    let bench = Bench::new(&none());
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\n\
               spec: {serviceAccountName: late, containers: [{name: a, image: b}]}\n";
    bench.apply(pod).await.unwrap();
    bench
        .until("its reason", |rows| {
            rows.first()?.why.contains("ServiceAccount `late`").then_some(())
        })
        .await;
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: late}";
    bench.apply(account).await.unwrap();
    let run = bench.run(1).await;
    assert_eq!(run["metadata"]["name"], "one");
    let request = TokenRequest {
        pod: key(&run),
        service_account: "late".to_owned(),
        audience: None,
        seconds: 600,
    };
    assert_eq!(bench.cluster.token(&request).unwrap().split('.').count(), 3);
    let stranger = TokenRequest { service_account: "nobody".to_owned(), ..request };
    assert!(bench.cluster.token(&stranger).unwrap_err().contains("nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_pod_is_made_again() {
    let bench = Bench::new(&none());
    let pod = |image: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: one}}\n\
             spec: {{containers: [{{name: a, image: {image}}}]}}\n"
        )
    };
    bench.apply(&pod("x1")).await.unwrap();
    let first = bench.run(1).await;
    bench.apply(&pod("x1")).await.unwrap();
    bench.apply(&pod("y1")).await.unwrap();
    let second = bench.run(2).await;
    assert_eq!(second["spec"]["containers"][0]["image"], "y1");
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert_eq!(*bench.told.removed.lock().unwrap(), [key(&first)]);
    // What the kubelet still says about the first one is about nobody.
    bench.ready(&first);
    assert!(!bench.cluster.is_settled());
    bench.controller.stop().await;
}
