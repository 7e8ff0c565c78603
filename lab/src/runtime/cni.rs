//! Runs a list of CNI plugins as the specification 1.1.0 says.
//!
//! Must not know any plugin: they are programs, found by their type.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A plugin that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(30);
/// Name of the interface in every sandbox.
pub const INTERFACE: &str = "eth0";

/// A list of plugins.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ConfList {
    /// Version of the specification.
    #[serde(rename = "cniVersion")]
    pub version: String,
    /// Name of the network.
    pub name: String,
    /// Plugins, in the order of ADD.
    pub plugins: Vec<Map<String, Value>>,
}

/// What a plugin acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Container id.
    pub container: String,
    /// Network namespace.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub arguments: String,
}

/// Why a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("plugin {plugin} failed with code {code}: {message}")]
pub struct PluginError {
    /// Type of the plugin.
    pub plugin: String,
    /// Code of the specification, or of the plugin's own from 100 on.
    pub code: u64,
    /// Message, details included.
    pub message: String,
}

/// A network: the list, and where plugins are.
#[derive(Debug, Clone)]
pub struct Network {
    list: ConfList,
    path: Vec<PathBuf>,
}

impl Network {
    /// A network whose plugins are in the folders `path`.
    #[must_use]
    pub fn new(list: ConfList, path: Vec<PathBuf>) -> Self {
        Self { list, path }
    }

    /// Adds a sandbox; gives the result of the last plugin. On failure nothing is taken back: that
    /// is what [`Self::delete`] is for.
    ///
    /// # Errors
    /// The first plugin that failed.
    pub async fn add(&self, to: &Attachment) -> Result<Value, PluginError> {
        let mut result = None;
        for plugin in &self.list.plugins {
            let (kind, conf) = self.request(plugin, result.as_ref());
            let output = self.execute("ADD", &kind, &conf, to).await?;
            let output = serde_json::from_slice(&output).map_err(|e| PluginError {
                plugin: kind,
                code: 6,
                message: format!("its result is not JSON: {e}"),
            })?;
            result = Some(output);
        }
        Ok(result.unwrap_or_default())
    }

    /// Checks a sandbox.
    ///
    /// # Errors
    /// The first plugin that found something wrong.
    pub async fn check(&self, of: &Attachment, result: &Value) -> Result<(), PluginError> {
        for plugin in &self.list.plugins {
            let (kind, conf) = self.request(plugin, Some(result));
            self.execute("CHECK", &kind, &conf, of).await?;
        }
        Ok(())
    }

    /// Takes a sandbox out again, in reverse order. Every plugin is asked, whatever others say.
    ///
    /// # Errors
    /// The first plugin that failed.
    pub async fn delete(&self, of: &Attachment, result: Option<&Value>) -> Result<(), PluginError> {
        let mut first = Ok(());
        for plugin in self.list.plugins.iter().rev() {
            let (kind, conf) = self.request(plugin, result);
            let done = self.execute("DEL", &kind, &conf, of).await.map(drop);
            first = first.and(done);
        }
        first
    }

    /// The configuration a plugin gets on its standard input, with its type. Pure.
    fn request(&self, plugin: &Map<String, Value>, previous: Option<&Value>) -> (String, Value) {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut conf = plugin.clone();
        conf.remove("capabilities");
        conf.insert("cniVersion".to_owned(), self.list.version.clone().into());
        conf.insert("name".to_owned(), self.list.name.clone().into());
        if let Some(previous) = previous {
            conf.insert("prevResult".to_owned(), previous.clone());
        }
        (kind, Value::Object(conf))
    }

    async fn execute(
        &self,
        verb: &str,
        kind: &str,
        conf: &Value,
        to: &Attachment,
    ) -> Result<Vec<u8>, PluginError> {
        let failed =
            |code: u64, message: String| PluginError { plugin: kind.to_owned(), code, message };
        let program = self.find(kind).ok_or_else(|| {
            let folders: Vec<_> = self.path.iter().map(|path| path.display().to_string()).collect();
            failed(5, format!("there is no such program in {}", folders.join(", ")))
        })?;
        let path = std::env::join_paths(&self.path).unwrap_or_default();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", &to.container)
            .env("CNI_NETNS", &to.netns)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_ARGS", &to.arguments)
            .env("CNI_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let run = talk(command, conf.to_string());
        let output = tokio::time::timeout(DEADLINE, run).await;
        let output = output
            .map_err(|_| failed(11, format!("{verb} did not end in {} s", DEADLINE.as_secs())))?
            .map_err(|e| failed(5, e.to_string()))?;
        if !output.stderr.is_empty() {
            let text = String::from_utf8_lossy(&output.stderr);
            tracing::debug!(plugin = kind, verb, "{}", text.trim());
        }
        if output.status.success() {
            return Ok(output.stdout);
        }
        let (code, message) = explain(&output.stdout, &output.stderr);
        Err(failed(code, message))
    }

    fn find(&self, kind: &str) -> Option<PathBuf> {
        let is_name = !kind.is_empty() && !kind.contains('/');
        let mut places = self.path.iter().map(|folder| folder.join(kind));
        places.find(|place| is_name && Path::is_file(place))
    }
}

async fn talk(mut command: Command, conf: String) -> std::io::Result<std::process::Output> {
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(conf.as_bytes()).await {
            // A plugin that fails early does not read all; its answer says why.
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => return Err(e),
            _ => {}
        }
    }
    child.wait_with_output().await
}

/// Code and message of a failure. Pure.
fn explain(stdout: &[u8], stderr: &[u8]) -> (u64, String) {
    let error: Value = serde_json::from_slice(stdout).unwrap_or_default();
    let Some(code) = error["code"].as_u64() else {
        let both = [stdout, stderr].concat();
        let text = String::from_utf8_lossy(&both);
        return (999, format!("it ended without an error of the specification: {}", text.trim()));
    };
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    let (message, details) = (text("msg"), text("details"));
    (code, if details.is_empty() { message } else { format!("{message}; {details}") })
}

#[cfg(test)]
mod tests {
    use super::{Network, explain};
    use serde_json::json;

    #[test]
    fn a_plugin_gets_its_own_keys_the_networks_and_the_result_before() {
        let list = json!({"cniVersion": "1.1.0", "name": "n", "plugins": [
            {"type": "a", "x": 1, "capabilities": {"portMappings": true}}]});
        let network = Network::new(serde_json::from_value(list).unwrap(), Vec::new());
        let plugin = &network.list.plugins[0];
        let (kind, conf) = network.request(plugin, None);
        assert_eq!(kind, "a");
        assert_eq!(conf, json!({"type": "a", "x": 1, "cniVersion": "1.1.0", "name": "n"}));
        let (_, conf) = network.request(plugin, Some(&json!({"ips": []})));
        assert_eq!(conf["prevResult"], json!({"ips": []}));
    }

    #[test]
    fn failures_are_explained() {
        let error = br#"{"cniVersion":"1.1.0","code":11,"msg":"later","details":"no agent"}"#;
        assert_eq!(explain(error, b""), (11, "later; no agent".to_owned()));
        let (code, text) = explain(b"", b"segmentation fault\n");
        assert_eq!(code, 999);
        assert!(text.contains("segmentation fault"));
    }
}
