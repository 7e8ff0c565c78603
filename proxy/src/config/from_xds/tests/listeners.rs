//! Listeners: chains, filters, TLS, authorization.

use super::super::listener;
use super::{address, any};
use crate::config::{
    Direction, ForwardClientCert, HttpFilter, HttpManager, Listener, LogFormat, RbacAction,
    RouteSource, Terminal,
};
use envoy_types::pb::envoy::config::accesslog::v3 as logs;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, TransportSocket};
use envoy_types::pb::envoy::config::listener::v3 as pb;
use envoy_types::pb::envoy::config::rbac::v3 as rbac;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, Struct, UInt32Value};
use hcm::http_connection_manager as manager;
use lateen_xds::any::TypedStruct;
use std::collections::HashMap;

const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const HCM: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

fn network(config: Any) -> pb::Filter {
    pb::Filter {
        name: String::new(),
        config_type: Some(pb::filter::ConfigType::TypedConfig(config)),
    }
}

fn tcp(cluster: &str) -> pb::Filter {
    let specifier = Some(ClusterSpecifier::Cluster(cluster.to_owned()));
    network(any(TCP_PROXY, &TcpProxy { cluster_specifier: specifier, ..TcpProxy::default() }))
}

pub(super) fn wrapped(type_name: &str) -> Any {
    let inner = TypedStruct {
        type_url: format!("type.googleapis.com/{type_name}"),
        value: Some(Struct::default()),
    };
    any("udpa.type.v1.TypedStruct", &inner)
}

fn http(config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..hcm::HttpFilter::default()
    }
}

fn bare(type_name: &str) -> Any {
    Any { type_url: format!("type.googleapis.com/{type_name}"), value: Vec::new() }
}

fn allow_namespace() -> HttpRbac {
    let name = matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(
            matcher::RegexMatcher { regex: ".*/ns/shop/.*".to_owned(), engine_type: None },
        )),
        ignore_case: false,
    };
    let who = rbac::principal::Identifier::Authenticated(rbac::principal::Authenticated {
        principal_name: Some(name),
    });
    let policy = rbac::Policy {
        permissions: vec![rbac::Permission { rule: Some(rbac::permission::Rule::Any(true)) }],
        principals: vec![rbac::Principal { identifier: Some(who) }],
        ..rbac::Policy::default()
    };
    let policies = HashMap::from([("ns[shop]-policy[a]-rule[0]".to_owned(), policy)]);
    let rules = rbac::Rbac { action: 0, policies, ..rbac::Rbac::default() };
    HttpRbac { rules: Some(rules.clone()), shadow_rules: Some(rules), ..HttpRbac::default() }
}

fn inbound_manager() -> hcm::HttpConnectionManager {
    hcm::HttpConnectionManager {
        stat_prefix: "inbound_0.0.0.0_80;".to_owned(),
        route_specifier: Some(manager::RouteSpecifier::Rds(hcm::Rds {
            config_source: None,
            route_config_name: "80".to_owned(),
        })),
        http_filters: vec![
            http(wrapped("io.istio.http.peer_metadata.Config")),
            http(any("envoy.extensions.filters.http.rbac.v3.RBAC", &allow_namespace())),
            http(bare("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig")),
            http(bare("envoy.extensions.filters.http.fault.v3.HTTPFault")),
            http(bare("envoy.extensions.filters.http.cors.v3.Cors")),
            http(wrapped("stats.PluginConfig")),
            http(bare("envoy.extensions.filters.http.router.v3.Router")),
        ],
        server_name: "istio-envoy".to_owned(),
        server_header_transformation: manager::ServerHeaderTransformation::PassThrough as i32,
        forward_client_cert_details: manager::ForwardClientCertDetails::AppendForward as i32,
        set_current_client_cert_details: Some(manager::SetCurrentClientCertDetails {
            subject: Some(BoolValue { value: true }),
            dns: true,
            uri: true,
            ..manager::SetCurrentClientCertDetails::default()
        }),
        upgrade_configs: vec![manager::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..manager::UpgradeConfig::default()
        }],
        stream_idle_timeout: Some(Duration::default()),
        access_log: vec![file_log("NR")],
        ..hcm::HttpConnectionManager::default()
    }
}

fn file_log(flag: &str) -> logs::AccessLog {
    let file = FileAccessLog { path: "/dev/stdout".to_owned(), access_log_format: None };
    let flags = logs::ResponseFlagFilter { flags: vec![flag.to_owned()] };
    logs::AccessLog {
        name: String::new(),
        filter: Some(logs::AccessLogFilter {
            filter_specifier: Some(logs::access_log_filter::FilterSpecifier::ResponseFlagFilter(
                flags,
            )),
        }),
        config_type: Some(logs::access_log::ConfigType::TypedConfig(any(
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            &file,
        ))),
    }
}

fn secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.to_owned(), sds_config: None }
}

fn mutual_tls() -> tls::DownstreamTlsContext {
    let san = matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::Prefix(
            "spiffe://cluster.local/".to_owned(),
        )),
        ignore_case: false,
    };
    let typed = tls::SubjectAltNameMatcher {
        san_type: tls::subject_alt_name_matcher::SanType::Uri as i32,
        matcher: Some(san),
        oid: String::new(),
    };
    let combined = tls::common_tls_context::CombinedCertificateValidationContext {
        default_validation_context: Some(tls::CertificateValidationContext {
            match_typed_subject_alt_names: vec![typed],
            ..tls::CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(secret("ROOTCA")),
        ..tls::common_tls_context::CombinedCertificateValidationContext::default()
    };
    tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default")],
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            validation_context_type: Some(
                tls::common_tls_context::ValidationContextType::CombinedValidationContext(combined),
            ),
            ..tls::CommonTlsContext::default()
        }),
        require_client_certificate: Some(BoolValue { value: true }),
        ..tls::DownstreamTlsContext::default()
    }
}

fn tls_socket(context: &tls::DownstreamTlsContext) -> Option<TransportSocket> {
    Some(TransportSocket {
        name: String::new(),
        config_type: Some(SocketConfig::TypedConfig(any(
            "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            context,
        ))),
    })
}

fn inspector(type_name: &str) -> pb::ListenerFilter {
    pb::ListenerFilter {
        config_type: Some(pb::listener_filter::ConfigType::TypedConfig(bare(type_name))),
        ..pb::ListenerFilter::default()
    }
}

/// The shape of `virtualInbound`.
pub(super) fn virtual_inbound() -> pb::Listener {
    let blackhole = pb::FilterChain {
        name: "virtualInbound-blackhole".to_owned(),
        filter_chain_match: Some(pb::FilterChainMatch {
            destination_port: Some(UInt32Value { value: 15006 }),
            ..pb::FilterChainMatch::default()
        }),
        filters: vec![tcp("BlackHoleCluster")],
        ..pb::FilterChain::default()
    };
    let mtls = pb::FilterChain {
        name: "0.0.0.0_80".to_owned(),
        filter_chain_match: Some(pb::FilterChainMatch {
            destination_port: Some(UInt32Value { value: 80 }),
            transport_protocol: "tls".to_owned(),
            application_protocols: vec!["istio-http/1.1".to_owned()],
            ..pb::FilterChainMatch::default()
        }),
        transport_socket: tls_socket(&mutual_tls()),
        filters: vec![network(any(HCM, &inbound_manager()))],
        ..pb::FilterChain::default()
    };
    let address_of = |ip| pb::AdditionalAddress {
        address: address(ip, 15006),
        ..pb::AdditionalAddress::default()
    };
    pb::Listener {
        name: "virtualInbound".to_owned(),
        address: address("0.0.0.0", 15006),
        additional_addresses: vec![address_of("::")],
        traffic_direction: 1,
        listener_filters_timeout: Some(Duration::default()),
        continue_on_listener_filters_timeout: true,
        listener_filters: vec![
            inspector("envoy.extensions.filters.listener.original_dst.v3.OriginalDst"),
            inspector("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"),
            inspector("envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"),
        ],
        filter_chains: vec![blackhole, mtls],
        access_log: vec![file_log("NR")],
        ..pb::Listener::default()
    }
}

fn manager_of(listener: &Listener) -> &HttpManager {
    let Terminal::Http(manager) = &listener.filter_chains[1].terminal else { panic!("not HTTP") };
    manager
}

#[test]
fn an_inbound_listener_is_taken_whole() {
    let taken = listener(&virtual_inbound()).unwrap();
    assert_eq!((&*taken.name, taken.direction), ("virtualInbound", Direction::Inbound));
    assert!(taken.bind && taken.inspect.original_dst && taken.inspect.timeout.is_none());
    assert!(taken.inspect.tls.is_some() && taken.inspect.http.is_some());
    assert_eq!(taken.additional_addresses, ["[::]:15006".parse().unwrap()]);
    let Terminal::Tcp(blackhole) = &taken.filter_chains[0].terminal else { panic!("not TCP") };
    assert_eq!(&*blackhole.clusters[0].0, "BlackHoleCluster");
    let tls = taken.filter_chains[1].tls.as_ref().unwrap();
    assert_eq!((&*tls.certificates[0], tls.validation.as_deref()), ("default", Some("ROOTCA")));
    assert!(tls.subject_alt_names[0].matches("spiffe://cluster.local/ns/a/sa/b"));
    let manager = manager_of(&taken);
    assert!(matches!(&manager.routes, RouteSource::Rds(name) if &**name == "80"));
    assert_eq!(manager.client_cert, ForwardClientCert::AppendForward);
    assert!(manager.pass_server_header && manager.stream_idle_timeout.is_none());
    assert_eq!(manager.upgrades, ["websocket"]);
    assert_eq!(manager.access_log[0].flags, ["NR"]);
    assert!(
        matches!(&manager.access_log[0].format, LogFormat::Text(t) if t.ends_with("%ROUTE_NAME%\n"))
    );
    let kinds: Vec<_> = manager.filters.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 7, "rules and shadow rules are two, the router is none");
    let HttpFilter::Rbac(rules) = &manager.filters[1] else { panic!("not RBAC") };
    assert_eq!((rules.action, rules.shadow), (RbacAction::Allow, false));
    let HttpFilter::Rbac(rules) = &manager.filters[2] else { panic!("not RBAC") };
    assert!(rules.shadow);
    assert_eq!(taken, listener(&virtual_inbound()).unwrap(), "equal resources are equal");
}

fn refusal(change: impl FnOnce(&mut pb::Listener)) -> String {
    let mut proto = virtual_inbound();
    change(&mut proto);
    listener(&proto).unwrap_err().to_string()
}

fn refused_manager(change: impl FnOnce(&mut hcm::HttpConnectionManager)) -> String {
    let mut manager = inbound_manager();
    change(&mut manager);
    refusal(|proto| proto.filter_chains[1].filters = vec![network(any(HCM, &manager))])
}

#[test]
fn answers_of_the_proxy_may_get_headers_by_response_flag() {
    let mut manager = inbound_manager();
    let header = HeaderValue { key: "x-a".to_owned(), value: "b".to_owned(), ..Default::default() };
    let mapper = hcm::ResponseMapper {
        filter: file_log("UF").filter,
        headers_to_add: vec![HeaderValueOption { header: Some(header), ..Default::default() }],
        ..hcm::ResponseMapper::default()
    };
    let mut config = hcm::LocalReplyConfig { mappers: vec![mapper], ..Default::default() };
    manager.local_reply_config = Some(config.clone());
    let mut proto = virtual_inbound();
    proto.filter_chains[1].filters = vec![network(any(HCM, &manager))];
    let taken = listener(&proto).unwrap();
    let [reply] = manager_of(&taken).reply_headers.as_slice() else { panic!("one is given") };
    assert_eq!(reply.flags, ["UF"]);
    assert_eq!(reply.edit.add.len() + reply.edit.set.len(), 1);
    config.mappers[0].filter = None;
    manager.local_reply_config = Some(config);
    proto.filter_chains[1].filters = vec![network(any(HCM, &manager))];
    let error = listener(&proto).unwrap_err().to_string();
    assert!(error.contains("local_reply_config.mappers[0].filter"), "{error}");
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let unknown = || network(bare("envoy.x.Y"));
    for (refusal, wanted) in [
        (
            refusal(|l| l.filter_chains[1].filters.insert(0, unknown())),
            "listener virtualInbound: filter_chains[1].filters[0]: unknown extension envoy.x.Y",
        ),
        (
            refusal(|l| l.filter_chains[0].filters.push(unknown())),
            "listener virtualInbound: filter_chains[0].filters[1]: stands after the filter that ends the chain",
        ),
        (
            refusal(|l| l.filter_chains[0].filters.clear()),
            "listener virtualInbound: filter_chains[0].filters: no filter ends the chain (tcp_proxy or HTTP)",
        ),
        (
            refusal(|l| l.transparent = Some(BoolValue { value: true })),
            "listener virtualInbound: transparent: is not supported",
        ),
        (
            refusal(|l| l.address = address("nowhere", 1)),
            "listener virtualInbound: address: \"nowhere\" is not an IP address",
        ),
        (
            refusal(|l| l.address = address("0.0.0.0", 70_000)),
            "listener virtualInbound: address.socket_address.port_value: port 70000 is out of range",
        ),
        (
            refusal(|l| {
                l.filter_chains[1].filter_chain_match =
                    l.filter_chains[0].filter_chain_match.clone()
            }),
            "listener virtualInbound: filter_chains[1]: has the same criteria as filter_chains[0]",
        ),
        (
            refused_manager(|m| m.http_filters[0] = http(bare("envoy.x.Y"))),
            "listener virtualInbound: filter_chains[1].filters[0].typed_config.http_filters[0]: unknown extension envoy.x.Y",
        ),
        (
            refused_manager(|m| drop(m.http_filters.pop())),
            "listener virtualInbound: filter_chains[1].filters[0].typed_config.http_filters[5]: the last filter must be the router",
        ),
        (
            refused_manager(|m| m.via = "x".to_owned()),
            "listener virtualInbound: filter_chains[1].filters[0].typed_config.via: is not supported",
        ),
    ] {
        assert_eq!(refusal, wanted);
    }
}

#[test]
fn optional_and_disabled_filters_are_left_out() {
    let mut manager = inbound_manager();
    manager.http_filters[0] = hcm::HttpFilter { is_optional: true, ..http(bare("envoy.x.Y")) };
    manager.http_filters[2].disabled = true;
    let mut proto = virtual_inbound();
    proto.filter_chains[1].filters = vec![network(any(HCM, &manager))];
    assert_eq!(manager_of(&listener(&proto).unwrap()).filters.len(), 5);
}

#[test]
fn tls_needs_what_it_asks_for() {
    let refused = |change: fn(&mut tls::DownstreamTlsContext)| {
        let mut context = mutual_tls();
        change(&mut context);
        refusal(|l| l.filter_chains[1].transport_socket = tls_socket(&context))
    };
    for (refusal, wanted) in [
        (refused(|c| c.common_tls_context = None), "a certificate is needed"),
        (
            refused(|c| {
                c.common_tls_context.as_mut().unwrap().validation_context_type = None;
            }),
            "needs trust anchors (ROOTCA) to judge the certificate by",
        ),
        (
            refused(|c| {
                c.common_tls_context.as_mut().unwrap().tls_certificate_sds_secret_configs =
                    vec![secret("vault://x")];
            }),
            "secret \"vault://x\" is not one of default, ROOTCA, kubernetes://NAME, file-cert:CHAIN~KEY, file-root:FILE",
        ),
    ] {
        assert!(refusal.ends_with(wanted), "{refusal}");
    }
}

#[test]
fn deep_rules_are_refused() {
    let leaf = rbac::Permission { rule: Some(rbac::permission::Rule::Any(true)) };
    let deep = (0..50).fold(leaf, |inner, _| rbac::Permission {
        rule: Some(rbac::permission::Rule::NotRule(Box::new(inner))),
    });
    let mut filter = allow_namespace();
    let policies = &mut filter.rules.as_mut().unwrap().policies;
    policies.get_mut("ns[shop]-policy[a]-rule[0]").unwrap().permissions = vec![deep];
    let refusal = refused_manager(|m| {
        m.http_filters[1] = http(any("envoy.extensions.filters.http.rbac.v3.RBAC", &filter));
    });
    assert!(refusal.ends_with("is nested too deeply"), "{refusal}");
}
