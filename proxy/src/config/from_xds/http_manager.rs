//! The HTTP connection manager and its filters.

use super::access_log::access_log;
use super::field::{cidr, lasts, limit, number, truth, unpack};
use super::metadata::{Extension, extension};
use super::{At, Refusal, each, headers, network, rbac, unsupported};
use crate::config::{ForwardClientCert, HttpFilter, HttpManager, ReplyHeaders, RouteSource};
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as RbacProto;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use hcm::HttpConnectionManager as Proto;
use hcm::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier,
    ServerHeaderTransformation, UpgradeConfig,
};
use hcm::http_filter::ConfigType;
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's idle time of connections when none is given.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Envoy's idle time of streams when none is given.
const DEFAULT_STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn take(proto: &Proto) -> Result<HttpManager, Refusal> {
    refuse_unsupported(proto)?;
    refuse_protocol_options(proto)?;
    let common = proto.common_http_protocol_options.as_ref();
    let server_name = if proto.server_name.is_empty() { "envoy" } else { &proto.server_name };
    Ok(HttpManager {
        stat_prefix: proto.stat_prefix.as_str().into(),
        routes: routes(proto)?,
        filters: filters(&proto.http_filters)?,
        access_log: each("access_log", &proto.access_log, access_log)?,
        client_cert: client_cert(proto)?,
        use_remote_address: truth(proto.use_remote_address.as_ref(), false),
        internal_networks: internal_networks(proto)?,
        generate_request_id: truth(proto.generate_request_id.as_ref(), true),
        upgrades: each("upgrade_configs", &proto.upgrade_configs, upgrade)?
            .into_iter()
            .flatten()
            .collect(),
        server_name: http::HeaderValue::try_from(server_name)
            .map_err(|_| Refusal::new("is not a header value"))
            .at("server_name")?,
        pass_server_header: passes_server_header(proto)?,
        idle_timeout: limit(
            common.and_then(|common| common.idle_timeout.as_ref()),
            Some(DEFAULT_IDLE_TIMEOUT),
        )
        .at("common_http_protocol_options.idle_timeout")?,
        stream_idle_timeout: limit(
            proto.stream_idle_timeout.as_ref(),
            Some(DEFAULT_STREAM_IDLE_TIMEOUT),
        )
        .at("stream_idle_timeout")?,
        normalize_path: truth(proto.normalize_path.as_ref(), false),
        merge_slashes: proto.merge_slashes,
        reply_headers: reply_headers(proto).at("local_reply_config")?,
    })
}

fn reply_headers(proto: &Proto) -> Result<Vec<ReplyHeaders>, Refusal> {
    let Some(config) = &proto.local_reply_config else { return Ok(Vec::new()) };
    unsupported(&[("body_format", config.body_format.is_some())])?;
    each("mappers", &config.mappers, mapper)
}

fn mapper(proto: &hcm::ResponseMapper) -> Result<ReplyHeaders, Refusal> {
    unsupported(&[
        ("status_code", proto.status_code.is_some()),
        ("body", proto.body.is_some()),
        ("body_format_override", proto.body_format_override.is_some()),
    ])?;
    let filter = proto.filter.as_ref().and_then(|filter| filter.filter_specifier.as_ref());
    let Some(FilterSpecifier::ResponseFlagFilter(filter)) = filter else {
        return Err(Refusal::new("only a response flag filter is supported")).at("filter");
    };
    let edit = headers::added("headers_to_add", &proto.headers_to_add)?;
    Ok(ReplyHeaders { flags: filter.flags.clone(), edit })
}

fn internal_networks(proto: &Proto) -> Result<Vec<IpNet>, Refusal> {
    let Some(config) = &proto.internal_address_config else { return Ok(Vec::new()) };
    each("cidr_ranges", &config.cidr_ranges, cidr).at("internal_address_config")
}

fn refuse_unsupported(proto: &Proto) -> Result<(), Refusal> {
    let tracer = proto.tracing.as_ref().is_some_and(|tracing| tracing.provider.is_some());
    let escaped = proto.path_with_escaped_slashes_action;
    let keeps_escaped = escaped == PathWithEscapedSlashesAction::KeepUnchanged as i32
        || escaped == PathWithEscapedSlashesAction::ImplementationSpecificDefault as i32;
    let uuid = proto.request_id_extension.as_ref().and_then(|e| e.typed_config.as_ref());
    let foreign_id = uuid.is_some_and(|any| {
        super::field::type_name(any) != "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
    });
    unsupported(&[
        ("codec_type", proto.codec_type == CodecType::Http3 as i32),
        ("tracing.provider", tracer),
        ("add_user_agent", truth(proto.add_user_agent.as_ref(), false)),
        ("scheme_header_transformation", proto.scheme_header_transformation.is_some()),
        ("request_timeout", lasts(proto.request_timeout.as_ref())),
        ("request_headers_timeout", lasts(proto.request_headers_timeout.as_ref())),
        ("xff_num_trusted_hops", proto.xff_num_trusted_hops > 0),
        ("original_ip_detection_extensions", !proto.original_ip_detection_extensions.is_empty()),
        ("early_header_mutation_extensions", !proto.early_header_mutation_extensions.is_empty()),
        ("via", !proto.via.is_empty()),
        ("skip_xff_append", proto.skip_xff_append),
        ("preserve_external_request_id", proto.preserve_external_request_id),
        ("always_set_request_id_in_response", proto.always_set_request_id_in_response),
        ("forward_client_cert_matcher", proto.forward_client_cert_matcher.is_some()),
        ("proxy_100_continue", proto.proxy_100_continue),
        (
            "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
            proto.represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        ),
        ("path_with_escaped_slashes_action", !keeps_escaped),
        ("request_id_extension", foreign_id),
        ("strip_matching_host_port", proto.strip_matching_host_port),
        ("strip_port_mode", proto.strip_port_mode.is_some()),
        ("path_normalization_options", proto.path_normalization_options.is_some()),
        ("strip_trailing_host_dot", proto.strip_trailing_host_dot),
        ("proxy_status_config", proto.proxy_status_config.is_some()),
        ("append_x_forwarded_port", proto.append_x_forwarded_port),
        ("forward_proto_config", proto.forward_proto_config.is_some()),
        (
            "add_proxy_protocol_connection_state",
            truth(proto.add_proxy_protocol_connection_state.as_ref(), false),
        ),
    ])
}

fn refuse_protocol_options(proto: &Proto) -> Result<(), Refusal> {
    if let Some(common) = &proto.common_http_protocol_options {
        unsupported(&[
            ("max_connection_duration", lasts(common.max_connection_duration.as_ref())),
            ("max_stream_duration", lasts(common.max_stream_duration.as_ref())),
            ("headers_with_underscores_action", common.headers_with_underscores_action != 0),
            (
                "max_requests_per_connection",
                number(common.max_requests_per_connection.as_ref(), 0) > 0,
            ),
        ])
        .at("common_http_protocol_options")?;
    }
    if let Some(http1) = &proto.http_protocol_options {
        unsupported(&[
            ("header_key_format", http1.header_key_format.is_some()),
            ("allow_chunked_length", http1.allow_chunked_length),
        ])
        .at("http_protocol_options")?;
    }
    Ok(())
}

fn routes(proto: &Proto) -> Result<RouteSource, Refusal> {
    match &proto.route_specifier {
        Some(RouteSpecifier::Rds(rds)) if !rds.route_config_name.is_empty() => {
            Ok(RouteSource::Rds(rds.route_config_name.as_str().into()))
        }
        Some(RouteSpecifier::Rds(_)) => {
            Err(Refusal::new("must not be empty")).at("rds.route_config_name")
        }
        Some(RouteSpecifier::RouteConfig(config)) => {
            let config = super::route::take(config).at("route_config")?;
            Ok(RouteSource::Inline(Arc::new(config)))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            Err(Refusal::new("is not supported")).at("scoped_routes")
        }
        None => Err(Refusal::new("routes are needed")).at("route_specifier"),
    }
}

fn passes_server_header(proto: &Proto) -> Result<bool, Refusal> {
    match ServerHeaderTransformation::try_from(proto.server_header_transformation) {
        Ok(ServerHeaderTransformation::Overwrite) => Ok(false),
        Ok(ServerHeaderTransformation::PassThrough) => Ok(true),
        Ok(ServerHeaderTransformation::AppendIfAbsent) | Err(_) => {
            Err(Refusal::new("only OVERWRITE and PASS_THROUGH are supported"))
                .at("server_header_transformation")
        }
    }
}

fn client_cert(proto: &Proto) -> Result<ForwardClientCert, Refusal> {
    let mode = match ForwardClientCertDetails::try_from(proto.forward_client_cert_details) {
        Ok(ForwardClientCertDetails::Sanitize) => ForwardClientCert::Sanitize,
        Ok(ForwardClientCertDetails::ForwardOnly) => ForwardClientCert::ForwardOnly,
        Ok(ForwardClientCertDetails::AppendForward) => ForwardClientCert::AppendForward,
        Ok(ForwardClientCertDetails::SanitizeSet) => ForwardClientCert::SanitizeSet,
        Ok(ForwardClientCertDetails::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
        Err(_) => return Err(Refusal::new("unknown value")).at("forward_client_cert_details"),
    };
    if matches!(mode, ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet) {
        let details = proto.set_current_client_cert_details.unwrap_or_default();
        let wanted = truth(details.subject.as_ref(), false) && details.dns && details.uri;
        if !wanted || details.cert || details.chain || details.issuer || details.format != 0 {
            return Err(Refusal::new("only subject, dns and uri together are supported"))
                .at("set_current_client_cert_details");
        }
    }
    Ok(mode)
}

/// The upgrade that is let through, if it is switched on.
fn upgrade(config: &UpgradeConfig) -> Result<Option<String>, Refusal> {
    unsupported(&[("filters", !config.filters.is_empty())])?;
    let name = config.upgrade_type.to_ascii_lowercase();
    if !truth(config.enabled.as_ref(), true) {
        return Ok(None);
    }
    if name == "connect" || name == "connect-udp" {
        return Err(Refusal::new(format!("upgrade {name} is not supported"))).at("upgrade_type");
    }
    Ok(Some(name))
}

fn filters(list: &[hcm::HttpFilter]) -> Result<Vec<HttpFilter>, Refusal> {
    let Some((last, before)) = list.split_last() else {
        return Err(Refusal::new("a router is needed")).at("http_filters");
    };
    let mut out = Vec::with_capacity(before.len());
    for (i, filter) in before.iter().enumerate() {
        out.extend(http_filter(filter).at_index("http_filters", i)?);
    }
    let router = matches!(&last.config_type, Some(ConfigType::TypedConfig(any))
        if super::field::type_name(any) == ROUTER);
    if !router {
        return Err(Refusal::new("the last filter must be the router"))
            .at_index("http_filters", before.len());
    }
    refuse_router_options(last).at_index("http_filters", before.len())?;
    Ok(out)
}

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";

fn refuse_router_options(filter: &hcm::HttpFilter) -> Result<(), Refusal> {
    use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
    let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { return Ok(()) };
    let router: Router = unpack(any)?;
    unsupported(&[
        ("upstream_log", !router.upstream_log.is_empty()),
        ("strict_check_headers", !router.strict_check_headers.is_empty()),
        ("upstream_http_filters", !router.upstream_http_filters.is_empty()),
    ])
    .at("typed_config")
}

fn http_filter(filter: &hcm::HttpFilter) -> Result<Vec<HttpFilter>, Refusal> {
    if filter.disabled {
        return Ok(Vec::new());
    }
    let any = match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => Some(any),
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(Refusal::new("is not supported")).at("config_discovery");
        }
        None => None,
    };
    let extension = extension(any)?;
    match (&extension, extension.type_name()) {
        (Extension::Message(_, any), "envoy.extensions.filters.http.rbac.v3.RBAC") => {
            let sets = http_rbac(&unpack(any)?).at("typed_config")?;
            Ok(sets.into_iter().map(HttpFilter::Rbac).collect())
        }
        (Extension::Message(_, any), "envoy.extensions.filters.http.fault.v3.HTTPFault") => {
            let fault: HttpFault = unpack(any)?;
            if fault != HttpFault::default() {
                return Err(Refusal::new("faults are supported in routes only")).at("typed_config");
            }
            Ok(vec![HttpFilter::Fault])
        }
        (_, "envoy.extensions.filters.http.cors.v3.Cors") => Ok(vec![HttpFilter::Cors]),
        (_, "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig") => {
            Ok(vec![HttpFilter::GrpcStats])
        }
        (_, "io.istio.http.peer_metadata.Config") => Ok(vec![HttpFilter::PeerMetadata]),
        (_, "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig") => {
            Ok(vec![HttpFilter::Alpn])
        }
        (_, "stats.PluginConfig") => {
            network::refuse_overrides(&extension)?;
            Ok(vec![HttpFilter::Stats])
        }
        (_, ROUTER) => Err(Refusal::new("the router must be the last filter")),
        _ if filter.is_optional => Ok(Vec::new()),
        (_, other) => Err(Refusal::new(format!("unknown extension {other}"))),
    }
}

fn http_rbac(proto: &RbacProto) -> Result<Vec<Arc<crate::config::Rbac>>, Refusal> {
    unsupported(&[
        ("matcher", proto.matcher.is_some()),
        ("shadow_matcher", proto.shadow_matcher.is_some()),
    ])?;
    rbac::filter(&rbac::Parts {
        rules: proto.rules.as_ref(),
        shadow_rules: proto.shadow_rules.as_ref(),
        stat_prefix: &proto.rules_stat_prefix,
        shadow_stat_prefix: &proto.shadow_rules_stat_prefix,
    })
}
