//! One authority for all replicas, kept in a Secret and taken over.

use crate::daemon::{Bench, SYSTEM, decoded};

const SECRET: &str = "secret istio-ca-secret -n istio-system";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn replicas_that_start_at_once_make_one_authority_and_it_stays() {
    let bench = Bench::start().await;
    let mut replicas = [0, 1, 2].map(|number| bench.lateend(&format!("lateend-{number}"), &[]));
    for replica in &replicas {
        replica.until_ready().await;
    }
    let made = replicas.iter().filter(|it| it.log().contains("a new authority is made")).count();
    assert_eq!(made, 1, "one of them won");
    let secret = bench.object(SECRET).await.unwrap();
    let root = decoded(&secret, "ca-cert.pem");
    let key = decoded(&secret, "ca-key.pem");
    assert!(key.contains("PRIVATE KEY"));
    let hashes = replicas.each_ref().map(|replica| {
        let log = replica.log();
        assert!(!log.contains(key.lines().nth(1).unwrap()), "the key is in the log");
        let line = log.lines().find(|line| line.contains("the authority is taken over")).unwrap();
        line.split("root=").nth(1).unwrap().to_owned()
    });
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    bench
        .until("configmap istio-ca-root-cert -n istio-system", |map| {
            map["data"]["root-cert.pem"].as_str().unwrap() == root
        })
        .await;

    for replica in &mut replicas {
        replica.end().await;
    }
    let again = bench.lateend("lateend-3", &[]);
    again.until_ready().await;
    let after = bench.object(SECRET).await.unwrap();
    assert_eq!(after["metadata"]["resourceVersion"], secret["metadata"]["resourceVersion"]);
    assert!(again.log().contains(&hashes[0]), "the same root:\n{}", again.log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn the_authority_of_istio_is_taken_over() {
    let bench = Bench::start().await;
    let (certificate, key) = root("istio.example");
    // As Istio writes it: with keys that hold nothing.
    let secret = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "istio.io/ca-root",
        "metadata": {"name": "istio-ca-secret", "namespace": SYSTEM},
        "stringData": {"ca-cert.pem": certificate, "ca-key.pem": key, "root-cert.pem": "",
            "cert-chain.pem": "", "key.pem": ""},
    });
    bench.apply(&secret.to_string()).await;
    let replica = bench.lateend("lateend-0", &[]);
    replica.until_ready().await;
    bench
        .until("configmap istio-ca-root-cert -n default", |map| {
            map["data"]["root-cert.pem"].as_str().unwrap().trim() == certificate.trim()
        })
        .await;
}

/// A self-signed authority, valid now: certificate and key.
pub(crate) fn root(organization: &str) -> (String, String) {
    root_until(organization, 2099)
}

/// A self-signed authority that ends with a year.
pub(crate) fn root_until(organization: &str, year: i32) -> (String, String) {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    // As Kubernetes keeps it and as we write it: lines that end with a line feed.
    (certificate.pem().replace("\r\n", "\n"), key.serialize_pem())
}
