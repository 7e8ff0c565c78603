//! Route configurations, virtual hosts and route criteria.

use super::action::{self, Defaults};
use super::field::{WHOLE, number, runtime_share, truth};
use super::headers::{self, header_lists};
use super::matcher::{header, query};
use super::per_filter::{self, PerFilter};
use super::{At, Refusal, each, path_template, pattern, unsupported};
use crate::config::{
    HeaderMatch, HeaderOps, PathMatch, Retry, Route, RouteConfig, RouteMatch, StringMatch,
    VirtualHost,
};
use envoy_types::pb::envoy::config::route::v3 as pb;
use pb::route_match::PathSpecifier;
use std::collections::HashMap;
use std::sync::Arc;

/// Envoy's largest body of a direct response, bytes.
const DEFAULT_MAX_BODY: u32 = 4096;

/// Takes a route configuration.
///
/// # Errors
/// Names the first field that cannot be honoured.
pub fn route_config(proto: &pb::RouteConfiguration) -> Result<RouteConfig, Refusal> {
    take(proto).of("routes", &proto.name)
}

pub(super) fn take(proto: &pb::RouteConfiguration) -> Result<RouteConfig, Refusal> {
    unsupported(&[
        ("vhds", proto.vhds.is_some()),
        ("internal_only_headers", !proto.internal_only_headers.is_empty()),
        ("most_specific_header_mutations_wins", proto.most_specific_header_mutations_wins),
        ("cluster_specifier_plugins", !proto.cluster_specifier_plugins.is_empty()),
        ("vhost_header", !proto.vhost_header.is_empty()),
        ("ignore_path_parameters_in_path_matching", proto.ignore_path_parameters_in_path_matching),
        ("route_specifiers", !proto.route_specifiers.is_empty()),
    ])?;
    let outer = Outer {
        headers: headers::take(&header_lists!(proto))?,
        filters: per_filter::take(&proto.typed_per_filter_config)?,
        mirrors: action::mirrors(&proto.request_mirror_policies)?,
        max_body: number(proto.max_direct_response_body_size_bytes.as_ref(), DEFAULT_MAX_BODY),
    };
    let virtual_hosts = each("virtual_hosts", &proto.virtual_hosts, |host| {
        virtual_host(host, &outer).map(Arc::new)
    })?;
    refuse_shared_domains(&virtual_hosts)?;
    Ok(RouteConfig {
        name: proto.name.as_str().into(),
        virtual_hosts,
        ignore_port: proto.ignore_port_in_host_matching,
    })
}

/// What a route configuration says for all its virtual hosts.
struct Outer {
    headers: HeaderOps,
    filters: PerFilter,
    mirrors: Vec<crate::config::Mirror>,
    max_body: u32,
}

/// A domain may stand in one virtual host only.
fn refuse_shared_domains(hosts: &[Arc<VirtualHost>]) -> Result<(), Refusal> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (i, host) in hosts.iter().enumerate() {
        for domain in &host.domains {
            if let Some(before) = seen.insert(domain, i) {
                let reason = format!("domain {domain} also stands in virtual_hosts[{before}]");
                return Err(Refusal::new(reason)).at("domains").at_index("virtual_hosts", i);
            }
        }
    }
    Ok(())
}

#[expect(deprecated, reason = "deprecated fields are refused when set")]
fn virtual_host(proto: &pb::VirtualHost, outer: &Outer) -> Result<VirtualHost, Refusal> {
    unsupported(&[
        ("matcher", proto.matcher.is_some()),
        ("require_tls", proto.require_tls != pb::virtual_host::TlsRequirementType::None as i32),
        ("rate_limits", !proto.rate_limits.is_empty()),
        ("cors", proto.cors.is_some()),
        ("retry_policy_typed_config", proto.retry_policy_typed_config.is_some()),
        ("hedge_policy", proto.hedge_policy.is_some()),
        ("include_is_timeout_retry_header", proto.include_is_timeout_retry_header),
        ("route_specifiers", !proto.route_specifiers.is_empty()),
    ])?;
    if proto.domains.is_empty() {
        return Err(Refusal::new("a domain is needed")).at("domains");
    }
    let own = headers::take(&header_lists!(proto))?;
    let retry = match &proto.retry_policy {
        Some(policy) => Some(Arc::new(super::retry::take(policy).at("retry_policy")?)),
        None => None,
    };
    let mirrors = match action::mirrors(&proto.request_mirror_policies)? {
        own if own.is_empty() => outer.mirrors.clone(),
        own => own,
    };
    let inherited = Inherited {
        retry,
        mirrors,
        filters: per_filter::take(&proto.typed_per_filter_config)?.within(&outer.filters),
        max_body: outer.max_body,
    };
    Ok(VirtualHost {
        name: proto.name.as_str().into(),
        domains: each("domains", &proto.domains, |domain| domain_name(domain))?,
        routes: each("routes", &proto.routes, |r| route(r, &inherited).map(Arc::new))?,
        attempt_count: proto.include_request_attempt_count,
        attempt_count_in_response: proto.include_attempt_count_in_response,
        headers: headers::join(own, outer.headers.clone()),
    })
}

/// What a virtual host says for routes that say nothing themselves.
struct Inherited {
    retry: Option<Arc<Retry>>,
    mirrors: Vec<crate::config::Mirror>,
    filters: PerFilter,
    max_body: u32,
}

/// `*`, exact, `*suffix` or `prefix*`, lower case.
fn domain_name(domain: &str) -> Result<String, Refusal> {
    let inner = domain.strip_prefix('*').or_else(|| domain.strip_suffix('*')).unwrap_or(domain);
    if domain.is_empty() || inner.contains('*') {
        return Err(Refusal::new(format!("{domain:?} is not a domain")));
    }
    Ok(domain.to_ascii_lowercase())
}

fn route(proto: &pb::Route, inherited: &Inherited) -> Result<Route, Refusal> {
    unsupported(&[("route_specifiers", !proto.route_specifiers.is_empty())])?;
    let matches = proto
        .r#match
        .as_ref()
        .ok_or_else(|| Refusal::new("is needed"))
        .and_then(criteria)
        .at("match")?;
    let defaults = Defaults {
        retry: inherited.retry.as_ref(),
        mirrors: &inherited.mirrors,
        max_body: inherited.max_body,
    };
    let filters = per_filter::take(&proto.typed_per_filter_config)?.within(&inherited.filters);
    Ok(Route {
        name: proto.name.as_str().into(),
        matches,
        action: action::take(proto.action.as_ref(), &defaults)?,
        headers: headers::take(&header_lists!(proto))?,
        fault: filters.fault,
        cors: filters.cors,
    })
}

fn criteria(proto: &pb::RouteMatch) -> Result<RouteMatch, Refusal> {
    let share = runtime_share(proto.runtime_fraction.as_ref(), WHOLE).at("runtime_fraction")?;
    unsupported(&[
        ("runtime_fraction", share != WHOLE),
        ("cookies", !proto.cookies.is_empty()),
        ("tls_context", proto.tls_context.is_some()),
        ("dynamic_metadata", !proto.dynamic_metadata.is_empty()),
        ("filter_state", !proto.filter_state.is_empty()),
    ])?;
    let mut headers = each("headers", &proto.headers, header)?;
    if proto.grpc.is_some() {
        headers.push(grpc()?);
    }
    Ok(RouteMatch {
        path: path(proto)?,
        headers,
        query: each("query_parameters", &proto.query_parameters, query)?,
    })
}

/// `grpc: {}` asks for a gRPC content type.
fn grpc() -> Result<HeaderMatch, Refusal> {
    Ok(HeaderMatch {
        name: "content-type".to_owned(),
        value: Some(StringMatch::Regex(pattern::full(r"application/grpc(\+.*)?")?)),
        invert: false,
        range: None,
        treat_missing_as_empty: false,
    })
}

fn path(proto: &pb::RouteMatch) -> Result<PathMatch, Refusal> {
    let case_sensitive = truth(proto.case_sensitive.as_ref(), true);
    match &proto.path_specifier {
        Some(PathSpecifier::Prefix(value)) => {
            Ok(PathMatch::Prefix { value: value.clone(), case_sensitive })
        }
        Some(PathSpecifier::Path(value)) => {
            Ok(PathMatch::Exact { value: value.clone(), case_sensitive })
        }
        Some(PathSpecifier::PathSeparatedPrefix(value)) => {
            if value.is_empty() || value.ends_with('/') || value.contains(['?', '#']) {
                return Err(Refusal::new(format!("{value:?} must not end with / or hold ? or #")))
                    .at("path_separated_prefix");
            }
            Ok(PathMatch::SeparatedPrefix { value: value.clone(), case_sensitive })
        }
        Some(PathSpecifier::SafeRegex(regex)) => {
            pattern::full(&regex.regex).map(PathMatch::Regex).at("safe_regex.regex")
        }
        Some(PathSpecifier::PathMatchPolicy(extension)) => {
            path_template::matcher(extension).map(PathMatch::Regex).at("path_match_policy")
        }
        Some(PathSpecifier::ConnectMatcher(_)) => {
            Err(Refusal::new("is not supported")).at("connect_matcher")
        }
        None => Err(Refusal::new("a path criterion is needed")),
    }
}
