//! What depends on the pod as a whole: order of containers, application probes, metrics, status.
//!
//! Runs when all pieces and the user's containers are in place. Must not know templates.

use lateen_api::names::{annotation, container, env, label};
use serde_json::{Map, Value};

use super::annotations::parse_bool;
use super::assembly::{Assembly, ProxyOf};
use super::facts::Facts;
use super::{InjectError, probes, prometheus, resources};
use crate::kube::Status;

impl Assembly {
    /// What depends on the pod as a whole.
    pub(super) fn finish(&mut self, facts: &Facts<'_>) -> Result<(), InjectError> {
        if self.proxy == ProxyOf::User {
            self.place_in_mesh(facts);
        }
        self.order(facts);
        if self.proxy != ProxyOf::Nobody {
            self.rewrite_probes(facts);
            self.warnings.extend(resources::warning(facts));
        }
        self.merge_metrics(facts)?;
        let webhook = &facts.settings.values.sidecar_injector_webhook;
        let secure = facts.config.metadata().remove("ENVOY_SECURE_MERGED_METRICS_PORT");
        let status = self.status(facts);
        let annotations = &mut self.annotations;
        for (key, value) in &webhook.injected_annotations {
            annotations.insert(key.clone(), Value::from(value.as_str()));
        }
        if let Some(port) = secure {
            annotations.insert(annotation::SECURE_METRICS_PORT.to_owned(), Value::from(port));
        }
        annotations.insert(annotation::STATUS.to_owned(), Value::from(status));
        Ok(())
    }

    /// Tells a proxy that a template of the user made where it is: what the webhook's URL, the
    /// settings or the pod's label say wins over what the template wrote.
    fn place_in_mesh(&mut self, facts: &Facts<'_>) {
        let cluster = &facts.settings.values.global.multi_cluster.cluster_name;
        if !cluster.is_empty() {
            self.set_proxy_variable(env::META_CLUSTER_ID, cluster);
        }
        for (name, value) in &facts.context.environment {
            self.set_proxy_variable(name, value);
        }
        if let Some(network) = facts.network() {
            self.set_proxy_variable(env::META_NETWORK, network);
            self.labels.insert(label::NETWORK.to_owned(), Value::from(network));
        }
    }

    /// Puts the containers in the order in which the kubelet must start them.
    fn order(&mut self, facts: &Facts<'_>) {
        let native = self.native;
        let rank_init = |element: &Value| match element["name"].as_str().unwrap_or_default() {
            container::VALIDATION => 0,
            container::INIT if native => 0,
            container::PROXY => 1,
            container::INIT => 3,
            _ => 2,
        };
        let hold = facts.holds;
        let rank = |element: &Value| match element["name"].as_str() {
            Some(container::PROXY) if hold => 0,
            Some(container::PROXY) => 2,
            _ => 1,
        };
        if let Some(Value::Array(list)) = self.spec.get_mut("initContainers") {
            list.sort_by_key(rank_init);
        }
        if let Some(Value::Array(list)) = self.spec.get_mut("containers") {
            list.sort_by_key(rank);
        }
    }

    fn rewrite_probes(&mut self, facts: &Facts<'_>) {
        let webhook = &facts.settings.values.sidecar_injector_webhook;
        let wanted = self
            .annotations
            .get(annotation::REWRITE_PROBES)
            .and_then(Value::as_str)
            .and_then(parse_bool)
            .unwrap_or(webhook.rewrite_app_http_probe);
        if !wanted {
            self.beyond.push(Value::from("probes as they are"));
            return;
        }
        let mut pod = Value::Object(Map::new());
        pod["spec"] = Value::Object(std::mem::take(&mut self.spec));
        let probers = probes::rewrite(&mut pod, facts.probe_port, &mut self.warnings);
        if let Value::Object(spec) = pod["spec"].take() {
            self.spec = spec;
        }
        if !probers.is_empty() {
            let text = serde_json::to_string(&probers).unwrap_or_default();
            self.set_proxy_variable(env::APP_PROBERS, &text);
        }
    }

    fn merge_metrics(&mut self, facts: &Facts<'_>) -> Result<(), InjectError> {
        let port = facts.config.status_port();
        let mesh_merges = facts.settings.mesh.prometheus_merge;
        // Also what a template of the user says of it.
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let annotations = self.annotations.iter();
        let annotations =
            annotations.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect();
        let Some(scrape) = prometheus::merge(&annotations, mesh_merges, port)? else {
            self.beyond.push(Value::from("metrics as they are"));
            return Ok(());
        };
        if !scrape.is_empty() {
            let text = serde_json::to_string(&scrape).unwrap_or_default();
            self.set_proxy_variable(env::PROMETHEUS_ANNOTATIONS, &text);
        }
        let annotations = &mut self.annotations;
        for (key, value) in [
            (annotation::PROMETHEUS_SCRAPE, "true".to_owned()),
            (annotation::PROMETHEUS_PATH, prometheus::MERGED_PATH.to_owned()),
            (annotation::PROMETHEUS_PORT, port.to_string()),
        ] {
            annotations.insert(key.to_owned(), Value::from(value));
        }
        Ok(())
    }

    /// Sets a variable of the proxy, in its place or at the end.
    fn set_proxy_variable(&mut self, name: &str, value: &str) {
        let variable = serde_json::json!({"name": name, "value": value});
        for list in ["initContainers", "containers"] {
            let Some(Value::Array(elements)) = self.spec.get_mut(list) else { continue };
            let Some(proxy) = elements.iter_mut().find(|e| e["name"] == container::PROXY) else {
                continue;
            };
            match proxy.get_mut("env") {
                Some(Value::Array(variables)) => {
                    match variables.iter_mut().find(|known| known["name"] == name) {
                        Some(known) => *known = variable,
                        None => variables.push(variable),
                    }
                }
                _ => proxy["env"] = Value::Array(vec![variable]),
            }
            return;
        }
    }

    /// The status annotation.
    fn status(&self, facts: &Facts<'_>) -> String {
        let some = |names: &[String]| (!names.is_empty()).then(|| names.to_vec());
        let in_order = |list: &str, names: &[String]| {
            let elements = self.spec.get(list).and_then(Value::as_array);
            let present: Vec<String> = elements
                .into_iter()
                .flatten()
                .filter_map(|element| element["name"].as_str())
                .filter(|name| names.iter().any(|injected| injected == name))
                .map(str::to_owned)
                .collect();
            some(&present)
        };
        let status = Status {
            init_containers: in_order("initContainers", &self.injected_init),
            containers: in_order("containers", &self.injected),
            volumes: in_order("volumes", &self.volumes),
            image_pull_secrets: some(&self.pull_secrets),
            revision: facts.settings.revision.clone(),
        };
        serde_json::to_string(&status).unwrap_or_default()
    }
}
