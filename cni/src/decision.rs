//! Whether a pod is redirected, and why not. Pure; the order is that of Istio's plugin.

use lateen_interception::settings::Settings;
use lateen_interception::settings::pod::{
    PodError, containers, from_pod, is_disabled, proxy_container,
};
use serde_json::Value;

use crate::netconf::{NetConf, PodRef};

/// Pods of the agent itself; they must start before there is an agent.
const AGENT_PODS: [&str; 2] = ["lateen-cni-node-", "istio-cni-node-"];
const INJECT: &str = "sidecar.istio.io/inject";
const STATUS: &str = "sidecar.istio.io/status";

/// Why a pod is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// The sandbox is none of Kubernetes.
    NotKubernetes,
    /// A pod of the node agent.
    AgentPod,
    /// Its namespace is excluded by the network configuration.
    ExcludedNamespace,
    /// Its init container sets the rules.
    InitContainer,
    /// The proxy is switched off in it (`DISABLE_ENVOY`).
    ProxyDisabled,
    /// It has no proxy.
    NoProxy,
    /// Its proxy is a gateway.
    NotSidecar,
    /// It asks not to be injected.
    InjectFalse,
    /// It was not injected.
    NotInjected,
    /// It asks for mode NONE.
    ModeNone,
}

impl Skip {
    /// A word for logs and answers.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NotKubernetes => "not-kubernetes",
            Self::AgentPod => "agent-pod",
            Self::ExcludedNamespace => "excluded-namespace",
            Self::InitContainer => "init-container",
            Self::ProxyDisabled => "proxy-disabled",
            Self::NoProxy => "no-proxy",
            Self::NotSidecar => "not-sidecar",
            Self::InjectFalse => "inject-false",
            Self::NotInjected => "not-injected",
            Self::ModeNone => "mode-none",
        }
    }
}

/// What is to happen with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is left alone.
    Skip(Skip),
    /// It is redirected.
    Redirect {
        /// By these settings.
        settings: Box<Settings>,
        /// What in the pod was not understood.
        warnings: Vec<String>,
    },
}

/// What the plugin can decide without the agent.
///
/// Annotations, where the runtime gives them, are those of the sandbox: a pod without the status
/// that injection leaves is outside of the mesh, whoever is alive to be asked.
#[must_use]
pub fn without_agent(conf: &NetConf, pod: Option<&PodRef>) -> Option<Skip> {
    let Some(pod) = pod else { return Some(Skip::NotKubernetes) };
    if pod.namespace == conf.pod_namespace
        && AGENT_PODS.iter().any(|prefix| pod.name.starts_with(prefix))
    {
        return Some(Skip::AgentPod);
    }
    if conf.exclude_namespaces.contains(&pod.namespace) {
        return Some(Skip::ExcludedNamespace);
    }
    conf.annotations().is_some_and(|a| is_null(a.get(STATUS))).then_some(Skip::NotInjected)
}

fn is_null(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

/// The decision for a pod object.
///
/// # Errors
/// A pod to be redirected whose settings cannot be honoured.
pub fn decide(pod: &Value) -> Result<Decision, PodError> {
    if let Some(skip) = skip(pod) {
        return Ok(Decision::Skip(skip));
    }
    let found = from_pod(pod)?;
    Ok(match found.settings {
        None => Decision::Skip(Skip::ModeNone),
        Some(settings) => {
            Decision::Redirect { settings: Box::new(settings), warnings: found.warnings }
        }
    })
}

fn skip(pod: &Value) -> Option<Skip> {
    if containers(pod).any(|c| c["name"] == "istio-init") {
        return Some(Skip::InitContainer);
    }
    let Some(proxy) = proxy_container(pod) else { return Some(Skip::NoProxy) };
    if is_disabled(proxy) {
        return Some(Skip::ProxyDisabled);
    }
    let args = &proxy["args"];
    if args[0] == "proxy" && args[1].as_str().is_some_and(|role| role != "sidecar") {
        return Some(Skip::NotSidecar);
    }
    let metadata = &pod["metadata"];
    let inject = metadata["labels"][INJECT].as_str();
    if inject.or_else(|| metadata["annotations"][INJECT].as_str()) == Some("false") {
        return Some(Skip::InjectFalse);
    }
    is_null(metadata["annotations"].get(STATUS)).then_some(Skip::NotInjected)
}
