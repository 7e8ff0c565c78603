//! The one file in the control plane's configuration directory that holds everything in force.
//!
//! One file, replaced by a rename, so that whatever is applied together is seen together. Each
//! object is a document of its own on one line. Rendering is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use lateen_api::core::{Pod, Service};
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::endpoints;
use super::objects::{Objects, Role};

/// Name of the file.
pub const FILE: &str = "cluster.yaml";
/// Name of the ConfigMap that changes with every version of the file.
const MARKER: &str = "lateen-lab-version";

/// The text of the file: objects, pods, and the endpoints that follow from them.
#[must_use]
pub fn render(objects: &Objects, pods: &[Value]) -> String {
    let mut text = String::new();
    // What a Secret holds goes to the pods that mount it and, where a Gateway names it, to the control
    // plane; nowhere else.
    let named = gateway_secrets(objects);
    let shown = objects.all().filter(|(key, value)| match key.role {
        Role::Pod => false,
        Role::Secret => value["metadata"]["name"].as_str().is_some_and(|it| named.contains(it)),
        _ => true,
    });
    for (_, value) in shown {
        document(&mut text, value);
    }
    let typed: Vec<Pod> = pods.iter().filter_map(|pod| Pod::deserialize(pod).ok()).collect();
    for service in objects.typed::<Service>(Role::Service) {
        for slice in endpoints::slices(&service, typed.iter()) {
            document(&mut text, &slice);
        }
    }
    for pod in pods {
        document(&mut text, pod);
    }
    text
}

/// Names of the Secrets that Gateways refer to, with those of their authorities.
fn gateway_secrets(objects: &Objects) -> BTreeSet<String> {
    let istio = objects.all().filter(|(key, _)| key.role == Role::Istio);
    let gateways = istio.filter(|(_, value)| value["kind"] == "Gateway");
    let servers = gateways.filter_map(|(_, value)| value["spec"]["servers"].as_array()).flatten();
    let mut names = BTreeSet::new();
    for tls in servers.map(|server| &server["tls"]) {
        let several = tls["credentialNames"].as_array().into_iter().flatten();
        let single = [&tls["credentialName"], &tls["caCertCredentialName"]];
        for name in several.chain(single).filter_map(Value::as_str) {
            names.extend([name.to_owned(), format!("{name}-cacert")]);
        }
    }
    names
}

fn document(text: &mut String, value: &Value) {
    text.push_str("---\n");
    text.push_str(&value.to_string());
    text.push('\n');
}

/// The same text with a mark by which each version differs from the one before for every reader.
#[must_use]
pub fn marked(text: &str, version: u64) -> String {
    let marker = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": MARKER, "namespace": "kube-system"},
        "data": {"version": version.to_string()},
    });
    format!("{text}---\n{marker}\n")
}

/// Replaces `folder/name` by a file with `text`; what is unfinished lies in `beside`.
///
/// # Errors
/// When it cannot be written.
pub fn replace(beside: &Path, folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let mut unfinished = tempfile::NamedTempFile::new_in(beside)?;
    unfinished.write_all(text)?;
    unfinished.persist(folder.join(name)).map_err(|error| error.error)?;
    Ok(())
}

/// The addresses and port of the endpoints of a Service, for those who call it: first ready one.
///
/// # Errors
/// When there is no such Service, port or endpoint.
pub fn resolve(
    objects: &Objects,
    pods: &[Pod],
    (namespace, name, port): (&str, &str, u16),
) -> Result<std::net::SocketAddr, String> {
    let services: Vec<Service> = objects.typed(Role::Service).collect();
    let service = services
        .iter()
        .find(|it| it.metadata.name == name && it.metadata.namespace_or_empty() == namespace)
        .ok_or_else(|| format!("there is no Service {namespace}/{name}"))?;
    let wanted = service
        .spec
        .ports
        .iter()
        .find(|it| it.port == port)
        .ok_or_else(|| format!("Service {namespace}/{name} has no port {port}"))?;
    let wanted = wanted.name.as_deref().unwrap_or_default();
    let manual = objects.of(Role::EndpointSlice).map(|(_, value)| value.as_ref().clone());
    let slices = endpoints::slices(service, pods.iter()).into_iter().chain(manual);
    let of_service = |slice: &Value| {
        let metadata = &slice["metadata"];
        let labels: BTreeMap<String, String> =
            serde_json::from_value(metadata["labels"].clone()).unwrap_or_default();
        let owner = labels.get(lateen_api::names::label::SERVICE_NAME).map(String::as_str);
        metadata["namespace"] == namespace && owner == Some(name)
    };
    let found = slices.filter(of_service).find_map(|slice| {
        let ports = slice["ports"].as_array()?;
        let port = ports.iter().find(|it| it["name"].as_str().unwrap_or_default() == wanted)?;
        let port = u16::try_from(port["port"].as_u64()?).ok()?;
        let ready = slice["endpoints"]
            .as_array()?
            .iter()
            .find(|endpoint| endpoint["conditions"]["ready"] != false)?;
        let address: std::net::IpAddr = ready["addresses"][0].as_str()?.parse().ok()?;
        Some((address, port).into())
    });
    found.ok_or_else(|| format!("Service {namespace}/{name} has no endpoint that is ready"))
}

#[cfg(test)]
mod tests {
    use super::{marked, render, replace, resolve};
    use crate::api_server::builtin;
    use crate::api_server::objects::{Key, Role};
    use lateen_api::stream;
    use serde_json::json;

    fn cluster() -> crate::api_server::objects::Objects {
        builtin::objects(&["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], "t")
    }

    #[test]
    fn the_file_reads_back() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "a", "args": ["---\n---", "ä: \"x\""]}]},
        });
        let text = marked(&render(&cluster(), std::slice::from_ref(&pod)), 7);
        let read = stream::parse("cluster.yaml", &text);
        assert!(read.findings.is_empty(), "{:?}", read.findings);
        assert!(read.objects.iter().any(|object| object.value == pod));
        let marker = read.objects.last().unwrap();
        assert_eq!(marker.value["data"]["version"], "7");
    }

    #[test]
    fn secrets_are_shown_where_a_gateway_names_them() {
        let mut objects = cluster();
        for name in ["named", "named-cacert", "other"] {
            let value = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "n"},
            });
            objects.put(Key::core(Role::Secret, "Secret", "n", name), value);
        }
        let secrets = |objects: &crate::api_server::objects::Objects| {
            let text = render(objects, &[]);
            let read = stream::parse("cluster.yaml", &text).objects;
            let secrets = read.into_iter().filter(|it| it.kind == "Secret");
            secrets.map(|it| it.metadata.name).collect::<Vec<_>>()
        };
        assert!(secrets(&objects).is_empty());
        let gateway = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": "g", "namespace": "shop"},
            "spec": {"servers": [{"tls": {"credentialName": "named"}}]},
        });
        objects.put(Key::core(Role::Istio, "Gateway", "shop", "g"), gateway);
        assert_eq!(secrets(&objects), ["named", "named-cacert"]);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config");
        std::fs::create_dir(&config).unwrap();
        for text in ["one", "two"] {
            replace(folder.path(), &config, "a", text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(config.join("a")).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(&config).unwrap().count(), 1);
    }

    #[test]
    fn the_control_plane_is_found_through_its_service() {
        let objects = cluster();
        let at = |name: &str, port: u16| resolve(&objects, &[], ("istio-system", name, port));
        assert_eq!(at("istiod", 443).unwrap(), "10.244.0.1:15017".parse().unwrap());
        assert!(at("istiod", 1).unwrap_err().contains("no port 1"));
        assert!(at("other", 1).unwrap_err().contains("no Service istio-system/other"));
    }
}
