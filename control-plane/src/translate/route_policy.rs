//! What a route adds to a request on its way: header changes, faults, CORS.
//!
//! Knows the filters' per-route configurations, not where requests go.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::FaultDelay as EnvoyDelay;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy as EnvoyCors;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{
    FaultAbort as EnvoyAbort, HttpFault,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::Any;
use lateen_api::networking::{
    CorsPolicy, Fault, FaultAbort, FaultDelay, GRPC_STATUSES, HeaderOperations, Headers,
    UnmatchedPreflights,
};

use super::filters::{CORS, FAULT};
use super::pack::{any, duration, flag, fraction, matcher, regex, runtime_fraction};
use super::route_match::string_matcher;

/// Header operations in Envoy's form.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct HeaderChanges {
    /// Added to or set in requests.
    pub(crate) request_add: Vec<HeaderValueOption>,
    /// Removed from requests.
    pub(crate) request_remove: Vec<String>,
    /// Added to or set in responses.
    pub(crate) response_add: Vec<HeaderValueOption>,
    /// Removed from responses.
    pub(crate) response_remove: Vec<String>,
    /// The request's host is replaced by this.
    pub(crate) host: Option<String>,
}

impl HeaderChanges {
    /// Both changes, the other's after these.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.request_add.extend(other.request_add);
        self.request_remove.extend(other.request_remove);
        self.response_add.extend(other.response_add);
        self.response_remove.extend(other.response_remove);
        self.host = other.host.or(self.host);
        self
    }
}

/// The header operations of a route or destination. Setting the host is not a header change but a
/// rewrite, because the host is no ordinary header.
pub(crate) fn header_changes(headers: &Headers) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    if let Some(request) = &headers.request {
        changes.request_add = added(request, is_host);
        changes.request_remove.clone_from(&request.remove);
        let host = request.set.iter().find(|(name, _)| is_host(name));
        changes.host = host.map(|(_, value)| value.clone());
    }
    if let Some(response) = &headers.response {
        changes.response_add = added(response, |_| false);
        changes.response_remove.clone_from(&response.remove);
    }
    changes
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

fn added(operations: &HeaderOperations, skip: fn(&str) -> bool) -> Vec<HeaderValueOption> {
    let option = |name: &String, value: &String, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: name.clone(),
            value: value.clone(),
            ..HeaderValue::default()
        }),
        append_action: action as i32,
        ..HeaderValueOption::default()
    };
    let set = operations.set.iter().filter(|(name, _)| !skip(name));
    let set =
        set.map(|(name, value)| option(name, value, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = operations.add.iter();
    let add = add.map(|(name, value)| option(name, value, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

/// What filters do differently on this route.
pub(crate) fn filter_configs(
    fault: Option<&Fault>,
    cors: Option<&CorsPolicy>,
) -> HashMap<String, Any> {
    let fault = fault.map(|fault| (FAULT.to_owned(), any(&http_fault(fault))));
    let cors = cors.map(|cors| (CORS.to_owned(), any(&cors_policy(cors))));
    fault.into_iter().chain(cors).collect()
}

fn http_fault(fault: &Fault) -> HttpFault {
    HttpFault {
        delay: fault.delay.as_ref().and_then(delay),
        abort: fault.abort.as_ref().and_then(abort),
        ..HttpFault::default()
    }
}

fn delay(delay: &FaultDelay) -> Option<EnvoyDelay> {
    let old = delay.percent.map(f64::from);
    let percent = delay.percentage.map(|it| it.value).or(old).unwrap_or(100.0);
    Some(EnvoyDelay {
        percentage: Some(fraction(percent)),
        fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(delay.fixed_delay?))),
    })
}

fn abort(abort: &FaultAbort) -> Option<EnvoyAbort> {
    let error = match (abort.http_status, &abort.grpc_status) {
        (Some(status), _) => ErrorType::HttpStatus(status),
        (None, Some(name)) => ErrorType::GrpcStatus(grpc_code(name)?),
        (None, None) => return None,
    };
    Some(EnvoyAbort {
        percentage: Some(fraction(abort.percentage.map_or(100.0, |it| it.value))),
        error_type: Some(error),
        ..EnvoyAbort::default()
    })
}

/// The number of a gRPC status code by its name.
pub(crate) fn grpc_code(name: &str) -> Option<u32> {
    let place = GRPC_STATUSES.iter().position(|known| *known == name)?;
    u32::try_from(place).ok()
}

fn cors_policy(cors: &CorsPolicy) -> EnvoyCors {
    let old = cors.allow_origin.iter().map(|origin| match origin.as_str() {
        "*" => matcher(MatchPattern::SafeRegex(regex(".*"))),
        exact => matcher(MatchPattern::Exact(exact.to_owned())),
    });
    let origins = cors.allow_origins.iter().filter_map(string_matcher);
    EnvoyCors {
        allow_origin_string_match: origins.chain(old).collect(),
        allow_methods: cors.allow_methods.join(","),
        allow_headers: cors.allow_headers.join(","),
        expose_headers: cors.expose_headers.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.allow_credentials.map(flag),
        filter_enabled: Some(runtime_fraction(100.0)),
        forward_not_matching_preflights: Some(flag(
            cors.unmatched_preflights != UnmatchedPreflights::Ignore,
        )),
        ..EnvoyCors::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{filter_configs, grpc_code, header_changes};
    use crate::translate::filters::{CORS, FAULT};
    use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
    use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
    use lateen_api::networking::{CorsPolicy, Fault, Headers};
    use prost::Message;
    use serde_json::json;

    #[test]
    fn headers_are_set_added_and_removed() {
        let headers: Headers = serde_json::from_value(json!({
            "request": {"set": {"x-a": "1", "Host": "h"}, "add": {"x-b": "2"}, "remove": ["x-c"]},
            "response": {"set": {"x-d": "3"}},
        }))
        .unwrap();
        let changes = header_changes(&headers);
        let names: Vec<(String, i32)> = changes
            .request_add
            .iter()
            .map(|it| (it.header.clone().unwrap().key, it.append_action))
            .collect();
        assert_eq!(names, [("x-a".to_owned(), 2), ("x-b".to_owned(), 0)]);
        assert_eq!(changes.request_remove, ["x-c"]);
        assert_eq!(changes.response_add.len(), 1);
        assert_eq!(changes.host.as_deref(), Some("h"));
    }

    #[test]
    fn faults_are_for_everyone_unless_a_share_is_named() {
        let fault: Fault = serde_json::from_value(json!({
            "delay": {"fixedDelay": "5s"},
            "abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 0.1}},
        }))
        .unwrap();
        let configs = filter_configs(Some(&fault), None);
        let made = HttpFault::decode(configs[FAULT].value.as_slice()).unwrap();
        assert_eq!(made.delay.unwrap().percentage.unwrap().numerator, 1_000_000);
        let abort = made.abort.unwrap();
        assert_eq!(abort.percentage.unwrap().numerator, 1_000);
        assert_eq!(abort.error_type, Some(ErrorType::GrpcStatus(14)));
        assert_eq!(grpc_code("NOPE"), None);
    }

    #[test]
    fn cors_is_a_filter_configuration() {
        let cors: CorsPolicy =
            serde_json::from_value(json!({"allowOrigins": [{"exact": "https://a"}]})).unwrap();
        assert!(filter_configs(None, Some(&cors)).contains_key(CORS));
    }
}
