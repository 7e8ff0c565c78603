//! A sandbox: a network namespace with a name, connected to the network.

use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::cni::{Attachment, Network, PluginError};
use crate::node::network::set;

/// What a sandbox is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SandboxName {
    /// Namespace of the pod.
    pub(crate) namespace: String,
    /// Name of the pod.
    pub(crate) pod: String,
    /// Unique id of the pod.
    pub(crate) uid: String,
    /// Id of this sandbox; a pod may need several attempts.
    pub(crate) container: String,
    /// Files below `/proc/sys/net` and what is written into them.
    pub(crate) settings: Vec<(String, String)>,
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// The namespace itself.
    #[error("network namespace: {0}")]
    Namespace(String),
    /// A plugin.
    #[error("{0}")]
    Plugin(#[from] PluginError),
    /// The plugins succeeded but gave no address.
    #[error("the plugins gave the pod no address: {0}")]
    NoAddress(Value),
}

/// A sandbox that is connected.
#[derive(Debug)]
pub(crate) struct Sandbox {
    attachment: Attachment,
    network: Network,
    result: Value,
    addresses: Vec<IpAddr>,
}

impl Sandbox {
    /// Makes a network namespace below `folder` and connects it. What was made is taken back when
    /// that fails.
    pub(crate) async fn create(
        folder: &Path,
        name: &SandboxName,
        network: Network,
    ) -> Result<Self, SandboxError> {
        let netns = folder.join(&name.container);
        let (made, settings) = (netns.clone(), name.settings.clone());
        tokio::task::spawn_blocking(move || namespace(&made, &settings))
            .await
            .map_err(|e| SandboxError::Namespace(e.to_string()))?
            .map_err(SandboxError::Namespace)?;
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};\
             K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            name.namespace, name.pod, name.container, name.uid
        );
        let attachment = Attachment { container: name.container.clone(), netns, arguments };
        let added = network.add(&attachment).await;
        let (result, failed) = match added {
            Ok(result) => (result, None),
            Err(e) => (Value::Null, Some(SandboxError::Plugin(e))),
        };
        let addresses = addresses(&result);
        let failed = failed
            .or_else(|| addresses.is_empty().then(|| SandboxError::NoAddress(result.clone())));
        let sandbox = Self { attachment, network, result, addresses };
        match failed {
            None => Ok(sandbox),
            Some(e) => {
                // The reason of the failure is what people need to see.
                drop(sandbox.remove().await);
                Err(e)
            }
        }
    }

    /// Path of the network namespace.
    pub(crate) fn network(&self) -> &Path {
        &self.attachment.netns
    }

    /// Addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Disconnects and removes the sandbox. The namespace goes in any case.
    pub(crate) async fn remove(self) -> Result<(), SandboxError> {
        let result = (!self.result.is_null()).then_some(&self.result);
        let deleted = self.network.delete(&self.attachment, result).await;
        let path = &self.attachment.netns;
        umount2(path, MntFlags::MNT_DETACH)
            .map_err(|e| SandboxError::Namespace(format!("{}: {e}", path.display())))?;
        std::fs::remove_file(path)
            .map_err(|e| SandboxError::Namespace(format!("{}: {e}", path.display())))?;
        Ok(deleted?)
    }
}

/// Makes a namespace and keeps it at `path`. In a thread of its own, which ends with it.
fn namespace(path: &PathBuf, settings: &[(String, String)]) -> Result<(), String> {
    const NONE: Option<&str> = None;
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| e.to_string())?;
        // As container runtimes do: no port needs a privilege in a pod of its own.
        set("ipv4/ip_unprivileged_port_start", "0").map_err(|e| e.to_string())?;
        for (name, value) in settings {
            set(name, value).map_err(|e| e.to_string())?;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        }
        File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), path, NONE, MsFlags::MS_BIND, NONE).map_err(|e| e.to_string())
    };
    let joined = thread::scope(|scope| scope.spawn(make).join());
    joined.unwrap_or_else(|_| Err("the thread that made it failed".to_owned()))
}

/// Addresses in a result, IPv4 first. Pure.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    let parse = |ip: &Value| {
        let (address, _) = ip["address"].as_str()?.split_once('/')?;
        address.parse().ok()
    };
    let mut found: Vec<IpAddr> = ips.iter().filter_map(parse).collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

#[cfg(test)]
mod tests {
    use super::addresses;
    use serde_json::json;
    use std::net::IpAddr;

    #[test]
    fn addresses_are_read_from_results() {
        let result = json!({"ips": [{"address": "fd00::2/64"}, {"address": "10.244.0.2/16"}, {}]});
        let wanted: [IpAddr; 2] = ["10.244.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert_eq!(addresses(&result), wanted);
        assert!(addresses(&json!(null)).is_empty());
    }
}
