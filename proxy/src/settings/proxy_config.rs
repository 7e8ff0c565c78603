//! `PROXY_CONFIG`: the mesh's proxy configuration for this pod, JSON.
//!
//! Fields without effect are reported by name, unless they hold what happens anyway.

use super::SettingsError;
use lateen_api::duration;
use serde_json::{Map, Value};
use std::time::Duration;

const NAME: &str = "PROXY_CONFIG";

/// What is read of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// `discoveryAddress`.
    pub discovery_address: Option<String>,
    /// `controlPlaneAuthPolicy` is `NONE`.
    pub plaintext: bool,
    /// `concurrency`.
    pub concurrency: Option<usize>,
    /// `drainDuration`.
    pub drain: Option<Duration>,
    /// `terminationDrainDuration`.
    pub termination_drain: Option<Duration>,
    /// `statusPort`.
    pub status_port: Option<u16>,
    /// `proxyAdminPort`.
    pub admin_port: Option<u16>,
    /// All of it, for node metadata.
    pub whole: Map<String, Value>,
}

impl ProxyConfig {
    /// Reads the JSON text; empty text is an empty configuration. Also gives remarks on fields
    /// without effect.
    ///
    /// # Errors
    /// When it is not a JSON object or a field has the wrong type.
    pub(super) fn parse(text: &str) -> Result<(Self, Vec<String>), SettingsError> {
        let mut config = Self::default();
        let mut remarks = Vec::new();
        if text.is_empty() {
            return Ok((config, remarks));
        }
        let value: Value = serde_json::from_str(text).map_err(|_| wrong("", text, "JSON"))?;
        let Value::Object(whole) = value else { return Err(wrong("", text, "a JSON object")) };
        for (field, value) in &whole {
            if !config.take(field, value)? {
                remarks.push(format!("{NAME}.{field} has no effect"));
            }
        }
        config.whole = whole;
        Ok((config, remarks))
    }

    /// Takes a field; false when it has no effect.
    fn take(&mut self, field: &str, value: &Value) -> Result<bool, SettingsError> {
        match field {
            "discoveryAddress" => self.discovery_address = Some(text(field, value)?.to_owned()),
            "controlPlaneAuthPolicy" => match value {
                Value::String(policy) if policy == "NONE" => self.plaintext = true,
                Value::String(policy) if policy == "MUTUAL_TLS" => self.plaintext = false,
                other => return Err(wrong(field, &other.to_string(), "NONE or MUTUAL_TLS")),
            },
            "concurrency" => {
                self.concurrency = Some(number(field, value)?);
            }
            "drainDuration" => self.drain = Some(time(field, value)?),
            "terminationDrainDuration" => self.termination_drain = Some(time(field, value)?),
            "statusPort" => self.status_port = Some(number(field, value)?),
            "proxyAdminPort" => self.admin_port = Some(number(field, value)?),
            // Reaches us as environment variables and node metadata.
            "proxyMetadata"
            | "meshId"
            | "serviceCluster"
            | "image"
            | "holdApplicationUntilProxyStarts" => {}
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn text<'v>(field: &str, value: &'v Value) -> Result<&'v str, SettingsError> {
    value.as_str().ok_or_else(|| wrong(field, &value.to_string(), "text"))
}

fn number<T: TryFrom<u64>>(field: &str, value: &Value) -> Result<T, SettingsError> {
    let number = value.as_u64().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| wrong(field, &value.to_string(), "a number in range"))
}

fn time(field: &str, value: &Value) -> Result<Duration, SettingsError> {
    let text = text(field, value)?;
    duration::parse(text).map_err(|_| wrong(field, text, "a duration like 5s"))
}

fn wrong(field: &str, value: &str, expected: &'static str) -> SettingsError {
    let dot = if field.is_empty() { "" } else { "." };
    SettingsError::Value { name: format!("{NAME}{dot}{field}"), value: value.to_owned(), expected }
}
