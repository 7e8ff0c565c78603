//! The CA: what it signs, for how long, and what it refuses to be.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use lateen_identity::ca::directory::{self, DirectoryError};
use lateen_identity::ca::{BACKDATE, CaFiles, ROOT_LIFETIME};
use lateen_identity::{
    Ca, CaError, Credential, PeerCertificate, SigningRequest, SpiffeId, Subject, TrustDomain,
    WorkloadKey,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").unwrap()
}

fn id() -> SpiffeId {
    SpiffeId::workload(&domain(), "shop", "reviews").unwrap()
}

/// Whole seconds, as certificates have them.
fn now() -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("lateen-ca-{name}-{}", std::process::id()));
    let _absent = fs::remove_dir_all(&path);
    path
}

#[test]
fn what_is_signed_is_what_was_said_not_what_was_asked() {
    let ca = Ca::from_files(&CaFiles::create(&domain(), now()).unwrap()).unwrap();
    let key = WorkloadKey::generate().unwrap();
    let asked: SpiffeId = "spiffe://cluster.local/ns/kube-system/sa/admin".parse().unwrap();
    let request = SigningRequest::from_pem(&key.request(&asked).unwrap()).unwrap();
    let now = now();
    let issued = ca.sign(&request, &Subject::Workload(id()), Duration::from_secs(60), now).unwrap();
    assert_eq!(issued.chain.len(), 2, "leaf and root");
    let credential = Credential::new(issued.chain.iter().map(String::as_str), &key).unwrap();
    let leaf = credential.leaf();
    assert_eq!(leaf.spiffe_id().unwrap(), id());
    assert_eq!((leaf.not_before, leaf.not_after), (now - BACKDATE, now + Duration::from_secs(60)));
    assert!(!leaf.is_ca && leaf.dns.is_empty() && leaf.subject.is_empty());
    assert_eq!(credential.certified().cert.len(), 1, "the root is not shown");
    let other = WorkloadKey::generate().unwrap();
    assert!(Credential::new(issued.chain.iter().map(String::as_str), &other).is_err());
    let again = ca.sign(&request, &Subject::Workload(id()), Duration::from_secs(60), now).unwrap();
    let again = Credential::new(again.chain.iter().map(String::as_str), &key).unwrap();
    assert_ne!(again.leaf().serial, leaf.serial);
}

#[test]
fn nothing_outlives_the_authority() {
    let now = now();
    let ca = Ca::from_files(&CaFiles::create(&domain(), now).unwrap()).unwrap();
    let end = now + ROOT_LIFETIME;
    assert_eq!(ca.certificate().not_after, end);
    let issue = |lifetime, at| ca.issue(&Subject::Workload(id()), lifetime, at);
    let long = issue(ROOT_LIFETIME * 2, now).unwrap();
    assert_eq!(long.leaf().not_after, end);
    assert_eq!(issue(Duration::MAX, now).unwrap().leaf().not_after, end);
    assert_eq!(issue(Duration::from_secs(1), end).unwrap_err(), CaError::Ended);
    assert_eq!(issue(Duration::ZERO, now).unwrap_err(), CaError::NoLifetime);
}

#[test]
fn a_directory_keeps_the_authority() {
    let path = directory("keep");
    let first = directory::open_or_create(&path, &domain(), now()).unwrap();
    let mode = fs::metadata(path.join(directory::KEY)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = directory::open_or_create(&path, &domain(), now()).unwrap();
    assert_eq!(first.bundle(), second.bundle());
    fs::remove_file(path.join(directory::KEY)).unwrap();
    let incomplete = directory::open_or_create(&path, &domain(), now()).unwrap_err();
    assert!(matches!(incomplete, DirectoryError::Incomplete { missing: directory::KEY, .. }));
    fs::remove_dir_all(path).unwrap();
}

fn authority(
    name: &str,
    issuer: Option<&Issuer<'_, KeyPair>>,
) -> (String, KeyPair, CertificateParams) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    (certificate.pem(), key, params)
}

#[test]
fn an_intermediate_is_taken_over_with_its_chain() {
    let (root, root_key, root_params) = authority("root", None);
    let issuer = Issuer::new(root_params, root_key);
    let (middle, middle_key, _) = authority("middle", Some(&issuer));
    let files = CaFiles {
        certificate: middle.clone(),
        key: middle_key.serialize_pem(),
        roots: root.clone(),
        chain: format!("{middle}{root}"),
    };
    let ca = Ca::from_files(&files).unwrap();
    let key = WorkloadKey::generate().unwrap();
    let request = SigningRequest::from_pem(&key.request(&id()).unwrap()).unwrap();
    let hour = Duration::from_secs(3600);
    let issued = ca.sign(&request, &Subject::Workload(id()), hour, now()).unwrap();
    assert_eq!(issued.chain.len(), 3, "leaf, intermediate, root");
    assert_eq!(issued.chain[2], root);
    let credential = Credential::new(issued.chain.iter().map(String::as_str), &key).unwrap();
    assert_eq!(credential.certified().cert.len(), 2, "leaf and intermediate are shown");
    lateen_identity::tls::verify_chain(&credential.certified().cert, ca.bundle(), now()).unwrap();
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let ours = CaFiles::create(&domain(), now()).unwrap();
    let theirs = CaFiles::create(&domain(), now()).unwrap();
    let wrong_key = CaFiles { key: theirs.key.clone(), ..ours.clone() };
    assert_eq!(Ca::from_files(&wrong_key).unwrap_err(), CaError::Mismatch);
    let wrong_root = CaFiles { roots: theirs.roots, chain: String::new(), ..ours.clone() };
    assert!(matches!(Ca::from_files(&wrong_root), Err(CaError::Untrusted(_))));
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
    let no_ca = CaFiles { certificate: leaf.pem(), key: key.serialize_pem(), ..ours };
    assert!(matches!(Ca::from_files(&no_ca), Err(CaError::Certificate(_))));
}

#[test]
fn servers_are_known_by_dns_names() {
    let files = CaFiles::create(&domain(), now()).unwrap();
    let ca = Ca::from_files(&files).unwrap();
    let names = vec!["istiod.istio-system.svc".to_owned(), "istiod".to_owned()];
    let hour = Duration::from_secs(3600);
    let credential = ca.issue(&Subject::Server(names.clone()), hour, now()).unwrap();
    assert_eq!(credential.leaf().dns, names);
    let root = CertificateDer::from_pem_slice(files.roots.as_bytes()).unwrap();
    assert!(PeerCertificate::from_der(&root).unwrap().is_ca);
    let odd = Subject::Server(vec!["näme".to_owned()]);
    assert_eq!(ca.issue(&odd, hour, now()).unwrap_err(), CaError::Name("näme".to_owned()));
}
