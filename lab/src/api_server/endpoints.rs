//! EndpointSlices of a Service, from the pods it selects.
//!
//! Pure. As Kubernetes' controller makes them: one slice a family and set of port numbers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lateen_api::core::{Container, Pod, Service, ServicePort, TargetPort};
use lateen_api::meta::selects;
use lateen_api::names::label;
use serde_json::{Value, json};

use super::services::Family;

/// Port numbers of the pods, by the Service's ports; `None`: the pod has no port of that name.
type Numbers = Vec<Option<u16>>;

/// The slices of `service`; none for a Service without selector, whose endpoints others write.
#[must_use]
pub fn slices<'a>(service: &Service, pods: impl Iterator<Item = &'a Pod> + Clone) -> Vec<Value> {
    if service.spec.selector.is_empty() || service.spec.kind.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let namespace = service.metadata.namespace_or_empty();
    let selected = pods.filter(|pod| {
        pod.metadata.namespace_or_empty() == namespace
            && selects(&service.spec.selector, &pod.metadata.labels)
            && !pod.is_finished()
    });
    let mut all = Vec::new();
    for family in Family::BOTH {
        if !service.spec.ip_families.iter().any(|name| name == family.name()) {
            continue;
        }
        let mut groups: BTreeMap<Numbers, Vec<Value>> = BTreeMap::new();
        for pod in selected.clone() {
            let mut addresses = pod.addresses().into_iter().filter_map(|it| it.parse().ok());
            let Some(address) = addresses.find(|address| Family::of(*address) == family) else {
                continue;
            };
            let numbers = numbers(service, pod);
            groups.entry(numbers).or_default().push(endpoint(service, pod, address));
        }
        if groups.is_empty() {
            all.push(slice(service, family, 0, (&Vec::new(), &[])));
        }
        for (index, (numbers, endpoints)) in groups.iter().enumerate() {
            all.push(slice(service, family, index, (numbers, endpoints)));
        }
    }
    all
}

fn slice(
    service: &Service,
    family: Family,
    index: usize,
    (numbers, endpoints): (&Numbers, &[Value]),
) -> Value {
    let name = &service.metadata.name;
    let family_name = family.name();
    let ports: Vec<Value> = service
        .spec
        .ports
        .iter()
        .zip(numbers)
        .filter_map(|(port, number)| Some(slice_port(port, (*number)?)))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-{}-{index}", family_name.to_ascii_lowercase()),
            "namespace": service.metadata.namespace_or_empty(),
            "labels": {
                label::SERVICE_NAME: name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": family_name,
        "endpoints": endpoints,
        "ports": ports,
    })
}

fn slice_port(port: &ServicePort, number: u16) -> Value {
    let mut value = json!({
        "name": port.name.as_deref().unwrap_or_default(),
        "port": number,
        "protocol": port.protocol.as_deref().unwrap_or("TCP"),
    });
    if let Some(protocol) = &port.app_protocol {
        value["appProtocol"] = json!(protocol);
    }
    value
}

fn endpoint(service: &Service, pod: &Pod, address: IpAddr) -> Value {
    let anyway = service.spec.publish_not_ready_addresses == Some(true);
    let serving = pod.is_ready();
    let terminating = pod.is_terminating();
    let mut value = json!({
        "addresses": [address],
        "conditions": {
            "ready": anyway || (serving && !terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "name": pod.metadata.name,
            "namespace": pod.metadata.namespace_or_empty(),
            "uid": pod.metadata.uid.as_deref().unwrap_or_default(),
        },
    });
    if let Some(node) = &pod.spec.node_name {
        value["nodeName"] = json!(node);
    }
    if let Some(hostname) = &pod.spec.hostname
        && pod.spec.subdomain.as_ref() == Some(&service.metadata.name)
    {
        value["hostname"] = json!(hostname);
    }
    value
}

fn numbers(service: &Service, pod: &Pod) -> Numbers {
    let number = |port: &ServicePort| match &port.target_port {
        None | Some(TargetPort::Number(0)) => Some(port.port),
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(name)) => {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            named(pod, name, protocol)
        }
    };
    service.spec.ports.iter().map(number).collect()
}

fn named(pod: &Pod, name: &str, protocol: &str) -> Option<u16> {
    let sidecars =
        pod.spec.init_containers.iter().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let ports = |container: &Container| {
        container
            .ports
            .iter()
            .find(|port| {
                port.name.as_deref() == Some(name)
                    && port.protocol.as_deref().unwrap_or("TCP") == protocol
            })
            .map(|port| port.container_port)
    };
    pod.spec.containers.iter().chain(sidecars).find_map(ports)
}

#[cfg(test)]
mod tests {
    use super::slices;
    use lateen_api::core::{Pod, Service};
    use proptest::prelude::{any, proptest};
    use serde_json::{Value, json};

    fn service(extra: &Value) -> Service {
        let mut spec = json!({
            "selector": {"app": "a"}, "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
        });
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let value = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec});
        serde_json::from_value(value).unwrap()
    }

    fn pod(number: u8, port: u16, ready: bool) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": format!("p{number}"), "namespace": "n", "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
            "status": {
                "podIP": format!("10.244.0.{number}"),
                "podIPs": [{"ip": format!("10.244.0.{number}")}, {"ip": format!("fd00::{number}")}],
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_slice_for_each_family_and_port_number() {
        let pods = [pod(1, 8080, true), pod(2, 8080, false), pod(3, 9090, true)];
        let slices = slices(&service(&json!({})), pods.iter());
        let seen: Vec<(&str, u64, usize)> = slices
            .iter()
            .map(|slice| {
                let endpoints = slice["endpoints"].as_array().unwrap();
                let port = slice["ports"][0]["port"].as_u64().unwrap();
                (slice["addressType"].as_str().unwrap(), port, endpoints.len())
            })
            .collect();
        assert_eq!(
            seen,
            [("IPv4", 8080, 2), ("IPv4", 9090, 1), ("IPv6", 8080, 2), ("IPv6", 9090, 1)]
        );
        assert_eq!(slices[0]["endpoints"][0]["conditions"]["ready"], true);
        assert_eq!(slices[0]["endpoints"][1]["conditions"]["ready"], false);
        assert_eq!(slices[0]["metadata"]["labels"]["kubernetes.io/service-name"], "s");
    }

    #[test]
    fn ending_pods_get_nothing_new_and_finished_ones_are_gone() {
        let mut ending = pod(1, 1, true);
        ending.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".to_owned());
        let mut finished = pod(2, 1, false);
        finished.status.as_mut().unwrap().phase = Some("Failed".to_owned());
        let slices = slices(&service(&json!({})), [ending, finished].iter());
        let endpoints = slices[0]["endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 1);
        let conditions = json!({"ready": false, "serving": true, "terminating": true});
        assert_eq!(endpoints[0]["conditions"], conditions);
    }

    #[test]
    fn a_service_without_pods_has_empty_slices_and_one_without_selector_none() {
        let none: [Pod; 0] = [];
        let empty = slices(&service(&json!({})), none.iter());
        assert_eq!(empty.len(), 2);
        assert!(empty.iter().all(|slice| slice["endpoints"].as_array().unwrap().is_empty()));
        let manual = service(&json!({"selector": {}}));
        assert!(slices(&manual, none.iter()).is_empty());
        let early = service(&json!({"publishNotReadyAddresses": true}));
        let slices = slices(&early, [pod(1, 1, false)].iter());
        assert_eq!(slices[0]["endpoints"][0]["conditions"]["ready"], true);
    }

    proptest! {
        #[test]
        fn every_ready_pod_is_ready_once_in_each_family(ready in proptest::collection::vec(any::<bool>(), 0..30)) {
            let pods: Vec<Pod> = ready
                .iter()
                .zip(1..)
                .map(|(ready, number)| pod(number, 8000 + u16::from(number % 3), *ready))
                .collect();
            let slices = slices(&service(&json!({})), pods.iter());
            for family in ["IPv4", "IPv6"] {
                let count = slices
                    .iter()
                    .filter(|slice| slice["addressType"] == family)
                    .flat_map(|slice| slice["endpoints"].as_array().unwrap())
                    .filter(|endpoint| endpoint["conditions"]["ready"] == true)
                    .count();
                assert_eq!(count, ready.iter().filter(|it| **it).count());
            }
        }
    }
}
