//! A live cluster: how it is found, and objects read from it as they are.
//!
//! Objects stay untyped, so that what decides about them sees every field. Knows nothing of what is
//! done with them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::api::{DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Config};
use serde_json::Value;

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Objects of one answer.
const PAGE: u32 = 500;

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// How to reach the cluster; else $KUBECONFIG, else ~/.kube/config
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; else its current one
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) context: Option<String>,
}

/// A kind of objects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    group: &'static str,
    version: &'static str,
    pub(crate) kind: &'static str,
    plural: &'static str,
    /// What people write.
    short: &'static [&'static str],
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
) -> Kind {
    Kind { group, version, kind, plural, short }
}

pub(crate) static POD: Kind = kind("", "v1", "Pod", "pods", &["po"]);
pub(crate) static NAMESPACE: Kind = kind("", "v1", "Namespace", "namespaces", &["ns"]);
pub(crate) static SERVICE: Kind = kind("", "v1", "Service", "services", &["svc"]);
pub(crate) static CONFIG_MAP: Kind = kind("", "v1", "ConfigMap", "configmaps", &["cm"]);
pub(crate) static MUTATING_WEBHOOK: Kind = kind(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
    &[],
);
pub(crate) static DISRUPTION_BUDGET: Kind =
    kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", &["pdb"]);
/// Kinds with a pod in them.
pub(crate) static WORKLOADS: [Kind; 7] = [
    kind("apps", "v1", "Deployment", "deployments", &["deploy"]),
    kind("apps", "v1", "StatefulSet", "statefulsets", &["sts"]),
    kind("apps", "v1", "DaemonSet", "daemonsets", &["ds"]),
    kind("apps", "v1", "ReplicaSet", "replicasets", &["rs"]),
    kind("", "v1", "ReplicationController", "replicationcontrollers", &["rc"]),
    kind("batch", "v1", "Job", "jobs", &[]),
    kind("batch", "v1", "CronJob", "cronjobs", &["cj"]),
];

/// The kind of a word that people write: `deployment`, `deployments`, `deploy`.
pub(crate) fn kind_of(word: &str) -> Option<&'static Kind> {
    let word = word.to_lowercase();
    let mut all = [&POD, &NAMESPACE].into_iter().chain(&WORKLOADS);
    all.find(|kind| {
        kind.kind.to_lowercase() == word
            || kind.plural == word
            || kind.short.contains(&word.as_str())
    })
}

/// A cluster that can be asked.
#[derive(Clone)]
pub(crate) struct Live {
    client: Client,
    /// Namespace of the context.
    pub(crate) namespace: String,
}

impl Connection {
    /// The cluster. Nothing is asked of it yet.
    pub(crate) async fn open(&self) -> anyhow::Result<Live> {
        let options =
            KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let parsed = Kubeconfig::read_from(file)
                    .with_context(|| format!("--kubeconfig {}", file.display()))?;
                Config::from_custom_kubeconfig(parsed, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let mut config =
            config.context("no cluster is known; name one: --kubeconfig FILE, --context NAME")?;
        config.connect_timeout = Some(PATIENCE);
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Live { client, namespace })
    }
}

impl Live {
    /// The objects of a kind, of a namespace or of all.
    pub(crate) fn api(&self, kind: &Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// An object, if there is one.
    pub(crate) async fn get(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> anyhow::Result<Option<Value>> {
        let found = self.api(kind, namespace).get_opt(name).await;
        let found = found.with_context(|| {
            let namespace = namespace.map(|it| format!("{it}/")).unwrap_or_default();
            format!("{} {namespace}{name} cannot be read", kind.kind)
        })?;
        found.map(|object| untyped(kind, object)).transpose()
    }

    /// All objects of a kind, page by page; `selector` is of labels.
    pub(crate) async fn list(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        selector: Option<&str>,
    ) -> anyhow::Result<Vec<Value>> {
        let api = self.api(kind, namespace);
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        params.label_selector = selector.map(str::to_owned);
        let mut all = Vec::new();
        loop {
            let page = api.list(&params).await;
            let page = page.with_context(|| format!("{} cannot be listed", kind.plural))?;
            for object in page.items {
                all.push(untyped(kind, object)?);
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
    }
}

/// The elements of a list do not say their kind.
pub(crate) fn untyped(kind: &Kind, object: DynamicObject) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(object)?;
    let version = kind.version;
    value["kind"] = Value::from(kind.kind);
    value["apiVersion"] = Value::from(match kind.group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    });
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn kinds_are_known_by_what_people_write() {
        for (word, kind) in
            [("deploy", "Deployment"), ("Pods", "Pod"), ("ns", "Namespace"), ("cronjob", "CronJob")]
        {
            assert_eq!(kind_of(word).unwrap().kind, kind);
        }
        assert_eq!(kind_of("service"), None);
    }
}
