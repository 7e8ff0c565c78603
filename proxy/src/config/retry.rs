//! Retries of requests.

use super::HeaderMatch;
use http::StatusCode;
use std::time::Duration;

/// Retry policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Conditions.
    pub on: RetryOn,
    /// Retries after the first attempt.
    pub retries: u32,
    /// Time for one attempt; `None` leaves only the route's timeout.
    pub per_try_timeout: Option<Duration>,
    /// First back-off; doubled each time with full jitter.
    pub backoff_base: Duration,
    /// Largest back-off.
    pub backoff_max: Duration,
    /// Status codes of `retriable-status-codes`.
    pub status_codes: Vec<StatusCode>,
    /// Response headers of `retriable-headers`; one of them is enough.
    pub headers: Vec<HeaderMatch>,
    /// Do not pick an endpoint that was tried already, so many picks long.
    pub avoid_previous_hosts: bool,
}

/// Retry conditions (`x-envoy-retry-on` and `x-envoy-retry-grpc-on` names).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one flag for each condition of the retry-on list"
)]
pub struct RetryOn {
    /// `5xx`.
    pub status_5xx: bool,
    /// `gateway-error`.
    pub gateway_error: bool,
    /// `reset`.
    pub reset: bool,
    /// `connect-failure`.
    pub connect_failure: bool,
    /// `refused-stream`.
    pub refused_stream: bool,
    /// `retriable-4xx`.
    pub retriable_4xx: bool,
    /// `retriable-status-codes`.
    pub status_codes: bool,
    /// `retriable-headers`.
    pub headers: bool,
    /// `envoy-ratelimited`.
    pub rate_limited: bool,
    /// `reset-before-request`.
    pub reset_before_request: bool,
    /// gRPC `cancelled`.
    pub cancelled: bool,
    /// gRPC `deadline-exceeded`.
    pub deadline_exceeded: bool,
    /// gRPC `internal`.
    pub internal: bool,
    /// gRPC `resource-exhausted`.
    pub resource_exhausted: bool,
    /// gRPC `unavailable`.
    pub unavailable: bool,
}

impl RetryOn {
    /// Sets a condition by its name; false when there is no such condition.
    pub fn set(&mut self, name: &str) -> bool {
        let flag = match name {
            "5xx" => &mut self.status_5xx,
            "gateway-error" => &mut self.gateway_error,
            "reset" => &mut self.reset,
            "reset-before-request" => &mut self.reset_before_request,
            "connect-failure" => &mut self.connect_failure,
            "refused-stream" => &mut self.refused_stream,
            "retriable-4xx" => &mut self.retriable_4xx,
            "retriable-status-codes" => &mut self.status_codes,
            "retriable-headers" => &mut self.headers,
            "envoy-ratelimited" => &mut self.rate_limited,
            "cancelled" => &mut self.cancelled,
            "deadline-exceeded" => &mut self.deadline_exceeded,
            "internal" => &mut self.internal,
            "resource-exhausted" => &mut self.resource_exhausted,
            "unavailable" => &mut self.unavailable,
            // There is no HTTP/3 that could fail this way.
            "http3-post-connect-failure" => return true,
            _ => return false,
        };
        *flag = true;
        true
    }
}
