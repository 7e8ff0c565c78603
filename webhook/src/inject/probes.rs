//! Application probes and lifecycle hooks, redirected to the agent.
//!
//! The kubelet has no identity in the mesh, so its requests go to the proxy's status port, which
//! repeats them to the application. The original is recorded for the proxy, ports resolved. A
//! named port that the container does not have is left as it is, with a warning: the pod would
//! fail either way, and so the reason stays visible. Must not know how probes are served.

use std::collections::BTreeMap;

use lateen_api::names::container;
use serde_json::{Map, Value, json};

/// The recorded originals, by path at the status port.
pub(crate) type Probers = BTreeMap<String, Value>;

const PROBES: [(&str, &str); 3] =
    [("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
const HOOKS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];
const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Redirects the probes of all containers but the proxy.
pub(crate) fn rewrite(pod: &mut Value, status_port: u16, warnings: &mut Vec<String>) -> Probers {
    let mut probers = Probers::new();
    for list in ["initContainers", "containers"] {
        let Some(containers) = array(pod, list) else { continue };
        for container in containers.iter_mut().filter(|c| c["name"] != container::PROXY) {
            let Some(fields) = container.as_object_mut() else { continue };
            let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let ports = fields.get("ports").cloned().unwrap_or_default();
            let probers = &mut probers;
            Rewrite { name, ports, status_port, probers, warnings }.container(fields);
        }
    }
    probers
}

/// The rewrite of one container.
struct Rewrite<'a> {
    name: String,
    ports: Value,
    status_port: u16,
    probers: &'a mut Probers,
    warnings: &'a mut Vec<String>,
}

impl Rewrite<'_> {
    fn container(&mut self, fields: &mut Map<String, Value>) {
        for (field, end) in PROBES {
            let path = format!("/app-health/{}/{end}", self.name);
            if let Some(Value::Object(probe)) = fields.get_mut(field) {
                let timeout = probe.get("timeoutSeconds").cloned();
                self.handler(probe, field, path, timeout);
            }
        }
        let Some(Value::Object(lifecycle)) = fields.get_mut("lifecycle") else { return };
        for (field, end) in HOOKS {
            let path = format!("/app-lifecycle/{}/{end}", self.name);
            if let Some(Value::Object(hook)) = lifecycle.get_mut(field) {
                self.handler(hook, field, path, None);
            }
        }
    }

    /// Redirects one probe or hook, if it is over the network.
    fn handler(
        &mut self,
        holder: &mut Map<String, Value>,
        field: &str,
        path: String,
        timeout: Option<Value>,
    ) {
        let network = |kind: &&str| holder.get(*kind).is_some_and(Value::is_object);
        let Some(kind) = HANDLERS.into_iter().find(network) else { return };
        let mut original = holder[kind].clone();
        if kind == "httpGet" && is_redirected(&original) {
            return;
        }
        let Some(port) = self.resolve(&original["port"]) else {
            self.warnings.push(format!(
                "container {}: {field}.{kind}.port: the container has no port of that name; \
                 the probe is left as it is",
                self.name
            ));
            return;
        };
        original["port"] = Value::from(port);
        let redirected = self.redirected(&original, kind, &path);
        let mut record = json!({kind: original});
        if let Some(timeout) = timeout.filter(|timeout| !timeout.is_null()) {
            record["timeoutSeconds"] = timeout;
        }
        self.probers.insert(path, record);
        holder.remove(kind);
        holder.insert("httpGet".to_owned(), redirected);
    }

    /// The request that the kubelet makes instead: plain HTTP, host and headers kept.
    fn redirected(&self, original: &Value, kind: &str, path: &str) -> Value {
        let mut request = if kind == "httpGet" { original.clone() } else { json!({}) };
        request["path"] = Value::from(path);
        request["port"] = Value::from(self.status_port);
        let https = |scheme: &str| scheme.eq_ignore_ascii_case("https");
        if request.get("scheme").and_then(Value::as_str).is_some_and(https) {
            request["scheme"] = Value::from("HTTP");
        }
        request
    }

    /// A port by number, or by the name of one of the container's.
    fn resolve(&self, port: &Value) -> Option<u64> {
        if let Some(number) = port.as_u64() {
            return Some(number);
        }
        let name = port.as_str()?;
        if let Ok(number) = name.parse::<u16>() {
            return Some(number.into());
        }
        self.ports.as_array()?.iter().find(|port| port["name"] == name)?["containerPort"].as_u64()
    }
}

fn is_redirected(handler: &Value) -> bool {
    handler["path"]
        .as_str()
        .is_some_and(|path| path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/"))
}

/// Puts back the probes that an earlier injection redirected.
pub(crate) fn restore(pod: &mut Value, recorded: &str, warnings: &mut Vec<String>) {
    let probers: Probers = match serde_json::from_str(recorded) {
        Ok(probers) => probers,
        Err(error) => {
            warnings.push(format!(
                "container {}: recorded probes: {error}; redirected probes stay as they are",
                container::PROXY
            ));
            return;
        }
    };
    for list in ["initContainers", "containers"] {
        for container in array(pod, list).into_iter().flatten() {
            for (field, _) in PROBES {
                restore_handler(container, field, &probers);
            }
            let Some(lifecycle) = container.get_mut("lifecycle") else { continue };
            for (field, _) in HOOKS {
                restore_handler(lifecycle, field, &probers);
            }
        }
    }
}

/// A list of the pod's spec, if it is there (indexing would make it).
fn array<'a>(pod: &'a mut Value, list: &str) -> Option<&'a mut Vec<Value>> {
    pod.get_mut("spec")?.get_mut(list)?.as_array_mut()
}

fn restore_handler(parent: &mut Value, field: &str, probers: &Probers) {
    let Some(Value::Object(holder)) = parent.get_mut(field) else { return };
    let recorded = holder
        .get("httpGet")
        .filter(|handler| is_redirected(handler))
        .and_then(|handler| probers.get(handler["path"].as_str()?));
    let Some(record) = recorded else { return };
    if let Some(kind) = HANDLERS.into_iter().find(|kind| record[*kind].is_object()) {
        holder.remove("httpGet");
        holder.insert(kind.to_owned(), record[kind].clone());
    }
}

#[cfg(test)]
mod tests {
    use super::{restore, rewrite};
    use serde_json::{Value, json};

    fn pod() -> Value {
        json!({"spec": {"containers": [{
            "name": "app", "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": {
                "httpGet": {"port": "web", "path": "/ok", "scheme": "HTTPS", "host": "h",
                            "httpHeaders": [{"name": "A", "value": "b"}]},
                "timeoutSeconds": 5, "periodSeconds": 3,
            },
            "livenessProbe": {"grpc": {"port": 9000, "service": "s"}},
            "startupProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"tcpSocket": {"port": "81"}}, "postStart": {"sleep": {"seconds": 1}}},
        }]}})
    }

    #[test]
    fn probes_are_redirected_and_recorded() {
        let mut pod = pod();
        let probers = rewrite(&mut pod, 15020, &mut Vec::new());
        let app = &pod["spec"]["containers"][0];
        assert_eq!(
            app["readinessProbe"],
            json!({
                "httpGet": {"port": 15020, "path": "/app-health/app/readyz", "scheme": "HTTP",
                            "host": "h", "httpHeaders": [{"name": "A", "value": "b"}]},
                "timeoutSeconds": 5, "periodSeconds": 3,
            })
        );
        assert_eq!(
            app["lifecycle"]["preStop"],
            json!({"httpGet": {"path": "/app-lifecycle/app/prestopz", "port": 15020}})
        );
        assert_eq!(app["startupProbe"], json!({"exec": {"command": ["true"]}}));
        assert_eq!(
            json!(probers),
            json!({
                "/app-health/app/readyz": {
                    "httpGet": {"port": 8080, "path": "/ok", "scheme": "HTTPS", "host": "h",
                                "httpHeaders": [{"name": "A", "value": "b"}]},
                    "timeoutSeconds": 5,
                },
                "/app-health/app/livez": {"grpc": {"port": 9000, "service": "s"}},
                "/app-lifecycle/app/prestopz": {"tcpSocket": {"port": 81}},
            })
        );
    }

    #[test]
    fn restoring_and_redirecting_again_changes_nothing() {
        let mut once = pod();
        let probers = rewrite(&mut once, 15020, &mut Vec::new());
        let mut again = once.clone();
        restore(&mut again, &json!(probers).to_string(), &mut Vec::new());
        assert_eq!(again["spec"]["containers"][0]["livenessProbe"]["grpc"]["port"], 9000);
        assert_eq!(rewrite(&mut again, 15020, &mut Vec::new()), probers);
        assert_eq!(again, once);
    }

    #[test]
    fn an_unknown_named_port_is_left_with_a_warning() {
        let mut pod = pod();
        pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = json!("nope");
        let before = pod["spec"]["containers"][0]["readinessProbe"].clone();
        let mut warnings = Vec::new();
        let probers = rewrite(&mut pod, 15020, &mut warnings);
        assert_eq!(pod["spec"]["containers"][0]["readinessProbe"], before);
        assert!(!probers.contains_key("/app-health/app/readyz"));
        assert!(warnings[0].contains("readinessProbe.httpGet.port"), "{warnings:?}");
    }
}
