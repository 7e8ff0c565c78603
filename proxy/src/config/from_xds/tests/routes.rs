//! Route configurations.

use super::super::route_config;
use super::any;
use crate::config::{Abort, PathMatch, PathRewrite, RetryOn, Route, RouteAction, RouteConfig};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{DataSource, HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3 as pb;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::google::protobuf::{Duration as ProtoDuration, UInt32Value};
use http::StatusCode;
use pb::route::Action;
use pb::route_action::{ClusterSpecifier, HostRewriteSpecifier, hash_policy};
use pb::route_match::PathSpecifier;
use std::collections::HashMap;
use std::time::Duration;

fn matching(path: PathSpecifier) -> Option<pb::RouteMatch> {
    Some(pb::RouteMatch { path_specifier: Some(path), ..pb::RouteMatch::default() })
}

fn header(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append_action: action as i32,
        ..HeaderValueOption::default()
    }
}

fn share(name: &str, weight: u32) -> pb::weighted_cluster::ClusterWeight {
    pb::weighted_cluster::ClusterWeight {
        name: name.to_owned(),
        weight: Some(UInt32Value { value: weight }),
        ..pb::weighted_cluster::ClusterWeight::default()
    }
}

fn forwarding() -> pb::RouteAction {
    pb::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(pb::WeightedCluster {
            clusters: vec![share("v1", 90), share("v2", 10)],
            ..pb::WeightedCluster::default()
        })),
        timeout: Some(ProtoDuration::default()),
        prefix_rewrite: "/new".to_owned(),
        host_rewrite_specifier: Some(HostRewriteSpecifier::HostRewriteLiteral("b.test".to_owned())),
        retry_policy: Some(pb::RetryPolicy {
            retry_on: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
                .to_owned(),
            num_retries: Some(UInt32Value { value: 2 }),
            retriable_status_codes: vec![503],
            retry_host_predicate: vec![pb::retry_policy::RetryHostPredicate {
                name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
                config_type: None,
            }],
            host_selection_retry_max_attempts: 5,
            ..pb::RetryPolicy::default()
        }),
        hash_policy: vec![pb::route_action::HashPolicy {
            policy_specifier: Some(hash_policy::PolicySpecifier::Cookie(hash_policy::Cookie {
                name: "user".to_owned(),
                ttl: Some(ProtoDuration { seconds: 5, nanos: 0 }),
                ..hash_policy::Cookie::default()
            })),
            terminal: false,
        }],
        max_stream_duration: Some(pb::route_action::MaxStreamDuration {
            max_stream_duration: Some(ProtoDuration::default()),
            grpc_timeout_header_max: Some(ProtoDuration::default()),
            ..pb::route_action::MaxStreamDuration::default()
        }),
        ..pb::RouteAction::default()
    }
}

fn route(action: Action) -> pb::Route {
    pb::Route {
        name: "r".to_owned(),
        r#match: matching(PathSpecifier::Prefix("/".to_owned())),
        action: Some(action),
        ..pb::Route::default()
    }
}

pub(super) fn config(routes: Vec<pb::Route>) -> pb::RouteConfiguration {
    pb::RouteConfiguration {
        name: "9080".to_owned(),
        ignore_port_in_host_matching: true,
        max_direct_response_body_size_bytes: Some(UInt32Value { value: 1 << 20 }),
        virtual_hosts: vec![pb::VirtualHost {
            name: "a.test:9080".to_owned(),
            domains: vec!["A.test".to_owned(), "*.b.test".to_owned()],
            routes,
            include_request_attempt_count: true,
            ..pb::VirtualHost::default()
        }],
        ..pb::RouteConfiguration::default()
    }
}

pub(super) fn sample() -> pb::RouteConfiguration {
    let mut route = route(Action::Route(forwarding()));
    route.request_headers_to_add = vec![
        header("x-set", "100%%", HeaderAppendAction::OverwriteIfExistsOrAdd),
        header("x-add", "a", HeaderAppendAction::AppendIfExistsOrAdd),
    ];
    route.response_headers_to_remove = vec!["X-Gone".to_owned()];
    let fault = HttpFault {
        abort: Some(FaultAbort {
            percentage: Some(FractionalPercent { numerator: 50, denominator: 0 }),
            error_type: Some(ErrorType::HttpStatus(555)),
            response_body: String::new(),
        }),
        ..HttpFault::default()
    };
    let packed = any("envoy.extensions.filters.http.fault.v3.HTTPFault", &fault);
    route.typed_per_filter_config =
        HashMap::from([("envoy.filters.http.fault".to_owned(), packed)]);
    config(vec![route])
}

fn first(config: &RouteConfig) -> &Route {
    &config.virtual_hosts[0].routes[0]
}

#[test]
fn a_route_is_taken_whole() {
    let taken = route_config(&sample()).unwrap();
    assert!(taken.ignore_port && taken.virtual_hosts[0].attempt_count);
    assert_eq!(taken.virtual_hosts[0].domains, ["a.test", "*.b.test"]);
    let route = first(&taken);
    let edit = &route.headers.request;
    assert_eq!((edit.set[0].0.as_str(), edit.set[0].1.to_str().unwrap()), ("x-set", "100%"));
    assert_eq!(edit.add[0].0, "x-add");
    assert_eq!(route.headers.response.remove, ["x-gone"]);
    let abort = route.fault.as_ref().unwrap().abort.unwrap();
    assert_eq!(abort, (Abort::Http(StatusCode::from_u16(555).unwrap()), 500_000));
    let RouteAction::Forward(forward) = &route.action else { panic!("{:?}", route.action) };
    assert_eq!(forward.clusters[1].weight, 10);
    assert_eq!(forward.timeout, None);
    assert_eq!(forward.rewrite, Some(PathRewrite::Prefix("/new".to_owned())));
    assert_eq!(forward.host_rewrite.as_ref().unwrap(), "b.test");
    let retry = forward.retry.as_ref().unwrap();
    assert_eq!((retry.retries, retry.avoid_previous_hosts), (2, true));
    let wanted = RetryOn {
        connect_failure: true,
        refused_stream: true,
        unavailable: true,
        cancelled: true,
        status_codes: true,
        ..RetryOn::default()
    };
    assert_eq!(retry.on, wanted);
}

#[test]
fn defaults_are_envoys() {
    let plain = pb::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster("c".to_owned())),
        ..pb::RouteAction::default()
    };
    let taken = route_config(&config(vec![route(Action::Route(plain))])).unwrap();
    let RouteAction::Forward(forward) = &first(&taken).action else { panic!("not forwarded") };
    assert_eq!(forward.timeout, Some(Duration::from_secs(15)));
    assert!(forward.retry.is_none());
}

#[test]
fn paths_redirects_and_answers_are_taken() {
    let regex = |text: &str| matcher::RegexMatcher { regex: text.to_owned(), engine_type: None };
    let mut matched = route(Action::DirectResponse(pb::DirectResponseAction {
        status: 502,
        body: Some(DataSource {
            specifier: Some(Specifier::InlineString("no".to_owned())),
            ..DataSource::default()
        }),
        ..pb::DirectResponseAction::default()
    }));
    matched.r#match = matching(PathSpecifier::SafeRegex(regex("/a/[0-9]+")));
    let mut redirected = route(Action::Redirect(pb::RedirectAction {
        response_code: 4,
        port_redirect: 8443,
        scheme_rewrite_specifier: Some(pb::redirect_action::SchemeRewriteSpecifier::HttpsRedirect(
            true,
        )),
        ..pb::RedirectAction::default()
    }));
    redirected.r#match = matching(PathSpecifier::PathSeparatedPrefix("/api".to_owned()));
    let taken = route_config(&config(vec![matched, redirected])).unwrap();
    let routes = &taken.virtual_hosts[0].routes;
    let PathMatch::Regex(pattern) = &routes[0].matches.path else { panic!("not a pattern") };
    assert!(pattern.is_match("/a/7") && !pattern.is_match("/a/7/b"));
    let RouteAction::Respond(answer) = &routes[0].action else { panic!("no answer") };
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (502, &b"no"[..]));
    let RouteAction::Redirect(redirect) = &routes[1].action else { panic!("no redirect") };
    assert_eq!((redirect.status.as_u16(), redirect.port), (308, Some(8443)));
    assert_eq!(redirect.scheme.as_deref(), Some("https"));
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let refused = |change: fn(&mut pb::RouteAction)| {
        let mut action = forwarding();
        change(&mut action);
        route_config(&config(vec![route(Action::Route(action))])).unwrap_err().to_string()
    };
    let place = "routes 9080: virtual_hosts[0].routes[0].route";
    for (refusal, wanted) in [
        (refused(|a| a.cluster_specifier = None), ": a cluster is needed"),
        (
            refused(|a| a.cluster_specifier = Some(ClusterSpecifier::ClusterHeader("x".into()))),
            ".cluster_header: is not supported",
        ),
        (
            refused(|a| a.timeout = Some(ProtoDuration { seconds: -1, nanos: 0 })),
            ".timeout: negative duration",
        ),
        (
            refused(|a| {
                a.prefix_rewrite.clear();
                a.regex_rewrite = Some(matcher::RegexMatchAndSubstitute {
                    pattern: Some(matcher::RegexMatcher {
                        regex: "^/(a)".into(),
                        engine_type: None,
                    }),
                    substitution: r"\2".into(),
                });
            }),
            ".regex_rewrite.substitution: refers to a group the pattern does not have",
        ),
        (
            refused(|a| a.retry_policy.as_mut().unwrap().retry_on = "sometimes".into()),
            ".retry_policy.retry_on: condition \"sometimes\" is not supported",
        ),
    ] {
        assert_eq!(refusal, format!("{place}{wanted}"));
    }
    let mut expanding = sample();
    expanding.virtual_hosts[0].routes[0].request_headers_to_add =
        vec![header("x", "%START_TIME%", HeaderAppendAction::AppendIfExistsOrAdd)];
    let refusal = route_config(&expanding).unwrap_err().to_string();
    assert!(refusal.ends_with("\"%START_TIME%\": %OPERATORS% are not supported"), "{refusal}");
    let mut twice = sample();
    twice.virtual_hosts.push(twice.virtual_hosts[0].clone());
    let refusal = route_config(&twice).unwrap_err().to_string();
    assert!(refusal.ends_with("domain a.test also stands in virtual_hosts[0]"), "{refusal}");
}
