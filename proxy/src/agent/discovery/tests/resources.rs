//! Resources as a control plane sends them.

use lateen_xds::any;
use lateen_xds::client::{Interest, Session, Update};
use lateen_xds::discovery::{DeltaDiscoveryResponse, Resource as WireResource};
use lateen_xds::envoy::cluster::Cluster;
use lateen_xds::envoy::cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use lateen_xds::envoy::core::config_source::ConfigSourceSpecifier;
use lateen_xds::envoy::core::{Address, AggregatedConfigSource, ConfigSource, Node, SocketAddress};
use lateen_xds::envoy::core::{DataSource, TransportSocket, data_source, transport_socket};
use lateen_xds::envoy::core::{address, socket_address::PortSpecifier};
use lateen_xds::envoy::endpoint::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use lateen_xds::envoy::endpoint::{Endpoint, lb_endpoint::HostIdentifier};
use lateen_xds::envoy::listener::{Filter, FilterChain, Listener, filter};
use lateen_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use lateen_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate, secret,
};
use lateen_xds::pb::google::protobuf::Any;
use prost::Message;

pub(super) fn eds_cluster(name: &str, seconds: i64) -> Any {
    let source = ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    };
    any::pack(&Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(source),
            service_name: name.to_owned(),
        }),
        connect_timeout: Some(lateen_xds::pb::google::protobuf::Duration { seconds, nanos: 0 }),
        ..Cluster::default()
    })
}

pub(super) fn static_cluster(name: &str) -> Any {
    any::pack(&Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        ..Cluster::default()
    })
}

pub(super) fn socket(ip: &str, port: u32) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    }
}

pub(super) fn endpoints(cluster: &str, ip: &str) -> Any {
    let endpoint = Endpoint { address: Some(socket(ip, 80)), ..Endpoint::default() };
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    };
    any::pack(&ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    })
}

/// An update as a session would hand it over.
pub(super) fn update(kind: &str, resources: &[(&str, Any)], removed: &[&str]) -> Update {
    let mut session = Session::new(Node::default());
    session.set_interest(kind, Interest::Wildcard);
    let resource = |(name, body): &(&str, Any)| WireResource {
        name: (*name).to_owned(),
        version: "1".to_owned(),
        resource: Some(body.clone()),
        ..WireResource::default()
    };
    session.receive(DeltaDiscoveryResponse {
        type_url: kind.to_owned(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    })
}

pub(super) fn tcp_listener(name: &str, cluster: &str) -> Any {
    let proxy = TcpProxy {
        stat_prefix: "t".to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..TcpProxy::default()
    };
    let config_type = Some(filter::ConfigType::TypedConfig(any::pack(&proxy)));
    let filter = Filter { name: "tcp".to_owned(), config_type };
    any::pack(&Listener {
        name: name.to_owned(),
        address: Some(socket("127.0.0.1", 1)),
        filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
        ..Listener::default()
    })
}

pub(super) fn http_listener(name: &str, routes: &str) -> Any {
    let router = any::pack(&Router::default());
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "h".to_owned(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
            route_config_name: routes.to_owned(),
            ..hcm::Rds::default()
        })),
        http_filters: vec![hcm::HttpFilter {
            name: "router".to_owned(),
            config_type: Some(hcm::http_filter::ConfigType::TypedConfig(router)),
            ..hcm::HttpFilter::default()
        }],
        ..hcm::HttpConnectionManager::default()
    };
    let config_type = Some(filter::ConfigType::TypedConfig(any::pack(&manager)));
    let filter = Filter { name: "http".to_owned(), config_type };
    any::pack(&Listener {
        name: name.to_owned(),
        address: Some(socket("127.0.0.1", 1)),
        filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
        ..Listener::default()
    })
}

pub(super) fn tls_listener(name: &str, secret: &str) -> Any {
    let from = SdsSecretConfig { name: secret.to_owned(), sds_config: None };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![from],
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    };
    let mut listener = Listener::decode(tcp_listener(name, "a").value.as_slice()).unwrap();
    listener.filter_chains[0].transport_socket = Some(TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any::pack(&context))),
    });
    any::pack(&listener)
}

pub(super) fn tls_secret(name: &str, chain: &str, key: &str) -> Any {
    let inline = |text: &str| {
        let specifier = Some(data_source::Specifier::InlineBytes(text.as_bytes().to_vec()));
        Some(DataSource { specifier, ..DataSource::default() })
    };
    any::pack(&Secret {
        name: name.to_owned(),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(chain),
            private_key: inline(key),
            ..TlsCertificate::default()
        })),
    })
}

/// A certificate and its key, in PEM.
pub(super) fn key_pair(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}
