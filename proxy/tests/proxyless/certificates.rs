//! Certificates of an application as files, and what readiness says of them.

use crate::running::{ask, free, loopback, until_ready};
use crate::{
    ControlPlane, SOON, channel, gone, listener_request, of_the_world, serve, until_unready,
};
use lateen_identity::tls::{ClientAuth, HotCredential, server_config};
use lateen_identity::{Credential, SigningRequest, Subject};
use lateen_proxy::settings::{Environment, ProxyArgs, Settings};
use lateen_testkit::ca::TestCa;
use lateen_xds::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use lateen_xds::istio::ca_server::{CertificateAuthority, CertificateServer};
use lateen_xds::istio::{IstioCertificateRequest, IstioCertificateResponse};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

/// Signs for whoever has the token.
struct Authority(Arc<TestCa>);

impl CertificateAuthority for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let asked = request.get_ref();
        let csr = SigningRequest::from_pem(&asked.csr)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let lifetime = Duration::from_secs(asked.validity_duration.unsigned_abs());
        let subject = Subject::Workload(self.0.id("shop", "echo"));
        let issued = self.0.ca().sign(&csr, &subject, lifetime, SystemTime::now());
        let issued = issued.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(IstioCertificateResponse { cert_chain: issued.chain }))
    }
}

/// Settings of an agent in a pod whose volumes are below `folder`.
fn in_a_pod(folder: &Path, discovery: u16, authority: u16, status: u16) -> Settings {
    let config = json!({
        "discoveryAddress": format!("localhost:{discovery}"), "statusPort": status,
        "proxyAdminPort": free().port(), "terminationDrainDuration": "1s",
    });
    let env = Environment::from([
        ("DISABLE_ENVOY", "true"),
        ("OUTPUT_CERTS", folder.join("data").to_str().unwrap()),
        ("GRPC_XDS_BOOTSTRAP", folder.join("proxy/bootstrap.json").to_str().unwrap()),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("POD_NAMESPACE", "shop"),
        ("SERVICE_ACCOUNT", "echo"),
        ("SECRET_TTL", "4s"),
        ("CA_ADDR", &format!("localhost:{authority}")),
        ("PROXY_CONFIG", &config.to_string()),
        ("ENVOY_STATUS_PORT", &free().port().to_string()),
        ("ENVOY_PROMETHEUS_PORT", &free().port().to_string()),
    ]);
    let mut settings = Settings::new(&ProxyArgs::default(), &env, 1).unwrap();
    settings.control_plane.roots = folder.join("roots.pem");
    settings.control_plane.token = folder.join("token");
    settings
}

/// Reads certificate and key as a `file_watcher` does: one after the other, again if they do not fit. The
/// agent may have been stopped between the two, but not for long.
async fn read(data: &Path) -> Credential {
    let text = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    for _ in 0..10 {
        let (chain, key) = (text("cert-chain.pem"), text("key.pem"));
        assert!(chain.ends_with("-----END CERTIFICATE-----\n"), "half a file: {chain}");
        assert!(key.ends_with("-----END PRIVATE KEY-----\n"), "half a file");
        if let Ok(credential) = Credential::from_pem(&chain, &key) {
            return credential;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("certificate and key do not belong together");
}

/// Reads again and again, until there was another certificate twice.
async fn two_renewals(data: &Path, first: &Credential) {
    let (mut serial, mut renewals) = (first.leaf().serial.clone(), 0);
    let end = Instant::now() + Duration::from_secs(7);
    while Instant::now() < end && renewals < 2 {
        let now = read(data).await;
        assert!(now.is_valid_at(SystemTime::now()));
        if now.leaf().serial != serial {
            serial.clone_from(&now.leaf().serial);
            renewals += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(renewals >= 2, "renewed {renewals} times");
}

#[tokio::test(flavor = "current_thread")]
async fn certificates_are_files_that_are_renewed_and_readiness_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Arc::new(TestCa::new());
    std::fs::write(folder.path().join("roots.pem"), ca.ca().roots_pem()).unwrap();
    std::fs::write(folder.path().join("token"), "secret\n").unwrap();
    let own = Arc::new(HotCredential::new(ca.server(&["localhost"])));
    let tls = TlsAcceptor::from(Arc::new(server_config(own, ClientAuth::None, &["h2"]).unwrap()));
    let asked = ControlPlane::default();
    let discovery = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let status = free().port();
    let settings = in_a_pod(folder.path(), port(&discovery), port(&authority), status);
    let service = AggregatedDiscoveryServiceServer::new(asked.clone());
    let discovery = serve(discovery, Some(tls.clone()), service);
    let service = CertificateServer::new(Arc::new(Authority(Arc::clone(&ca))));
    let authority = serve(authority, Some(tls), service);
    let agent = std::thread::spawn(move || lateen_proxy::app::run(settings));

    let data = folder.path().join("data");
    until_unready(status, "data/root-cert.pem").await;
    std::fs::create_dir(&data).unwrap();
    until_ready(status).await;

    let first = read(&data).await;
    assert_eq!(first.leaf().uris, ["spiffe://cluster.local/ns/shop/sa/echo"]);
    let roots = std::fs::read_to_string(data.join("root-cert.pem")).unwrap();
    assert_eq!(roots.trim_end(), ca.ca().roots_pem().trim_end());
    let mode = std::fs::metadata(data.join("key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644, "the application is another user");
    two_renewals(&data, &first).await;
    let text = std::fs::read_to_string(folder.path().join("proxy/bootstrap.json")).unwrap();
    let bootstrap: Value = serde_json::from_str(&text).unwrap();
    let provider = &bootstrap["certificate_providers"]["default"]["config"];
    assert_eq!(provider["private_key_file"], data.join("key.pem").to_str().unwrap());
    let channel = channel(bootstrap["xds_servers"][0]["server_uri"].as_str().unwrap());
    let mut world = of_the_world(&channel).await.unwrap();
    world.says(listener_request("")).await.unwrap();
    assert_eq!(asked.seen(), [("Kubernetes".to_owned(), "Bearer secret".to_owned())]);

    let quit = ask(loopback(status), "POST", "/quitquitquit").await.unwrap();
    assert!(quit.starts_with("HTTP/1.1 200"), "{quit}");
    let told = Instant::now();
    while !agent.is_finished() {
        assert!(told.elapsed() < SOON, "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.join().unwrap().unwrap();
    gone(discovery).await;
    gone(authority).await;
}
