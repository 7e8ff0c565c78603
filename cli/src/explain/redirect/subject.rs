//! Whose rules are asked about: a pod of a cluster or of files, or flags of `lateen-init`.
//!
//! Finds the settings that decide, as what sets the rules would: an `istio-init` container by its
//! arguments, else the CNI plugin by the pod.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use lateen_api::names::{container, env};
use lateen_interception::Settings;
use lateen_interception::settings::flags::{Flags, Surroundings};
use lateen_interception::settings::pod::{self, Said};
use lateen_interception::settings::{DnsCapture, Setting};
use lateen_webhook::explain::explain;
use serde_json::Value;

use super::Question;
use crate::check_inject::subjects;
use crate::cluster::{Live, SERVICE};
use crate::surroundings;

/// Stands for the name servers of a pod.
const SOME_SERVER: &str = "nameserver 192.0.2.53\n";

/// Whose rules are asked about.
pub(super) struct Subject {
    /// What people call it.
    pub(super) name: String,
    /// The settings of its rules; `None` where it has no rules.
    pub(super) settings: Option<Settings>,
    /// Where the settings are from, or why there are none.
    pub(super) origin: String,
    /// What in the settings was not understood.
    pub(super) warnings: Vec<String>,
    pod: Value,
    says: Says,
    namespace: String,
    services: Services,
}

/// Who says the settings.
#[derive(Debug, PartialEq, Eq)]
enum Says {
    /// Fields of the pod.
    Pod,
    /// Flags.
    Flags,
}

/// Where Services are looked up.
enum Services {
    Nowhere,
    Documents(Vec<Value>),
    Cluster(Live),
}

/// A pod of a cluster, or what a workload's pods would be.
pub(super) async fn live(question: &Question) -> anyhow::Result<Subject> {
    let pod = question.pod.as_deref();
    let pod = pod.context("name the pod: --pod POD, or -f FILE, or -- and flags of lateen-init")?;
    let live = question.connection.open().await?;
    let namespace = question.namespace.clone().unwrap_or_else(|| live.namespace.clone());
    let found = subjects::live(&live, &namespace, Some(pod), None).await?;
    let [found] = <[_; 1]>::try_from(found)
        .map_err(|_| anyhow::anyhow!("{pod} is not one pod; name a pod or a workload"))?;
    let pod = if found.exists {
        found.pod.clone()
    } else {
        let around = surroundings::of_cluster(&live, Some(&found.namespace)).await?;
        injected(&found, &around)
    };
    of_pod(&found, pod, Services::Cluster(live))
}

/// The pod of files.
pub(super) fn of_files(question: &Question) -> anyhow::Result<Subject> {
    let documents = surroundings::documents(&question.given)?;
    let around = surroundings::of_documents(&documents, &question.given)?;
    let namespace = question.namespace.as_deref();
    let found = subjects::of_documents(&documents, namespace, question.pod.as_deref())?;
    let found = match found.as_slice() {
        [found] => found,
        several => {
            let names = several.iter().map(|it| format!("{}/{}", it.kind, it.name).to_lowercase());
            bail!(
                "the files have {} pods; name one with --pod: {}",
                several.len(),
                names.collect::<Vec<_>>().join(", ")
            );
        }
    };
    of_pod(found, injected(found, &around), Services::Documents(documents))
}

/// The pod with its sidecar, where it has one or would get one.
fn injected(found: &subjects::Subject, around: &lateen_webhook::explain::Surroundings) -> Value {
    if pod::proxy_container(&found.pod).is_some() {
        return found.pod.clone();
    }
    let explanation = explain(&found.pod, &found.namespace, around);
    explanation.injection.map_or_else(|| found.pod.clone(), |it| it.pod)
}

fn of_pod(found: &subjects::Subject, pod: Value, services: Services) -> anyhow::Result<Subject> {
    let place = format!("{} {}/{}", found.kind.to_lowercase(), found.namespace, found.name);
    let init = pod::containers(&pod).find(|it| it["name"] == container::INIT);
    let (settings, origin, warnings, says) = if let Some(init) = init {
        let (settings, warnings) = of_init_container(init).with_context(|| place.clone())?;
        (
            Some(settings),
            format!("arguments of container {}", container::INIT),
            warnings,
            Says::Flags,
        )
    } else if pod::proxy_container(&pod).is_some_and(pod::is_disabled) {
        let why = format!(
            "no rules: container {} is an agent without a proxy ({})",
            container::PROXY,
            env::DISABLE_ENVOY
        );
        (None, why, Vec::new(), Says::Pod)
    } else if pod::proxy_container(&pod).is_none() {
        let why = format!(
            "no rules: the pod has no container {}; see: lateen explain injection",
            container::PROXY
        );
        (None, why, Vec::new(), Says::Pod)
    } else {
        let read = pod::from_pod(&pod).with_context(|| place.clone())?;
        let origin = match &read.settings {
            Some(_) => "the pod, as the CNI plugin reads it".to_owned(),
            None => format!("no rules: annotation {} is NONE", pod::MODE),
        };
        (read.settings, origin, read.warnings, Says::Pod)
    };
    let namespace = found.namespace.clone();
    Ok(Subject { name: place, settings, origin, warnings, pod, says, namespace, services })
}

/// The settings that an init container's arguments and environment make. Names of users are those of
/// its image, which is not known here.
fn of_init_container(init: &Value) -> anyhow::Result<(Settings, Vec<String>)> {
    let words = ["command", "args"]
        .into_iter()
        .flat_map(|field| init[field].as_array().map(Vec::as_slice).unwrap_or_default().iter());
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    // The program's own name, in either field.
    let first = words.iter().position(|word| word.starts_with('-')).unwrap_or(words.len());
    resolve(&words[first..], |name| pod::environment(init, name).map(str::to_owned))
}

/// Flags of `lateen-init`, alone.
pub(super) fn of_flags(flags: &[String]) -> anyhow::Result<Subject> {
    let words: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (settings, warnings) = resolve(&words, |_| None)?;
    Ok(Subject {
        name: "flags of lateen-init".to_owned(),
        settings: Some(settings),
        origin: "the flags".to_owned(),
        warnings,
        pod: Value::Null,
        says: Says::Flags,
        namespace: String::new(),
        services: Services::Nowhere,
    })
}

fn resolve(
    words: &[&str],
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<(Settings, Vec<String>)> {
    let flags = Flags::try_parse_from(["lateen-init"].iter().chain(words))
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
    let around = Surroundings {
        variable,
        passwd: String::new(),
        group: String::new(),
        resolv_conf: SOME_SERVER.to_owned(),
    };
    let mut run = flags.resolve(&around)?;
    if matches!(run.settings.dns, DnsCapture::Servers(_)) {
        run.settings.dns = DnsCapture::All;
        let warning = "the pod's name servers are not known here: any server counts as one of them";
        run.warnings.push(warning.to_owned());
    }
    Ok((run.settings, run.warnings))
}

impl Subject {
    /// Where the setting is said.
    pub(super) fn said(&self, setting: Setting) -> Option<Said> {
        if self.says == Says::Pod { pod::said(&self.pod, setting) } else { None }
    }

    /// The addresses of the pod.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        let status = &self.pod["status"];
        let all = status["podIPs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let all = all.iter().map(|it| &it["ip"]).chain([&status["podIP"]]);
        all.filter_map(|ip| ip.as_str()?.parse().ok()).collect()
    }

    /// An id of the first container of the application; 0 where the pod does not say it.
    pub(super) fn application_id(&self, field: &str) -> u32 {
        let first = pod::containers(&self.pod).find(|it| it["name"] != container::PROXY);
        let first = first.map(|it| &it["securityContext"][field]);
        let of_pod = &self.pod["spec"]["securityContext"][field];
        let said = first.into_iter().chain([of_pod]).find_map(Value::as_u64);
        said.and_then(|id| id.try_into().ok()).unwrap_or(0)
    }

    /// The addresses of a Service.
    pub(super) async fn addresses(&self, host: &str) -> anyhow::Result<Vec<IpAddr>> {
        let mut parts = host.split('.');
        let name = parts.next().unwrap_or_default();
        let namespace = parts.next().unwrap_or(&self.namespace);
        let found = match &self.services {
            Services::Nowhere => None,
            Services::Documents(all) => all
                .iter()
                .find(|it| {
                    it["kind"] == SERVICE.kind
                        && it["metadata"]["name"] == name
                        && it["metadata"]["namespace"].as_str().unwrap_or(namespace) == namespace
                })
                .cloned(),
            Services::Cluster(live) => live.get(&SERVICE, Some(namespace), name).await?,
        };
        let found = found.with_context(|| {
            format!(
                "there is no Service {namespace}/{name}: give --to an address instead of {host}"
            )
        })?;
        let spec = &found["spec"];
        let all = spec["clusterIPs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut addresses: Vec<IpAddr> = Vec::new();
        for ip in all.iter().chain([&spec["clusterIP"]]) {
            let ip = ip.as_str().and_then(|ip| ip.parse().ok());
            addresses.extend(ip.filter(|ip| !addresses.contains(ip)));
        }
        if addresses.is_empty() {
            bail!("Service {namespace}/{name} has no address of its own: give --to one of a pod");
        }
        Ok(addresses)
    }
}
