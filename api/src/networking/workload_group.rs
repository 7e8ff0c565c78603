//! `WorkloadGroup`: what workloads that are no pods have in common, and how their health is known.

use serde::Deserialize;

use super::WorkloadEntry;
use crate::meta::Labels;

/// `spec` of a WorkloadGroup.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WorkloadGroup {
    /// Labels and annotations of the entries that are made.
    pub metadata: Option<GroupMetadata>,
    /// What entries that are made begin with.
    pub template: Option<WorkloadEntry>,
    /// How health is known.
    pub probe: Option<ReadinessProbe>,
}

/// Labels and annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GroupMetadata {
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
}

/// How health is known; exactly one of the last four.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReadinessProbe {
    /// Wait before the first.
    #[serde(alias = "initial_delay_seconds")]
    pub initial_delay_seconds: i32,
    /// Longest wait for an answer.
    #[serde(alias = "timeout_seconds")]
    pub timeout_seconds: i32,
    /// Time between.
    #[serde(alias = "period_seconds")]
    pub period_seconds: i32,
    /// Successes in a row that mean healthy.
    #[serde(alias = "success_threshold")]
    pub success_threshold: i32,
    /// Failures in a row that mean ill.
    #[serde(alias = "failure_threshold")]
    pub failure_threshold: i32,
    /// By request.
    #[serde(alias = "http_get")]
    pub http_get: Option<HttpProbe>,
    /// By connection.
    #[serde(alias = "tcp_socket")]
    pub tcp_socket: Option<TcpProbe>,
    /// By command.
    pub exec: Option<ExecProbe>,
    /// By gRPC's own protocol of health.
    pub grpc: Option<GrpcProbe>,
}

/// A request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpProbe {
    /// Path.
    pub path: String,
    /// Port.
    pub port: u32,
    /// Host.
    pub host: String,
    /// `HTTP` or `HTTPS`.
    pub scheme: String,
    /// Headers.
    #[serde(alias = "http_headers")]
    pub http_headers: Vec<ProbeHeader>,
}

/// A header of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProbeHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// A connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TcpProbe {
    /// Host.
    pub host: String,
    /// Port.
    pub port: u32,
}

/// A command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExecProbe {
    /// Program and arguments.
    pub command: Vec<String>,
}

/// A call of gRPC's protocol of health.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GrpcProbe {
    /// Port.
    pub port: u32,
    /// Service that is asked for.
    pub service: String,
}
