//! Clusters against real sockets on the loopback interface: mutual TLS, rotation, pools.

use super::*;
use crate::config::{
    Balance, Endpoint, Health, Limits, Outlier, StringMatch, UpstreamHttp, Validation,
};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/reviews";
const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/productpage";
const SNI: &str = "outbound_.9080_._.reviews.shop.svc.cluster.local";

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: rustls_pki_types::CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    fn issue(
        &self,
        uri: &str,
    ) -> (rustls_pki_types::CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        Arc::new(roots)
    }
}

/// Materials that can be rotated.
#[derive(Debug)]
struct Rotating {
    generation: AtomicU64,
    key: Mutex<Option<Arc<CertifiedKey>>>,
    roots: Arc<RootCertStore>,
}

impl Rotating {
    fn rotate(&self, ca: &Ca) {
        let (certificate, key) = ca.issue(CLIENT);
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        *self.key.lock() = Some(Arc::new(CertifiedKey::new(vec![certificate], key)));
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

impl TlsMaterials for Rotating {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }
    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        if name == "default" { self.key.lock().clone() } else { None }
    }
    fn anchors(&self, name: &str) -> Option<Arc<RootCertStore>> {
        (name == "ROOTCA").then(|| Arc::clone(&self.roots))
    }
}

/// What a TLS echo server saw of its clients.
type Clients = Rc<RefCell<Vec<(Vec<u8>, Option<String>, Option<Vec<u8>>)>>>;

async fn tls_echo(ca: &Ca) -> (SocketAddr, Clients) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        ca.roots(),
        Arc::clone(&provider),
    )
    .build()
    .unwrap();
    let (certificate, key) = ca.issue(SERVER);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"istio".to_vec(), b"istio-http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clients = Clients::default();
    let seen = Rc::clone(&clients);
    tokio::task::spawn_local(async move {
        while let Ok((io, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), Rc::clone(&seen));
            tokio::task::spawn_local(async move {
                let Ok(mut io) = acceptor.accept(io).await else { return };
                let session = io.get_ref().1;
                let leaf = session.peer_certificates().unwrap()[0].to_vec();
                let sni = session.server_name().map(str::to_owned);
                seen.borrow_mut().push((leaf, sni, session.alpn_protocol().map(Vec::from)));
                let mut buffer = [0; 1024];
                while let Ok(count) = io.read(&mut buffer).await {
                    if count == 0 || io.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, clients)
}

fn plain(name: &str, endpoints: Vec<(SocketAddr, bool)>) -> Cluster {
    let endpoints = endpoints
        .into_iter()
        .map(|(address, mtls)| {
            Arc::new(Endpoint {
                address,
                weight: 1,
                priority: 0,
                health: Health::Healthy,
                mtls,
                workload: None,
            })
        })
        .collect();
    Cluster {
        name: name.into(),
        discovery: Discovery::Static(Arc::new(EndpointSet { endpoints })),
        balance: Balance::RoundRobin,
        connect_timeout: Duration::from_secs(2),
        http: UpstreamHttp::Http1,
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

fn mutual(name: &str, address: SocketAddr, san: &str) -> Cluster {
    let tls = ClientTls {
        certificate: Some("default".into()),
        validation: Validation::Sds("ROOTCA".into()),
        subject_alt_names: vec![StringMatch::exact(san)],
        sni: Some(SNI.to_owned()),
        auto_sni: false,
        alpn: vec!["istio".to_owned()],
    };
    Cluster { transport: Transport::Auto(Arc::new(tls)), ..plain(name, vec![(address, true)]) }
}

fn start(clusters: Vec<Cluster>, materials: Arc<dyn TlsMaterials>) -> Rc<Upstreams> {
    let clusters = clusters.into_iter().map(|c| (Arc::clone(&c.name), Arc::new(c))).collect();
    let snapshot = Snapshot { epoch: 1, clusters, ..Snapshot::default() };
    let config = Arc::new(ArcSwap::from_pointee(snapshot));
    Upstreams::new(config, Arc::default(), materials, TaskTracker::new())
}

async fn echoes(stream: &mut Stream) {
    stream.write_all(b"ping").await.unwrap();
    stream.flush().await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
}

fn local<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limited = async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs");
    };
    tokio::task::LocalSet::new().block_on(&runtime, limited);
}

fn rotating(ca: &Ca) -> Arc<Rotating> {
    Arc::new(Rotating { generation: AtomicU64::new(0), key: Mutex::default(), roots: ca.roots() })
}

#[test]
fn mutual_tls_shows_the_workload_and_checks_the_peer() {
    local(async {
        let ca = Ca::new();
        let (address, clients) = tls_echo(&ca).await;
        let materials = rotating(&ca);
        materials.rotate(&ca);
        let clusters = vec![
            mutual("right", address, SERVER),
            mutual("wrong", address, "spiffe://cluster.local/ns/shop/sa/other"),
        ];
        let upstreams = start(clusters, materials);
        let mut right = upstreams.connect_tcp("right", None).await.unwrap();
        echoes(&mut right.stream).await;
        assert!(right.tls);
        let seen = clients.borrow()[0].clone();
        assert_eq!((seen.1.as_deref(), seen.2.as_deref()), (Some(SNI), Some(b"istio".as_slice())));
        let wrong = upstreams.connect_tcp("wrong", None).await.unwrap_err();
        assert!(matches!(wrong, UpstreamError::Tls { .. }), "{wrong}");
        assert_eq!(wrong.flag(), "UF");
    });
}

#[test]
fn a_peer_of_another_ca_is_refused() {
    local(async {
        let (ca, stranger) = (Ca::new(), Ca::new());
        let (address, _) = tls_echo(&stranger).await;
        let materials = rotating(&ca);
        materials.rotate(&ca);
        let upstreams = start(vec![mutual("c", address, SERVER)], materials);
        let refused = upstreams.connect_tcp("c", None).await.unwrap_err();
        assert!(matches!(refused, UpstreamError::Tls { .. }), "{refused}");
    });
}

#[test]
fn rotation_changes_new_connections_and_leaves_live_ones() {
    local(async {
        let ca = Ca::new();
        let (address, clients) = tls_echo(&ca).await;
        let materials = rotating(&ca);
        let upstreams = start(
            vec![mutual("c", address, SERVER)],
            Arc::clone(&materials) as Arc<dyn TlsMaterials>,
        );
        let early = upstreams.connect_tcp("c", None).await.unwrap_err();
        assert!(early.to_string().contains("not there yet"), "{early}");
        materials.rotate(&ca);
        let mut old = upstreams.connect_tcp("c", None).await.unwrap();
        echoes(&mut old.stream).await;
        materials.rotate(&ca);
        let mut new = upstreams.connect_tcp("c", None).await.unwrap();
        echoes(&mut new.stream).await;
        echoes(&mut old.stream).await;
        let seen = clients.borrow();
        assert_ne!(seen[0].0, seen[1].0, "the new connection shows the new certificate");
    });
}

#[test]
fn http_between_sidecars_offers_the_protocols_of_the_mesh() {
    local(async {
        let ca = Ca::new();
        let (address, clients) = tls_echo(&ca).await;
        let materials = rotating(&ca);
        materials.rotate(&ca);
        let upstreams = start(vec![mutual("c", address, SERVER)], materials);
        let cluster = upstreams.cluster("c").unwrap();
        let host = cluster.pick(PickRequest::default()).await.unwrap();
        let demand = Demand { version: HttpVersion::Http1, mesh_alpn: true, host: None };
        let lease = cluster.checkout(&host, demand).await.unwrap();
        assert!(lease.facts().tls && !lease.is_http2());
        while clients.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let alpn = clients.borrow()[0].2.clone();
        assert_eq!(alpn.as_deref(), Some(b"istio".as_slice()), "the server prefers istio");
    });
}

#[test]
fn plaintext_is_spoken_where_there_is_no_sidecar() {
    local(async {
        let ca = Ca::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut cluster = mutual("c", address, SERVER);
        cluster.discovery = plain("c", vec![(address, false)]).discovery;
        let upstreams = start(vec![cluster], rotating(&ca));
        let got = upstreams.connect_tcp("c", None).await.unwrap();
        assert!(!got.tls);
    });
}

#[test]
fn original_destinations_are_reached_from_the_inbound_source() {
    local(async {
        let ca = Ca::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
        let inbound = Cluster {
            discovery: Discovery::OriginalDst { port: None },
            balance: Balance::ClusterProvided,
            bind_source: Some(source),
            ..plain("inbound|80||", Vec::new())
        };
        let upstreams = start(vec![inbound], rotating(&ca));
        let _kept = upstreams.connect_tcp("inbound|80||", Some(address)).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), source);
        let none = upstreams.connect_tcp("inbound|80||", None).await.unwrap_err();
        assert!(matches!(none, UpstreamError::NoOriginalDestination(_)), "{none}");
    });
}

#[test]
fn endpoints_that_refuse_are_set_aside_on_all_workers() {
    local(async {
        let ca = Ca::new();
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let rules = Outlier {
            consecutive_5xx: 2,
            consecutive_gateway: 0,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection_percent: 100,
        };
        let both = vec![(live.local_addr().unwrap(), false), (dead, false)];
        let cluster = Cluster { outlier: Some(rules), ..plain("c", both) };
        let snapshot = Snapshot {
            epoch: 1,
            clusters: [("c".into(), Arc::new(cluster))].into(),
            ..Snapshot::default()
        };
        let config = Arc::new(ArcSwap::from_pointee(snapshot));
        let shared = Arc::new(SharedUpstreams::default());
        let worker = || {
            let materials = rotating(&ca);
            Upstreams::new(Arc::clone(&config), Arc::clone(&shared), materials, TaskTracker::new())
        };
        let (first, second) = (worker(), worker());
        let mut failures = 0;
        for _ in 0..10 {
            failures += usize::from(first.connect_tcp("c", None).await.is_err());
        }
        assert_eq!(failures, 2, "the third pick knows");
        for _ in 0..10 {
            assert!(second.connect_tcp("c", None).await.is_ok());
        }
    });
}

#[test]
fn names_are_resolved_before_the_first_connection() {
    local(async {
        let ca = Ca::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = crate::config::DnsTarget { host: "127.0.0.1".into(), port };
        let named =
            Cluster { discovery: Discovery::StrictDns(vec![target]), ..plain("c", Vec::new()) };
        let upstreams = start(vec![named], rotating(&ca));
        let got = upstreams.connect_tcp("c", None).await.unwrap();
        assert_eq!(got.host.endpoint.address.port(), port);
    });
}
