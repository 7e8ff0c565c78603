//! What holds for any bytes that claim to be an identity, and for good ones with a byte changed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use lateen_identity::ca::CaFiles;
use lateen_identity::tls::verify_chain;
use lateen_identity::{
    Ca, Credential, PeerCertificate, SigningRequest, SpiffeId, Subject, TrustBundle, TrustDomain,
    WorkloadKey,
};
use proptest::prelude::{any, proptest};
use proptest::sample::Index;
use rustls_pki_types::CertificateDer;

struct Good {
    ca: Ca,
    id: SpiffeId,
    request: String,
    leaf: Vec<u8>,
    now: SystemTime,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let domain = TrustDomain::parse("cluster.local").unwrap();
    let now = SystemTime::now();
    let ca = Ca::from_files(&CaFiles::create(&domain, now).unwrap()).unwrap();
    let id = SpiffeId::workload(&domain, "shop", "reviews").unwrap();
    let key = WorkloadKey::generate().unwrap();
    let request = key.request(&id).unwrap();
    let signing = SigningRequest::from_pem(&request).unwrap();
    let subject = Subject::Workload(id.clone());
    let issued = ca.sign(&signing, &subject, Duration::from_secs(3600), now).unwrap();
    let credential = Credential::new(issued.chain.iter().map(String::as_str), &key).unwrap();
    let leaf = credential.certified().cert[0].to_vec();
    Good { ca, id, request, leaf, now }
});

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes in any::<Vec<u8>>(), text in any::<String>()) {
        assert!(PeerCertificate::from_der(&bytes).is_err());
        assert!(TrustBundle::from_pem(&bytes).is_err());
        let armoured = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        for text in [&text, &armoured] {
            assert!(SigningRequest::from_pem(text).is_err());
            assert!(Credential::from_pem(text, text).is_err());
            assert!(TrustBundle::from_pem(text.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_changed_request_gives_no_other_identity(at in any::<Index>(), byte in b' '..0x7f) {
        let good = &*GOOD;
        let mut request = good.request.clone().into_bytes();
        let at = at.index(request.len());
        request[at] = byte;
        let request = String::from_utf8(request).unwrap();
        if let Ok(request) = SigningRequest::from_pem(&request) {
            let lifetime = Duration::from_secs(60);
            let subject = Subject::Workload(good.id.clone());
            let issued = good.ca.sign(&request, &subject, lifetime, good.now).unwrap();
            assert_eq!(SigningRequest::from_pem(&good.request).unwrap(), request);
            assert!(!issued.chain.is_empty());
        }
    }

    #[test]
    fn a_changed_certificate_is_not_trusted(at in any::<Index>(), byte in any::<u8>()) {
        let good = &*GOOD;
        let mut leaf = good.leaf.clone();
        let at = at.index(leaf.len());
        let changed = std::mem::replace(&mut leaf[at], byte) != byte;
        let _identity = PeerCertificate::from_der(&leaf).map(|peer| peer.spiffe_id());
        let verdict = verify_chain(&[CertificateDer::from(leaf)], good.ca.bundle(), good.now);
        assert_eq!(verdict.is_err(), changed, "byte {at}");
    }
}
