//! Network filters: authorization, statistics, TCP proxy, HTTP.

use super::access_log::access_log;
use super::field::{limit, number};
use super::metadata::{Extension, extension, list};
use super::{At, Refusal, each, http_manager, rbac, unsupported};
use crate::config::{Name, Rbac, TcpProxy, Terminal};
use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as RbacProto;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::rbac::EnforcementType;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy as TcpProto;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's idle time of TCP connections when none is given.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// One network filter.
pub(super) enum NetworkFilter {
    Rbac(Vec<Arc<Rbac>>),
    Stats,
    Terminal(Terminal),
}

pub(super) fn take(filter: &Filter) -> Result<NetworkFilter, Refusal> {
    let any = match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => Some(any),
        Some(ConfigType::ConfigDiscovery(_)) => {
            return Err(Refusal::new("is not supported")).at("config_discovery");
        }
        None => None,
    };
    let extension = extension(any)?;
    match (&extension, extension.type_name()) {
        (Extension::Message(_, any), "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy") => {
            let proxy = tcp_proxy(&super::field::unpack(any)?).at("typed_config")?;
            Ok(NetworkFilter::Terminal(Terminal::Tcp(Arc::new(proxy))))
        }
        (
            Extension::Message(_, any),
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        ) => {
            let manager = http_manager::take(&super::field::unpack(any)?).at("typed_config")?;
            Ok(NetworkFilter::Terminal(Terminal::Http(Arc::new(manager))))
        }
        (Extension::Message(_, any), "envoy.extensions.filters.network.rbac.v3.RBAC") => {
            let rules = network_rbac(&super::field::unpack(any)?).at("typed_config")?;
            Ok(NetworkFilter::Rbac(rules))
        }
        (_, "stats.PluginConfig") => {
            refuse_overrides(&extension)?;
            Ok(NetworkFilter::Stats)
        }
        (_, other) => Err(Refusal::new(format!("unknown extension {other}"))),
    }
}

/// Istio's metrics are made with their documented labels; changes of them are not supported.
pub(super) fn refuse_overrides(extension: &Extension<'_>) -> Result<(), Refusal> {
    match extension {
        Extension::Wrapped(_, config) => unsupported(&[
            ("metrics", !list(config, "metrics").is_empty()),
            ("definitions", !list(config, "definitions").is_empty()),
        ])
        .at("typed_config.value"),
        Extension::Message(_, any) if any.value.is_empty() => Ok(()),
        Extension::Message(..) => {
            Err(Refusal::new("is supported as a TypedStruct or empty")).at("typed_config")
        }
    }
}

fn network_rbac(proto: &RbacProto) -> Result<Vec<Arc<Rbac>>, Refusal> {
    unsupported(&[
        ("matcher", proto.matcher.is_some()),
        ("shadow_matcher", proto.shadow_matcher.is_some()),
        ("delay_deny", super::field::lasts(proto.delay_deny.as_ref())),
        ("enforcement_type", proto.enforcement_type != EnforcementType::OneTimeOnFirstByte as i32),
    ])?;
    rbac::filter(&rbac::Parts {
        rules: proto.rules.as_ref(),
        shadow_rules: proto.shadow_rules.as_ref(),
        stat_prefix: &proto.stat_prefix,
        shadow_stat_prefix: &proto.shadow_rules_stat_prefix,
    })
}

fn tcp_proxy(proto: &TcpProto) -> Result<TcpProxy, Refusal> {
    unsupported(&[
        ("on_demand", proto.on_demand.is_some()),
        ("metadata_match", proto.metadata_match.is_some()),
        ("downstream_idle_timeout", proto.downstream_idle_timeout.is_some()),
        ("upstream_idle_timeout", proto.upstream_idle_timeout.is_some()),
        ("max_connect_attempts", number(proto.max_connect_attempts.as_ref(), 1) > 1),
        ("hash_policy", !proto.hash_policy.is_empty()),
        ("tunneling_config", proto.tunneling_config.is_some()),
        ("proxy_protocol_tlvs", !proto.proxy_protocol_tlvs.is_empty()),
        ("upstream_connect_mode", proto.upstream_connect_mode != 0),
    ])?;
    Ok(TcpProxy {
        stat_prefix: proto.stat_prefix.as_str().into(),
        clusters: clusters(proto)?,
        idle_timeout: limit(proto.idle_timeout.as_ref(), Some(DEFAULT_IDLE_TIMEOUT))
            .at("idle_timeout")?,
        max_duration: limit(proto.max_downstream_connection_duration.as_ref(), None)
            .at("max_downstream_connection_duration")?,
        access_log: each("access_log", &proto.access_log, access_log)?,
    })
}

fn clusters(proto: &TcpProto) -> Result<Vec<(Name, u32)>, Refusal> {
    match &proto.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok(vec![(cluster_name(name).at("cluster")?, 1)]),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let list = each("weighted_clusters.clusters", &weighted.clusters, |one| {
                unsupported(&[("metadata_match", one.metadata_match.is_some())])?;
                Ok((cluster_name(&one.name).at("name")?, one.weight))
            })?;
            if list.iter().all(|(_, weight)| *weight == 0) {
                return Err(Refusal::new("no cluster has a weight")).at("weighted_clusters");
            }
            Ok(list)
        }
        None => Err(Refusal::new("a cluster is needed")),
    }
}

fn cluster_name(name: &str) -> Result<Name, Refusal> {
    if name.is_empty() { Err(Refusal::new("must not be empty")) } else { Ok(name.into()) }
}
