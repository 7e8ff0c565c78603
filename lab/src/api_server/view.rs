//! What people and programs see of the lab: rows of `lateen lab ls`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A pod as it is listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRow {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Containers, native sidecars included.
    pub containers: Vec<String>,
    /// The same with those that ran at the start.
    #[serde(default)]
    pub all_containers: Vec<String>,
    /// Reason code: why it got a sidecar or not.
    pub reason: String,
    /// Webhooks that were asked.
    pub hooks: Vec<String>,
    /// All its containers are ready, or it has done its work.
    pub ready: bool,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Terminating`.
    pub phase: String,
    /// How often its containers were started again.
    pub restarts: u32,
    /// Why it is not ready; empty when it is.
    pub why: String,
    /// What happened, oldest first.
    pub events: Vec<EventRow>,
}

/// Something that happened to a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Short code.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it was last seen (RFC 3339).
    pub time: String,
    /// How often in a row.
    pub count: u32,
}
