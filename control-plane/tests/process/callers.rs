//! Who is believed gets what is theirs; everybody else is refused with a reason.

use std::time::Duration;

use lateen_identity::PeerCertificate;
use lateen_xds::type_url::CLUSTER;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::{Proxy, certificate, plaintext, secure};
use crate::daemon::Home;

const NODE: &str = "sidecar~10.0.0.9~cart-1.shop~shop.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_believed_is_told_why() {
    let home = Home::new();
    let daemon = home.start().await;
    let channel = secure(daemon.secure, &home.roots(), None).await;
    let good = home.token(&Home::claims());
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = Home::claims();
        claims[name] = value;
        home.token(&claims)
    };
    let wrong = [
        (with("iss", json!("https://else.example")), "InvalidIssuer"),
        (with("aud", json!(["vault"])), "InvalidAudience"),
        (with("exp", json!(1_000)), "has expired"),
        (with("sub", json!("system:node:n1")), "no service account"),
        (Home::new().token(&Home::claims()), "InvalidSignature"),
        ("junk".to_owned(), "no JWT"),
    ];
    for (token, reason) in &wrong {
        let Err(refused) = certificate(channel.clone(), Some(token), None).await else {
            panic!("a certificate for a token with {reason}");
        };
        assert_eq!(refused.code(), Code::Unauthenticated, "{reason}");
        assert!(refused.message().contains(reason), "{reason}: {}", refused.message());
        let stream = Proxy::silent(channel.clone(), Some(token)).await;
        assert_eq!(stream.err().map(|it| it.code()), Some(Code::Unauthenticated), "{reason}");
    }
    let nobody = certificate(channel.clone(), None, None).await.err().unwrap();
    assert_eq!(nobody.code(), Code::Unauthenticated);
    for junk in [
        "",
        "junk",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ] {
        let refused = certificate(channel.clone(), Some(&good), Some(junk)).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument, "{junk}: {}", refused.message());
    }
    let huge = "x".repeat(1 << 20);
    let refused = certificate(channel.clone(), Some(&good), Some(&huge)).await.err().unwrap();
    assert_eq!(refused.code(), Code::OutOfRange, "{}", refused.message());

    let issued = certificate(channel.clone(), Some(&good), None).await.unwrap();
    let leaf = CertificateDer::from_pem_slice(issued.chain[0].as_bytes()).unwrap();
    let id = PeerCertificate::from_der(&leaf).unwrap().spiffe_id().unwrap();
    assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/cart", "not what it asked for");

    for (node, code) in [
        ("sidecar~10.0.0.9~cart-1.bank~bank.svc.cluster.local", Code::PermissionDenied),
        ("waypoint~10.0.0.9~cart-1.shop~shop.svc.cluster.local", Code::InvalidArgument),
        ("nonsense", Code::InvalidArgument),
    ] {
        let stream = Proxy::open(channel.clone(), Some(&good), node, CLUSTER).await;
        let refused = stream.unwrap().next().await.unwrap_err();
        assert_eq!(refused.code(), code, "{node}: {}", refused.message());
    }
    let mut served = Proxy::open(channel, Some(&good), NODE, CLUSTER).await.unwrap();
    assert!(!served.response().await.resources.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_say_nothing_are_few_and_end() {
    let home = Home::new();
    let mut daemon = home.start().await;
    let mut opening = JoinSet::new();
    for _ in 0..50 {
        let channel = plaintext(daemon.plaintext).await;
        for _ in 0..190 {
            opening.spawn(Proxy::silent(channel.clone(), None));
        }
    }
    let (mut open, mut refused) = (Vec::new(), 0);
    while let Some(done) = opening.join_next().await {
        match done.unwrap() {
            Ok(stream) => open.push(stream),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                refused += 1;
            }
        }
    }
    assert!(open.len() >= 4096 && refused > 0, "{} open, {refused} refused", open.len());
    assert!(daemon.memory() < 400, "{} MiB", daemon.memory());
    daemon.logged("nothing was asked for within").await;
    let begun = std::time::Instant::now();
    let served = loop {
        let channel = plaintext(daemon.plaintext).await;
        match Proxy::open(channel, None, NODE, CLUSTER).await {
            Ok(mut proxy) => break proxy.response().await,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted, "{status}"),
        }
        assert!(begun.elapsed() < crate::daemon::PATIENCE, "nobody is served any more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!served.resources.is_empty());
}
