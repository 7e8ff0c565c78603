//! What routes do: forward, redirect, respond.

use super::fault::status;
use super::field::{WHOLE, duration, inline, limit, number, port, runtime_share, truth};
use super::headers::{self, header_lists};
use super::{At, Refusal, each, pattern, retry, unsupported};
use crate::config::{
    DirectResponse, Forward, HashPolicy, HashRule, HeaderOps, Mirror, Name, PathRewrite, Redirect,
    Retry, RouteAction, WeightedCluster,
};
use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::route::v3 as pb;
use http::{HeaderName, HeaderValue, StatusCode};
use pb::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use pb::route::Action;
use pb::route_action::hash_policy::PolicySpecifier;
use pb::route_action::{ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy};
use std::sync::Arc;
use std::time::Duration;

/// Envoy's time for a response when none is given.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// What a route takes over from around it.
pub(super) struct Defaults<'a> {
    pub(super) retry: Option<&'a Arc<Retry>>,
    pub(super) mirrors: &'a [Mirror],
    pub(super) max_body: u32,
}

pub(super) fn take(
    action: Option<&Action>,
    defaults: &Defaults<'_>,
) -> Result<RouteAction, Refusal> {
    match action {
        Some(Action::Route(route)) => {
            let forward = forward(route, defaults).at("route")?;
            Ok(RouteAction::Forward(Box::new(forward)))
        }
        Some(Action::Redirect(proto)) => redirect(proto).map(RouteAction::Redirect).at("redirect"),
        Some(Action::DirectResponse(proto)) => {
            respond(proto, defaults.max_body).map(RouteAction::Respond).at("direct_response")
        }
        Some(Action::FilterAction(_)) => Err(Refusal::new("is not supported")).at("filter_action"),
        Some(Action::NonForwardingAction(_)) => {
            Err(Refusal::new("is not supported")).at("non_forwarding_action")
        }
        None => Err(Refusal::new("an action is needed")),
    }
}

fn forward(proto: &pb::RouteAction, defaults: &Defaults<'_>) -> Result<Forward, Refusal> {
    refuse_unsupported(proto)?;
    let own_retry = match &proto.retry_policy {
        Some(policy) => Some(Arc::new(retry::take(policy).at("retry_policy")?)),
        None => None,
    };
    let own_mirrors = mirrors(&proto.request_mirror_policies)?;
    Ok(Forward {
        clusters: clusters(proto)?,
        timeout: limit(proto.timeout.as_ref(), Some(DEFAULT_TIMEOUT)).at("timeout")?,
        idle_timeout: limit(proto.idle_timeout.as_ref(), None).at("idle_timeout")?,
        retry: own_retry.or_else(|| defaults.retry.cloned()),
        rewrite: rewrite(proto)?,
        host_rewrite: host_rewrite(proto)?,
        hash_policy: each("hash_policy", &proto.hash_policy, hash_policy)?,
        mirrors: if own_mirrors.is_empty() { defaults.mirrors.to_vec() } else { own_mirrors },
        upgrades: proto
            .upgrade_configs
            .iter()
            .map(|upgrade| {
                let enabled = truth(upgrade.enabled.as_ref(), true);
                (upgrade.upgrade_type.to_ascii_lowercase(), enabled)
            })
            .collect(),
    })
}

#[expect(deprecated, reason = "deprecated fields are refused when set")]
fn refuse_unsupported(proto: &pb::RouteAction) -> Result<(), Refusal> {
    let connect = proto.upgrade_configs.iter().any(|upgrade| upgrade.connect_config.is_some());
    // Zero is without limit; a client's own grpc-timeout is enforced by the client.
    let stream_limit = proto
        .max_stream_duration
        .as_ref()
        .is_some_and(|limits| super::field::lasts(limits.max_stream_duration.as_ref()));
    unsupported(&[
        ("metadata_match", proto.metadata_match.is_some()),
        ("path_rewrite_policy", proto.path_rewrite_policy.is_some()),
        ("path_rewrite", !proto.path_rewrite.is_empty()),
        ("append_x_forwarded_host", proto.append_x_forwarded_host),
        ("early_data_policy", proto.early_data_policy.is_some()),
        ("retry_policy_typed_config", proto.retry_policy_typed_config.is_some()),
        ("priority", proto.priority != RoutingPriority::Default as i32),
        ("rate_limits", !proto.rate_limits.is_empty()),
        ("cors", proto.cors.is_some()),
        ("upgrade_configs.connect_config", connect),
        ("internal_redirect_policy", proto.internal_redirect_policy.is_some()),
        ("internal_redirect_action", proto.internal_redirect_action != 0),
        ("hedge_policy", proto.hedge_policy.is_some()),
        ("max_stream_duration.max_stream_duration", stream_limit),
    ])
}

fn clusters(proto: &pb::RouteAction) -> Result<Vec<WeightedCluster>, Refusal> {
    match &proto.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok(vec![WeightedCluster {
            cluster: cluster_name(name).at("cluster")?,
            weight: 1,
            headers: HeaderOps::default(),
        }]),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let list = each("clusters", &weighted.clusters, share).at("weighted_clusters")?;
            unsupported(&[(
                "weighted_clusters.random_value_specifier",
                weighted.random_value_specifier.is_some(),
            )])?;
            if list.iter().all(|cluster| cluster.weight == 0) {
                return Err(Refusal::new("no cluster has a weight")).at("weighted_clusters");
            }
            Ok(list)
        }
        Some(ClusterSpecifier::ClusterHeader(_)) => {
            Err(Refusal::new("is not supported")).at("cluster_header")
        }
        Some(
            ClusterSpecifier::ClusterSpecifierPlugin(_)
            | ClusterSpecifier::InlineClusterSpecifierPlugin(_),
        ) => Err(Refusal::new("is not supported")).at("cluster_specifier_plugin"),
        None => Err(Refusal::new("a cluster is needed")),
    }
}

fn share(proto: &pb::weighted_cluster::ClusterWeight) -> Result<WeightedCluster, Refusal> {
    unsupported(&[
        ("cluster_header", !proto.cluster_header.is_empty()),
        ("metadata_match", proto.metadata_match.is_some()),
        ("typed_per_filter_config", !proto.typed_per_filter_config.is_empty()),
        ("host_rewrite_specifier", proto.host_rewrite_specifier.is_some()),
    ])?;
    Ok(WeightedCluster {
        cluster: cluster_name(&proto.name).at("name")?,
        weight: number(proto.weight.as_ref(), 0),
        headers: headers::take(&header_lists!(proto))?,
    })
}

fn cluster_name(name: &str) -> Result<Name, Refusal> {
    if name.is_empty() { Err(Refusal::new("must not be empty")) } else { Ok(name.into()) }
}

fn rewrite(proto: &pb::RouteAction) -> Result<Option<PathRewrite>, Refusal> {
    match (&proto.regex_rewrite, proto.prefix_rewrite.as_str()) {
        (None, "") => Ok(None),
        (None, prefix) => Ok(Some(PathRewrite::Prefix(prefix.to_owned()))),
        (Some(_), prefix) if !prefix.is_empty() => {
            Err(Refusal::new("stands beside prefix_rewrite")).at("regex_rewrite")
        }
        (Some(regex), _) => {
            let text = regex.pattern.as_ref().map_or("", |pattern| pattern.regex.as_str());
            let pattern = pattern::search(text).at("regex_rewrite.pattern.regex")?;
            let substitution = regex.substitution.clone();
            refuse_unknown_groups(&substitution, pattern.captures_len())
                .at("regex_rewrite.substitution")?;
            Ok(Some(PathRewrite::Regex { pattern, substitution }))
        }
    }
}

/// `\3` needs a third group.
fn refuse_unknown_groups(substitution: &str, groups: usize) -> Result<(), Refusal> {
    let mut chars = substitution.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            continue;
        }
        let group = match chars.next() {
            Some('\\') => continue,
            Some(digit) => digit.to_digit(10),
            None => None,
        };
        match group.and_then(|group| usize::try_from(group).ok()) {
            Some(group) if group < groups => {}
            _ => return Err(Refusal::new("refers to a group the pattern does not have")),
        }
    }
    Ok(())
}

fn host_rewrite(proto: &pb::RouteAction) -> Result<Option<HeaderValue>, Refusal> {
    match &proto.host_rewrite_specifier {
        None => Ok(None),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => HeaderValue::try_from(host)
            .map(Some)
            .map_err(|_| Refusal::new("is not a host"))
            .at("host_rewrite_literal"),
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) if !auto.value => Ok(None),
        Some(HostRewriteSpecifier::AutoHostRewrite(_)) => {
            Err(Refusal::new("is not supported")).at("auto_host_rewrite")
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(_)) => {
            Err(Refusal::new("is not supported")).at("host_rewrite_header")
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            Err(Refusal::new("is not supported")).at("host_rewrite_path_regex")
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => {
            Err(Refusal::new("is not supported")).at("host_rewrite")
        }
    }
}

fn hash_policy(proto: &pb::route_action::HashPolicy) -> Result<HashRule, Refusal> {
    let terminal = proto.terminal;
    let by = hashed_by(proto)?;
    Ok(HashRule { by, terminal })
}

fn hashed_by(proto: &pb::route_action::HashPolicy) -> Result<HashPolicy, Refusal> {
    match &proto.policy_specifier {
        Some(PolicySpecifier::Header(header)) => {
            unsupported(&[("header.regex_rewrite", header.regex_rewrite.is_some())])?;
            HeaderName::try_from(header.header_name.as_str())
                .map(HashPolicy::Header)
                .map_err(|_| Refusal::new("is not a header name"))
                .at("header.header_name")
        }
        Some(PolicySpecifier::Cookie(cookie)) => {
            unsupported(&[("cookie.attributes", !cookie.attributes.is_empty())])?;
            if cookie.name.is_empty() {
                return Err(Refusal::new("must not be empty")).at("cookie.name");
            }
            let ttl = cookie.ttl.as_ref().map(duration).transpose().at("cookie.ttl")?;
            let (name, path) = (cookie.name.clone(), cookie.path.clone());
            Ok(HashPolicy::Cookie { name, ttl, path })
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) if properties.source_ip => {
            Ok(HashPolicy::SourceIp)
        }
        Some(PolicySpecifier::ConnectionProperties(_)) => {
            Err(Refusal::new("only source_ip is supported")).at("connection_properties")
        }
        Some(PolicySpecifier::QueryParameter(parameter)) => {
            Ok(HashPolicy::Query(parameter.name.clone()))
        }
        Some(PolicySpecifier::FilterState(_)) => {
            Err(Refusal::new("is not supported")).at("filter_state")
        }
        None => Err(Refusal::new("a policy is needed")),
    }
}

pub(super) fn mirrors(list: &[RequestMirrorPolicy]) -> Result<Vec<Mirror>, Refusal> {
    each("request_mirror_policies", list, |proto| {
        unsupported(&[
            ("cluster_header", !proto.cluster_header.is_empty()),
            ("request_headers_mutations", !proto.request_headers_mutations.is_empty()),
            ("host_rewrite_literal", !proto.host_rewrite_literal.is_empty()),
        ])?;
        Ok(Mirror {
            cluster: cluster_name(&proto.cluster).at("cluster")?,
            fraction_ppm: runtime_share(proto.runtime_fraction.as_ref(), WHOLE)
                .at("runtime_fraction")?,
            keeps_host: proto.disable_shadow_host_suffix_append,
        })
    })
}

fn redirect(proto: &pb::RedirectAction) -> Result<Redirect, Refusal> {
    let status = match RedirectResponseCode::try_from(proto.response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
        Ok(RedirectResponseCode::Found) => StatusCode::FOUND,
        Ok(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
        Ok(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Ok(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
        Err(_) => return Err(Refusal::new("unknown code")).at("response_code"),
    };
    let scheme = match &proto.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.clone()),
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
    };
    let (path, prefix_rewrite) = match &proto.path_rewrite_specifier {
        None => (None, None),
        Some(PathRewriteSpecifier::PathRedirect(path)) => (Some(path.clone()), None),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => (None, Some(prefix.clone())),
        Some(PathRewriteSpecifier::RegexRewrite(_)) => {
            return Err(Refusal::new("is not supported")).at("regex_rewrite");
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            return Err(Refusal::new("is not supported")).at("path_rewrite");
        }
    };
    let port = match proto.port_redirect {
        0 => None,
        value => Some(port(value).at("port_redirect")?),
    };
    let host = (!proto.host_redirect.is_empty()).then(|| proto.host_redirect.clone());
    let strip_query = proto.strip_query;
    Ok(Redirect { host, path, prefix_rewrite, scheme, port, strip_query, status })
}

fn respond(proto: &pb::DirectResponseAction, max_body: u32) -> Result<DirectResponse, Refusal> {
    unsupported(&[("body_format", proto.body_format.is_some())])?;
    let body = match &proto.body {
        Some(source) => Bytes::copy_from_slice(inline(source).at("body")?),
        None => Bytes::new(),
    };
    if u32::try_from(body.len()).map_or(true, |length| length > max_body) {
        return Err(Refusal::new(format!("is longer than {max_body} bytes"))).at("body");
    }
    Ok(DirectResponse { status: status(proto.status).at("status")?, body })
}
