//! What decides about injection, read from a cluster or from files: webhook configurations, namespaces,
//! and the settings of each revision.
//!
//! Reads and puts together; every decision is made in the webhook's library.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use lateen_api::names::label;
use lateen_webhook::InjectionSettings;
use lateen_webhook::admission::NamespaceMetadata;
use lateen_webhook::explain::Surroundings;
use lateen_webhook::hooks::{HOOK_SUFFIX, webhook_configuration};
use lateen_webhook::settings::{Options, Sources};
use lateen_webhook::stream;
use serde_json::Value;

use crate::cluster::{CONFIG_MAP, Live, MUTATING_WEBHOOK, NAMESPACE};

/// Namespace of a control plane that is called by a URL, or that files do not name.
const SYSTEM: &str = "istio-system";

/// Files instead of a cluster, and what holds where they do not say it themselves.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Kubernetes objects instead of a cluster, YAML or JSON; `-` is standard input
    #[arg(
        short = 'f',
        long = "filename",
        value_name = "FILE",
        conflicts_with_all = ["kubeconfig", "context"],
        help_heading = "Files"
    )]
    pub(crate) files: Vec<PathBuf>,
    /// Helm values of the injector; else ConfigMap istio-sidecar-injector of the files, else Lateen's
    #[arg(long, value_name = "FILE", requires = "files", help_heading = "Files")]
    values: Option<PathBuf>,
    /// Mesh configuration; else ConfigMap istio of the files, else the default
    #[arg(long, value_name = "FILE", requires = "files", help_heading = "Files")]
    mesh_config: Option<PathBuf>,
    /// Revision of the control plane, where the files have no MutatingWebhookConfiguration
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        requires = "files",
        help_heading = "Files"
    )]
    revision: String,
}

/// The documents of the files.
pub(crate) fn documents(given: &Files) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for file in &given.files {
        let text = if file == Path::new("-") {
            std::io::read_to_string(std::io::stdin()).context("standard input")?
        } else {
            std::fs::read_to_string(file).with_context(|| file.display().to_string())?
        };
        let parsed = stream::parse(&text).with_context(|| file.display().to_string())?;
        all.extend(parsed.iter().flat_map(stream::items).cloned());
    }
    Ok(all)
}

/// What decides about the objects among some documents.
pub(crate) fn of_documents(documents: &[Value], given: &Files) -> anyhow::Result<Surroundings> {
    let mut configurations: Vec<Value> = documents
        .iter()
        .filter(|it| it["kind"] == MUTATING_WEBHOOK.kind && injects(it))
        .cloned()
        .collect();
    let (values, mesh) = (single(given.values.as_deref())?, single(given.mesh_config.as_deref())?);
    let read = |namespace: &str, revision: &str| -> anyhow::Result<InjectionSettings> {
        let find = |name: &str| {
            let name = revised(name, revision);
            documents.iter().find(|it| {
                it["kind"] == CONFIG_MAP.kind
                    && it["metadata"]["name"] == name.as_str()
                    && it["metadata"]["namespace"].as_str().unwrap_or(SYSTEM) == namespace
            })
        };
        // A file of values stands for the whole ConfigMap.
        let (values, config) = match &values {
            Some(values) => (Some(values.clone()), None),
            None => {
                let map = find("istio-sidecar-injector");
                (part(map, "values")?, part(map, "config")?)
            }
        };
        let mesh = match &mesh {
            Some(mesh) => Some(mesh.clone()),
            None => part(find("istio"), "mesh")?,
        };
        let sources =
            Sources { values: values.as_ref(), config: config.as_ref(), mesh: mesh.as_ref() };
        settings(sources, revision)
    };
    if configurations.is_empty() {
        configurations.push(webhook_configuration(&read(SYSTEM, &given.revision)?, b"files"));
    }
    let settings = control_planes(&configurations)
        .into_iter()
        .map(|(revision, namespace)| {
            let read = read(&namespace, &revision).map_err(|error| format!("{error:#}"));
            (revision, read)
        })
        .collect();
    Ok(Surroundings { configurations, namespaces: stream::namespaces(documents), settings })
}

/// What decides in a cluster; `namespace`: the one that matters, else all.
pub(crate) async fn of_cluster(
    live: &Live,
    namespace: Option<&str>,
) -> anyhow::Result<Surroundings> {
    let mut configurations = live.list(&MUTATING_WEBHOOK, None, None).await?;
    configurations.retain(injects);
    let namespaces = match namespace {
        Some(name) => {
            let found = live.get(&NAMESPACE, None, name).await?;
            vec![found.with_context(|| {
                format!("there is no namespace {name}; see: kubectl get namespaces")
            })?]
        }
        None => live.list(&NAMESPACE, None, None).await?,
    };
    let namespaces: BTreeMap<String, NamespaceMetadata> = stream::namespaces(&namespaces);
    let mut settings = BTreeMap::new();
    for (revision, namespace) in control_planes(&configurations) {
        let read = read(live, &namespace, &revision).await;
        settings.insert(revision, read.map_err(|error| format!("{error:#}")));
    }
    Ok(Surroundings { configurations, namespaces, settings })
}

/// Settings of a revision from its ConfigMaps, as lateend reads them.
async fn read(live: &Live, namespace: &str, revision: &str) -> anyhow::Result<InjectionSettings> {
    let injector = revised("istio-sidecar-injector", revision);
    let injector = live.get(&CONFIG_MAP, Some(namespace), &injector).await?;
    let mesh = live.get(&CONFIG_MAP, Some(namespace), &revised("istio", revision)).await?;
    let (values, config) = (part(injector.as_ref(), "values")?, part(injector.as_ref(), "config")?);
    let mesh = part(mesh.as_ref(), "mesh")?;
    let sources = Sources { values: values.as_ref(), config: config.as_ref(), mesh: mesh.as_ref() };
    settings(sources, revision)
}

fn settings(sources: Sources<'_>, revision: &str) -> anyhow::Result<InjectionSettings> {
    let options = Options { revision: revision.to_owned(), ..Options::default() };
    let settings = InjectionSettings::read(sources, options);
    settings.with_context(|| format!("settings of revision {revision}"))
}

/// The document under a key of a ConfigMap.
fn part(map: Option<&Value>, key: &str) -> anyhow::Result<Option<Value>> {
    let Some(map) = map else { return Ok(None) };
    let Some(text) = map["data"][key].as_str() else { return Ok(None) };
    let name = map["metadata"]["name"].as_str().unwrap_or_default();
    one(text).with_context(|| format!("ConfigMap {name}, key {key}")).map(Some)
}

fn single(file: Option<&Path>) -> anyhow::Result<Option<Value>> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    one(&text).with_context(|| file.display().to_string()).map(Some)
}

fn one(text: &str) -> anyhow::Result<Value> {
    let mut found = stream::parse(text)?;
    ensure!(found.len() <= 1, "one document is expected");
    let value = found.pop().unwrap_or_else(|| serde_json::json!({}));
    ensure!(value.is_object(), "a map is expected");
    Ok(value)
}

/// Whether a webhook configuration has a hook that injects.
fn injects(configuration: &Value) -> bool {
    let hooks = configuration["webhooks"].as_array().into_iter().flatten();
    hooks.into_iter().any(|hook| hook["name"].as_str().is_some_and(|it| it.ends_with(HOOK_SUFFIX)))
}

/// Revisions that are called, each with the namespace of its control plane.
fn control_planes(configurations: &[Value]) -> BTreeSet<(String, String)> {
    let hooks = configurations.iter().flat_map(|configuration| {
        let revision =
            configuration["metadata"]["labels"][label::REVISION].as_str().unwrap_or("default");
        let hooks = configuration["webhooks"].as_array().into_iter().flatten();
        hooks.map(move |hook| (revision, hook))
    });
    hooks
        .map(|(revision, hook)| {
            let namespace = hook["clientConfig"]["service"]["namespace"].as_str();
            (revision.to_owned(), namespace.unwrap_or(SYSTEM).to_owned())
        })
        .collect()
}

/// Name of an object of a revision, such as `istio` or `istio-canary`.
fn revised(name: &str, revision: &str) -> String {
    if revision == "default" { name.to_owned() } else { format!("{name}-{revision}") }
}
