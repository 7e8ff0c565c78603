//! What strangers say of who they are.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use jsonwebtoken::jwk::JwkSet;
use lateen_control_plane::token::{TokenVerifier, bearer, expiry};
use lateen_identity::ca::{CaFiles, Subject};
use lateen_identity::{Ca, PeerCertificate, SigningRequest, SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// When all of this happens: in the middle of 2026.
const NOW: u64 = 1_782_864_000;
/// How wrong clocks may be, in seconds.
const LEEWAY: u64 = 10;
/// A public key, of nobody.
const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"a",
    "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

static VERIFIER: LazyLock<TokenVerifier> = LazyLock::new(|| {
    let keys: JwkSet = serde_json::from_str(KEYS).expect("the key is one");
    TokenVerifier::new(keys, "https://kubernetes.default.svc.cluster.local")
});

static AUTHORITY: LazyLock<Ca> = LazyLock::new(|| {
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let files = CaFiles::create(&domain, now).expect("an authority");
    Ca::from_files(&files).expect("an authority")
});

/// No token is believed: the key that would sign it is nobody's.
pub(crate) fn token(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let token = bearer(text).unwrap_or(text);
    assert!(VERIFIER.verify(token, NOW).is_err(), "a token that nobody signed is believed");
    if let Ok(end) = expiry(token, NOW) {
        assert!(end.saturating_add(LEEWAY) > NOW, "a token that has ended is taken");
    }
}

/// A request that is signed for somebody gives a certificate of that somebody, whatever it says.
pub(crate) fn signing_request(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(request) = SigningRequest::from_pem(text) else { return };
    let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
    let id = SpiffeId::workload(&domain, "shop", "cart").expect("an identity");
    let subject = Subject::Workload(id.clone());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let Ok(issued) = AUTHORITY.sign(&request, &subject, Duration::from_secs(3600), now) else {
        return;
    };
    let leaf = issued.chain.first().expect("a chain begins with a certificate");
    let certificate =
        CertificateDer::from_pem_slice(leaf.as_bytes()).expect("a certificate is PEM");
    let certificate = PeerCertificate::from_der(&certificate).expect("a certificate is one");
    assert_eq!(certificate.uris, [id.to_string()]);
    assert!(certificate.dns.is_empty() && !certificate.is_ca, "{certificate:?}");
}
