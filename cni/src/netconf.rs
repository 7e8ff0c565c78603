//! The network configuration on stdin, and the pod named by `CNI_ARGS`.
//!
//! Pure parsing of what the container runtime hands over.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{CniError, Code};

/// Versions of the specification that are served, oldest first.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const DEFAULT_RUN_DIR: &str = "/var/run/istio-cni";

/// The keys of a network configuration that matter here. Keys of ambient mode are accepted.
#[derive(Debug, Deserialize)]
pub struct NetConf {
    /// Version asked for.
    #[serde(rename = "cniVersion", default)]
    pub version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// Result of the plugin before.
    #[serde(rename = "prevResult", default)]
    pub previous: Option<Map<String, Value>>,
    /// Folder of the agent's socket.
    #[serde(default = "default_run_dir")]
    pub cni_agent_run_dir: PathBuf,
    /// Namespaces whose pods are never redirected.
    #[serde(default)]
    pub exclude_namespaces: Vec<String>,
    /// Namespace of the agent's own pods.
    #[serde(default)]
    pub pod_namespace: String,
    /// `debug` and `info` write decisions to stderr.
    #[serde(default)]
    pub plugin_log_level: String,
    /// Milliseconds an ADD waits for an agent that is not there, as while it is replaced.
    #[serde(default)]
    pub agent_wait: u16,
    /// What the runtime adds for the capabilities of the entry.
    #[serde(rename = "runtimeConfig", default)]
    pub runtime: Option<Map<String, Value>>,
}

/// The capability by which containerd and CRI-O hand over the annotations of a pod.
pub const POD_ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

fn default_run_dir() -> PathBuf {
    PathBuf::from(DEFAULT_RUN_DIR)
}

impl NetConf {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Code 6 for what is no such JSON, 1 for an unknown version, 7 for a missing name.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let undecodable = |e: serde_json::Error| {
            CniError::new(Code::Decode, format!("network configuration on stdin: {e}"))
        };
        // An object first: serde would also take a list for a struct.
        let object: Map<String, Value> = serde_json::from_slice(stdin).map_err(undecodable)?;
        let conf: Self = serde_json::from_value(Value::Object(object)).map_err(undecodable)?;
        if !VERSIONS.contains(&conf.version.as_str()) {
            let text = format!(
                "cniVersion {:?} is not supported, use one of {}",
                conf.version,
                VERSIONS.join(", ")
            );
            return Err(CniError::new(Code::Version, text));
        }
        Ok(conf)
    }

    /// The same, for verbs that act on a network.
    ///
    /// # Errors
    /// Code 7 when the name is missing or no name.
    pub fn named(self) -> Result<Self, CniError> {
        if is_identifier(&self.name) {
            return Ok(self);
        }
        let text = format!("network configuration: name {:?} is missing or invalid", self.name);
        Err(CniError::new(Code::Config, text))
    }

    /// The annotations of the pod, where the runtime gives them.
    #[must_use]
    pub fn annotations(&self) -> Option<&Map<String, Value>> {
        self.runtime.as_ref()?.get(POD_ANNOTATIONS)?.as_object()
    }

    /// Whether the version asked for is at least this one of [`VERSIONS`].
    #[must_use]
    pub fn at_least(&self, version: &str) -> bool {
        let rank = |v: &str| VERSIONS.iter().position(|known| *known == v);
        rank(&self.version) >= rank(version)
    }

    /// The result for the runtime: that of the plugin before, unchanged.
    ///
    /// # Errors
    /// Code 7 when it is of another version than the one asked for.
    pub fn result(&self) -> Result<String, CniError> {
        let mut result = self.previous.clone().unwrap_or_default();
        match result.get("cniVersion").and_then(Value::as_str) {
            Some(version) if version != self.version => {
                let text = format!(
                    "prevResult is of version {version:?}, asked for is {:?}",
                    self.version
                );
                return Err(CniError::new(Code::Config, text));
            }
            Some(_) => {}
            None => {
                result.insert("cniVersion".to_owned(), Value::from(self.version.as_str()));
            }
        }
        Ok(Value::Object(result).to_string())
    }
}

/// Names of networks and containers: letters, digits, `_`, `.`, `-`, beginning with one of the
/// first two.
#[must_use]
pub fn is_identifier(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// A pod as the container runtime names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; older runtimes do not say.
    pub uid: Option<String>,
}

impl PodRef {
    /// Reads `CNI_ARGS`; `None` when it names no pod of Kubernetes.
    ///
    /// # Errors
    /// Code 4 for a name that cannot be one.
    pub fn parse(args: &str) -> Result<Option<Self>, CniError> {
        let get = |key: &str| {
            args.split(';')
                .filter_map(|pair| pair.split_once('='))
                .find_map(|(k, v)| (k.trim() == key && !v.is_empty()).then(|| v.to_owned()))
        };
        let (Some(namespace), Some(name)) = (get("K8S_POD_NAMESPACE"), get("K8S_POD_NAME")) else {
            return Ok(None);
        };
        let uid = get("K8S_POD_UID");
        for value in [Some(&namespace), Some(&name), uid.as_ref()].into_iter().flatten() {
            if !is_object_name(value) {
                let text = format!("CNI_ARGS: {value:?} is not the name of an object");
                return Err(CniError::new(Code::Environment, text));
            }
        }
        Ok(Some(Self { namespace, name, uid }))
    }
}

/// Whether a text can be part of a file name of a pod: no separators, no leading dot.
#[must_use]
pub fn is_object_name(name: &str) -> bool {
    name.len() <= 253 && is_identifier(name) && !name.contains('_')
}
