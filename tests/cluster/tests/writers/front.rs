//! The Service in front of the replicas: the API server calls it by name, and each connection goes
//! to the next replica, as kube-proxy does it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::daemon::{Bench, SYSTEM};

/// The Service, for as long as it is held.
pub(crate) struct Front {
    port: u16,
    /// Connections that were taken.
    pub(crate) connections: Arc<AtomicUsize>,
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
    _task: AbortOnDropHandle<()>,
}

impl Front {
    /// In front of these replicas.
    pub(crate) async fn of(bench: &Bench, replicas: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let replicas = Arc::new(Mutex::new(replicas));
        let (count, behind) = (Arc::clone(&connections), Arc::clone(&replicas));
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut from, _)) = listener.accept().await else { continue };
                let turn = count.fetch_add(1, Ordering::Relaxed);
                let replica = {
                    let replicas = behind.lock().unwrap();
                    // With nobody behind it, a connection ends at once.
                    let Some(last) = replicas.len().checked_sub(1) else { continue };
                    replicas[turn % (last + 1)]
                };
                tokio::spawn(async move {
                    let Ok(mut to) = TcpStream::connect(replica).await else { return };
                    drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
                });
            }
        });
        // What is outside of the cluster's network is reached by a name.
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "istiod", "namespace": SYSTEM},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        });
        bench.apply(&service.to_string()).await;
        Self { port, connections, replicas, _task: AbortOnDropHandle::new(task) }
    }

    /// Sends new connections to these from now on, as when endpoints change.
    pub(crate) fn lead_to(&self, replicas: &[SocketAddr]) {
        *self.replicas.lock().unwrap() = replicas.to_vec();
    }

    /// A webhook configuration as the chart has it, with these hooks, without bundles.
    pub(crate) fn configuration(&self, hooks: &[&str]) -> Value {
        let hook = |name: &&str| {
            json!({
                "name": format!("{name}.sidecar-injector.istio.io"),
                "clientConfig": {"service": {
                    "name": "istiod", "namespace": SYSTEM, "path": "/inject", "port": self.port,
                }},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["pods"]}],
                "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
            })
        };
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": "istio-sidecar-injector", "labels": {"istio.io/rev": "default"}},
            "webhooks": hooks.iter().map(hook).collect::<Vec<_>>(),
        })
    }

    /// Applies a configuration as Helm does: server-side, as its own field manager.
    pub(crate) async fn apply(bench: &Bench, configuration: &Value) -> String {
        let words = ["apply", "--server-side", "--field-manager=helm", "-f", "-"];
        let kubectl = bench.server.kubectl();
        kubectl.feed(words, &configuration.to_string()).await.unwrap()
    }
}
