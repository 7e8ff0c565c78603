//! What a cluster has before anything is applied: its namespaces, its node, and the Service of the
//! mesh's control plane.
//!
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::objects::{Key, Objects, Role, complete_namespace, stamp};
use super::services::{self, Family};

/// Namespaces that every cluster has, and the one of the mesh.
pub const NAMESPACES: [&str; 5] =
    ["default", "kube-system", "kube-public", "kube-node-lease", SYSTEM];
/// Namespace of the mesh's control plane.
pub const SYSTEM: &str = "istio-system";
/// Service of the mesh's control plane.
pub const CONTROL_PLANE: &str = "istiod";
/// Name of the only node.
pub const NODE: &str = "lab";
/// Ports of the control plane: name, port of the Service, port of the process.
const PORTS: [(&str, u16, u16); 4] = [
    ("grpc-xds", 15010, 15010),
    ("https-dns", 15012, 15012),
    ("https-webhook", 443, 15017),
    ("http-monitoring", 15014, 15014),
];

/// The objects of an empty cluster whose node has these addresses.
#[must_use]
pub fn objects(gateway: &[IpAddr; 2], now: &str) -> Objects {
    let mut objects = Objects::default();
    for name in NAMESPACES {
        let mut value =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        complete_namespace(&mut value, name);
        stamp(&mut value, None, now);
        objects.put(Key::core(Role::Namespace, "Namespace", "", name), value);
        objects.put_service_account(name, now);
    }
    let mut node = node(gateway);
    stamp(&mut node, None, now);
    objects.put(Key::core(Role::Node, "Node", "", NODE), node);
    let mut service = service();
    if let Ok(typed) = serde_json::from_value(service.clone())
        && let Err(finding) = services::complete(&mut service, &typed, None, &BTreeMap::new())
    {
        tracing::error!(%finding, "the control plane's Service");
    }
    stamp(&mut service, None, now);
    objects.put(Key::core(Role::Service, "Service", SYSTEM, CONTROL_PLANE), service);
    for address in gateway {
        let mut slice = slice(*address);
        stamp(&mut slice, None, now);
        let name = slice["metadata"]["name"].as_str().unwrap_or_default();
        let key = Key {
            group: "discovery.k8s.io".to_owned(),
            ..Key::core(Role::EndpointSlice, "EndpointSlice", SYSTEM, name)
        };
        objects.put(key, slice);
    }
    objects
}

fn node(gateway: &[IpAddr; 2]) -> Value {
    let addresses: Vec<Value> = gateway
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .chain([json!({"type": "Hostname", "address": NODE})])
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}},
        "status": {"addresses": addresses},
    })
}

fn service() -> Value {
    let ports: Vec<Value> = PORTS
        .iter()
        .map(|(name, port, target)| json!({"name": name, "port": port, "targetPort": target}))
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": CONTROL_PLANE, "namespace": SYSTEM,
            "labels": {"app": CONTROL_PLANE, "istio.io/rev": "default"},
        },
        "spec": {"ports": ports},
    })
}

fn slice(address: IpAddr) -> Value {
    let family = Family::of(address).name();
    let ports: Vec<Value> = PORTS
        .iter()
        .map(|(name, _, target)| json!({"name": name, "port": target, "protocol": "TCP"}))
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{CONTROL_PLANE}-{}", family.to_ascii_lowercase()),
            "namespace": SYSTEM,
            "labels": {lateen_api::names::label::SERVICE_NAME: CONTROL_PLANE},
        },
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}, "nodeName": NODE}],
        "ports": ports,
    })
}

#[cfg(test)]
mod tests {
    use super::objects;
    use crate::api_server::objects::Role;
    use lateen_api::core::{EndpointSlice, Service};

    #[test]
    fn the_control_plane_is_a_service_with_endpoints() {
        let gateway = ["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let objects = objects(&gateway, "2026-01-01T00:00:00Z");
        let service = objects.typed::<Service>(Role::Service).next().unwrap();
        assert_eq!(service.spec.addresses().len(), 2);
        let slices: Vec<EndpointSlice> = objects.typed(Role::EndpointSlice).collect();
        assert_eq!(slices.len(), 2);
        assert_eq!(slices[0].endpoints[0].addresses, ["10.244.0.1"]);
    }
}
