//! Errors of the CNI specification: a code, a message, and their JSON.

use serde_json::json;

/// Error codes of the CNI specification 1.1.0, section 5, and ours from 100 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Incompatible CNI version.
    Version = 1,
    /// Necessary environment variables absent or invalid.
    Environment = 4,
    /// I/O failure.
    Io = 5,
    /// Content cannot be decoded.
    Decode = 6,
    /// Invalid network configuration, or a pod whose settings cannot be honoured.
    Config = 7,
    /// Not a network namespace that rules may be put in.
    Namespace = 8,
    /// Try again later.
    TryLater = 11,
    /// The plugin cannot serve ADD now.
    NotAvailable = 50,
    /// The rules of a sandbox are not the planned ones.
    Drift = 100,
    /// The kernel refused the rules.
    Apply = 101,
}

/// An error as the container runtime gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// Number of the specification or of ours.
    pub code: u32,
    /// What was wrong, where, and what to do.
    pub message: String,
}

impl CniError {
    /// An error with a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as u32, message: message.into() }
    }

    /// The JSON for stdout.
    #[must_use]
    pub fn json(&self, version: &str) -> String {
        json!({"cniVersion": version, "code": self.code, "msg": self.message}).to_string()
    }
}
