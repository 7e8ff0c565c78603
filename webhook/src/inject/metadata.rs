//! Labels and annotations of an injected pod.
//!
//! What the user set stays; the rest is what dashboards, Prometheus, kubectl and the CNI plugin
//! look at. Must not know containers.

use std::collections::BTreeMap;

use lateen_api::names::{annotation, label};
use serde_json::{Value, json};

use super::facts::Facts;
use super::proxy_config::Mode;

/// Longest value of a label.
const LABEL_LIMIT: usize = 63;

/// Labels of every proxy.
pub(crate) fn common_labels(facts: &Facts<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let first = |keys: &[&str], default: &str| {
        let found = keys.iter().find_map(|key| facts.labels.get(*key).filter(|v| !v.is_empty()));
        found.cloned().unwrap_or_else(|| default.to_owned())
    };
    let name = first(&[label::CANONICAL_NAME, label::KUBE_NAME, label::APP], &facts.workload.name);
    let revision =
        first(&[label::CANONICAL_REVISION, label::KUBE_VERSION, label::VERSION], "latest");
    labels.insert(label::CANONICAL_NAME.to_owned(), truncated(&name));
    labels.insert(label::CANONICAL_REVISION.to_owned(), revision);
    if let Some(network) = facts.network() {
        labels.insert(label::NETWORK.to_owned(), network.to_owned());
    }
    labels
}

/// Labels of a sidecar.
pub(crate) fn sidecar_labels(facts: &Facts<'_>) -> BTreeMap<String, String> {
    let mut labels = common_labels(facts);
    let mode = facts.labels.get(label::TLS_MODE).map_or("istio", String::as_str);
    labels.insert(label::TLS_MODE.to_owned(), mode.to_owned());
    let metadata = facts.config.metadata();
    if metadata.get("ISTIO_META_ENABLE_HBONE").is_some_and(|value| value == "true") {
        labels.entry(label::TUNNEL.to_owned()).or_insert_with(|| "http".to_owned());
    }
    labels
}

/// A label value of at most 63 characters that ends in a letter or digit.
fn truncated(value: &str) -> String {
    let short: String = value.chars().take(LABEL_LIMIT).collect();
    if short.len() == value.len() {
        return short;
    }
    short.trim_end_matches(['-', '_', '.']).to_owned()
}

/// Annotations of every proxy.
pub(crate) fn common_annotations(facts: &Facts<'_>) -> BTreeMap<String, String> {
    [(label::REVISION.to_owned(), facts.settings.revision.clone())].into()
}

/// Annotations of a pod with applications beside the proxy.
pub(crate) fn application_annotations(facts: &Facts<'_>) -> BTreeMap<String, String> {
    let mut annotations = common_annotations(facts);
    if let Some(first) = facts.app_containers.first() {
        for key in [annotation::DEFAULT_CONTAINER, annotation::DEFAULT_LOGS_CONTAINER] {
            if !facts.annotations.contains_key(key) {
                annotations.insert(key.to_owned(), first.clone());
            }
        }
    }
    annotations
}

/// Annotations of a sidecar.
pub(crate) fn sidecar_annotations(facts: &Facts<'_>) -> BTreeMap<String, String> {
    let mut annotations = application_annotations(facts);
    let cni = &facts.settings.values.pilot.cni;
    if cni.enabled && facts.mode != Mode::None {
        let effective = facts.redirect.annotations(facts.mode.name()).into_iter();
        annotations.extend(effective.map(|(key, value)| (key.to_owned(), value)));
        if cni.provider == "multus" {
            let known = facts.annotations.get(annotation::CNCF_NETWORKS);
            let networks = with_network(known.map_or("", String::as_str));
            annotations.insert(annotation::CNCF_NETWORKS.to_owned(), networks);
        }
    }
    annotations
}

/// Adds the CNI plugin's network to multus' list, which is JSON or comma separated.
fn with_network(networks: &str) -> String {
    const NAMESPACE: &str = "default";
    const NAME: &str = "istio-cni";
    let flat = format!("{NAMESPACE}/{NAME}");
    if let Ok(Value::Array(mut list)) = serde_json::from_str(networks) {
        let ours = |entry: &Value| entry["name"] == NAME || entry["name"] == flat.as_str();
        if !list.iter().any(ours) {
            list.push(json!({"name": NAME, "namespace": NAMESPACE}));
        }
        return Value::Array(list).to_string();
    }
    if networks.trim().is_empty() {
        flat
    } else if networks.split(',').any(|network| network.trim() == flat) {
        networks.to_owned()
    } else {
        format!("{networks}, {flat}")
    }
}

#[cfg(test)]
mod tests {
    use super::{truncated, with_network};

    #[test]
    fn networks_are_added_once_in_their_own_form() {
        for (before, after) in [
            ("", "default/istio-cni"),
            ("alt_cni", "alt_cni, default/istio-cni"),
            ("alt_cni, default/istio-cni", "alt_cni, default/istio-cni"),
            (r#"[{"name":"m"}]"#, r#"[{"name":"m"},{"name":"istio-cni","namespace":"default"}]"#),
        ] {
            assert_eq!(with_network(before), after);
            assert_eq!(with_network(after), after);
        }
    }

    #[test]
    fn labels_are_cut_to_what_is_valid() {
        assert_eq!(truncated(&"a".repeat(70)).len(), 63);
        assert_eq!(truncated(&format!("{}-._{}", "a".repeat(60), "b".repeat(9))), "a".repeat(60));
        assert_eq!(truncated("short"), "short");
    }
}
