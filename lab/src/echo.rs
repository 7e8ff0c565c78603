//! The sample application: answers HTTP/1.1, HTTP/2, gRPC, WebSocket and raw TCP on the same
//! port and says what it received; and the client that asks it.
//!
//! It knows nothing of the mesh: what it reports is what arrived at the application, so a test
//! can look at the mesh from outside.

pub mod client;
pub mod load;
mod reply;
pub mod serve;
mod websocket;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who the application says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Persona {
    /// Label `app`, or the container's name.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// Pod name.
    pub pod: String,
    /// Namespace.
    pub namespace: String,
    /// URLs that are fetched for every request to `/`, and put into the answer.
    pub calls: Vec<String>,
}

/// What the application answers over HTTP: the request as it arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Answering application.
    pub app: String,
    /// Its version.
    pub version: String,
    /// Its pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Port the request came to.
    pub port: u16,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// Method.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Address of the connection's other end.
    pub peer: String,
    /// Headers, lower case; several values of one name are joined by a comma.
    pub headers: BTreeMap<String, String>,
    /// Length of the request body in bytes.
    pub body_bytes: u64,
    /// Answers of the URLs this application called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub called: Vec<Called>,
}

/// The answer of an application that was called in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// URL.
    pub url: String,
    /// HTTP status, 0 if there was no answer.
    pub status: u16,
    /// The report, or what went wrong.
    pub answer: serde_json::Value,
}
