//! Environment of the plugin and flags of the node agent; nothing else of this crate reads either.

use std::path::PathBuf;

use crate::error::{CniError, Code};
use crate::netconf::is_identifier;

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

/// Flags of `lateen-cni-node`.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "lateen-cni-node", version)]
pub struct AgentSettings {
    /// Folder of pod objects, one file <namespace>_<name>.json each
    #[arg(long, value_name = "DIR")]
    pub pods_dir: PathBuf,
    /// Folder of the socket the plugin talks to
    #[arg(long, value_name = "DIR", default_value = "/var/run/istio-cni")]
    pub run_dir: PathBuf,
    /// Milliseconds an ADD waits for its pod to appear in the folder
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u16).range(0..=8000))]
    pub pod_wait: u16,
}
