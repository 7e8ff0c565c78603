//! Limits of clusters: connections, requests, outlier detection, and which HTTP is spoken.

use envoy_types::pb::envoy::config::cluster::v3::cluster::CommonLbConfig;
use envoy_types::pb::envoy::config::cluster::v3::{
    Cluster, OutlierDetection as EnvoyOutlier, UpstreamConnectionOptions,
};
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions,
    TcpKeepalive as EnvoyKeepalive, UpstreamHttpProtocolOptions,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use lateen_api::networking::{
    ClientTls, ClientTlsMode, ConnectionPool, HttpPool, OutlierDetection, TcpKeepalive,
    UpgradePolicy,
};
use lateen_api::port::Protocol;

use super::pack::{any, duration, number};

/// Key of the HTTP options in a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What is taken from the host of a request for the TLS to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ServerNames {
    /// The name that is asked for.
    pub(crate) sent: bool,
    /// The name that the certificate must have.
    pub(crate) checked: bool,
}

impl ServerNames {
    /// Of TLS that is made here; between sidecars the host of a request is nobody's name.
    pub(crate) fn of(tls: &ClientTls) -> Self {
        let outside = matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
        let sent = outside && tls.sni.is_empty();
        let any = tls.insecure_skip_verify == Some(true) || !tls.subject_alt_names.is_empty();
        Self { sent, checked: sent && !any }
    }
}

/// Which HTTP is spoken, and its limits.
pub(crate) fn http_options(
    cluster: &mut Cluster,
    protocol: Protocol,
    pool: Option<&ConnectionPool>,
    names: ServerNames,
) {
    let http = pool.and_then(|pool| pool.http.as_ref());
    let follow = http.is_some_and(|http| http.use_client_protocol);
    let upgrade = http.is_some_and(|http| http.h2_upgrade_policy == UpgradePolicy::Upgrade);
    let h2 = || Http2ProtocolOptions {
        max_concurrent_streams: http
            .filter(|http| http.max_concurrent_streams > 0)
            .map(|http| number(http.max_concurrent_streams)),
        ..Http2ProtocolOptions::default()
    };
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let spoken = if follow || protocol == Protocol::Auto {
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(h2()),
            ..UseDownstreamHttpConfig::default()
        })
    } else if protocol.is_http2() || (upgrade && protocol.is_http()) {
        explicit(ProtocolConfig::Http2ProtocolOptions(h2()))
    } else if protocol.is_http() || http.is_some() || names.sent {
        explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
    } else {
        return;
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: http.and_then(common_options),
        upstream_http_protocol_options: names.sent.then(|| UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: names.checked,
            ..UpstreamHttpProtocolOptions::default()
        }),
        upstream_protocol_options: Some(spoken),
        ..HttpProtocolOptions::default()
    };
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), any(&options));
}

fn common_options(http: &HttpPool) -> Option<CommonOptions> {
    let requests =
        (http.max_requests_per_connection > 0).then(|| number(http.max_requests_per_connection));
    let options = CommonOptions {
        idle_timeout: http.idle_timeout.map(duration),
        max_requests_per_connection: requests,
        ..CommonOptions::default()
    };
    (options != CommonOptions::default()).then_some(options)
}

/// Limits of connections and requests.
pub(crate) fn connection_limits(cluster: &mut Cluster, pool: &ConnectionPool) {
    let thresholds = cluster.circuit_breakers.iter_mut().flat_map(|it| it.thresholds.iter_mut());
    let set = |limit: &mut Option<_>, value: u32| {
        if value > 0 {
            *limit = Some(number(value));
        }
    };
    for threshold in thresholds {
        if let Some(tcp) = &pool.tcp {
            set(&mut threshold.max_connections, tcp.max_connections);
        }
        if let Some(http) = &pool.http {
            set(&mut threshold.max_pending_requests, http.http1_max_pending_requests);
            set(&mut threshold.max_requests, http.http2_max_requests);
            set(&mut threshold.max_retries, http.max_retries);
        }
    }
    let Some(tcp) = &pool.tcp else { return };
    if let Some(timeout) = tcp.connect_timeout {
        cluster.connect_timeout = Some(duration(timeout));
    }
    if let Some(keepalive) = &tcp.tcp_keepalive {
        cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(tcp_keepalive(keepalive)),
            ..UpstreamConnectionOptions::default()
        });
    }
}

fn tcp_keepalive(keepalive: &TcpKeepalive) -> EnvoyKeepalive {
    let seconds =
        |time: std::time::Duration| number(u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
    EnvoyKeepalive {
        keepalive_probes: (keepalive.probes > 0).then(|| number(keepalive.probes)),
        keepalive_time: keepalive.time.map(seconds),
        keepalive_interval: keepalive.interval.map(seconds),
    }
}

/// Ejection of endpoints that fail. With it, endpoints are used even when few are healthy only as
/// far as is asked for.
pub(crate) fn outlier_detection(cluster: &mut Cluster, asked: &OutlierDetection) {
    let enforced = |errors: u32| Some(number(if errors > 0 { 100 } else { 0 }));
    let old = Some(asked.consecutive_errors).filter(|errors| *errors > 0);
    let server_errors = asked.consecutive_5xx_errors;
    let gateway_errors = asked.consecutive_gateway_errors.or(old);
    let percent = Some(asked.max_ejection_percent).filter(|percent| *percent > 0);
    cluster.outlier_detection = Some(EnvoyOutlier {
        consecutive_5xx: server_errors.map(number),
        enforcing_consecutive_5xx: server_errors.and_then(enforced),
        consecutive_gateway_failure: gateway_errors.map(number),
        enforcing_consecutive_gateway_failure: gateway_errors.and_then(enforced),
        enforcing_success_rate: Some(number(0)),
        interval: asked.interval.map(duration),
        base_ejection_time: asked.base_ejection_time.map(duration),
        max_ejection_percent: percent.map(number),
        split_external_local_origin_errors: asked.split_external_local_origin_errors,
        consecutive_local_origin_failure: asked.consecutive_local_origin_failures.map(number),
        enforcing_consecutive_local_origin_failure: asked
            .consecutive_local_origin_failures
            .and_then(enforced),
        ..EnvoyOutlier::default()
    });
    cluster.common_lb_config.get_or_insert_with(CommonLbConfig::default).healthy_panic_threshold =
        Some(Percent { value: f64::from(asked.min_health_percent) });
}
