//! Route tables of calls: one for each port of a service, made from the same rules as a proxy's.
//!
//! Here they are brought to what libraries understand: a route with a filter they do not know would
//! have the whole table refused, and of timeouts they know only that of the stream. They match by
//! the headers that the application sets and by nothing else of a request but its path: every call
//! is a POST, and a route that asks for what cannot be judged is passed over. Source of behaviour:
//! Istio pilot/pkg/networking/grpcgen/rds.go.

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::MaxStreamDuration;
use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, NonForwardingAction, Route, RouteConfiguration,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::filters::FAULT;
use super::grpc::ports;
use super::grpc_listeners::table_name;
use super::input::{MeshSettings, Outbound};
use super::route_match::everything;
use super::routes::Build;

/// The route tables that the listeners of calls name.
pub(crate) fn tables(outbound: &Outbound, mesh: &MeshSettings) -> Vec<RouteConfiguration> {
    let build = Build::new(outbound, mesh);
    let of = |(service, port)| build.of_port(service, port, table_name(service, port));
    ports(outbound).map(|it| understood(of(it))).collect()
}

fn understood(mut table: RouteConfiguration) -> RouteConfiguration {
    for host in &mut table.virtual_hosts {
        host.routes.retain_mut(judged);
        if host.routes.is_empty() {
            host.routes.push(nowhere());
        }
    }
    let routes = table.virtual_hosts.iter_mut().flat_map(|host| host.routes.iter_mut());
    for route in routes {
        route.typed_per_filter_config.retain(|filter, _| filter == FAULT);
        if let Some(Action::Route(action)) = &mut route.action {
            action.max_stream_duration = action.timeout.map(|timeout| MaxStreamDuration {
                max_stream_duration: Some(timeout),
                ..MaxStreamDuration::default()
            });
        }
    }
    table
}

/// How a condition is judged where a library cannot.
enum Verdict {
    /// The library judges it.
    Asked,
    /// It holds for every call.
    Holds,
    /// It holds for no call, or nobody can say.
    Fails,
}

/// Takes the conditions off a route that hold for every call; false where one of them does not hold
/// or cannot be judged.
fn judged(route: &mut Route) -> bool {
    let Some(matched) = &mut route.r#match else { return true };
    let mut possible = true;
    matched.headers.retain(|header| match verdict(header) {
        Verdict::Asked => true,
        Verdict::Holds => false,
        Verdict::Fails => {
            possible = false;
            true
        }
    });
    possible
}

fn verdict(header: &HeaderMatcher) -> Verdict {
    match header.name.as_str() {
        ":method" if takes_post(header) => Verdict::Holds,
        ":method" | ":authority" | ":scheme" => Verdict::Fails,
        // Absence would count as a match, which libraries do not know.
        _ if header.treat_missing_header_as_empty => Verdict::Fails,
        _ => Verdict::Asked,
    }
}

/// Whether a condition on the method surely takes POST, the method of every call.
fn takes_post(header: &HeaderMatcher) -> bool {
    let Some(HeaderMatchSpecifier::StringMatch(text)) = &header.header_match_specifier else {
        return matches!(
            header.header_match_specifier,
            Some(HeaderMatchSpecifier::PresentMatch(true))
        );
    };
    match &text.match_pattern {
        Some(MatchPattern::Exact(method)) => method == "POST",
        Some(MatchPattern::Prefix(prefix)) => "POST".starts_with(prefix.as_str()),
        _ => false,
    }
}

/// The route of a table that has no other: calls fail, as those that match no route do.
fn nowhere() -> Route {
    Route {
        r#match: Some(everything()),
        action: Some(Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    }
}
