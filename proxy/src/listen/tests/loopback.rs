//! Listeners, TLS, authorization and TCP between real sockets of the loopback interface.

use super::choice::{chain, listener};
use crate::authz::RbacAuthorizer;
use crate::config::{
    Balance, ChainMatch, ClientTls, Cluster, Discovery, Endpoint, EndpointSet, FilterChain, Health,
    Inspect, Limits, Listener, Permission, Policy, PortPredicate, Principal, Rbac, RbacAction,
    ServerTls, Snapshot, StringMatch, Transport, UpstreamHttp, Validation,
};
use crate::http::{HttpWorker, RequestRecord, Sink};
use crate::listen::{ListenParts, ListenShared, ListenWorker};
use crate::tcp::{TcpRecord, TcpSink, TcpWorker};
use crate::upstream::tls::TlsMaterials;
use crate::upstream::{SharedUpstreams, Upstreams};
use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const ID: &str = "spiffe://cluster.local/ns/shop/sa/front";

/// A workload identity of a CA of its own.
#[derive(Debug)]
struct Identity {
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
}

impl Identity {
    fn new() -> Arc<Self> {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&ca_key).unwrap().der().clone();
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::default();
        leaf.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        leaf.not_after = rcgen::date_time_ymd(2090, 1, 1);
        let certificate = leaf.signed_by(&key, &issuer).unwrap().der().clone();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        Arc::new(Self {
            key: Arc::new(CertifiedKey::new(vec![certificate], signing)),
            roots: Arc::new(roots),
        })
    }
}

impl TlsMaterials for Identity {
    fn generation(&self) -> u64 {
        1
    }
    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        (name == "default").then(|| Arc::clone(&self.key))
    }
    fn anchors(&self, name: &str) -> Option<Arc<RootCertStore>> {
        (name == "ROOTCA").then(|| Arc::clone(&self.roots))
    }
}

/// What a test asks of a connection once it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    listener: String,
    chain: String,
    opened: bool,
    received: u64,
    sent: u64,
    flags: String,
    details: String,
    peer: Option<String>,
}

#[derive(Debug, Default)]
struct Records(RefCell<Vec<Seen>>);

impl TcpSink for Records {
    fn opened(&self, _: &Rc<TcpRecord>) {}
    fn closed(&self, record: &Rc<TcpRecord>) {
        let outcome = record.outcome();
        let tls = record.downstream.tls.as_ref();
        self.0.borrow_mut().push(Seen {
            listener: record.listener.name.to_string(),
            chain: record.chain.as_ref().map_or_else(String::new, |chain| chain.name.to_string()),
            opened: record.was_opened(),
            received: record.traffic.received.get(),
            sent: record.traffic.sent.get(),
            flags: outcome.flags.to_string(),
            details: outcome.details.to_string(),
            peer: tls.and_then(|tls| tls.peer.as_ref()?.uris.first().cloned()),
        });
    }
}

#[derive(Debug)]
struct NoRequests;

impl Sink for NoRequests {
    fn exchange(&self, _: &RequestRecord) {}
}

fn cluster(name: &str, to: SocketAddr, transport: Transport) -> Cluster {
    let endpoint = Endpoint {
        address: to,
        weight: 1,
        priority: 0,
        health: Health::Healthy,
        mtls: true,
        workload: None,
    };
    Cluster {
        name: name.into(),
        discovery: Discovery::Static(Arc::new(EndpointSet { endpoints: vec![endpoint.into()] })),
        balance: Balance::RoundRobin,
        connect_timeout: Duration::from_secs(2),
        http: UpstreamHttp::Http1,
        idle_timeout: None,
        max_requests_per_connection: 0,
        transport,
        bind_source: None,
        limits: Limits::default(),
        outlier: None,
        panic_threshold: 0.0,
        service: None,
    }
}

fn snapshot(epoch: u64, listeners: Vec<Listener>, clusters: Vec<Cluster>) -> Snapshot {
    Snapshot {
        epoch,
        listeners: listeners.into_iter().map(|l| (l.name.clone(), Arc::new(l))).collect(),
        clusters: clusters.into_iter().map(|c| (c.name.clone(), Arc::new(c))).collect(),
        ..Snapshot::default()
    }
}

/// A running worker.
struct Running {
    config: Arc<ArcSwap<Snapshot>>,
    changes: watch::Sender<u64>,
    shared: Arc<ListenShared>,
    records: Rc<Records>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Running {
    async fn start(first: Snapshot) -> Self {
        let materials = Identity::new();
        let config = Arc::new(ArcSwap::from_pointee(first));
        let tasks = TaskTracker::new();
        let upstreams = Upstreams::new(
            Arc::clone(&config),
            Arc::new(SharedUpstreams::default()),
            Arc::clone(&materials) as Arc<dyn TlsMaterials>,
            tasks.clone(),
        );
        let (changes, receiver) = watch::channel(0);
        let shared = ListenShared::new(materials);
        let records = Rc::new(Records::default());
        let stop = CancellationToken::new();
        let worker = ListenWorker::new(ListenParts {
            config: Arc::clone(&config),
            shared: Arc::clone(&shared),
            http: HttpWorker::new(
                Rc::clone(&upstreams),
                Rc::new(NoRequests),
                Rc::new(RbacAuthorizer),
                (None, None),
            ),
            tcp: TcpWorker::new(upstreams, Rc::clone(&records) as Rc<dyn TcpSink>),
            tasks: tasks.clone(),
            drain: CancellationToken::new(),
            stop: stop.clone(),
            drain_time: Duration::from_millis(50),
        });
        tasks.spawn_local(worker.run(receiver));
        let running = Self { config, changes, shared, records, tasks, stop };
        running.stands().await;
        running
    }

    async fn stands(&self) {
        until(|| self.shared.bound.stands(&self.config.load(), 1)).await;
    }

    fn change(&self, next: Snapshot) {
        self.config.store(Arc::new(next));
        self.changes.send_modify(|epoch| *epoch += 1);
    }

    async fn seen(&self, count: usize) -> Vec<Seen> {
        until(|| self.records.0.borrow().len() >= count).await;
        self.records.0.borrow().clone()
    }
}

async fn until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain");
}

fn free() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

/// Answers each connection with what it sent, once it has said all.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut all = Vec::new();
                if io.read_to_end(&mut all).await.is_ok() {
                    drop(io.write_all(&all).await);
                }
            });
        }
    });
    address
}

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.unwrap();
    });
}

/// Sends all, then reads all.
async fn talk(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut io = TcpStream::connect(address).await.unwrap();
    io.write_all(bytes).await.unwrap();
    io.shutdown().await.unwrap();
    let mut answer = Vec::new();
    match io.read_to_end(&mut answer).await {
        Ok(_) => {}
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
    }
    answer
}

#[test]
fn bytes_are_carried_both_ways_and_counted() {
    local(async {
        let (address, target) = (free(), echo().await);
        let front = listener(&address, vec![chain("c", ChainMatch::default())]);
        let running =
            Running::start(snapshot(1, vec![front], vec![cluster("c", target, Transport::Plain)]))
                .await;
        let sent = vec![7; 3_000_000];
        assert_eq!(talk(&address, &sent).await, sent);
        let seen = running.seen(1).await;
        assert_eq!((seen[0].received, seen[0].sent), (3_000_000, 3_000_000));
        assert_eq!((seen[0].chain.as_str(), seen[0].flags.as_str()), ("c", "-"));
        assert!(seen[0].opened);
        until(|| running.shared.open_connections() == 0).await;
        running.stop.cancel();
        running.tasks.close();
    });
}

#[test]
fn connections_that_cannot_go_on_say_why() {
    local(async {
        let address = free();
        let nowhere: SocketAddr = free().parse().unwrap();
        let front = listener(&address, vec![chain("c", ChainMatch::default())]);
        let other = free();
        let only_tls = ChainMatch { tls: Some(true), ..ChainMatch::default() };
        let picky = listener(&other, vec![chain("tls", only_tls)]);
        let clusters = vec![cluster("c", nowhere, Transport::Plain)];
        let running = Running::start(snapshot(1, vec![front, picky], clusters)).await;
        assert_eq!(talk(&address, b"x").await, b"");
        assert_eq!(talk(&other, b"x").await, b"");
        let seen = running.seen(2).await;
        assert_eq!((seen[0].flags.as_str(), seen[0].opened), ("UF", true));
        assert_eq!(
            (seen[1].flags.as_str(), seen[1].details.as_str(), seen[1].opened),
            ("NR", "filter_chain_not_found", false)
        );
        running.stop.cancel();
    });
}

fn with(chain: Arc<FilterChain>, change: impl FnOnce(&mut FilterChain)) -> Arc<FilterChain> {
    let mut chain = Arc::unwrap_or_clone(chain);
    change(&mut chain);
    Arc::new(chain)
}

fn server_tls(alpn: &[&str]) -> Arc<ServerTls> {
    Arc::new(ServerTls {
        certificates: vec!["default".into()],
        validation: Some("ROOTCA".into()),
        require_client_certificate: true,
        subject_alt_names: vec![StringMatch::Prefix {
            value: "spiffe://cluster.local/".into(),
            ignore_case: false,
        }],
        alpn: alpn.iter().map(|text| (*text).to_owned()).collect(),
        tls13_only: false,
    })
}

fn client_tls(certificate: Option<&str>, alpn: &str) -> Transport {
    Transport::Auto(Arc::new(ClientTls {
        certificate: certificate.map(Into::into),
        validation: Validation::Sds("ROOTCA".into()),
        subject_alt_names: vec![StringMatch::exact(ID)],
        sni: Some("outbound_.80_._.back.shop".into()),
        auto_sni: false,
        alpn: vec![alpn.into()],
    }))
}

fn only(principal: Principal) -> Vec<Arc<Rbac>> {
    let policy = Policy { permissions: vec![Permission::Any], principals: vec![principal] };
    vec![Arc::new(Rbac {
        action: RbacAction::Allow,
        policies: vec![("p".into(), policy)],
        shadow: false,
        stat_prefix: "".into(),
    })]
}

/// A listener that ends mutual TLS before a TCP cluster, behind one that begins it.
async fn two_hops(certificate: Option<&str>, allowed: &str) -> (Running, String) {
    let (outer, inner, target) = (free(), free(), echo().await);
    let mtls = ChainMatch {
        tls: Some(true),
        application_protocols: vec!["istio".into()],
        ..ChainMatch::default()
    };
    let allow = Principal::Authenticated(Some(StringMatch::exact(allowed)));
    let end = with(chain("app", mtls), |chain| {
        chain.tls = Some(server_tls(&["istio-peer-exchange", "h2", "http/1.1"]));
        chain.rbac = only(allow);
    });
    let mut inbound = listener(&inner, vec![end]);
    inbound.inspect = Inspect { tls: Some(PortPredicate::default()), ..Inspect::default() };
    let outbound = listener(&outer, vec![chain("peer", ChainMatch::default())]);
    let clusters = vec![
        cluster("peer", inner.parse().unwrap(), client_tls(certificate, "istio")),
        cluster("app", target, Transport::Plain),
    ];
    (Running::start(snapshot(1, vec![inbound, outbound], clusters)).await, outer)
}

#[test]
fn mutual_tls_ends_here_without_a_shared_protocol_and_says_who_called() {
    local(async {
        let (running, outer) = two_hops(Some("default"), ID).await;
        for _ in 0..3 {
            assert_eq!(talk(&outer, b"hello").await, b"hello");
        }
        let seen = running.seen(6).await;
        let inbound: Vec<_> = seen.iter().filter(|seen| seen.chain == "app").collect();
        assert_eq!(inbound.len(), 3);
        for seen in inbound {
            assert_eq!(seen.peer.as_deref(), Some(ID));
            assert_eq!(seen.received, 5);
        }
        running.stop.cancel();
    });
}

#[test]
fn strangers_are_refused() {
    local(async {
        let (running, outer) = two_hops(Some("default"), "spiffe://cluster.local/ns/x/sa/y").await;
        assert_eq!(talk(&outer, b"hello").await, b"");
        let seen = running.seen(2).await;
        let inbound = seen.iter().find(|seen| seen.chain == "app").unwrap();
        assert_eq!(inbound.details, "rbac_access_denied_matched_policy[none]");
        assert!(!inbound.opened);
        running.stop.cancel();
        let (running, outer) = two_hops(None, ID).await;
        assert_eq!(talk(&outer, b"hello").await, b"");
        let seen = running.seen(1).await;
        assert!(seen.iter().all(|seen| seen.chain != "app"), "no certificate, no connection");
        running.stop.cancel();
    });
}

#[test]
fn changes_add_and_remove_listeners_and_drain_only_what_changed() {
    local(async {
        let (kept, gone, added, target) = (free(), free(), free(), echo().await);
        let of =
            |address: &str, name: &str| listener(address, vec![chain(name, ChainMatch::default())]);
        let clusters =
            || ["a", "b", "c"].map(|name| cluster(name, target, Transport::Plain)).to_vec();
        let first = snapshot(1, vec![of(&kept, "a"), of(&gone, "b")], clusters());
        let running = Running::start(first).await;
        let mut stays = TcpStream::connect(&kept).await.unwrap();
        let mut drains = TcpStream::connect(&gone).await.unwrap();
        until(|| running.shared.open_connections() == 2).await;
        // Everything is made anew; what is equal stays.
        running.change(snapshot(2, vec![of(&kept, "a"), of(&added, "c")], clusters()));
        running.stands().await;
        let mut rest = Vec::new();
        drains.read_to_end(&mut rest).await.unwrap();
        assert!(TcpStream::connect(&gone).await.is_err(), "nobody listens there any more");
        assert_eq!(talk(&added, b"new").await, b"new");
        stays.write_all(b"still").await.unwrap();
        stays.shutdown().await.unwrap();
        stays.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"still");
        running.stop.cancel();
    });
}
