//! Kinds of `extensions.istio.io`: code of users that the proxy runs, strictly typed.
//!
//! Nothing here fetches or runs modules.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::proto_enum::proto_enum;
use crate::security::Selector;
use crate::target::TargetRef;

/// `spec` of a WasmPlugin.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WasmPlugin {
    /// Workloads; the whole namespace where absent.
    pub selector: Option<Selector>,
    /// Object it is attached to.
    #[serde(alias = "target_ref")]
    pub target_ref: Option<TargetRef>,
    /// Objects it is attached to.
    #[serde(alias = "target_refs")]
    pub target_refs: Vec<TargetRef>,
    /// Where the module is.
    pub url: String,
    /// Hash of the module.
    pub sha256: String,
    /// When an image is fetched.
    #[serde(alias = "image_pull_policy")]
    pub image_pull_policy: PullPolicy,
    /// Secret of the registry.
    #[serde(alias = "image_pull_secret")]
    pub image_pull_secret: Option<String>,
    /// Key of the signature.
    #[serde(alias = "verification_key")]
    pub verification_key: String,
    /// What the module is told.
    #[serde(alias = "plugin_config")]
    pub plugin_config: Option<Map<String, Value>>,
    /// Name within the module.
    #[serde(alias = "plugin_name")]
    pub plugin_name: Option<String>,
    /// Where in the chain.
    pub phase: PluginPhase,
    /// Order within the phase, highest first.
    pub priority: Option<i32>,
    /// What happens when it fails.
    #[serde(alias = "fail_strategy")]
    pub fail_strategy: FailStrategy,
    /// Surroundings of the module.
    #[serde(alias = "vm_config")]
    pub vm_config: Option<VmConfig>,
    /// Which traffic; all where empty.
    #[serde(rename = "match")]
    pub matches: Vec<TrafficMatch>,
    /// Kind of filter.
    #[serde(rename = "type")]
    pub plugin_type: PluginType,
}

/// `spec` of a TrafficExtension; exactly one of `wasm` and `lua`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrafficExtension {
    /// Workloads; the whole namespace where absent.
    pub selector: Option<Selector>,
    /// Objects it is attached to.
    #[serde(alias = "target_refs")]
    pub target_refs: Vec<TargetRef>,
    /// Where in the chain.
    pub phase: ExecutionPhase,
    /// Order within the phase, highest first.
    pub priority: Option<i32>,
    /// Which traffic; all where empty.
    #[serde(rename = "match")]
    pub matches: Vec<TrafficMatch>,
    /// A module.
    pub wasm: Option<Wasm>,
    /// A script.
    pub lua: Option<Lua>,
}

/// A module.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Wasm {
    /// Where it is.
    pub url: String,
    /// Its hash.
    pub sha256: String,
    /// When an image is fetched.
    #[serde(alias = "image_pull_policy")]
    pub image_pull_policy: PullPolicy,
    /// Secret of the registry.
    #[serde(alias = "image_pull_secret")]
    pub image_pull_secret: Option<String>,
    /// Key of the signature.
    #[serde(alias = "verification_key")]
    pub verification_key: String,
    /// What it is told.
    #[serde(alias = "plugin_config")]
    pub plugin_config: Option<Map<String, Value>>,
    /// Name within the module.
    #[serde(alias = "plugin_name")]
    pub plugin_name: Option<String>,
    /// What happens when it fails.
    #[serde(alias = "fail_strategy")]
    pub fail_strategy: FailStrategy,
    /// Its surroundings.
    #[serde(alias = "vm_config")]
    pub vm_config: Option<VmConfig>,
    /// Kind of filter.
    #[serde(rename = "type")]
    pub plugin_type: PluginType,
}

/// A script.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lua {
    /// Its text.
    #[serde(alias = "inline_code")]
    pub inline_code: String,
}

/// Which traffic goes through an extension.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrafficMatch {
    /// Side of the connection.
    pub mode: TrafficMode,
    /// Ports; all where empty.
    pub ports: Vec<TrafficPort>,
}

/// A port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrafficPort {
    /// Its number.
    pub number: u32,
}

/// Surroundings of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VmConfig {
    /// Environment variables.
    pub env: Vec<VmVariable>,
}

/// An environment variable of a module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VmVariable {
    /// Name.
    pub name: String,
    /// Where the value comes from.
    #[serde(alias = "value_from")]
    pub value_from: ValueFrom,
    /// Value.
    pub value: Option<String>,
}

proto_enum! {
    /// Where the value of a variable comes from.
    pub enum ValueFrom {
        /// It stands there.
        Inline = "INLINE" / 0,
        /// From the proxy.
        Host = "HOST" / 1,
    }
}

proto_enum! {
    /// Side of a connection.
    pub enum TrafficMode {
        /// As for both.
        Undefined = "UNDEFINED" / 0,
        /// The caller.
        Client = "CLIENT" / 1,
        /// The called.
        Server = "SERVER" / 2,
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER" / 3,
    }
}

proto_enum! {
    /// When an image is fetched.
    pub enum PullPolicy {
        /// By its tag.
        Unspecified = "UNSPECIFIED_POLICY" / 0,
        /// When it is not there.
        IfNotPresent = "IfNotPresent" / 1,
        /// Each time.
        Always = "Always" / 2,
    }
}

proto_enum! {
    /// What happens to traffic when a module fails.
    pub enum FailStrategy {
        /// It is refused.
        Close = "FAIL_CLOSE" / 0,
        /// It goes on without.
        Open = "FAIL_OPEN" / 1,
        /// The module is started again.
        Reload = "FAIL_RELOAD" / 2,
    }
}

proto_enum! {
    /// Kind of filter.
    pub enum PluginType {
        /// Of HTTP.
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE" / 0,
        /// Of HTTP.
        Http = "HTTP" / 1,
        /// Of bytes.
        Network = "NETWORK" / 2,
    }
}

proto_enum! {
    /// Where in the chain a WasmPlugin stands.
    pub enum PluginPhase {
        /// At the end.
        Unspecified = "UNSPECIFIED_PHASE" / 0,
        /// Before authentication.
        Authn = "AUTHN" / 1,
        /// Before authorization.
        Authz = "AUTHZ" / 2,
        /// Before statistics.
        Stats = "STATS" / 3,
    }
}

proto_enum! {
    /// Where in the chain a TrafficExtension stands.
    pub enum ExecutionPhase {
        /// At the end.
        Unspecified = "UNSPECIFIED" / 0,
        /// Before authentication.
        Authn = "AUTHN" / 1,
        /// Before authorization.
        Authz = "AUTHZ" / 2,
        /// Before statistics.
        Stats = "STATS" / 3,
    }
}
