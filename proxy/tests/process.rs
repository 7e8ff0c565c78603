//! The whole binary against a plaintext control plane: start, traffic, change, drain, end.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod running;

use lateen_testkit::echo::EchoServer;
use lateen_xds::any::{self, pack, pack_typed_struct};
use lateen_xds::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use lateen_xds::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use lateen_xds::envoy::cluster::Cluster;
use lateen_xds::envoy::cluster::cluster::{ClusterDiscoveryType, DiscoveryType};
use lateen_xds::envoy::core::{Address, SocketAddress, address, socket_address::PortSpecifier};
use lateen_xds::envoy::endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint};
use lateen_xds::envoy::endpoint::{LocalityLbEndpoints, lb_endpoint::HostIdentifier};
use lateen_xds::envoy::listener::{Filter, FilterChain, Listener, filter};
use lateen_xds::envoy::route::{Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use lateen_xds::envoy::route::{route, route_action, route_match};
use lateen_xds::pb::envoy::extensions::filters::http::router::v3::Router;
use lateen_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_xds::pb::google::protobuf::Any;
use lateen_xds::server::{Resource, ResourceMap, Session};
use lateen_xds::type_url;
use running::{ask, free, loopback, signal, until_ready};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

type Wanted = HashMap<&'static str, ResourceMap>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Ads(watch::Receiver<Wanted>);

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
        let (mut wanted, mut requests) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut session = Session::new();
            loop {
                tokio::select! {
                    request = requests.next() => {
                        let Some(Ok(request)) = request else { return };
                        session.request(&request).unwrap();
                    }
                    changed = wanted.changed() => if changed.is_err() { return },
                }
                for kind in type_url::PUSH_ORDER {
                    let all = wanted.borrow().get(kind).cloned().unwrap_or_default();
                    if let Some(answer) = session.response(kind, &all)
                        && sender.send(Ok(answer)).await.is_err()
                    {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn serve_ads(wanted: watch::Receiver<Wanted>, listener: TcpListener) {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::service::TowerToHyperService;
    let service = AggregatedDiscoveryServiceServer::new(Ads(wanted));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn address(of: SocketAddr) -> Option<Address> {
    Some(Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: of.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(of.port().into())),
            ..SocketAddress::default()
        })),
    })
}

fn cluster(name: &str, to: SocketAddr) -> Any {
    let endpoint = Endpoint { address: address(to), ..Endpoint::default() };
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        ..LbEndpoint::default()
    };
    let endpoints =
        LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    pack(&Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![endpoints],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    })
}

fn listener(at: SocketAddr, to: &str) -> Any {
    let http = |name: &str, config: Any| hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..hcm::HttpFilter::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(to.to_owned())),
            ..RouteAction::default()
        })),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let stats = pack_typed_struct(type_url::ISTIO_STATS, any::fields::<String>([]));
    let manager = hcm::HttpConnectionManager {
        stat_prefix: "out".to_owned(),
        http_filters: vec![http("istio.stats", stats), http("router", pack(&Router::default()))],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(
            RouteConfiguration {
                name: "inline".to_owned(),
                virtual_hosts: vec![host],
                ..RouteConfiguration::default()
            },
        )),
        ..hcm::HttpConnectionManager::default()
    };
    let filter = Filter {
        name: "http".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(&manager))),
    };
    pack(&Listener {
        name: "main".to_owned(),
        address: address(at),
        filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
        ..Listener::default()
    })
}

fn wanted(all: &[(&'static str, &str, Any)]) -> Wanted {
    let mut wanted = Wanted::new();
    for (kind, name, body) in all {
        let version = body.value.iter().fold(0_u64, |sum, b| sum.wrapping_mul(31) + u64::from(*b));
        let resource =
            Resource { version: format!("{version:x}").into(), body: body.value.clone().into() };
        wanted.entry(kind).or_default().insert(Arc::from(*name), resource);
    }
    wanted
}

struct Proxy {
    child: Child,
    health: u16,
    status: u16,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.child.kill();
    }
}

fn start(control_plane: SocketAddr) -> Proxy {
    let (health, status, admin, prometheus) =
        (free().port(), free().port(), free().port(), free().port());
    let config = format!(
        "{{\"discoveryAddress\":\"{control_plane}\",\"controlPlaneAuthPolicy\":\"NONE\",\
         \"statusPort\":{status},\"proxyAdminPort\":{admin},\"terminationDrainDuration\":\"3s\"}}"
    );
    let child = Command::new(env!("CARGO_BIN_EXE_lateen-proxy"))
        .args(["proxy", "sidecar", "--log_output_level=default:warn"])
        .env_clear()
        .env("PROXY_CONFIG", config)
        .env("ENVOY_STATUS_PORT", health.to_string())
        .env("ENVOY_PROMETHEUS_PORT", prometheus.to_string())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    Proxy { child, health, status }
}

fn status_line(proxy: &Proxy, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", proxy.child.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_proxy_serves_changes_drains_and_ends() {
    let (first, second) = (EchoServer::http().await, EchoServer::http().await);
    let control_plane = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control_address = control_plane.local_addr().unwrap();
    let at = free();
    let with = |echo: &EchoServer, to: &str| {
        wanted(&[
            (type_url::CLUSTER, to, cluster(to, echo.address)),
            (type_url::LISTENER, "main", listener(at, to)),
        ])
    };
    let (push, all) = watch::channel(with(&first, "one"));
    let ads = tokio::spawn(serve_ads(all, control_plane));
    let mut proxy = start(control_address);
    until_ready(proxy.health).await;
    let (resident, own) = (status_line(&proxy, "VmRSS"), status_line(&proxy, "RssAnon"));

    let answer = ask(at, "GET", "/hello?x=1").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /hello?x=1"), "{answer}");

    // A change while requests pass loses none of them.
    let load = tokio::spawn(async move {
        let mut done = 0;
        let end = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < end {
            let answer = ask(at, "GET", "/load").await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            done += 1;
        }
        done
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    push.send_replace(with(&second, "two"));
    let asked: u32 = load.await.unwrap();
    let metrics = ask(loopback(proxy.status), "GET", "/stats/prometheus").await.unwrap();
    let counted: u32 = metrics
        .lines()
        .filter(|line| line.starts_with("istio_requests_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap())
        .sum();
    assert_eq!(counted, asked + 1, "every request is counted once");
    let two = |line: &str| line.contains("destination_service_name=\"two\"");
    assert!(metrics.lines().any(two), "the change is in force:\n{metrics}");

    // What cannot be honoured is refused, and what was in force stays.
    let broken = Any { type_url: type_url::LISTENER.to_owned(), value: vec![0xff] };
    let mut bad = with(&second, "two");
    bad.extend(wanted(&[(type_url::LISTENER, "main", broken)]));
    push.send_replace(bad);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(ask(at, "GET", "/still").await.unwrap().starts_with("HTTP/1.1 200"));

    // The control plane goes away; traffic does not notice.
    ads.abort();
    assert!(ask(at, "GET", "/alone").await.unwrap().starts_with("HTTP/1.1 200"));
    ends_after_the_last_request(&mut proxy, at).await;
    println!("resident when ready: {resident} KiB, of which {own} KiB are not the binary");
}

/// An open connection may finish after the signal; then the process ends by itself.
async fn ends_after_the_last_request(proxy: &mut Proxy, at: SocketAddr) {
    let mut open = TcpStream::connect(at).await.unwrap();
    open.write_all(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    signal(proxy.child.id(), "-TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(proxy.child.try_wait().unwrap().is_none(), "it waits for the request");
    let ready = ask(loopback(proxy.health), "GET", "/healthz/ready").await.unwrap();
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    open.write_all(b"bc").await.unwrap();
    let mut answer = Vec::new();
    open.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("abc"), "{answer}");
    let told = Instant::now();
    let ended = loop {
        if let Some(ended) = proxy.child.try_wait().unwrap() {
            break ended;
        }
        assert!(told.elapsed() < Duration::from_secs(3), "it ends as soon as nothing is open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(ended.success(), "{ended}");
}

#[tokio::test(flavor = "current_thread")]
async fn commands_talk_to_the_running_proxy() {
    let echo = EchoServer::http().await;
    let control_plane = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control_address = control_plane.local_addr().unwrap();
    let at = free();
    let all = wanted(&[
        (type_url::CLUSTER, "one", cluster("one", echo.address)),
        (type_url::LISTENER, "main", listener(at, "one")),
    ]);
    let (_push, all) = watch::channel(all);
    let ads = tokio::spawn(serve_ads(all, control_plane));
    let mut proxy = start(control_address);
    let run = |args: Vec<String>| {
        tokio::task::spawn_blocking(move || {
            Command::new(env!("CARGO_BIN_EXE_lateen-proxy")).args(args).output().unwrap()
        })
    };
    let url = format!("--url=http://localhost:{}/healthz/ready", proxy.health);
    let waited = run(vec!["wait".to_owned(), "--timeoutSeconds=10".to_owned(), url]).await.unwrap();
    assert!(waited.status.success(), "{waited:?}");
    let port = format!("--debug-port={}", proxy.status);
    let get = vec!["request".to_owned(), port.clone(), "GET".to_owned(), "drain".to_owned()];
    assert!(!run(get).await.unwrap().status.success(), "drain is asked for by POST");
    let quit = vec!["request".to_owned(), port, "POST".to_owned(), "quitquitquit".to_owned()];
    let quit = run(quit).await.unwrap();
    assert!(quit.status.success() && quit.stdout == b"OK\n", "{quit:?}");
    let ended = tokio::task::spawn_blocking(move || proxy.child.wait().unwrap()).await.unwrap();
    assert!(ended.success());
    ads.abort();
}
