//! Keeps of a pod what decisions need: a node's pods are held in memory for good. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Annotations and labels whose prefix is one of these are kept.
const KEPT: [&str; 4] = ["sidecar.istio.io/", "traffic.sidecar.istio.io/", "istio.io/", MIRROR];
/// The kubelet's own uid of a static pod, on the object that mirrors it.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// The init container that proves the rules.
pub const VALIDATION: &str = "istio-validation";

/// The pod as it is kept.
#[must_use]
pub fn trim(pod: Pod) -> Value {
    let old = pod.metadata;
    let metadata = ObjectMeta {
        name: old.name,
        namespace: old.namespace,
        uid: old.uid,
        resource_version: old.resource_version,
        deletion_timestamp: old.deletion_timestamp,
        labels: kept(old.labels),
        annotations: kept(old.annotations),
        ..ObjectMeta::default()
    };
    let spec = pod.spec.map(|spec| PodSpec {
        containers: containers(spec.containers),
        init_containers: spec.init_containers.map(containers),
        host_network: spec.host_network,
        node_name: spec.node_name,
        ..PodSpec::default()
    });
    let status = pod.status.map(|status| PodStatus {
        phase: status.phase,
        pod_ips: status.pod_ips,
        init_container_statuses: status
            .init_container_statuses
            .map(|all| all.into_iter().filter(|one| one.name == VALIDATION).collect()),
        ..PodStatus::default()
    });
    // A pod that came from JSON goes back to it.
    serde_json::to_value(Pod { metadata, spec, status }).unwrap_or_default()
}

fn kept<M: FromIterator<(String, String)> + IntoIterator<Item = (String, String)>>(
    all: Option<M>,
) -> Option<M> {
    let matters = |key: &str| KEPT.iter().any(|prefix| key.starts_with(prefix));
    all.map(|all| all.into_iter().filter(|(key, _)| matters(key)).collect())
}

fn containers(all: Vec<Container>) -> Vec<Container> {
    let trimmed = all.into_iter().map(|container| {
        let proxy = container.name == "istio-proxy";
        Container {
            name: container.name,
            args: container.args.filter(|_| proxy),
            env: container.env.filter(|_| proxy),
            security_context: container.security_context.filter(|_| proxy),
            ..Container::default()
        }
    });
    trimmed.collect()
}

#[cfg(test)]
mod tests {
    use super::trim;
    use crate::decision::decide;
    use serde_json::{Value, json};

    #[test]
    fn a_decision_is_the_same_for_the_trimmed_pod() {
        let pod = |annotations: Value, proxy: Value| {
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "cart", "namespace": "shop", "uid": "u", "annotations": annotations,
                    "labels": {"app": "cart", "sidecar.istio.io/inject": "true"},
                    "managedFields": [{"manager": "kubectl"}]},
                "spec": {"nodeName": "n", "volumes": [{"name": "v"}],
                    "initContainers": [proxy, {"name": "istio-validation"}],
                    "containers": [{"name": "app", "image": "app:1",
                        "env": [{"name": "PASSWORD", "value": "secret"}]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}})
        };
        let status = json!({"sidecar.istio.io/status": "{}",
            "traffic.sidecar.istio.io/excludeOutboundPorts": "5432",
            "istio.io/reroute-virtual-interfaces": "net1", "kubectl.kubernetes.io/x": "y"});
        let mut bad = status.clone();
        bad["traffic.sidecar.istio.io/excludeOutboundPorts"] = json!("a");
        let proxy = json!({"name": "istio-proxy", "args": ["proxy", "sidecar"],
            "securityContext": {"runAsUser": 1400},
            "env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}]});
        let router = json!({"name": "istio-proxy", "args": ["proxy", "router"]});
        for pod in [
            pod(status.clone(), proxy.clone()),
            pod(bad, proxy.clone()),
            pod(json!({}), proxy),
            pod(status, router),
        ] {
            let kept = trim(serde_json::from_value(pod.clone()).unwrap());
            assert_eq!(decide(&kept), decide(&pod));
            assert!(!kept.to_string().contains("secret") && !kept.to_string().contains("kubectl"));
        }
    }
}
