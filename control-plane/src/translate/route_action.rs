//! What a route does with a request: destinations, timeout, retries, rewrites, redirects, mirrors.
//!
//! Headers, faults and CORS are in `route_policy`. Which cluster a destination means is the
//! caller's to say.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HashPolicy, HostRewriteSpecifier,
    RequestMirrorPolicy,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, HeaderMatcher, RedirectAction, RetryPolicy, RouteAction, WeightedCluster,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use lateen_api::networking::{
    Destination, DirectResponse, HttpRoute, HttpRouteDestination, Redirect, RedirectPort, Retries,
};

use super::filters::UNDELIVERED;
use super::pack::{any, duration, number, regex, runtime_fraction};
use super::route_policy::{HeaderChanges, header_changes};

/// Conditions on which a request is tried again when nothing else is said.
const DEFAULT_RETRY_ON: &str =
    "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes,retriable-headers";
/// How often it is tried again then.
const DEFAULT_RETRIES: u32 = 2;
/// How often another endpoint is looked for, for one retry.
const HOST_ATTEMPTS: i64 = 5;

/// What is known of where a destination leads.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Target {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// How requests are tied to endpoints.
    pub(crate) hash_policies: Vec<HashPolicy>,
}

/// Says where a destination leads.
pub(crate) type Resolve<'a> = &'a dyn Fn(&Destination) -> Target;

/// The action of a route; `None` when the rule says nothing that could be done.
pub(crate) fn action(route: &HttpRoute, resolve: Resolve<'_>) -> Option<Action> {
    if let Some(redirect) = &route.redirect {
        return Some(Action::Redirect(redirection(redirect)));
    }
    if let Some(response) = &route.direct_response {
        return Some(Action::DirectResponse(direct_response(response)));
    }
    if route.route.is_empty() {
        return None;
    }
    Some(Action::Route(forward(route, resolve)))
}

/// Forwarding to one cluster with the defaults.
pub(crate) fn forward_to(target: Target) -> RouteAction {
    let hashed = !target.hash_policies.is_empty();
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(target.cluster)),
        hash_policy: target.hash_policies,
        retry_policy: retry_policy(None, hashed),
        ..timed(Duration::ZERO)
    }
}

/// An action without destination that ends after `timeout` (zero: never).
pub(crate) fn timed(timeout: Duration) -> RouteAction {
    RouteAction {
        timeout: Some(duration(timeout)),
        cluster_not_found_response_code: ClusterNotFoundResponseCode::InternalServerError as i32,
        ..RouteAction::default()
    }
}

fn forward(route: &HttpRoute, resolve: Resolve<'_>) -> RouteAction {
    let timeout = route.timeout.unwrap_or_default();
    let targets: Vec<(&HttpRouteDestination, Target)> =
        live(&route.route).map(|it| (it, resolve(&it.destination))).collect();
    let hash_policy: Vec<HashPolicy> =
        targets.iter().find_map(|(_, target)| first_policies(target)).unwrap_or_default();
    let mut action = RouteAction {
        cluster_specifier: Some(clusters(&targets)),
        retry_policy: retry_policy(route.retries.as_ref(), !hash_policy.is_empty()),
        hash_policy,
        request_mirror_policies: mirrors(route, resolve),
        ..timed(timeout)
    };
    // Header values of the only destination are put at the route by the caller.
    let operations = route.headers.iter().chain(only(&targets).and_then(|it| it.headers.as_ref()));
    let host = operations.filter_map(|headers| header_changes(headers).host).next_back();
    if let Some(host) = host {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(host));
    }
    rewrite(route, &mut action);
    action
}

fn first_policies(target: &Target) -> Option<Vec<HashPolicy>> {
    (!target.hash_policies.is_empty()).then(|| target.hash_policies.clone())
}

/// Destinations that get traffic: of several, those with a weight.
pub(crate) fn live(
    destinations: &[HttpRouteDestination],
) -> impl Iterator<Item = &HttpRouteDestination> {
    let several = destinations.len() > 1;
    destinations.iter().filter(move |it| !several || it.weight > 0)
}

fn only<'a>(targets: &[(&'a HttpRouteDestination, Target)]) -> Option<&'a HttpRouteDestination> {
    match targets {
        [(only, _)] => Some(only),
        _ => None,
    }
}

fn clusters(targets: &[(&HttpRouteDestination, Target)]) -> ClusterSpecifier {
    if let [(_, target)] = targets {
        return ClusterSpecifier::Cluster(target.cluster.clone());
    }
    let weighted = targets.iter().map(|(destination, target)| {
        let changes = destination.headers.as_ref().map(header_changes).unwrap_or_default();
        let HeaderChanges { request_add, request_remove, response_add, response_remove, host } =
            changes;
        ClusterWeight {
            name: target.cluster.clone(),
            weight: Some(number(destination.weight)),
            request_headers_to_add: request_add,
            request_headers_to_remove: request_remove,
            response_headers_to_add: response_add,
            response_headers_to_remove: response_remove,
            host_rewrite_specifier: host
                .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            ..ClusterWeight::default()
        }
    });
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters: weighted.collect(),
        ..WeightedCluster::default()
    })
}

fn rewrite(route: &HttpRoute, action: &mut RouteAction) {
    let Some(rewrite) = &route.rewrite else { return };
    action.prefix_rewrite.clone_from(&rewrite.uri);
    action.regex_rewrite = rewrite.uri_regex_rewrite.as_ref().map(|it| RegexMatchAndSubstitute {
        pattern: Some(regex(it.pattern.clone())),
        substitution: it.rewrite.clone(),
    });
    if !rewrite.authority.is_empty() {
        let host = HostRewriteSpecifier::HostRewriteLiteral(rewrite.authority.clone());
        action.host_rewrite_specifier = Some(host);
    }
}

fn mirrors(route: &HttpRoute, resolve: Resolve<'_>) -> Vec<RequestMirrorPolicy> {
    let old = route.mirror.as_ref().map(|destination| {
        let percent = route.mirror_percentage.map(|percent| percent.value);
        (destination, percent.or_else(|| route.mirror_percent.map(f64::from)))
    });
    let new = route.mirrors.iter().map(|it| (&it.destination, it.percentage.map(|p| p.value)));
    old.into_iter()
        .chain(new)
        .filter(|(_, percent)| *percent != Some(0.0))
        .map(|(destination, percent)| RequestMirrorPolicy {
            cluster: resolve(destination).cluster,
            runtime_fraction: Some(runtime_fraction(percent.unwrap_or(100.0))),
            ..RequestMirrorPolicy::default()
        })
        .collect()
}

/// When and how often a request is tried again; `None` for never.
pub(crate) fn retry_policy(retries: Option<&Retries>, hashed: bool) -> Option<RetryPolicy> {
    let attempts = retries.map_or(DEFAULT_RETRIES, |retries| retries.attempts);
    if attempts == 0 {
        return None;
    }
    let wanted = retries.map(|retries| retries.retry_on.as_str()).filter(|on| !on.is_empty());
    let (retry_on, codes) = split_codes(wanted.unwrap_or(DEFAULT_RETRY_ON));
    let avoid_previous = retries.and_then(|it| it.retry_ignore_previous_hosts).unwrap_or(true);
    let mut policy = RetryPolicy {
        retry_on,
        num_retries: Some(number(attempts)),
        per_try_timeout: retries.and_then(|it| it.per_try_timeout).map(duration),
        retriable_status_codes: codes,
        retriable_headers: if wanted.is_none() { vec![undelivered()] } else { Vec::new() },
        host_selection_retry_max_attempts: HOST_ATTEMPTS,
        retry_back_off: retries.and_then(|it| it.backoff).map(|backoff| RetryBackOff {
            base_interval: Some(duration(backoff)),
            ..RetryBackOff::default()
        }),
        ..RetryPolicy::default()
    };
    // With consistent hashing there is one endpoint for a request; another one is the wrong one.
    if avoid_previous && !hashed {
        policy.retry_host_predicate = vec![RetryHostPredicate {
            name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(
                &PreviousHostsPredicate {},
            ))),
        }];
    }
    Some(policy)
}

/// The mark of a request that reached no application: it may be sent again, whatever it is.
fn undelivered() -> HeaderMatcher {
    HeaderMatcher {
        name: UNDELIVERED.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(true)),
        ..HeaderMatcher::default()
    }
}

/// Splits status codes from the conditions; codes need a condition of their own.
fn split_codes(retry_on: &str) -> (String, Vec<u32>) {
    const BY_CODE: &str = "retriable-status-codes";
    let mut conditions = Vec::new();
    let mut codes = Vec::new();
    for part in retry_on.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse() {
            Ok(code) => codes.push(code),
            Err(_) => conditions.push(part),
        }
    }
    if !codes.is_empty() && !conditions.contains(&BY_CODE) {
        conditions.push(BY_CODE);
    }
    (conditions.join(","), codes)
}

fn redirection(redirect: &Redirect) -> RedirectAction {
    let code = match redirect.redirect_code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = if !redirect.prefix_rewrite.is_empty() {
        Some(PathRewriteSpecifier::PrefixRewrite(redirect.prefix_rewrite.clone()))
    } else if !redirect.uri.is_empty() {
        Some(PathRewriteSpecifier::PathRedirect(redirect.uri.clone()))
    } else {
        None
    };
    let port = match redirect.derive_port {
        // The port of the protocol needs no writing; Envoy keeps the request's port unless told.
        Some(RedirectPort::FromProtocolDefault) if redirect.scheme == "https" => 443,
        Some(RedirectPort::FromProtocolDefault) => 80,
        Some(RedirectPort::FromRequestPort) | None => redirect.port.unwrap_or_default(),
    };
    RedirectAction {
        host_redirect: redirect.authority.clone(),
        port_redirect: port,
        response_code: code as i32,
        scheme_rewrite_specifier: (!redirect.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.clone())),
        path_rewrite_specifier: path,
        ..RedirectAction::default()
    }
}

fn direct_response(response: &DirectResponse) -> DirectResponseAction {
    use base64::Engine;
    let body = response.body.as_ref().and_then(|body| {
        let text = body.string.clone().map(Specifier::InlineString);
        let bytes = || {
            let encoded = body.bytes.as_ref()?;
            base64::engine::general_purpose::STANDARD.decode(encoded).ok()
        };
        text.or_else(|| bytes().map(Specifier::InlineBytes))
    });
    DirectResponseAction {
        status: response.status,
        body: body.map(|body| DataSource { specifier: Some(body), ..DataSource::default() }),
        ..DirectResponseAction::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Target, UNDELIVERED, action, retry_policy, split_codes};
    use envoy_types::pb::envoy::config::route::v3::RouteAction;
    use envoy_types::pb::envoy::config::route::v3::redirect_action::RedirectResponseCode;
    use envoy_types::pb::envoy::config::route::v3::route::Action;
    use envoy_types::pb::envoy::config::route::v3::route_action::{
        ClusterSpecifier, HostRewriteSpecifier,
    };
    use lateen_api::networking::{Destination, HttpRoute, Retries};
    use serde_json::{Value, json};

    fn resolve(destination: &Destination) -> Target {
        Target {
            cluster: format!("{}/{}", destination.host, destination.subset),
            ..Target::default()
        }
    }

    fn made(value: Value) -> Action {
        let route: HttpRoute = serde_json::from_value(value).unwrap();
        action(&route, &resolve).unwrap()
    }

    fn forwarded(value: Value) -> RouteAction {
        match made(value) {
            Action::Route(route) => route,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn several_destinations_share_by_weight() {
        let route = forwarded(json!({"route": [
            {"destination": {"host": "a", "subset": "v1"}, "weight": 80,
             "headers": {"request": {"set": {"x-to": "v1"}}}},
            {"destination": {"host": "a", "subset": "v2"}, "weight": 20},
            {"destination": {"host": "a", "subset": "v3"}, "weight": 0},
        ]}));
        let Some(ClusterSpecifier::WeightedClusters(weighted)) = route.cluster_specifier else {
            panic!("{route:?}")
        };
        let shares: Vec<(&str, u32)> = weighted
            .clusters
            .iter()
            .map(|it| (it.name.as_str(), it.weight.unwrap().value))
            .collect();
        assert_eq!(shares, [("a/v1", 80), ("a/v2", 20)]);
        assert_eq!(weighted.clusters[0].request_headers_to_add.len(), 1);
        assert_eq!(route.timeout.unwrap().seconds, 0, "no timeout unless asked for");
    }

    #[test]
    fn one_destination_is_a_cluster() {
        let route = forwarded(json!({
            "route": [{"destination": {"host": "a"}}], "timeout": "1.5s",
            "rewrite": {"uri": "/v2", "authority": "b"},
            "mirror": {"host": "m"}, "mirrorPercentage": {"value": 12.5},
        }));
        assert_eq!(route.cluster_specifier, Some(ClusterSpecifier::Cluster("a/".to_owned())));
        assert_eq!(route.timeout.unwrap().nanos, 500_000_000);
        assert_eq!(route.prefix_rewrite, "/v2");
        let host = HostRewriteSpecifier::HostRewriteLiteral("b".to_owned());
        assert_eq!(route.host_rewrite_specifier, Some(host));
        let mirror = &route.request_mirror_policies[0];
        let share = mirror.runtime_fraction.as_ref().unwrap().default_value.unwrap();
        assert_eq!((mirror.cluster.as_str(), share.numerator), ("m/", 125_000));
    }

    #[test]
    fn retries_have_a_default_and_can_be_turned_off() {
        let default = retry_policy(None, false).unwrap();
        assert_eq!(default.num_retries.unwrap().value, 2);
        assert_eq!(default.retry_host_predicate.len(), 1);
        assert_eq!(default.retriable_headers[0].name, UNDELIVERED);
        assert!(retry_policy(None, true).unwrap().retry_host_predicate.is_empty());
        let never = Retries::default();
        assert_eq!(retry_policy(Some(&never), false), None);
        let asked: Retries =
            serde_json::from_value(json!({"attempts": 3, "retryOn": "5xx,429"})).unwrap();
        let policy = retry_policy(Some(&asked), false).unwrap();
        assert_eq!(policy.retry_on, "5xx,retriable-status-codes");
        assert_eq!(policy.retriable_status_codes, [429]);
        assert!(policy.retriable_headers.is_empty(), "who says when says all");
        assert_eq!(split_codes("gateway-error"), ("gateway-error".to_owned(), vec![]));
    }

    #[test]
    fn redirects_and_direct_responses_need_no_destination() {
        let Action::Redirect(redirect) =
            made(json!({"redirect": {"uri": "/x", "authority": "h", "redirectCode": 302}}))
        else {
            panic!()
        };
        assert_eq!(redirect.response_code, RedirectResponseCode::Found as i32);
        let Action::DirectResponse(response) =
            made(json!({"directResponse": {"status": 503, "body": {"string": "no"}}}))
        else {
            panic!()
        };
        assert_eq!(response.status, 503);
        assert!(response.body.is_some());
    }
}
