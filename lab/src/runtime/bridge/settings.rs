//! Environment and standard input of the bridge plugin; nothing else of it reads either.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::CniError;

/// Versions of the specification that are served. Results of earlier ones look otherwise.
pub const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// What the runtime asks for.
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

/// The environment of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `CNI_COMMAND`.
    pub verb: Verb,
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `CNI_IFNAME`.
    pub interface: String,
}

impl Invocation {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Code 4, naming the variable.
    pub fn from_environment() -> Result<Self, CniError> {
        #[expect(clippy::disallowed_methods, reason = "this is the plugin's settings module")]
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
        let container = text("CNI_CONTAINERID");
        let (netns, interface) = (text("CNI_NETNS"), text("CNI_IFNAME"));
        let of_sandbox = matches!(verb, Verb::Add | Verb::Check | Verb::Delete);
        if of_sandbox && !is_identifier(&container) {
            return Err(invalid("CNI_CONTAINERID", &container));
        }
        if of_sandbox && !is_interface(&interface) {
            return Err(invalid("CNI_IFNAME", &interface));
        }
        if matches!(verb, Verb::Add | Verb::Check) && !netns.starts_with('/') {
            return Err(invalid("CNI_NETNS", &netns));
        }
        Ok(Self { verb, container, netns: netns.into(), interface })
    }
}

fn is_identifier(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_interface(name: &str) -> bool {
    let clean = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
    !name.is_empty() && name.len() <= 15 && name != "." && name != ".." && name.bytes().all(clean)
}

fn invalid(name: &str, value: &str) -> CniError {
    let value: String = value.chars().take(64).collect();
    CniError::new(4, format!("environment variable {name}: {value:?} is not valid"))
}

/// The network configuration.
#[derive(Debug, Clone, Deserialize)]
pub struct Conf {
    /// Version asked for.
    #[serde(rename = "cniVersion", default)]
    pub version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// The node's bridge.
    pub bridge: String,
    /// Folder of the addresses that are taken.
    #[serde(rename = "dataDir")]
    pub data_dir: PathBuf,
    /// Where addresses come from; one of each is given.
    pub ranges: Vec<Range>,
    /// Result of an ADD.
    #[serde(rename = "prevResult", default)]
    pub previous: Option<Value>,
    /// For GC: what still exists.
    #[serde(rename = "cni.dev/valid-attachments", default)]
    pub valid: Vec<Valid>,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Range {
    /// The range.
    pub subnet: IpNet,
    /// The address of the bridge in it.
    pub gateway: IpAddr,
}

/// Something that still exists.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Valid {
    /// Container id.
    #[serde(rename = "containerID")]
    pub container: String,
    /// Interface.
    #[serde(rename = "ifname")]
    pub interface: String,
}

impl Conf {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Code 6 for what is no such JSON, 1 for an unknown version, 7 for a value that cannot be.
    pub fn parse(stdin: &[u8]) -> Result<Self, CniError> {
        let conf: Self = serde_json::from_slice(stdin)
            .map_err(|e| CniError::new(6, format!("network configuration on stdin: {e}")))?;
        if !VERSIONS.contains(&conf.version.as_str()) {
            let known = VERSIONS.join(", ");
            let text =
                format!("cniVersion {:?} is not supported, use one of {known}", conf.version);
            return Err(CniError::new(1, text));
        }
        if !is_identifier(&conf.name) {
            let text = format!("network configuration: name {:?} is missing or invalid", conf.name);
            return Err(CniError::new(7, text));
        }
        if let Some(range) = conf.ranges.iter().find(|range| !range.subnet.contains(&range.gateway))
        {
            let text = format!("ranges: {} is not in {}", range.gateway, range.subnet);
            return Err(CniError::new(7, text));
        }
        if conf.ranges.is_empty() {
            return Err(CniError::new(7, "ranges: at least one is needed"));
        }
        Ok(conf)
    }
}

/// The version an answer is in, also when nothing else can be read.
pub(super) fn asked_version(stdin: &[u8]) -> String {
    let conf: Value = serde_json::from_slice(stdin).unwrap_or_default();
    let known = conf["cniVersion"].as_str().filter(|version| VERSIONS.contains(version));
    known.unwrap_or(VERSIONS[VERSIONS.len() - 1]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::run;
    use super::Invocation;
    use serde_json::{Value, json};

    fn code(environment: &[(&str, &str)], stdin: &str) -> u64 {
        let get = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let output = run(Invocation::from_variables(get), stdin.as_bytes());
        assert!(output.failed, "{}", output.text);
        let error: Value = serde_json::from_str(&output.text).unwrap();
        error["code"].as_u64().unwrap()
    }

    #[test]
    fn bad_calls_have_the_codes_of_the_specification() {
        let good = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", "/n"),
        ];
        let conf = json!({"cniVersion": "1.1.0", "name": "n", "bridge": "b", "dataDir": "/nowhere",
            "ranges": [{"subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}]});
        let with = |key: &str, value: Value| {
            let mut conf = conf.clone();
            conf[key] = value;
            conf.to_string()
        };
        assert_eq!(code(&[], "{}"), 4);
        for index in 0..good.len() {
            let mut bad = good;
            bad[index].1 = "../x y";
            assert_eq!(code(&bad, &conf.to_string()), 4, "{bad:?}");
        }
        assert_eq!(code(&good, "{"), 6);
        assert_eq!(code(&good, &with("cniVersion", json!("0.4.0"))), 1);
        assert_eq!(code(&good, &with("name", json!("a/b"))), 7);
        assert_eq!(code(&good, &with("ranges", json!([]))), 7);
        let outside = json!([{"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}]);
        assert_eq!(code(&good, &with("ranges", outside)), 7);
    }

    #[test]
    fn versions_are_told() {
        let get = |name: &str| (name == "CNI_COMMAND").then(|| "VERSION".to_owned());
        let output = run(Invocation::from_variables(get), br#"{"cniVersion":"1.0.0"}"#);
        let wanted = json!({"cniVersion": "1.0.0", "supportedVersions": ["1.0.0", "1.1.0"]});
        assert_eq!(output.text, wanted.to_string());
    }
}
