//! `Telemetry`: metrics, traces and access logs of some workloads, strictly typed.
//!
//! What the expressions and tags mean is not known here.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::duration::optional;
use crate::proto_enum::proto_enum;
use crate::security::Selector;
use crate::target::TargetRef;

/// `spec` of a Telemetry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Telemetry {
    /// Workloads; the whole namespace where absent.
    pub selector: Option<Selector>,
    /// Object it is attached to.
    #[serde(alias = "target_ref")]
    pub target_ref: Option<TargetRef>,
    /// Objects it is attached to.
    #[serde(alias = "target_refs")]
    pub target_refs: Vec<TargetRef>,
    /// Traces.
    pub tracing: Vec<Tracing>,
    /// Metrics.
    pub metrics: Vec<Metrics>,
    /// Access logs.
    #[serde(alias = "access_logging")]
    pub access_logging: Vec<AccessLogging>,
}

proto_enum! {
    /// Which side of a connection is meant.
    pub enum WorkloadMode {
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER" / 0,
        /// The caller.
        Client = "CLIENT" / 1,
        /// The called.
        Server = "SERVER" / 2,
    }
}

/// Which traffic is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ModeMatch {
    /// Side of the connection.
    pub mode: WorkloadMode,
}

/// Names an extension provider of the mesh configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProviderRef {
    /// Its name.
    pub name: String,
}

/// Traces.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tracing {
    /// Which traffic.
    #[serde(rename = "match")]
    pub matches: Option<ModeMatch>,
    /// Where they go.
    pub providers: Vec<ProviderRef>,
    /// Share of requests that are traced.
    #[serde(alias = "random_sampling_percentage")]
    pub random_sampling_percentage: Option<f64>,
    /// Nothing is sent.
    #[serde(alias = "disable_span_reporting")]
    pub disable_span_reporting: Option<bool>,
    /// What is said with each span.
    #[serde(alias = "custom_tags")]
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// The request id decides what is traced.
    #[serde(alias = "use_request_id_for_trace_sampling")]
    pub use_request_id_for_trace_sampling: Option<bool>,
    /// Istio's own tags are added.
    #[serde(alias = "enable_istio_tags")]
    pub enable_istio_tags: Option<bool>,
    /// No headers of tracing are added.
    #[serde(alias = "disable_context_propagation")]
    pub disable_context_propagation: Option<bool>,
}

/// Where the value of a tag comes from; one of these.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CustomTag {
    /// It is this.
    pub literal: Option<TagText>,
    /// An environment variable of the proxy.
    pub environment: Option<TagName>,
    /// A header of the request.
    pub header: Option<TagName>,
    /// An access log format.
    pub formatter: Option<TagText>,
}

/// The text of a tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TagText {
    /// The text.
    pub value: String,
}

/// Where the text of a tag is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TagName {
    /// Name of the variable or header.
    pub name: String,
    /// What is said where there is none.
    #[serde(alias = "default_value")]
    pub default_value: String,
}

/// Metrics.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Metrics {
    /// Where they go.
    pub providers: Vec<ProviderRef>,
    /// What is changed.
    pub overrides: Vec<MetricsOverride>,
    /// Time between reports.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "reporting_interval")]
    pub reporting_interval: Option<Duration>,
}

/// A change of some metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MetricsOverride {
    /// Which metrics; all where absent.
    #[serde(rename = "match")]
    pub matches: Option<MetricMatch>,
    /// They are not counted.
    pub disabled: Option<bool>,
    /// Tags by name.
    #[serde(alias = "tag_overrides")]
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// Which metrics are meant; `metric` and `custom_metric` exclude each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MetricMatch {
    /// One of Istio's.
    pub metric: Option<Metric>,
    /// One of somebody else's.
    #[serde(alias = "custom_metric")]
    pub custom_metric: Option<String>,
    /// Side of the connection.
    pub mode: WorkloadMode,
}

proto_enum! {
    /// A metric of Istio.
    pub enum Metric {
        /// All of them.
        All = "ALL_METRICS" / 0,
        /// Requests.
        RequestCount = "REQUEST_COUNT" / 1,
        /// Their duration.
        RequestDuration = "REQUEST_DURATION" / 2,
        /// Their size.
        RequestSize = "REQUEST_SIZE" / 3,
        /// Size of the answers.
        ResponseSize = "RESPONSE_SIZE" / 4,
        /// Connections opened.
        TcpOpened = "TCP_OPENED_CONNECTIONS" / 5,
        /// Connections closed.
        TcpClosed = "TCP_CLOSED_CONNECTIONS" / 6,
        /// Bytes sent.
        TcpSent = "TCP_SENT_BYTES" / 7,
        /// Bytes received.
        TcpReceived = "TCP_RECEIVED_BYTES" / 8,
        /// gRPC messages of callers.
        GrpcRequest = "GRPC_REQUEST_MESSAGES" / 9,
        /// gRPC messages of the called.
        GrpcResponse = "GRPC_RESPONSE_MESSAGES" / 10,
    }
}

/// A tag that is set or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TagOverride {
    /// Which of both.
    pub operation: TagOperation,
    /// An expression.
    pub value: Option<String>,
}

proto_enum! {
    /// What is done with a tag.
    pub enum TagOperation {
        /// It is set.
        Upsert = "UPSERT" / 0,
        /// It is removed.
        Remove = "REMOVE" / 1,
    }
}

/// Access logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccessLogging {
    /// Which traffic.
    #[serde(rename = "match")]
    pub matches: Option<ModeMatch>,
    /// Where they go.
    pub providers: Vec<ProviderRef>,
    /// Nothing is logged.
    pub disabled: Option<bool>,
    /// What is logged.
    pub filter: Option<LogFilter>,
}

/// Which requests are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogFilter {
    /// An expression in CEL.
    pub expression: String,
}
