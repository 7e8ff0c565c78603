//! Which requests a route takes: matches of a `VirtualService` as Envoy's route matches.
//!
//! Conditions on the caller (labels, namespace, gateway) and on the port are answered here, for
//! the proxy at hand; conditions on the request are handed on. Knows nothing of what happens to
//! the request.

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use lateen_api::meta::{Labels, selects};
use lateen_api::networking::{HttpMatch, gateway_of};
use lateen_api::string_match::StringMatch;

use super::pack::{flag, matcher, regex};

/// The proxy and port for which conditions are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// Namespace of the proxy.
    pub(crate) namespace: &'a str,
    /// Labels of its workload.
    pub(crate) labels: &'a Labels,
    /// Port of the listener; of a gateway, the port that its server names.
    pub(crate) port: u16,
    /// Namespace and name of the gateway; the sidecars where absent.
    pub(crate) gateway: Option<(&'a str, &'a str)>,
    /// Namespace of the rule, to which its gateways belong unless it says otherwise.
    pub(crate) rule: &'a str,
}

impl Caller<'_> {
    /// Whether conditions on the caller hold: gateways (none means those of the rule), labels,
    /// namespace (empty is any) and port (0 is any).
    pub(crate) fn fits(
        &self,
        gateways: &[String],
        source_labels: &Labels,
        source_namespace: &str,
        port: u32,
    ) -> bool {
        (gateways.is_empty() || gateways.iter().any(|it| gateway_of(it, self.rule) == self.gateway))
            && selects(source_labels, self.labels)
            && (source_namespace.is_empty() || source_namespace == self.namespace)
            && (port == 0 || port == u32::from(self.port))
    }

    /// Whether a match of an HTTP route can hold for this caller at all.
    pub(crate) fn may_match(&self, condition: &HttpMatch) -> bool {
        self.fits(
            &condition.gateways,
            &condition.source_labels,
            &condition.source_namespace,
            condition.port,
        )
    }
}

/// The match of a route that takes every request.
pub(crate) fn everything() -> RouteMatch {
    RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    }
}

/// Whether a match takes every request.
pub(crate) fn takes_everything(route: &RouteMatch) -> bool {
    let all_paths = match &route.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    all_paths && route.headers.is_empty() && route.query_parameters.is_empty()
}

/// The conditions on the request.
pub(crate) fn route_match(condition: &HttpMatch) -> RouteMatch {
    let path = match &condition.uri {
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(StringMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern.clone())),
        Some(StringMatch::Present) | None => PathSpecifier::Prefix("/".to_owned()),
    };
    let pseudo = [
        (":method", &condition.method),
        (":authority", &condition.authority),
        (":scheme", &condition.scheme),
    ];
    let mut headers: Vec<HeaderMatcher> =
        condition.headers.iter().map(|(name, wanted)| header(name, wanted)).collect();
    headers.extend(condition.without_headers.iter().map(|(name, unwanted)| absent(name, unwanted)));
    let pseudo = pseudo.into_iter().filter_map(|(name, wanted)| Some((name, wanted.as_ref()?)));
    headers.extend(pseudo.map(|(name, wanted)| header(name, wanted)));
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: condition.ignore_uri_case.then(|| flag(false)),
        headers,
        query_parameters: condition.query_params.iter().map(|(n, m)| query(n, m)).collect(),
        ..RouteMatch::default()
    }
}

fn header(name: &str, wanted: &StringMatch) -> HeaderMatcher {
    let how = match string_matcher(wanted) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(how),
        ..HeaderMatcher::default()
    }
}

/// The header is missing or has another value.
fn absent(name: &str, unwanted: &StringMatch) -> HeaderMatcher {
    HeaderMatcher {
        invert_match: true,
        // Without it a missing header would never match, inverted or not.
        treat_missing_header_as_empty: *unwanted != StringMatch::Present,
        ..header(name, unwanted)
    }
}

fn query(name: &str, wanted: &StringMatch) -> QueryParameterMatcher {
    let how = match string_matcher(wanted) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(how) }
}

/// A string match; `None` where presence is enough.
pub(crate) fn string_matcher(wanted: &StringMatch) -> Option<StringMatcher> {
    let pattern = match wanted {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern.clone())),
        StringMatch::Present => return None,
    };
    Some(matcher(pattern))
}

#[cfg(test)]
mod tests {
    use super::{Caller, everything, route_match, takes_everything};
    use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
    use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
    use lateen_api::networking::HttpMatch;
    use serde_json::{Value, json};

    fn condition(value: Value) -> HttpMatch {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn conditions_on_the_request_are_handed_on() {
        let matched = route_match(&condition(json!({
            "uri": {"prefix": "/api"}, "ignoreUriCase": true, "method": {"exact": "GET"},
            "headers": {"x-a": {"regex": "a+"}, "x-b": {}},
            "withoutHeaders": {"x-c": {"exact": "1"}, "x-d": {}},
            "queryParams": {"q": {"exact": "1"}},
        })));
        assert_eq!(matched.path_specifier, Some(PathSpecifier::Prefix("/api".to_owned())));
        assert!(!matched.case_sensitive.unwrap().value);
        let names: Vec<&str> = matched.headers.iter().map(|h| h.name.as_str()).collect();
        assert_eq!(names, ["x-a", "x-b", "x-c", "x-d", ":method"]);
        let how = |index: usize| matched.headers[index].header_match_specifier.clone().unwrap();
        assert!(matches!(how(1), HeaderMatchSpecifier::PresentMatch(true)));
        assert!(
            matched.headers[2].invert_match && matched.headers[2].treat_missing_header_as_empty
        );
        assert!(matched.headers[3].invert_match);
        assert!(!matched.headers[3].treat_missing_header_as_empty);
        assert_eq!(matched.query_parameters[0].name, "q");
    }

    #[test]
    fn conditions_on_the_caller_are_answered() {
        let labels = [("app".to_owned(), "web".to_owned())].into();
        let caller =
            Caller { namespace: "shop", labels: &labels, port: 80, gateway: None, rule: "shop" };
        let fits = |value| caller.may_match(&condition(value));
        assert!(fits(json!({})));
        assert!(fits(json!({"gateways": ["mesh"], "port": 80, "sourceNamespace": "shop"})));
        assert!(!fits(json!({"gateways": ["edge"]})));
        assert!(!fits(json!({"port": 81})));
        assert!(!fits(json!({"sourceNamespace": "bank"})));
        assert!(fits(json!({"sourceLabels": {"app": "web"}})));
        assert!(!fits(json!({"sourceLabels": {"app": "other"}})));
        let edge = Caller { gateway: Some(("front", "edge")), ..caller };
        let fits = |value| edge.may_match(&condition(value));
        assert!(fits(json!({})));
        assert!(fits(json!({"gateways": ["mesh", "front/edge"]})));
        assert!(!fits(json!({"gateways": ["mesh", "edge"]})), "a gateway of the rule's namespace");
    }

    #[test]
    fn a_match_of_everything_is_known() {
        assert!(takes_everything(&everything()));
        assert!(takes_everything(&route_match(&HttpMatch::default())));
        assert!(!takes_everything(&route_match(&condition(json!({"headers": {"a": {}}})))));
    }
}
