//! Metrics and access logs of requests and connections, as a scraper and a reader see them.

use super::access_log::check;
use super::*;
use crate::config::{
    AccessLog, Balance, ClientTls, Cluster, Direction, Discovery, Endpoint, FilterChain,
    ForwardClientCert, Health, HttpManager, Listener, LogFormat, Name, RouteConfig, RouteSource,
    ServiceLabels, StringMatch, TcpProxy, Transport, UpstreamHttp, Validation, WorkloadLabels,
};
use crate::http::{Downstream, DownstreamTls, PeerCertificate};
use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use std::borrow::Cow;
use std::time::{Instant, UNIX_EPOCH};

fn name(text: &str) -> Name {
    Arc::from(text)
}

fn hub() -> Arc<Hub> {
    let workload = WorkloadLabels {
        name: name("productpage-v1"),
        namespace: name("shop"),
        app: name("productpage"),
        version: name("v1"),
        canonical_service: name("productpage"),
        canonical_revision: name("v1"),
        cluster: name("Kubernetes"),
    };
    let principal = name("spiffe://cluster.local/ns/shop/sa/productpage");
    Hub::new(Local { workload, principal }, Build { version: "1.0".to_owned() })
}

fn downstream(direction: Direction, client: Option<&str>) -> Rc<Downstream> {
    let tls = client.map(|uri| {
        let peer = PeerCertificate { uris: vec![uri.to_owned()], ..PeerCertificate::default() };
        Arc::new(DownstreamTls { peer: Some(peer), ..DownstreamTls::default() })
    });
    Rc::new(Downstream {
        peer: "10.0.0.1:4000".parse().unwrap(),
        local: "10.0.0.2:9080".parse().unwrap(),
        original_dst: None,
        direction,
        tls,
    })
}

fn cluster(service: bool) -> Arc<Cluster> {
    let tls = ClientTls {
        certificate: Some(name("default")),
        validation: Validation::Sds(name("ROOTCA")),
        subject_alt_names: vec![StringMatch::exact("spiffe://cluster.local/ns/shop/sa/reviews")],
        sni: None,
        auto_sni: false,
        alpn: Vec::new(),
    };
    let labels = ServiceLabels {
        host: name("reviews.shop.svc.cluster.local"),
        name: name("reviews"),
        namespace: name("shop"),
        external: false,
    };
    Arc::new(Cluster {
        name: name(if service { "outbound|9080||reviews" } else { "PassthroughCluster" }),
        discovery: Discovery::OriginalDst { port: None },
        balance: Balance::ClusterProvided,
        connect_timeout: Duration::from_secs(1),
        http: UpstreamHttp::Http1,
        idle_timeout: None,
        max_requests_per_connection: 0,
        transport: if service { Transport::Auto(Arc::new(tls)) } else { Transport::Plain },
        bind_source: None,
        limits: crate::config::Limits::default(),
        outlier: None,
        panic_threshold: 0.0,
        service: service.then_some(labels),
    })
}

fn manager(access_log: Vec<AccessLog>) -> Arc<HttpManager> {
    Arc::new(HttpManager {
        stat_prefix: name("x"),
        routes: RouteSource::Inline(Arc::new(RouteConfig::default())),
        filters: vec![HttpFilter::Stats],
        access_log,
        client_cert: ForwardClientCert::Sanitize,
        use_remote_address: false,
        internal_networks: Vec::new(),
        generate_request_id: true,
        upgrades: Vec::new(),
        server_name: HeaderValue::from_static("istio-envoy"),
        pass_server_header: false,
        idle_timeout: None,
        stream_idle_timeout: None,
        normalize_path: false,
        merge_slashes: false,
        reply_headers: Vec::new(),
    })
}

fn request(downstream: Rc<Downstream>, cluster: Option<Arc<Cluster>>) -> RequestRecord {
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("curl"));
    RequestRecord {
        downstream,
        manager: manager(Vec::new()),
        start: UNIX_EPOCH + Duration::from_millis(1_700_000_000_045),
        started: Instant::now(),
        duration: Duration::from_micros(7_500),
        request_duration: None,
        response_duration: Some(Duration::from_millis(6)),
        method: Method::GET,
        uri: Uri::from_static("/reviews/1?x=y"),
        authority: Some(HeaderValue::from_static("reviews:9080")),
        version: Version::HTTP_11,
        grpc: false,
        request_headers: Some(Box::new(headers)),
        response_headers: None,
        status: Some(StatusCode::OK),
        grpc_status: None,
        flags: Flags::default(),
        details: Cow::Borrowed("via_upstream"),
        failure: None,
        bytes_received: 10,
        bytes_sent: 2000,
        request_messages: 0,
        response_messages: 0,
        route: None,
        cluster,
        endpoint: Some(Arc::new(Endpoint {
            address: "10.0.0.9:9080".parse().unwrap(),
            weight: 1,
            priority: 0,
            health: Health::Healthy,
            mtls: true,
            workload: None,
        })),
        upstream_local: None,
        upstream_tls: true,
        attempts: 1,
        downstream_peer: None,
        upstream_peer: None,
    }
}

/// The line of a metric that has all these labels.
fn line(text: &str, metric: &str, labels: &[&str]) -> String {
    let start = format!("{metric}{{");
    let has = |line: &&str| line.starts_with(&start) && labels.iter().all(|l| line.contains(l));
    text.lines().find(has).unwrap_or_else(|| panic!("{metric} {labels:?} in\n{text}")).to_owned()
}

#[test]
fn a_request_is_counted_under_all_25_labels() {
    let hub = hub();
    let telemetry = Telemetry::new(&hub);
    let record = request(downstream(Direction::Outbound, None), Some(cluster(true)));
    for _ in 0..3 {
        telemetry.http(&record);
    }
    let text = hub.prometheus();
    let labels = [
        "reporter=\"source\"",
        "source_workload=\"productpage-v1\"",
        "source_principal=\"spiffe://cluster.local/ns/shop/sa/productpage\"",
        "destination_principal=\"spiffe://cluster.local/ns/shop/sa/reviews\"",
        "destination_service=\"reviews.shop.svc.cluster.local\"",
        "destination_service_name=\"reviews\"",
        "destination_workload=\"unknown\"",
        "request_protocol=\"http\"",
        "response_code=\"200\"",
        "response_flags=\"-\"",
        "connection_security_policy=\"unknown\"",
    ];
    let counted = line(&text, "istio_requests_total", &labels);
    assert!(counted.ends_with("} 3"), "{counted}");
    assert_eq!(counted.matches("=\"").count(), 25, "{counted}");
    let bucket = |bound: &str| {
        let le = format!("le=\"{bound}\"");
        line(&text, "istio_request_duration_milliseconds_bucket", &[&le])
    };
    assert!(bucket("5").ends_with("} 0"), "7.5 ms is above 5 ms");
    assert!(bucket("10").ends_with("} 3") && bucket("+Inf").ends_with("} 3"));
    assert!(line(&text, "istio_request_duration_milliseconds_sum", &[]).ends_with("} 22.500"));
    assert!(line(&text, "istio_response_bytes_sum", &[]).ends_with("} 6000.000"));
    assert!(!text.contains("istio_request_messages_total"), "not gRPC");
}

#[test]
fn workers_are_summed() {
    let hub = hub();
    let record = request(downstream(Direction::Outbound, None), Some(cluster(true)));
    for _ in 0..2 {
        Telemetry::new(&hub).http(&record);
    }
    let text = hub.prometheus();
    assert!(line(&text, "istio_requests_total", &[]).ends_with("} 2"));
    assert_eq!(text.matches("istio_requests_total{").count(), 1);
}

#[test]
fn the_destination_knows_the_client_by_its_certificate() {
    let hub = hub();
    let telemetry = Telemetry::new(&hub);
    let client = "spiffe://cluster.local/ns/web/sa/gateway";
    telemetry.http(&request(downstream(Direction::Inbound, Some(client)), Some(cluster(true))));
    telemetry.http(&request(downstream(Direction::Inbound, None), Some(cluster(true))));
    let text = hub.prometheus();
    let labels = [
        "reporter=\"destination\"",
        "source_principal=\"spiffe://cluster.local/ns/web/sa/gateway\"",
        "source_workload_namespace=\"web\"",
        "source_canonical_revision=\"latest\"",
        "destination_workload=\"productpage-v1\"",
        "connection_security_policy=\"mutual_tls\"",
    ];
    assert!(line(&text, "istio_requests_total", &labels).ends_with("} 1"));
    let plain = ["source_principal=\"unknown\"", "connection_security_policy=\"none\""];
    assert!(line(&text, "istio_requests_total", &plain).ends_with("} 1"));
}

#[test]
fn different_outcomes_are_different_series() {
    let hub = hub();
    let telemetry = Telemetry::new(&hub);
    let cluster = cluster(true);
    let mut record = request(downstream(Direction::Outbound, None), Some(Arc::clone(&cluster)));
    telemetry.http(&record);
    record.status = Some(StatusCode::SERVICE_UNAVAILABLE);
    record.flags = Flags::UPSTREAM_CONNECTION_FAILURE;
    telemetry.http(&record);
    record.status = Some(StatusCode::OK);
    record.flags = Flags::default();
    record.grpc = true;
    record.grpc_status = Some(14);
    record.request_messages = 2;
    telemetry.http(&record);
    let text = hub.prometheus();
    let failed = ["response_code=\"503\"", "response_flags=\"UF\""];
    assert!(line(&text, "istio_requests_total", &failed).ends_with("} 1"));
    let grpc = ["request_protocol=\"grpc\"", "grpc_response_status=\"14\""];
    assert!(line(&text, "istio_requests_total", &grpc).ends_with("} 1"));
    assert!(line(&text, "istio_request_messages_total", &grpc).ends_with("} 2"));
}

#[test]
fn passthrough_is_known_by_its_cluster_and_host() {
    let hub = hub();
    let telemetry = Telemetry::new(&hub);
    let mut record = request(downstream(Direction::Outbound, None), Some(cluster(false)));
    record.authority = Some(HeaderValue::from_static("example.com\"\\"));
    telemetry.http(&record);
    let labels = [
        "destination_service=\"example.com\\\"\\\\\"",
        "destination_service_name=\"PassthroughCluster\"",
    ];
    assert!(line(&hub.prometheus(), "istio_requests_total", &labels).ends_with("} 1"));
}

fn log(path: &std::path::Path, format: LogFormat, flags: &[&str]) -> AccessLog {
    AccessLog {
        path: path.to_str().unwrap().to_owned(),
        format,
        flags: flags.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn access_logs_are_written_as_istio_writes_them() {
    let directory = tempfile::tempdir().unwrap();
    let (text, json) = (directory.path().join("text"), directory.path().join("json"));
    let format = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
                  %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_SENT% %DURATION% \
                  \"%REQ(USER-AGENT):2%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
                  \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %REQ_WITHOUT_QUERY(:PATH)% 100%%\n";
    let fields =
        [("code", "%RESPONSE_CODE%"), ("id", "%REQ(X-REQUEST-ID)%"), ("p", "%PROTOCOL% x")];
    let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let hub = hub();
    let telemetry = Telemetry::new(&hub);
    let mut record = request(downstream(Direction::Outbound, None), Some(cluster(true)));
    record.manager = manager(vec![
        log(&text, LogFormat::Text(format.to_owned()), &[]),
        log(&json, LogFormat::Json(fields), &[]),
        log(&directory.path().join("none"), LogFormat::Text("x".to_owned()), &["NR"]),
    ]);
    telemetry.http(&record);
    hub.logs().close();
    assert_eq!(
        std::fs::read_to_string(text).unwrap(),
        "[2023-11-14T22:13:20.045Z] \"GET /reviews/1?x=y HTTP/1.1\" 200 - via_upstream 2000 7 \
         \"cu\" \"-\" \"reviews:9080\" \"10.0.0.9:9080\" outbound|9080||reviews /reviews/1 100%\n"
    );
    let expected = "{\"code\":200,\"id\":null,\"p\":\"HTTP/1.1 x\"}\n";
    assert_eq!(std::fs::read_to_string(json).unwrap(), expected);
    assert!(!directory.path().join("none").exists(), "the flag was not set");
}

#[test]
fn formats_that_cannot_be_honoured_are_named() {
    let check = |text: &str| check(&LogFormat::Text(text.to_owned())).unwrap_err().to_string();
    assert!(check("%NO_SUCH%").contains("NO_SUCH"));
    assert!(check("50% off").contains("byte 2"));
    assert!(check("%REQ(a b)%").contains("REQ(a b)"));
    assert!(check("%START_TIME(%Q)%").contains("START_TIME"));
}

fn connection(stats: bool, access_log: Vec<AccessLog>) -> Rc<TcpRecord> {
    let proxy = TcpProxy {
        stat_prefix: name("x"),
        clusters: vec![(name("c"), 1)],
        idle_timeout: None,
        max_duration: None,
        access_log,
    };
    let chain = Arc::new(FilterChain {
        name: name("chain"),
        matches: crate::config::ChainMatch::default(),
        tls: None,
        handshake_timeout: Duration::from_secs(1),
        rbac: Vec::new(),
        stats,
        terminal: Terminal::Tcp(Arc::new(proxy)),
    });
    let listener = Arc::new(Listener {
        name: name("l"),
        address: "10.0.0.2:9080".parse().unwrap(),
        additional_addresses: Vec::new(),
        bind: true,
        use_original_dst: false,
        direction: Direction::Inbound,
        inspect: crate::config::Inspect::default(),
        filter_chains: vec![Arc::clone(&chain)],
        default_filter_chain: None,
        access_log: Vec::new(),
    });
    Rc::new(TcpRecord::new(downstream(Direction::Inbound, None), listener, Some(chain), None))
}

#[test]
fn bytes_of_open_connections_are_counted_before_they_close() {
    let hub = hub();
    let telemetry = Telemetry::new(&hub);
    let record = connection(true, Vec::new());
    telemetry.opened(&record);
    record.traffic.received.set(100);
    telemetry.open.report();
    let text = hub.prometheus();
    assert!(line(&text, "istio_tcp_received_bytes_total", &[]).ends_with("} 100"));
    assert!(line(&text, "istio_tcp_connections_closed_total", &[]).ends_with("} 0"));
    record.traffic.received.set(150);
    record.traffic.sent.set(7);
    telemetry.closed(&record);
    let text = hub.prometheus();
    let tcp = ["request_protocol=\"tcp\"", "reporter=\"destination\""];
    assert!(line(&text, "istio_tcp_received_bytes_total", &tcp).ends_with("} 150"));
    assert!(line(&text, "istio_tcp_sent_bytes_total", &tcp).ends_with("} 7"));
    assert!(line(&text, "istio_tcp_connections_opened_total", &tcp).ends_with("} 1"));
    assert!(line(&text, "istio_tcp_connections_closed_total", &tcp).ends_with("} 1"));
    assert!(!text.contains("response_code"), "TCP has no response code");
}

#[test]
fn connections_without_metrics_are_logged_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tcp");
    let hub = hub();
    let telemetry = Telemetry::new(&hub);
    let format = "%PROTOCOL% %RESPONSE_CODE% %BYTES_RECEIVED% %REQ(:PATH)%\n";
    let record = connection(false, vec![log(&path, LogFormat::Text(format.to_owned()), &[])]);
    telemetry.opened(&record);
    record.traffic.received.set(5);
    telemetry.closed(&record);
    hub.logs().close();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "- 0 5 -\n");
    assert!(!hub.prometheus().contains("istio_tcp_sent"));
}
