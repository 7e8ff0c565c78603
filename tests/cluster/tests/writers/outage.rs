//! Replicas end under admissions, one after the other, and no pod is refused or comes in bare: told
//! to end as by a rolling restart, and killed as by a machine that is switched off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::daemon::{Bench, Lateend, PATIENCE, bundles};
use crate::front::Front;
use crate::rotation::client;

const HOOKS: &str = "mutatingwebhookconfiguration istio-sidecar-injector";
const POLICY: &str = "mutatingadmissionpolicy istio-sidecar-injector-fallback";
/// Clients that create pods.
const CLIENTS: usize = 4;
/// Admissions that must be seen between two events.
const SEEN: usize = 40;

/// Pods in rehearsal, created without a pause until they are stopped.
struct Admissions {
    admitted: Arc<AtomicUsize>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Result<(), String>>>,
}

async fn create(pods: &Api<Pod>, pod: &Pod) -> Result<(), String> {
    let params = PostParams { dry_run: true, field_manager: None };
    let admitted = pods.create(&params, pod).await.map_err(|error| format!("refused: {error}"))?;
    let spec = admitted.spec.unwrap();
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.any(|it| it.name == "istio-proxy").then_some(()).ok_or_else(|| "bare".to_owned())
}

impl Admissions {
    async fn begin(bench: &Bench) -> Self {
        let (admitted, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]},
        }))
        .unwrap();
        let mut tasks = Vec::new();
        for _ in 0..CLIENTS {
            let client: Client = client(bench).await;
            let (count, stop, pod) = (Arc::clone(&admitted), stop.clone(), pod.clone());
            tasks.push(tokio::spawn(async move {
                let pods = Api::namespaced(client, "shop");
                while !stop.is_cancelled() {
                    create(&pods, &pod).await?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        Self { admitted, stop, tasks }
    }

    /// Waits for more of them.
    async fn go_on(&self, event: &str) {
        let wanted = self.admitted.load(Ordering::Relaxed) + SEEN;
        let begun = std::time::Instant::now();
        while self.admitted.load(Ordering::Relaxed) < wanted {
            assert!(!self.tasks.iter().all(JoinHandle::is_finished), "all ended: {event}");
            assert!(begun.elapsed() < PATIENCE, "no admissions: {event}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many there were; each of them with a sidecar.
    async fn end(self, log: impl Fn() -> String) -> usize {
        self.stop.cancel();
        let admitted = self.admitted.load(Ordering::Relaxed);
        for task in self.tasks {
            let ended = task.await.unwrap();
            ended.unwrap_or_else(|error| panic!("after {admitted}: {error}\n{}", log()));
        }
        admitted
    }
}

/// Two replicas behind the Service, with the failure policy of the chart.
async fn two(bench: &mut Bench, failure: &str) -> ([Lateend; 2], Front) {
    bench.server.start_controllers().await.unwrap();
    let replicas = ["lateend-0", "lateend-1"].map(|name| bench.lateend(name, &[]));
    for replica in &replicas {
        replica.until_ready().await;
    }
    let front = Front::of(bench, replicas.iter().map(|it| it.webhook).collect()).await;
    let mut configuration = front.configuration(&["namespace"]);
    configuration["webhooks"][0]["failurePolicy"] = json!(failure);
    configuration["webhooks"][0]["timeoutSeconds"] = json!(2);
    Front::apply(bench, &configuration).await;
    bench.until(HOOKS, |object| bundles(object).iter().all(|it| !it.is_empty())).await;
    bench.kubectl("create namespace shop").await;
    bench.kubectl("label namespace shop istio-injection=enabled").await;
    bench.until("serviceaccount default -n shop", |_| true).await;
    (replicas, front)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn replicas_end_in_turn_and_no_admission_fails() {
    let mut bench = Bench::start().await;
    let ([mut first, mut second], front) = two(&mut bench, "Fail").await;
    let admissions = Admissions::begin(&bench).await;
    admissions.go_on("both serve").await;
    // As for a pod that is deleted: its endpoint goes, and what the chart has it wait before it is
    // told to end is over when that is known everywhere.
    front.lead_to(&[second.webhook]);
    first.end().await;
    admissions.go_on("the first has ended").await;
    let third = bench.lateend("lateend-2", &[]);
    third.until_ready().await;
    front.lead_to(&[second.webhook, third.webhook]);
    admissions.go_on("another has come").await;
    front.lead_to(&[third.webhook]);
    second.end().await;
    admissions.go_on("the second has ended").await;
    let admitted = admissions.end(|| third.log()).await;
    println!("{admitted} admissions");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn replicas_are_killed_in_turn_and_the_fallback_injects() {
    let mut bench = Bench::start().await;
    fallback(&bench).await;
    let ([mut first, mut second], front) = two(&mut bench, "Ignore").await;
    bench.until(POLICY, Value::is_object).await;
    front.lead_to(&[]);
    until_injected(&bench).await;
    front.lead_to(&[first.webhook, second.webhook]);
    let admissions = Admissions::begin(&bench).await;
    admissions.go_on("both serve").await;
    // Its endpoint is still there, as for a machine of which nobody knows yet.
    first.kill();
    admissions.go_on("the first is dead").await;
    second.kill();
    admissions.go_on("nobody is left").await;
    let third = bench.lateend("lateend-2", &[]);
    third.until_ready().await;
    front.lead_to(&[third.webhook]);
    admissions.go_on("another has come").await;
    let admitted = admissions.end(|| third.log()).await;
    println!("{admitted} admissions");
}

/// What the chart has where the fallback is on: the setting, and the role that owns the policies.
async fn fallback(bench: &Bench) {
    let values = json!({"sidecarInjectorWebhook": {"fallback": true}}).to_string();
    let injector = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio-sidecar-injector", "namespace": "istio-system"},
        "data": {"values": values},
    });
    bench.apply(&injector.to_string()).await;
    bench.kubectl("create clusterrole istiod-fallback --verb=get --resource=pods").await;
}

/// Waits until the API server injects by itself: policies take a moment.
async fn until_injected(bench: &Bench) {
    let pods = Api::namespaced(client(bench).await, "shop");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap();
    let begun = std::time::Instant::now();
    while let Err(error) = create(&pods, &pod).await {
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
