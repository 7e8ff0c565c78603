//! The store as pure state, and the whole loop against a discovery server over plaintext gRPC.

use super::*;
use crate::agent::materials::Materials;
use crate::agent::state::AgentState;
use crate::config::Snapshot;
use crate::settings::{Environment, ProxyArgs, Settings};
use crate::telemetry::{Build, Hub, Local};
use crate::upstream::tls::TlsMaterials;
use arc_swap::ArcSwap;
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
use lateen_xds::envoy::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use lateen_xds::envoy::route::{route, route_action, route_match};
use lateen_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use lateen_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use lateen_xds::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate, secret,
};
use lateen_xds::pb::google::protobuf::Any;
use lateen_xds::{any, type_url};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn eds_cluster(name: &str, seconds: i64) -> Any {
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

fn static_cluster(name: &str) -> Any {
    any::pack(&Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        ..Cluster::default()
    })
}

fn socket(ip: &str, port: u32) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    }
}

fn endpoints(cluster: &str, ip: &str) -> Any {
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
fn update(kind: &str, resources: &[(&str, Any)], removed: &[&str]) -> Update {
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

#[test]
fn a_cluster_is_in_force_once_its_endpoints_are_known() {
    let mut store = Store::default();
    assert!(store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 1))], &[])).is_empty());
    assert!(store.snapshot().clusters.is_empty());
    assert_eq!(&*store.summary().warming[0], "a");
    assert_eq!(store.needed_endpoints().len(), 1);
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    let snapshot = store.snapshot();
    assert_eq!(snapshot.clusters.len(), 1);
    assert_eq!(snapshot.endpoints["a"].endpoints.len(), 1);
    store.apply(&update(type_url::CLUSTER, &[("b", eds_cluster("b", 1))], &["a"]));
    store.apply(&update(type_url::ENDPOINTS, &[], &["b"]));
    let snapshot = store.snapshot();
    assert!(snapshot.clusters.contains_key("b") && !snapshot.clusters.contains_key("a"));
    assert!(snapshot.endpoints.is_empty(), "there are none, and none are awaited");
}

fn tcp_listener(name: &str, cluster: &str) -> Any {
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

#[test]
fn a_removed_cluster_stays_while_something_in_force_names_it() {
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", static_cluster("a"))], &[]));
    store.apply(&update(type_url::LISTENER, &[("l", tcp_listener("l", "a"))], &[]));
    store.apply(&update(type_url::CLUSTER, &[("b", static_cluster("b"))], &["a"]));
    let names = |store: &mut Store| {
        let mut names: Vec<_> = store.snapshot().clusters.into_keys().collect();
        names.sort();
        names
    };
    assert_eq!(names(&mut store), ["a".into(), "b".into()]);
    assert!(store.is_whole());
    store.apply(&update(type_url::LISTENER, &[("l", tcp_listener("l", "b"))], &[]));
    assert_eq!(names(&mut store), ["b".into()]);
}

#[test]
fn changed_routes_wait_for_the_clusters_they_name() {
    let routes = |cluster: &str| {
        let action = RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.to_owned())),
            ..RouteAction::default()
        };
        let matches = RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        };
        let route = Route {
            r#match: Some(matches),
            action: Some(route::Action::Route(action)),
            ..Route::default()
        };
        let host = VirtualHost {
            name: "v".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        };
        any::pack(&RouteConfiguration {
            name: "80".to_owned(),
            virtual_hosts: vec![host],
            ..RouteConfiguration::default()
        })
    };
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", static_cluster("a"))], &[]));
    store.apply(&update(type_url::LISTENER, &[("l", http_listener("l", "80"))], &[]));
    store.apply(&update(type_url::ROUTES, &[("80", routes("a"))], &[]));
    let named = |store: &mut Store| {
        let snapshot = store.snapshot();
        snapshot.routes["80"].cluster_names().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(named(&mut store), ["a"]);
    store.apply(&update(type_url::CLUSTER, &[("b", eds_cluster("b", 1))], &[]));
    store.apply(&update(type_url::ROUTES, &[("80", routes("b"))], &[]));
    assert_eq!(named(&mut store), ["a"], "b has no endpoints yet");
    store.apply(&update(type_url::ENDPOINTS, &[("b", endpoints("b", "10.0.0.1"))], &[]));
    assert_eq!(named(&mut store), ["b"]);
    store.apply(&update(type_url::ROUTES, &[], &["80"]));
    assert_eq!(named(&mut store), ["b"], "the listener still needs them");
}

fn http_listener(name: &str, routes: &str) -> Any {
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

fn tls_listener(name: &str, secret: &str) -> Any {
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

fn tls_secret(name: &str, chain: &str, key: &str) -> Any {
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
fn key_pair(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_listener_waits_for_its_secrets_and_a_broken_one_changes_nothing() {
    const NAME: &str = "kubernetes://shop";
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", static_cluster("a"))], &[]));
    store.apply(&update(type_url::LISTENER, &[("l", tls_listener("l", NAME))], &[]));
    assert!(store.snapshot().listeners.is_empty() && !store.is_whole());
    assert_eq!(store.needed_secrets(), [NAME.into()].into());
    // That there is none is an answer: chains with other secrets must not wait for ever.
    store.apply(&update(type_url::SECRET, &[], &[NAME]));
    assert!(store.is_whole());
    assert!(store.snapshot().listeners.contains_key("l") && store.snapshot().secrets.is_empty());

    let materials = Materials::default();
    let leaf = |materials: &Materials| {
        materials.certificate(NAME).map(|key| key.cert[0].as_ref().to_vec())
    };
    let ((chain, key), (other_chain, other_key)) = (key_pair("a.test"), key_pair("b.test"));
    let mut put = |chain: &str, key: &str| {
        let rejected =
            store.apply(&update(type_url::SECRET, &[(NAME, tls_secret(NAME, chain, key))], &[]));
        materials.set_secrets(&store.snapshot().secrets);
        (rejected, leaf(&materials), materials.generation())
    };
    let (_, first, generation) = put(&chain, &key);
    assert!(first.is_some() && generation == 1);
    assert_eq!(put(&chain, &key).2, generation, "equal secrets are the same");
    for (chain, key) in [(&*other_chain, "junk"), ("junk", &*other_key), (&*other_chain, &*key)] {
        let (rejected, kept, _) = put(chain, key);
        assert_eq!((rejected.len(), &kept), (1, &first), "{rejected:?}");
        assert!(!rejected[0].reason.contains("BEGIN"), "{rejected:?}");
    }
    let (rejected, second, _) = put(&other_chain, &other_key);
    assert!(rejected.is_empty() && second.is_some() && second != first);

    store.apply(&update(type_url::LISTENER, &[], &["l"]));
    assert!(store.snapshot().secrets.is_empty(), "nobody needs it any more");
}

#[test]
fn equal_resources_keep_their_identity() {
    let mut store = Store::default();
    let all = [("a", eds_cluster("a", 1))];
    store.apply(&update(type_url::CLUSTER, &all, &[]));
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    let before = store.snapshot();
    store.apply(&update(type_url::CLUSTER, &all, &[]));
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    let after = store.snapshot();
    assert!(Arc::ptr_eq(&before.clusters["a"], &after.clusters["a"]));
    assert!(Arc::ptr_eq(&before.endpoints["a"], &after.endpoints["a"]));
    store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 2))], &[]));
    assert!(!Arc::ptr_eq(&before.clusters["a"], &store.snapshot().clusters["a"]));
}

#[test]
fn a_refused_resource_leaves_the_last_good_one_and_its_neighbours() {
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 1))], &[]));
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    let good = store.snapshot().clusters["a"].connect_timeout;
    let broken = Any { type_url: type_url::CLUSTER.to_owned(), value: vec![0xff] };
    let mixed = [("a", broken), ("b", eds_cluster("b", 1)), ("c", eds_cluster("x", 1))];
    let rejections = store.apply(&update(type_url::CLUSTER, &mixed, &[]));
    let names: Vec<_> = rejections.iter().map(|r| &*r.name).collect();
    assert_eq!(names, ["a", "c"]);
    assert!(rejections[1].reason.contains("calls itself `x`"), "{:?}", rejections[1]);
    assert_eq!(store.snapshot().clusters["a"].connect_timeout, good);
    assert!(store.needed_endpoints().iter().any(|name| &**name == "b"));
    assert_eq!(store.summary().refused.len(), 2);
    store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 3))], &["c"]));
    assert!(store.summary().refused.is_empty());
}

#[test]
fn the_first_configuration_is_whole_when_nothing_is_awaited() {
    let mut store = Store::default();
    store.apply(&update(type_url::CLUSTER, &[("a", eds_cluster("a", 1))], &[]));
    store.apply(&update(type_url::LISTENER, &[], &[]));
    assert!(!store.is_whole());
    store.apply(&update(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))], &[]));
    assert!(store.is_whole());
}

mod server {
    //! A discovery server over the protocol crate's own server session.

    use lateen_xds::discovery::aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    };
    use lateen_xds::discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    };
    use lateen_xds::server::{ResourceMap, Session};
    use lateen_xds::type_url::PUSH_ORDER;
    use std::collections::HashMap;
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use tokio::sync::{mpsc, watch};
    use tokio_stream::wrappers::ReceiverStream;
    use tokio_stream::{Stream, StreamExt};
    use tonic::{Request, Response, Status, Streaming};

    pub(super) type Wanted = HashMap<&'static str, ResourceMap>;

    pub(super) struct Ads {
        pub(super) wanted: watch::Receiver<Wanted>,
        pub(super) seen: Arc<Mutex<Vec<DeltaDiscoveryRequest>>>,
    }

    type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

    #[tonic::async_trait]
    impl AggregatedDiscoveryService for Ads {
        type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
        type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

        async fn stream_aggregated_resources(
            &self,
            _: Request<Streaming<DiscoveryRequest>>,
        ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
            Err(Status::unimplemented("delta only"))
        }

        async fn delta_aggregated_resources(
            &self,
            request: Request<Streaming<DeltaDiscoveryRequest>>,
        ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
            let (sender, receiver) = mpsc::channel(16);
            let (mut wanted, seen) = (self.wanted.clone(), Arc::clone(&self.seen));
            let mut requests = request.into_inner();
            tokio::spawn(async move {
                let mut session = Session::new();
                loop {
                    tokio::select! {
                        request = requests.next() => {
                            let Some(Ok(request)) = request else { return };
                            session.request(&request).unwrap();
                            seen.lock().unwrap().push(request);
                        }
                        changed = wanted.changed() => if changed.is_err() { return },
                    }
                    let answers: Vec<_> = PUSH_ORDER
                        .iter()
                        .filter_map(|kind| {
                            let all = wanted.borrow().get(kind).cloned().unwrap_or_default();
                            session.response(kind, &all)
                        })
                        .collect();
                    for answer in answers {
                        if sender.send(Ok(answer)).await.is_err() {
                            return;
                        }
                    }
                }
            });
            Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
        }
    }

    /// Serves over plaintext HTTP/2 until the task is aborted.
    pub(super) async fn serve(ads: Ads, listener: tokio::net::TcpListener) {
        use hyper_util::rt::{TokioExecutor, TokioIo};
        use hyper_util::service::TowerToHyperService;
        let service = AggregatedDiscoveryServiceServer::new(ads);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _): (_, SocketAddr) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            connections.spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }
}

fn wanted(
    kind: &'static str,
    list: &[(&str, Any)],
) -> (&'static str, lateen_xds::server::ResourceMap) {
    let resource = |body: &Any| lateen_xds::server::Resource {
        version: format!("{:x}", body.value.iter().map(|b| u64::from(*b)).sum::<u64>()).into(),
        body: body.value.clone().into(),
    };
    (kind, list.iter().map(|(name, body)| (Arc::from(*name), resource(body))).collect())
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen");
}

/// Follows a plaintext control plane at `address`.
fn start(
    address: std::net::SocketAddr,
    (config, summary): (&Arc<ArcSwap<Snapshot>>, &Arc<ArcSwap<Summary>>),
    end: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let mut settings = Settings::new(&ProxyArgs::default(), &Environment::default(), 1).unwrap();
    settings.control_plane.plaintext = true;
    settings.control_plane.discovery = address.to_string();
    let publisher = Publisher {
        config: Arc::clone(config),
        summary: Arc::clone(summary),
        changes: watch::channel(0).0,
        state: AgentState::new(false, true),
        materials: Arc::default(),
        hub: Hub::new(Local::default(), Build { version: String::new() }),
    };
    let node = Node { id: "me".to_owned(), ..Node::default() };
    tokio::spawn(follow(Arc::new(settings), node, publisher, end.clone()))
}

#[tokio::test]
async fn configuration_follows_the_control_plane_across_reconnections() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let first = [
        wanted(type_url::CLUSTER, &[("a", eds_cluster("a", 1))]),
        wanted(type_url::ENDPOINTS, &[("a", endpoints("a", "10.0.0.1"))]),
    ];
    let (push, all) = watch::channel(first.into());
    let seen = Arc::default();
    let ads = |seen: &Arc<_>| server::Ads { wanted: all.clone(), seen: Arc::clone(seen) };
    let running = tokio::spawn(server::serve(ads(&seen), listener));
    let (config, summary) = (Arc::default(), Arc::default());
    let end = CancellationToken::new();
    let following = start(address, (&config, &summary), &end);
    until("the first cluster", || config.load().endpoints.contains_key("a")).await;

    let broken = Any { type_url: type_url::CLUSTER.to_owned(), value: vec![0xff, 1] };
    let second = [
        wanted(type_url::CLUSTER, &[("a", broken), ("b", eds_cluster("b", 1))]),
        wanted(
            type_url::ENDPOINTS,
            &[("a", endpoints("a", "10.0.0.1")), ("b", endpoints("b", "10.0.0.2"))],
        ),
    ];
    push.send_replace(second.into());
    until("the second cluster", || config.load().endpoints.contains_key("b")).await;
    assert!(config.load().clusters.contains_key("a"), "the last good one stays");
    assert_eq!(&*summary.load().refused[0].name, "a");
    let seen_now =
        || -> Vec<lateen_xds::discovery::DeltaDiscoveryRequest> { seen.lock().unwrap().clone() };
    until("the refusal", || {
        seen_now()
            .iter()
            .any(|r| r.error_detail.as_ref().is_some_and(|e| e.message.starts_with("a: ")))
    })
    .await;
    assert_eq!(seen_now()[0].node.as_ref().unwrap().id, "me");

    running.abort();
    let _cancelled = running.await;
    let third = [
        wanted(type_url::CLUSTER, &[("b", eds_cluster("b", 1))]),
        wanted(type_url::ENDPOINTS, &[("b", endpoints("b", "10.0.0.3"))]),
    ];
    push.send_replace(third.into());
    assert!(config.load().clusters.contains_key("a"), "nothing is lost while it is away");
    let again = Arc::default();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let running = tokio::spawn(server::serve(ads(&again), listener));
    until("the change made meanwhile", || {
        let snapshot = config.load();
        let moved = snapshot
            .endpoints
            .get("b")
            .is_some_and(|set| set.endpoints[0].address.ip().to_string() == "10.0.0.3");
        moved && !snapshot.clusters.contains_key("a")
    })
    .await;
    let first_request = again.lock().unwrap()[0].clone();
    assert!(first_request.initial_resource_versions.contains_key("b"), "what is held is told");
    end.cancel();
    following.await.unwrap();
    running.abort();
}
