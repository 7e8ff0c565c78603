//! Environment of the plugin and flags of the node agent; nothing else of this crate reads either.

use std::path::PathBuf;

use crate::error::{CniError, Code};
use crate::install::Place;
use crate::install::conflist::Form;
use crate::netconf::is_identifier;

/// The file of our own where none is named, as Istio's.
const OWN_FILE: &str = "YYY-istio-cni.conf";

/// What the container runtime asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the verbs of the CNI specification")]
pub enum Verb {
    Add,
    Delete,
    Check,
    Version,
    Status,
    Gc,
}

/// The environment of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `CNI_COMMAND`.
    pub verb: Verb,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: String,
    /// `CNI_ARGS`.
    pub args: String,
}

impl Invocation {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Code 4, naming the variable.
    pub fn from_environment() -> Result<Self, CniError> {
        #[expect(clippy::disallowed_methods, reason = "this is the crate's settings module")]
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The same from any source. Pure.
    ///
    /// # Errors
    /// Code 4, naming the variable.
    pub fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let text = |name: &str| get(name).unwrap_or_default();
        let verb = match text("CNI_COMMAND").as_str() {
            "ADD" => Verb::Add,
            "DEL" => Verb::Delete,
            "CHECK" => Verb::Check,
            "VERSION" => Verb::Version,
            "STATUS" => Verb::Status,
            "GC" => Verb::Gc,
            other => return Err(invalid("CNI_COMMAND", other)),
        };
        let found = Self {
            verb,
            container: text("CNI_CONTAINERID"),
            netns: text("CNI_NETNS"),
            args: text("CNI_ARGS"),
        };
        let interface = text("CNI_IFNAME");
        let of_sandbox = matches!(verb, Verb::Add | Verb::Check | Verb::Delete);
        if of_sandbox && !is_identifier(&found.container) {
            return Err(invalid("CNI_CONTAINERID", &found.container));
        }
        if of_sandbox && !is_interface(&interface) {
            return Err(invalid("CNI_IFNAME", &interface));
        }
        if matches!(verb, Verb::Add | Verb::Check) && !found.netns.starts_with('/') {
            return Err(invalid("CNI_NETNS", &found.netns));
        }
        Ok(found)
    }
}

fn is_interface(name: &str) -> bool {
    let clean = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
    !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && name.bytes().all(clean)
}

fn invalid(name: &str, value: &str) -> CniError {
    let value: String = value.chars().take(64).collect();
    CniError::new(Code::Environment, format!("environment variable {name}: {value:?} is not valid"))
}

/// What is done about a pod that started uncaptured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Repair {
    /// Its rules are set in its network namespace
    InPlace,
    /// It is deleted, for its controller to start another
    Delete,
    /// It is labelled cni.istio.io/uninitialized=true
    Label,
    /// An event on it says so
    Off,
}

impl std::fmt::Display for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InPlace => "in-place",
            Self::Delete => "delete",
            Self::Label => "label",
            Self::Off => "off",
        })
    }
}

/// Flags of `lateen-cni-node`.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "lateen-cni-node", version)]
pub struct AgentSettings {
    /// Folder of pod objects, one file <namespace>_<name>.json each, instead of the API server
    #[arg(long, value_name = "DIR")]
    pub pods_dir: Option<PathBuf>,
    /// Folder of the socket the plugin talks to; the same path on the node
    #[arg(long, value_name = "DIR", default_value = "/var/run/istio-cni")]
    pub run_dir: PathBuf,
    /// Milliseconds an ADD waits for its pod to become known
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(0..=8000))]
    pub pod_wait: u16,
    /// Namespaces whose pods are never redirected
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "kube-system,istio-system"
    )]
    pub exclude_namespaces: Vec<String>,
    #[command(flatten)]
    /// What concerns the cluster.
    pub cluster: ClusterSettings,
    #[command(flatten)]
    /// What concerns the node's folders.
    pub install: InstallSettings,
    /// Port of /healthz and /readyz; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub health_port: u16,
    /// Port of /metrics; 0 for none
    #[arg(long, value_name = "PORT", default_value_t = 15014)]
    pub metrics_port: u16,
}

/// The agent's place in the cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterSettings {
    /// Name of this node
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Name of the agent's own pod, for events
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
    /// Namespace of the agent's pods
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "istio-system")]
    pub pod_namespace: String,
    /// Name of the agent's DaemonSet; when it is gone, plugin and configuration leave with the agent
    #[arg(long, value_name = "NAME", default_value = "istio-cni-node")]
    pub daemonset: String,
    /// What is done about a pod that started while the plugin was absent
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Repair::InPlace)]
    pub repair: Repair,
    /// Whether the node has the taint cni.istio.io/not-ready while this agent cannot serve
    #[arg(long, value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub taint: bool,
    /// Milliseconds this agent may be unready before the node gets the taint
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub taint_after: u32,
    /// Folder where the runtime keeps network namespaces
    #[arg(long, value_name = "DIR", default_value = "/var/run/netns")]
    pub netns_dir: PathBuf,
}

/// The node's folders.
#[derive(Debug, Clone, clap::Args)]
pub struct InstallSettings {
    /// Whether plugin and configuration are put on the node
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub install: bool,
    /// The plugin to install
    #[arg(long, value_name = "FILE", default_value = "/opt/cni/bin/lateen-cni")]
    pub plugin: PathBuf,
    /// The node's folder of plugins
    #[arg(long, value_name = "DIR", default_value = "/host/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// The node's folder of network configurations
    #[arg(long, value_name = "DIR", default_value = "/host/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Whether an uninstall leaves the plugin: CRI-O calls it for pods that started before
    #[arg(long, env = "KEEP_PLUGIN", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    pub keep_plugin: bool,
    /// Whether to join the primary configuration, or have a file of our own (Multus)
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub chained: bool,
    /// Name of the configuration to join instead of the first by name; with --chained=false that of our own file [YYY-istio-cni.conf]
    #[arg(long, value_name = "NAME", default_value = "", value_parser = file_name)]
    pub cni_conf_name: String,
    /// Name of a list of our own, a copy of the configuration to join, instead of an entry in it; it must come first by name
    #[arg(long, value_name = "NAME", default_value = "", value_parser = file_name)]
    pub own_list: String,
    /// What the plugin writes to the runtime's log: debug, info, or less
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub plugin_log_level: String,
    /// Milliseconds the plugin waits for an agent that is being replaced
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u16).range(0..=8000))]
    pub agent_wait: u16,
}

impl InstallSettings {
    /// Where our entry goes.
    ///
    /// # Errors
    /// Which flag gives a name that cannot be used.
    pub fn place(&self) -> Result<Place, String> {
        let given = |name: &String| (!name.is_empty()).then(|| name.clone());
        let is = |name: &str, form| Form::of(name) == Some(form);
        let (named, list) = (given(&self.cni_conf_name), given(&self.own_list));
        match (self.chained, list) {
            (true, None) => Ok(Place::Joined(named)),
            (true, Some(to)) if is(&to, Form::List) => Ok(Place::Copied { to, of: named }),
            (true, Some(to)) => Err(format!("--own-list: {to:?} does not end in .conflist")),
            (false, None) => match named.unwrap_or_else(|| OWN_FILE.to_owned()) {
                name if is(&name, Form::Single) => Ok(Place::Alone(name)),
                name => Err(format!(
                    "--cni-conf-name: {name:?} does not end in .conf, which the file of our own (--chained=false) must"
                )),
            },
            (false, Some(_)) => Err("--own-list has no meaning with --chained=false".to_owned()),
        }
    }
}

fn file_name(name: &str) -> Result<String, String> {
    if name.contains('/') || name.starts_with('.') {
        return Err("this is no name of a file of the folder".to_owned());
    }
    Ok(name.to_owned())
}
