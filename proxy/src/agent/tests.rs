//! The workload's certificate from a real certificate service over TLS, through outages.

use super::identity::{keep, own_id};
use super::materials::{Materials, OWN, ROOTS};
use super::state::AgentState;
use crate::settings::{Environment, ProxyArgs, Settings};
use crate::upstream::tls::TlsMaterials;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use lateen_identity::tls::{ClientAuth, HotCredential, server_config};
use lateen_identity::{SigningRequest, Subject};
use lateen_testkit::ca::TestCa;
use lateen_xds::istio::ca_server::{CertificateAuthority, CertificateServer};
use lateen_xds::istio::{IstioCertificateRequest, IstioCertificateResponse};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Signs for whoever has the token, for as long as is asked.
struct Authority {
    ca: Arc<TestCa>,
    served: Arc<AtomicU32>,
}

impl CertificateAuthority for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let header = |name: &str| request.metadata().get(name).and_then(|v| v.to_str().ok());
        if header("authorization") != Some("Bearer secret") {
            return Err(Status::unauthenticated("no token"));
        }
        assert_eq!(header("clusterid"), Some("Kubernetes"));
        let asked = request.get_ref();
        let csr = SigningRequest::from_pem(&asked.csr)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let lifetime = Duration::from_secs(asked.validity_duration.unsigned_abs());
        let subject = Subject::Workload(self.ca.id("shop", "reviews"));
        let issued = self.ca.ca().sign(&csr, &subject, lifetime, SystemTime::now());
        let issued = issued.map_err(|e| Status::internal(e.to_string()))?;
        self.served.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(IstioCertificateResponse { cert_chain: issued.chain }))
    }
}

/// Serves the authority over TLS until aborted.
async fn serve(authority: Authority, listener: TcpListener) -> JoinHandle<()> {
    let own = Arc::new(HotCredential::new(authority.ca.server(&["localhost"])));
    let config = server_config(own, ClientAuth::None, &["h2"]).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let service = CertificateServer::new(Arc::new(authority));
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, service) = (acceptor.clone(), service.clone());
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = TowerToHyperService::new(service);
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

struct Bench {
    settings: Arc<Settings>,
    materials: Arc<Materials>,
    state: Arc<AgentState>,
    directory: tempfile::TempDir,
}

fn bench(address: SocketAddr, lifetime: &str, ca: &TestCa) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let (roots, token) = (directory.path().join("root"), directory.path().join("token"));
    std::fs::write(&roots, ca.ca().roots_pem()).unwrap();
    std::fs::write(&token, "secret\n").unwrap();
    let env = Environment::from([
        ("POD_NAMESPACE", "shop"),
        ("SERVICE_ACCOUNT", "reviews"),
        ("SECRET_TTL", lifetime),
        ("CA_ADDR", &format!("localhost:{}", address.port())),
    ]);
    let mut settings = Settings::new(&ProxyArgs::default(), &env, 1).unwrap();
    settings.control_plane.roots = roots;
    settings.control_plane.token = token;
    Bench {
        settings: Arc::new(settings),
        materials: Arc::default(),
        state: AgentState::new(true, true),
        directory,
    }
}

impl Bench {
    fn start(&self, end: &CancellationToken) -> JoinHandle<()> {
        let id = own_id(&self.settings).unwrap();
        let (materials, state) = (Arc::clone(&self.materials), Arc::clone(&self.state));
        tokio::spawn(keep(Arc::clone(&self.settings), id, materials, state, end.clone()))
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test]
async fn a_certificate_is_issued_and_renewed_before_it_ends() {
    let ca = Arc::new(TestCa::new());
    let served = Arc::<AtomicU32>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = bench(listener.local_addr().unwrap(), "2s", &ca);
    let server = serve(Authority { ca, served: Arc::clone(&served) }, listener).await;
    let end = CancellationToken::new();
    assert!(bench.materials.certificate(OWN).is_none() && bench.materials.anchors(ROOTS).is_none());
    let keeping = bench.start(&end);
    until("the first certificate", || bench.materials.generation() == 1).await;
    let first = bench.materials.credential().unwrap();
    assert_eq!(first.leaf().uris, ["spiffe://cluster.local/ns/shop/sa/reviews"]);
    assert!(bench.materials.certificate("other").is_none());
    until("a renewal", || bench.materials.generation() >= 3).await;
    let now = SystemTime::now();
    let later = bench.materials.credential().unwrap();
    assert!(later.is_valid_at(now) && later.leaf().serial != first.leaf().serial);
    end.cancel();
    keeping.await.unwrap();
    server.abort();
}

#[tokio::test]
async fn while_the_authority_is_away_the_certificate_stays_and_is_renewed_at_once_afterwards() {
    let ca = Arc::new(TestCa::new());
    let served = Arc::<AtomicU32>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bench = bench(address, "8s", &ca);
    let authority = || Authority { ca: Arc::clone(&ca), served: Arc::clone(&served) };
    let server = serve(authority(), listener).await;
    let end = CancellationToken::new();
    let keeping = bench.start(&end);
    until("the first certificate", || bench.materials.generation() == 1).await;
    let first = bench.materials.credential().unwrap();
    server.abort();
    let _aborted = server.await;
    // Past the time of renewal, before the end.
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    assert_eq!(bench.materials.generation(), 1);
    assert_eq!(bench.materials.credential().unwrap().leaf().serial, first.leaf().serial);
    let listener = TcpListener::bind(address).await.unwrap();
    let server = serve(authority(), listener).await;
    until("the renewal", || bench.materials.generation() == 2).await;
    assert!(first.is_valid_at(SystemTime::now()), "before the old one ended");
    end.cancel();
    keeping.await.unwrap();
    server.abort();
}

#[tokio::test]
async fn a_new_token_is_used_and_a_foreign_authority_is_not_believed() {
    let (ours, theirs) = (Arc::new(TestCa::new()), Arc::new(TestCa::new()));
    let served = Arc::<AtomicU32>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bench = bench(listener.local_addr().unwrap(), "1h", &theirs);
    let server = serve(Authority { ca: Arc::clone(&ours), served: Arc::clone(&served) }, listener);
    let server = server.await;
    std::fs::write(bench.directory.path().join("token"), "old").unwrap();
    let end = CancellationToken::new();
    let keeping = bench.start(&end);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(bench.materials.generation(), 0, "their root does not cover our server");
    std::fs::write(bench.directory.path().join("root"), ours.ca().roots_pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!((bench.materials.generation(), served.load(Ordering::Relaxed)), (0, 0));
    std::fs::write(bench.directory.path().join("token"), "secret").unwrap();
    until("a certificate", || bench.materials.generation() == 1).await;
    end.cancel();
    keeping.await.unwrap();
    server.abort();
}
