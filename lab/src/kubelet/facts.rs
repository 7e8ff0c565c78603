//! What a pod's containers can be told about it: `fieldRef` and `resourceFieldRef`.
//!
//! Pure.

use std::net::IpAddr;

use lateen_api::core::{Container, Pod};
use serde_json::Value;

use super::PodKey;
use super::quantity::divide;

/// A pod, and what became of it on the node.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) key: PodKey,
    pub(super) pod: Pod,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) node: String,
    pub(super) node_addresses: Vec<IpAddr>,
}

impl Facts {
    /// Host name in the pod.
    pub(super) fn hostname(&self) -> &str {
        let name = self.pod.spec.hostname.as_deref().unwrap_or(&self.key.name);
        name.get(..name.len().min(63)).unwrap_or(name)
    }

    /// Value of a field, as `fieldRef` names it.
    pub(super) fn field(&self, path: &str) -> Result<String, String> {
        let meta = &self.pod.metadata;
        let list = |addresses: &[IpAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let first =
            |addresses: &[IpAddr]| addresses.first().map(ToString::to_string).unwrap_or_default();
        if let Some((map, key)) = subscript(path) {
            let map = if map == "metadata.labels" { &meta.labels } else { &meta.annotations };
            return Ok(map.get(key).cloned().unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => self.key.name.clone(),
            "metadata.namespace" => self.key.namespace.clone(),
            "metadata.uid" => self.key.uid.clone(),
            "metadata.labels" => lines(&meta.labels),
            "metadata.annotations" => lines(&meta.annotations),
            "spec.nodeName" => self.node.clone(),
            "spec.serviceAccountName" => self.pod.service_account().to_owned(),
            "status.podIP" => first(&self.addresses),
            "status.podIPs" => list(&self.addresses),
            "status.hostIP" => first(&self.node_addresses),
            "status.hostIPs" => list(&self.node_addresses),
            other => return Err(format!("fieldPath {other:?} is not one of a pod")),
        })
    }

    /// Value of a resource of a container, as `resourceFieldRef` names it. Where there is no limit
    /// it is all of the node.
    pub(super) fn resource(&self, reference: &Value, own: &Container) -> Result<String, String> {
        let text = |key: &str| reference[key].as_str();
        let name = text("containerName").unwrap_or(&own.name);
        let spec = &self.pod.spec;
        let mut all = spec.containers.iter().chain(&spec.init_containers);
        let container = all
            .find(|container| container.name == name)
            .ok_or_else(|| format!("resourceFieldRef: there is no container {name:?}"))?;
        let resource = text("resource").unwrap_or_default();
        let (kind, what) = resource
            .split_once('.')
            .filter(|(kind, _)| ["limits", "requests"].contains(kind))
            .ok_or_else(|| format!("resourceFieldRef: resource {resource:?} is not known"))?;
        let resources = container.resources.as_ref();
        let given = resources.and_then(|it| it.get(kind)).and_then(|it| it.get(what));
        let quantity = match given {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ if kind == "requests" => "0".to_owned(),
            _ => of_node(what),
        };
        let divisor = match &reference["divisor"] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => "0".to_owned(),
        };
        divide(&quantity, &divisor).map(|number| number.to_string()).ok_or_else(|| {
            format!("resourceFieldRef: {quantity:?} by {divisor:?} is not a quantity")
        })
    }
}

/// What a container without a limit may use.
fn of_node(what: &str) -> String {
    match what {
        "cpu" => std::thread::available_parallelism().map_or(1, usize::from).to_string(),
        "memory" => {
            let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.map_or_else(|| "0".to_owned(), |number| format!("{number}Ki"))
        }
        _ => "0".to_owned(),
    }
}

/// Map and key of `metadata.labels['KEY']` or `metadata.annotations['KEY']`.
pub(super) fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    ["metadata.labels", "metadata.annotations"].contains(&map).then_some((map, key))
}

/// A map as the downward API writes it into a file: `KEY="VALUE"`, quoted as Go does.
fn lines(map: &lateen_api::meta::Labels) -> String {
    let lines = map.iter().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::Facts;
    use crate::kubelet::PodKey;
    use serde_json::{Value, json};

    /// Facts of a pod with the given specification.
    pub(in crate::kubelet) fn facts(spec: &Value) -> Facts {
        let pod = json!({"metadata": {"name": "cart-1", "namespace": "shop", "uid": "u-1",
            "labels": {"app": "cart", "q": "a\"b"}, "annotations": {"x/y": "1\n2"}}, "spec": spec});
        Facts {
            key: PodKey { namespace: "shop".into(), name: "cart-1".into(), uid: "u-1".into() },
            pod: serde_json::from_value(pod).unwrap(),
            addresses: vec!["10.244.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            node: "lab".into(),
            node_addresses: vec!["10.244.0.1".parse().unwrap()],
        }
    }

    #[test]
    fn fields_are_those_of_the_pod() {
        let facts = facts(&json!({"serviceAccountName": "cart"}));
        for (path, wanted) in [
            ("metadata.name", "cart-1"),
            ("metadata.uid", "u-1"),
            ("metadata.labels['app']", "cart"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['x/y']", "1\n2"),
            ("metadata.labels", "app=\"cart\"\nq=\"a\\\"b\""),
            ("metadata.annotations", "x/y=\"1\\n2\""),
            ("spec.serviceAccountName", "cart"),
            ("status.podIP", "10.244.0.5"),
            ("status.podIPs", "10.244.0.5,fd00::5"),
            ("status.hostIP", "10.244.0.1"),
        ] {
            assert_eq!(facts.field(path).as_deref(), Ok(wanted), "{path}");
        }
        assert!(facts.field("spec.gone").unwrap_err().contains("spec.gone"));
    }

    #[test]
    fn resources_are_divided_and_default_to_the_node() {
        let facts = facts(&json!({"containers": [{"name": "a",
            "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]}));
        let own = &facts.pod.spec.containers[0];
        let get = |resource: &str, divisor: &str| {
            facts.resource(&json!({"resource": resource, "divisor": divisor}), own)
        };
        assert_eq!(get("limits.cpu", "1").unwrap(), "2");
        assert_eq!(get("limits.cpu", "1m").unwrap(), "1500");
        assert_eq!(get("requests.memory", "1Mi").unwrap(), "64");
        assert_eq!(get("requests.cpu", "1").unwrap(), "0");
        assert!(get("limits.memory", "1Mi").unwrap().parse::<u64>().unwrap() > 0);
        assert!(get("cpu", "1").is_err());
        assert!(get("limits.cpu", "x").is_err());
    }
}
