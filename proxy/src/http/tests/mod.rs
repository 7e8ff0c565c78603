//! HTTP connections between real sockets on the loopback interface: a client, the proxy, an
//! upstream.

mod failures;
mod features;
mod http2;
mod passing;

use super::*;
use crate::config::{
    AccessLog, Balance, Cluster, Direction, Discovery, Endpoint, EndpointSet, Forward,
    ForwardClientCert, HeaderEdit, Health, HttpFilter, HttpManager, Limits, PathMatch, Rbac,
    ReplyHeaders, Route, RouteAction, RouteConfig, RouteMatch, RouteSource, Snapshot, Transport,
    UpstreamHttp, VirtualHost, WeightedCluster,
};
use crate::upstream::tls::TlsMaterials;
use crate::upstream::{SharedUpstreams, Upstreams};
use ::http::{HeaderMap, Request, Response};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a test asks of a record once it ended.
#[derive(Debug, Clone)]
struct Seen {
    status: Option<u16>,
    flags: String,
    details: String,
    attempts: u32,
    received: u64,
    sent: u64,
    grpc: Option<u32>,
    messages: (u64, u64),
    peer: Option<String>,
    endpoint: Option<SocketAddr>,
}

#[derive(Debug, Default)]
struct Records(RefCell<Vec<Seen>>);

impl Sink for Records {
    fn exchange(&self, record: &RequestRecord) {
        let peer = record.downstream_peer.as_ref().or(record.upstream_peer.as_ref());
        self.0.borrow_mut().push(Seen {
            status: record.status.map(|status| status.as_u16()),
            flags: record.flags.to_string(),
            details: record.details.to_string(),
            attempts: record.attempts,
            received: record.bytes_received,
            sent: record.bytes_sent,
            grpc: record.grpc_status,
            messages: (record.request_messages, record.response_messages),
            peer: peer.map(|labels| labels.name.to_string()),
            endpoint: record.endpoint.as_ref().map(|endpoint| endpoint.address),
        });
    }
}

#[derive(Debug)]
struct ByHeader;

impl Authorizer for ByHeader {
    fn judge(&self, _: &Rbac, head: &route::RequestHead<'_>, _: &Downstream) -> Judgement {
        if head.headers.contains_key("x-deny") {
            Judgement::Denied(Some("ns[shop]-policy[deny]-rule[0]".into()))
        } else {
            Judgement::Pass
        }
    }
}

#[derive(Debug)]
struct NoMaterials;

impl TlsMaterials for NoMaterials {
    fn generation(&self) -> u64 {
        0
    }
    fn certificate(&self, _: &str) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn anchors(&self, _: &str) -> Option<Arc<rustls::RootCertStore>> {
        None
    }
}

/// A proxy on a loopback port.
struct Proxy {
    address: SocketAddr,
    config: Arc<ArcSwap<Snapshot>>,
    records: Rc<Records>,
    drain: CancellationToken,
}

fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address,
        weight: 1,
        priority: 0,
        health: Health::Healthy,
        mtls: false,
        workload: None,
    })
}

fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoints = addresses.iter().copied().map(endpoint).collect();
    Cluster {
        name: name.into(),
        discovery: Discovery::Static(Arc::new(EndpointSet { endpoints })),
        balance: Balance::RoundRobin,
        connect_timeout: Duration::from_secs(2),
        http: UpstreamHttp::SameAsDownstream,
        idle_timeout: None,
        max_requests_per_connection: 0,
        transport: Transport::Plain,
        bind_source: None,
        limits: Limits::default(),
        outlier: None,
        panic_threshold: 0.0,
        service: None,
    }
}

fn forward_to(name: &str) -> Forward {
    let only = WeightedCluster { cluster: name.into(), weight: 1, headers: Default::default() };
    Forward {
        clusters: vec![only],
        timeout: None,
        idle_timeout: None,
        retry: None,
        rewrite: None,
        host_rewrite: None,
        hash_policy: Vec::new(),
        mirrors: Vec::new(),
        upgrades: Vec::new(),
    }
}

fn route_to(forward: Forward) -> Route {
    let path = PathMatch::Prefix { value: "/".into(), case_sensitive: true };
    Route {
        name: "default".into(),
        matches: RouteMatch { path, headers: Vec::new(), query: Vec::new() },
        action: RouteAction::Forward(Box::new(forward)),
        headers: Default::default(),
        fault: None,
        cors: None,
    }
}

fn manager() -> HttpManager {
    HttpManager {
        stat_prefix: "test".into(),
        routes: RouteSource::Rds("80".into()),
        filters: vec![HttpFilter::PeerMetadata, HttpFilter::GrpcStats, HttpFilter::Fault],
        access_log: Vec::<AccessLog>::new(),
        client_cert: ForwardClientCert::Sanitize,
        use_remote_address: false,
        internal_networks: Vec::new(),
        generate_request_id: true,
        upgrades: vec!["websocket".into()],
        server_name: http::HeaderValue::from_static("istio-envoy"),
        pass_server_header: false,
        idle_timeout: None,
        stream_idle_timeout: None,
        normalize_path: true,
        merge_slashes: false,
        reply_headers: vec![ReplyHeaders {
            flags: vec!["UF".to_owned()],
            edit: HeaderEdit {
                set: vec![(
                    http::HeaderName::from_static("x-not-delivered"),
                    http::HeaderValue::from_static("true"),
                )],
                ..HeaderEdit::default()
            },
        }],
    }
}

fn snapshot(epoch: u64, clusters: Vec<Cluster>, route: Route) -> Snapshot {
    let host = VirtualHost {
        attempt_count_in_response: false,
        name: "host".into(),
        domains: vec!["reviews".into()],
        routes: vec![Arc::new(route)],
        attempt_count: true,
        headers: Default::default(),
    };
    let config =
        RouteConfig { name: "80".into(), virtual_hosts: vec![Arc::new(host)], ignore_port: true };
    Snapshot {
        epoch,
        clusters: clusters.into_iter().map(|c| (Arc::clone(&c.name), Arc::new(c))).collect(),
        routes: [("80".into(), Arc::new(config))].into(),
        ..Snapshot::default()
    }
}

impl Proxy {
    async fn start(clusters: Vec<Cluster>, route: Route) -> Self {
        Self::start_as(clusters, route, manager(), Direction::Outbound).await
    }

    async fn start_as(
        clusters: Vec<Cluster>,
        route: Route,
        manager: HttpManager,
        direction: Direction,
    ) -> Self {
        Self::start_over(None, clusters, route, manager, direction).await
    }

    /// As after a handshake with these facts.
    async fn start_over(
        tls: Option<DownstreamTls>,
        clusters: Vec<Cluster>,
        route: Route,
        manager: HttpManager,
        direction: Direction,
    ) -> Self {
        let tls = tls.map(Arc::new);
        let config = Arc::new(ArcSwap::from_pointee(snapshot(1, clusters, route)));
        let upstreams = Upstreams::new(
            Arc::clone(&config),
            Arc::new(SharedUpstreams::default()),
            Arc::new(NoMaterials),
            TaskTracker::new(),
        );
        let records = Rc::new(Records::default());
        let labels =
            crate::config::WorkloadLabels { name: "reviews-v1".into(), ..Default::default() };
        let local = LocalPeer::new("sidecar~1", "pod", &labels).unwrap();
        let sink = Rc::clone(&records) as Rc<dyn Sink>;
        let worker = HttpWorker::new(upstreams, sink, Rc::new(ByHeader), (Some(local), None));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manager, drain) = (Arc::new(manager), CancellationToken::new());
        let token = drain.clone();
        tokio::task::spawn_local(async move {
            while let Ok((io, peer)) = listener.accept().await {
                io.set_nodelay(true).unwrap();
                let downstream = Rc::new(Downstream {
                    peer,
                    local: address,
                    original_dst: None,
                    direction,
                    tls: tls.clone(),
                });
                let (worker, manager) = (Rc::clone(&worker), Arc::clone(&manager));
                let token = token.clone();
                tokio::task::spawn_local(async move {
                    let _ended = serve(worker, io, downstream, manager, token).await;
                });
            }
        });
        Self { address, config, records, drain }
    }

    /// The record of the only exchange so far; waits until it has ended.
    async fn record(&self) -> Seen {
        self.nth_record(0).await
    }

    async fn nth_record(&self, nth: usize) -> Seen {
        for _ in 0..200 {
            if let Some(seen) = self.records.0.borrow().get(nth) {
                return seen.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no record {nth}");
    }

    /// Sends bytes and reads until the other side closes or `count` responses are complete.
    async fn talk(&self, request: &str) -> String {
        let mut io = TcpStream::connect(self.address).await.unwrap();
        io.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let reading = io.read_to_end(&mut text);
        tokio::time::timeout(Duration::from_secs(5), reading).await.expect("an answer").unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    async fn get(&self, extra: &str) -> String {
        let request =
            format!("GET /x HTTP/1.1\r\nhost: reviews\r\n{extra}connection: close\r\n\r\n");
        self.talk(&request).await
    }
}

/// An upstream that answers by a function; counts connections and requests.
#[derive(Clone)]
struct Upstream {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
    requests: Rc<RefCell<Vec<(HeaderMap, Bytes, String)>>>,
}

impl Upstream {
    async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(usize, Bytes) -> Fut + 'static,
        Fut: Future<Output = Response<Full<Bytes>>> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            connections: Rc::default(),
            requests: Rc::default(),
        };
        let (this, answer) = (upstream.clone(), Rc::new(answer));
        tokio::task::spawn_local(async move {
            while let Ok((io, _)) = listener.accept().await {
                this.connections.set(this.connections.get() + 1);
                let (this, answer) = (this.clone(), Rc::clone(&answer));
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (this, answer) = (this.clone(), Rc::clone(&answer));
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let seen = (parts.headers, body.clone(), parts.uri.to_string());
                        let nth = this.requests.borrow().len();
                        this.requests.borrow_mut().push(seen);
                        Ok::<_, hyper::Error>(answer(nth, body).await)
                    }
                });
                tokio::task::spawn_local(async move {
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ended = server.serve_connection(TokioIo::new(io), service).await;
                });
            }
        });
        upstream
    }

    async fn echo() -> Self {
        Self::start(|_, body| async move { Response::new(Full::new(body)) }).await
    }
}

/// Runs a test with tasks that stay on its thread.
fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    let limited = async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs");
    };
    tasks.block_on(&runtime, limited);
}

fn unused_port() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn body_of(response: &str) -> &str {
    response.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

fn ok(body: &'static str) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(body.as_bytes())))
}
