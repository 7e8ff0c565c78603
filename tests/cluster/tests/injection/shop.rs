//! A namespace that is injected: an API server, a replica that it calls, and a kubelet that only says
//! that pods are ready.

use std::process::Stdio;
use std::time::Instant;

use lateen_cluster::binaries;
use lateen_webhook::InjectionSettings;
use lateen_webhook::hooks::webhook_configuration;
use lateen_webhook::settings::Options;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio_util::task::AbortOnDropHandle;

use crate::daemon::{Bench, Lateend, PATIENCE, SYSTEM, get};

pub(crate) struct Shop {
    pub(crate) bench: Bench,
    pub(crate) replica: Lateend,
}

impl Shop {
    /// With the namespace `shop`, labelled, and a replica that is called and tries that it is.
    pub(crate) async fn open(self_test_every: &str) -> Self {
        let mut bench = Bench::start().await;
        bench.server.start_controllers().await.unwrap();
        bench.kubectl("create namespace shop").await;
        bench.kubectl("label namespace shop istio-injection=enabled").await;
        let replica = bench
            .lateend("lateend-0", &["--audit-every", "1s", "--self-test-every", self_test_every]);
        let shop = Self { bench, replica };
        shop.values(&json!({"global": {"tag": "1"}})).await;
        // What is outside of the cluster's network is reached by a name.
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "istiod", "namespace": SYSTEM},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        shop.bench.apply(&service.to_string()).await;
        let settings = InjectionSettings::from_sources(None, None, Options::default()).unwrap();
        let mut hooks = webhook_configuration(&settings, b"");
        for hook in hooks["webhooks"].as_array_mut().unwrap() {
            let client = hook["clientConfig"].as_object_mut().unwrap();
            client.remove("caBundle");
            client["service"]["port"] = json!(shop.replica.webhook.port());
        }
        shop.bench.apply(&hooks.to_string()).await;
        shop.replica.until_ready().await;
        shop
    }

    /// Sets the injection values.
    pub(crate) async fn values(&self, values: &Value) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "istio-sidecar-injector", "namespace": SYSTEM},
            "data": {"values": values.to_string()},
        });
        self.bench.apply(&map.to_string()).await;
    }

    /// Lets the API server call another port; the one before.
    pub(crate) async fn call_port(&self, port: u16) -> u16 {
        const NAME: &str = "mutatingwebhookconfiguration istio-sidecar-injector";
        let found = self.bench.object(NAME).await.unwrap();
        let hooks = found["webhooks"].as_array().unwrap();
        let before = hooks[0]["clientConfig"]["service"]["port"].as_u64().unwrap();
        let path = |index| format!("/webhooks/{index}/clientConfig/service/port");
        let patch = (0..hooks.len())
            .map(|index| json!({"op": "replace", "path": path(index), "value": port}));
        let patch = Value::Array(patch.collect()).to_string();
        let words = ["patch", "mutatingwebhookconfiguration", "istio-sidecar-injector"];
        let all = words.into_iter().chain(["--type=json", "--patch", &patch]);
        self.bench.server.kubectl().run(all).await.unwrap();
        u16::try_from(before).unwrap()
    }

    /// A pod in thought, with changes: what it becomes, and what kubectl says beside.
    pub(crate) async fn dry_run(&self, change: &Value) -> (Value, String) {
        self.try_dry_run(change).await.unwrap()
    }

    pub(crate) async fn try_dry_run(&self, change: &Value) -> Result<(Value, String), String> {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"containers": [{"name": "cart", "image": "cart"}]}});
        for part in ["metadata", "spec"] {
            for (key, value) in change[part].as_object().into_iter().flatten() {
                pod[part][key] = value.clone();
            }
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pod.to_string()).unwrap();
        let path = file.path().display().to_string();
        let words = ["create", "--dry-run=server", "-o", "json", "-f", &path];
        let mut command = self.bench.server.kubectl().command(words);
        let output = command.output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if !output.status.success() {
            return Err(said);
        }
        Ok((serde_json::from_slice(&output.stdout).unwrap(), said))
    }

    pub(crate) fn has_sidecar(pod: &Value) -> bool {
        let init = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        init.into_iter().any(|it| it["name"] == "istio-proxy")
    }

    /// A Deployment whose rollout takes one pod away at a time.
    pub(crate) async fn deploy(&self, name: &str, replicas: u32, annotations: &Value) {
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": name}},
                "strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                "template": {
                    "metadata": {"labels": {"app": name}, "annotations": annotations},
                    "spec": {"containers": [{"name": "a", "image": "a"}]},
                },
            },
        });
        self.bench.apply(&deployment.to_string()).await;
    }

    /// A budget that wants so many pods of `early`.
    pub(crate) async fn budget(&self, least: u32) {
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "early", "namespace": "shop"},
            "spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "early"}}},
        });
        self.bench.apply(&budget.to_string()).await;
        self.bench
            .until("poddisruptionbudget early -n shop", |it| it["status"]["expectedPods"] == 2)
            .await;
    }

    pub(crate) async fn until_pods(&self, name: &str, count: usize) {
        let words = format!("pods -n shop -l app={name}");
        self.bench
            .until(&words, |it| it["items"].as_array().is_some_and(|all| all.len() == count))
            .await;
    }

    /// Says of every pod that it is ready, for as long as it is held: here is no node.
    pub(crate) fn kubelet(&self) -> AbortOnDropHandle<()> {
        let kubectl = self.bench.server.kubectl().clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let status = json!({"status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]}})
            .to_string();
            loop {
                let pods = kubectl.json(&["get", "pods", "-n", "shop"]).await.unwrap_or_default();
                for pod in pods["items"].as_array().into_iter().flatten() {
                    if pod["status"]["phase"] == "Running" {
                        continue;
                    }
                    let name = pod["metadata"]["name"].as_str().unwrap();
                    let words = ["patch", "pod", name, "-n", "shop", "--subresource=status"];
                    let all = words.into_iter().chain(["--type=merge", "--patch", &status]);
                    // It may be gone.
                    drop(kubectl.run(all).await);
                }
            }
        }))
    }

    /// The value of a metric of the replica.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let text = get(self.replica.monitoring, "/metrics").await.unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.trim().parse().unwrap())
    }

    pub(crate) async fn until_metric(&self, name: &str, wanted: u64) {
        let begun = Instant::now();
        loop {
            let value = self.metric(name).await;
            if value == Some(wanted) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{name} is {value:?}:\n{}", self.replica.log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Events with a reason that are there.
    pub(crate) async fn events(&self, reason: &str) -> Vec<Value> {
        let words = format!("events -n shop --field-selector reason={reason}");
        let found = self.bench.object(&words).await.unwrap_or_default();
        found["items"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) async fn event(&self, reason: &str) -> Value {
        self.event_in("shop", reason).await
    }

    /// Waits for an event.
    pub(crate) async fn event_in(&self, namespace: &str, reason: &str) -> Value {
        let words = format!("events -n {namespace} --field-selector reason={reason}");
        let some = |it: &Value| it["items"].as_array().is_some_and(|all| !all.is_empty());
        self.bench.until(&words, some).await;
        self.bench.object(&words).await.unwrap()["items"][0].clone()
    }

    /// Runs the command line; what it prints.
    pub(crate) async fn command(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binaries::lateen("lateen").unwrap());
        command.args(words).arg("--kubeconfig").arg(self.bench.server.kubeconfig());
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        if output.status.success() { Ok(said) } else { Err(format!("{said}{error}")) }
    }

    /// What `lateen check-inject` says.
    pub(crate) async fn explained(&self, subject: &str) -> Value {
        let said = self.command(&["check-inject", subject, "-n", "shop", "-o", "json"]).await;
        serde_json::from_str(&said.unwrap()).unwrap()
    }

    /// What `lateen ps` lists.
    pub(crate) async fn listed(&self) -> Value {
        let said = self.command(&["ps", "-n", "shop", "-o", "json"]).await.unwrap();
        serde_json::from_str(&said).unwrap()
    }
}
