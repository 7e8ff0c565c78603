//! Real handshakes in memory: who is let in, who is not, and what rotation does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use lateen_identity::ca::CaFiles;
use lateen_identity::tls::{self, ClientAuth, ClientVerifier, HotBundle, HotCredential};
use lateen_identity::{Ca, Credential, SpiffeId, Subject, TrustBundle, TrustDomain};
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const HOUR: Duration = Duration::from_secs(3600);

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn ca() -> Ca {
    Ca::from_files(&CaFiles::create(&domain(), SystemTime::now()).unwrap()).unwrap()
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::workload(&domain(), "shop", account).unwrap()
}

fn workload(ca: &Ca, account: &str) -> Credential {
    ca.issue(&Subject::Workload(id(account)), HOUR, SystemTime::now()).unwrap()
}

fn bundle(ca: &Ca) -> Arc<HotBundle> {
    Arc::new(HotBundle::new(ca.bundle().clone()))
}

fn server(credential: Credential, trusted: &Arc<HotBundle>) -> rustls::ServerConfig {
    let verifier = ClientVerifier::new(Arc::clone(trusted), [domain()], true);
    let clients = ClientAuth::Verify(Arc::new(verifier));
    tls::server_config(Arc::new(HotCredential::new(credential)), clients, &["istio"]).unwrap()
}

fn client(
    credential: Credential,
    trusted: &Arc<HotBundle>,
    expected: &str,
) -> rustls::ClientConfig {
    let own = Arc::new(HotCredential::new(credential));
    tls::workload_client_config(own, Arc::clone(trusted), [id(expected)], &["istio"]).unwrap()
}

/// Shakes hands and passes a byte each way; the error of whichever side refused.
async fn meet(server: rustls::ServerConfig, client: rustls::ClientConfig) -> Result<(), String> {
    meet_as(server, client, "any.invalid").await
}

async fn meet_as(
    server: rustls::ServerConfig,
    client: rustls::ClientConfig,
    name: &str,
) -> Result<(), String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (left, right) = tokio::io::duplex(16 << 10);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let accept = async {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(left).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let connect = async {
        let mut stream = TlsConnector::from(Arc::new(client)).connect(name, right).await?;
        stream.write_all(b"y").await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let (served, connected) = tokio::join!(accept, connect);
    match (served, connected) {
        (Ok(b'y'), Ok(b'x')) => Ok(()),
        (served, connected) => Err(format!("server: {served:?}, client: {connected:?}")),
    }
}

#[tokio::test]
async fn workloads_of_the_mesh_meet_by_identity() {
    let ca = ca();
    let trusted = bundle(&ca);
    let server = server(workload(&ca, "reviews"), &trusted);
    meet(server, client(workload(&ca, "productpage"), &trusted, "reviews")).await.unwrap();
}

#[tokio::test]
async fn both_tls_versions_check_identity() {
    for version in [&TLS12, &TLS13] {
        let ca = ca();
        let trusted = bundle(&ca);
        let with = |expected| {
            let verifier = tls::WorkloadServerVerifier::new(Arc::clone(&trusted), [id(expected)]);
            rustls::ClientConfig::builder_with_provider(tls::provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_client_cert_resolver(Arc::new(HotCredential::new(workload(&ca, "p"))))
        };
        let new_server = || {
            let mut config = server(workload(&ca, "reviews"), &trusted);
            config.alpn_protocols.clear();
            config
        };
        meet(new_server(), with("reviews")).await.unwrap();
        meet(new_server(), with("ratings")).await.unwrap_err();
    }
}

#[tokio::test]
async fn another_identity_is_refused() {
    let ca = ca();
    let trusted = bundle(&ca);
    let server = server(workload(&ca, "ratings"), &trusted);
    let refused = meet(server, client(workload(&ca, "productpage"), &trusted, "reviews")).await;
    assert!(refused.unwrap_err().contains("NotValidForName"));
}

#[tokio::test]
async fn foreign_authorities_are_refused_on_either_side() {
    let (ours, theirs) = (ca(), ca());
    let trusted = bundle(&ours);
    let impostor = server(workload(&theirs, "reviews"), &trusted);
    let refused = meet(impostor, client(workload(&ours, "p"), &trusted, "reviews")).await;
    assert!(refused.is_err());
    let honest = server(workload(&ours, "reviews"), &trusted);
    let refused = meet(honest, client(workload(&theirs, "p"), &trusted, "reviews")).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn expired_certificates_are_refused_on_either_side() {
    let then = SystemTime::now() - Duration::from_secs(10 * 3600);
    let files = CaFiles::create(&domain(), then).unwrap();
    let ca = Ca::from_files(&files).unwrap();
    let trusted = bundle(&ca);
    let old = |account| ca.issue(&Subject::Workload(id(account)), HOUR, then).unwrap();
    assert!(!old("x").is_valid_at(SystemTime::now()));
    let refused =
        meet(server(old("reviews"), &trusted), client(workload(&ca, "p"), &trusted, "reviews"));
    assert!(refused.await.unwrap_err().contains("Expired"));
    let refused =
        meet(server(workload(&ca, "reviews"), &trusted), client(old("p"), &trusted, "reviews"));
    assert!(refused.await.unwrap_err().contains("Expired"));
}

#[tokio::test]
async fn clients_without_certificate_or_of_another_domain_are_refused() {
    let ca = ca();
    let trusted = bundle(&ca);
    let nameless = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(tls::WorkloadServerVerifier::new(
            Arc::clone(&trusted),
            [id("reviews")],
        )))
        .with_no_client_auth();
    meet(server(workload(&ca, "reviews"), &trusted), nameless).await.unwrap_err();
    let foreign: SpiffeId = "spiffe://elsewhere/ns/shop/sa/p".parse().unwrap();
    let foreign = ca.issue(&Subject::Workload(foreign), HOUR, SystemTime::now()).unwrap();
    let refused =
        meet(server(workload(&ca, "reviews"), &trusted), client(foreign, &trusted, "reviews"));
    refused.await.unwrap_err();
}

#[tokio::test]
async fn a_swapped_credential_and_bundle_are_in_force_at_the_next_handshake() {
    let (old, new) = (ca(), ca());
    let own = Arc::new(HotCredential::new(workload(&old, "reviews")));
    let trusted = bundle(&old);
    let verifier = Arc::new(ClientVerifier::new(Arc::clone(&trusted), [], true));
    let config =
        tls::server_config(Arc::clone(&own), ClientAuth::Verify(verifier), &["istio"]).unwrap();
    meet(config.clone(), client(workload(&old, "p"), &bundle(&old), "reviews")).await.unwrap();
    own.set(workload(&new, "reviews"));
    trusted.set(new.bundle().clone());
    meet(config.clone(), client(workload(&new, "p"), &bundle(&new), "reviews")).await.unwrap();
    meet(config, client(workload(&old, "p"), &bundle(&new), "reviews")).await.unwrap_err();
}

#[tokio::test]
async fn the_control_plane_is_known_by_its_dns_name() {
    let ca = ca();
    let names = Subject::Server(vec!["istiod.istio-system.svc".to_owned()]);
    let credential = ca.issue(&names, HOUR, SystemTime::now()).unwrap();
    let own = Arc::new(HotCredential::new(credential));
    let server = || tls::server_config(Arc::clone(&own), ClientAuth::None, &["h2"]).unwrap();
    let client = |bundle: &TrustBundle| tls::dns_client_config(bundle, &["h2"]).unwrap();
    meet_as(server(), client(ca.bundle()), "istiod.istio-system.svc").await.unwrap();
    meet_as(server(), client(ca.bundle()), "other.istio-system.svc").await.unwrap_err();
    meet_as(server(), client(self::ca().bundle()), "istiod.istio-system.svc").await.unwrap_err();
}
