//! `ProxyConfig`: settings of the proxies of some workloads.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::security::Selector;

/// `spec` of a ProxyConfig.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Workloads; the whole namespace where absent.
    pub selector: Option<Selector>,
    /// Threads; as many as there are cores where 0.
    pub concurrency: Option<u32>,
    /// Environment of the proxy.
    #[serde(alias = "environment_variables")]
    pub environment_variables: BTreeMap<String, String>,
    /// Image of the proxy.
    pub image: Option<ProxyImage>,
}

/// Image of the proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyImage {
    /// `default`, `debug` or `distroless`.
    #[serde(alias = "image_type")]
    pub image_type: String,
}
