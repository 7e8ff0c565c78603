//! HTTP routes of a `VirtualService`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::virtual_service::Destination;
use crate::duration::optional;
use crate::meta::Labels;
use crate::proto_enum::proto_enum;
use crate::string_match::StringMatch;

/// An HTTP route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRoute {
    /// Name, for access logs.
    pub name: String,
    /// One of these must match; anything where empty.
    #[serde(rename = "match")]
    pub matches: Vec<HttpMatch>,
    /// Destinations by weight.
    pub route: Vec<HttpRouteDestination>,
    /// Answer with a redirect.
    pub redirect: Option<Redirect>,
    /// Answer with a fixed response.
    #[serde(alias = "direct_response")]
    pub direct_response: Option<DirectResponse>,
    /// Routes of another VirtualService.
    pub delegate: Option<DelegateRef>,
    /// Change path or authority.
    pub rewrite: Option<Rewrite>,
    /// Time for the whole request; no limit where absent or zero.
    #[serde(deserialize_with = "optional")]
    pub timeout: Option<Duration>,
    /// Retries; the mesh's default where absent.
    pub retries: Option<Retries>,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Copy of each request.
    pub mirror: Option<Destination>,
    /// Copies of each request.
    pub mirrors: Vec<HttpMirror>,
    /// Share of requests copied (whole percent; old form).
    #[serde(alias = "mirror_percent")]
    pub mirror_percent: Option<u32>,
    /// Share of requests copied.
    #[serde(alias = "mirror_percentage")]
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin policy.
    #[serde(alias = "cors_policy")]
    pub cors_policy: Option<CorsPolicy>,
    /// Header operations of all destinations.
    pub headers: Option<Headers>,
    /// Removed from the API long ago, still found in files: upgrades always pass.
    #[serde(alias = "websocket_upgrade")]
    pub websocket_upgrade: Option<bool>,
}

/// Conditions on a request; all must hold.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpMatch {
    /// Name, appended to the route's.
    pub name: String,
    /// Path.
    pub uri: Option<StringMatch>,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Authority.
    pub authority: Option<StringMatch>,
    /// Headers, by lower-case name.
    pub headers: BTreeMap<String, StringMatch>,
    /// Port; 0 is any.
    pub port: u32,
    /// Labels of the caller.
    #[serde(alias = "source_labels")]
    pub source_labels: Labels,
    /// Gateways; those of the rule where empty.
    pub gateways: Vec<String>,
    /// Query parameters.
    #[serde(alias = "query_params")]
    pub query_params: BTreeMap<String, StringMatch>,
    /// The path is compared without regard to case.
    #[serde(alias = "ignore_uri_case")]
    pub ignore_uri_case: bool,
    /// Headers that must not match.
    #[serde(alias = "without_headers")]
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Namespace of the caller; any where empty.
    #[serde(alias = "source_namespace")]
    pub source_namespace: String,
    /// Prefix of statistics.
    #[serde(alias = "stat_prefix")]
    pub stat_prefix: String,
}

/// A destination of an HTTP route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share; a single destination may leave it out.
    pub weight: u32,
    /// Header operations of this destination.
    pub headers: Option<Headers>,
}

/// Header operations.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Headers {
    /// Of the request.
    pub request: Option<HeaderOperations>,
    /// Of the response.
    pub response: Option<HeaderOperations>,
}

/// What is done with headers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeaderOperations {
    /// Overwritten.
    pub set: BTreeMap<String, String>,
    /// Appended.
    pub add: BTreeMap<String, String>,
    /// Removed.
    pub remove: Vec<String>,
}

proto_enum! {
    /// Port of a redirect where none is given.
    pub enum RedirectPort {
        /// 80 or 443, by scheme.
        FromProtocolDefault = "FROM_PROTOCOL_DEFAULT" / 0,
        /// The request's.
        FromRequestPort = "FROM_REQUEST_PORT" / 1,
    }
}

/// A redirect.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Redirect {
    /// New path; the request's where empty.
    pub uri: String,
    /// New authority; the request's where empty.
    pub authority: String,
    /// New port.
    pub port: Option<u32>,
    /// Port where none is given.
    #[serde(alias = "derive_port")]
    pub derive_port: Option<RedirectPort>,
    /// New scheme; the request's where empty.
    pub scheme: String,
    /// Status, 301 where 0.
    #[serde(alias = "redirect_code")]
    pub redirect_code: u32,
    /// Replaces the matched prefix of the path.
    #[serde(alias = "prefix_rewrite")]
    pub prefix_rewrite: String,
}

/// A fixed response.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DirectResponse {
    /// Status.
    pub status: u32,
    /// Body.
    pub body: Option<DirectResponseBody>,
}

/// Body of a fixed response, one of both.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DirectResponseBody {
    /// As text.
    pub string: Option<String>,
    /// As base64.
    pub bytes: Option<String>,
}

/// Names another VirtualService.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DelegateRef {
    /// Name.
    pub name: String,
    /// Namespace; the rule's where empty.
    pub namespace: String,
}

/// Changes to the request line.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rewrite {
    /// New path, or new prefix where a prefix was matched.
    pub uri: String,
    /// New authority.
    pub authority: String,
    /// Change of the path by regular expression.
    #[serde(alias = "uri_regex_rewrite")]
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// Replacement by regular expression.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RegexRewrite {
    /// What is replaced (RE2).
    #[serde(rename = "match")]
    pub pattern: String,
    /// By what; `\1` refers to groups.
    pub rewrite: String,
}

/// Retries.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retries {
    /// How many; 0 switches retries off.
    pub attempts: u32,
    /// Time for each try; the request's where absent.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "per_try_timeout")]
    pub per_try_timeout: Option<Duration>,
    /// Conditions, comma separated; the default's where empty.
    #[serde(alias = "retry_on")]
    pub retry_on: String,
    /// Whether other localities are tried.
    #[serde(alias = "retry_remote_localities")]
    pub retry_remote_localities: Option<bool>,
    /// Whether endpoints that failed are avoided.
    #[serde(alias = "retry_ignore_previous_hosts")]
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Time between tries; 25 ms where absent.
    #[serde(deserialize_with = "optional")]
    pub backoff: Option<Duration>,
}

/// Faults to inject.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// Wait first.
    pub delay: Option<FaultDelay>,
    /// Answer with an error.
    pub abort: Option<FaultAbort>,
}

/// A delay.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultDelay {
    /// Share of requests (whole percent; old form).
    pub percent: Option<u32>,
    /// Share of requests; all where both are absent.
    pub percentage: Option<Percent>,
    /// How long.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "fixed_delay")]
    pub fixed_delay: Option<Duration>,
    /// Mean of an exponential distribution; never implemented by anybody.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "exponential_delay")]
    pub exponential_delay: Option<Duration>,
}

/// An abort; one of the three errors.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct FaultAbort {
    /// HTTP status.
    #[serde(alias = "http_status")]
    pub http_status: Option<u32>,
    /// gRPC status by name, such as `UNAVAILABLE`.
    #[serde(alias = "grpc_status")]
    pub grpc_status: Option<String>,
    /// HTTP/2 error by name; never implemented by anybody.
    #[serde(alias = "http2_error")]
    pub http2_error: Option<String>,
    /// Share of requests; all where absent.
    pub percentage: Option<Percent>,
}

/// A share of requests in percent, fractions allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Percent {
    /// 0 to 100.
    pub value: f64,
}

/// A copy of each request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpMirror {
    /// Where to.
    pub destination: Destination,
    /// Share of requests; all where absent.
    pub percentage: Option<Percent>,
}

proto_enum! {
    /// What is done with preflight requests whose origin is not allowed.
    pub enum UnmatchedPreflights {
        /// Same as `FORWARD`.
        Unspecified = "UNSPECIFIED" / 0,
        /// They go to the application.
        Forward = "FORWARD" / 1,
        /// They are answered.
        Ignore = "IGNORE" / 2,
    }
}

/// Cross-origin policy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CorsPolicy {
    /// Allowed origins (exact; old form).
    #[serde(alias = "allow_origin")]
    pub allow_origin: Vec<String>,
    /// Allowed origins.
    #[serde(alias = "allow_origins")]
    pub allow_origins: Vec<StringMatch>,
    /// Allowed methods.
    #[serde(alias = "allow_methods")]
    pub allow_methods: Vec<String>,
    /// Allowed headers.
    #[serde(alias = "allow_headers")]
    pub allow_headers: Vec<String>,
    /// Headers that scripts may read.
    #[serde(alias = "expose_headers")]
    pub expose_headers: Vec<String>,
    /// How long the answer to a preflight holds.
    #[serde(deserialize_with = "optional")]
    #[serde(alias = "max_age")]
    pub max_age: Option<Duration>,
    /// Whether credentials may be sent.
    #[serde(alias = "allow_credentials")]
    pub allow_credentials: Option<bool>,
    /// Preflights of origins that are not allowed.
    #[serde(alias = "unmatched_preflights")]
    pub unmatched_preflights: UnmatchedPreflights,
}

/// Names of gRPC statuses, each at the place of its code.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
