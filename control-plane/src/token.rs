//! Service account tokens: who a bearer is.
//!
//! A token is a JWT that the API server signed for a pod. Either signature, issuer, audience and
//! times are checked against a key set, or the API server says what it thinks of the token. The
//! result is the service account the token was made for, and nothing else in the token is believed.
//! No clock and no I/O here: time, keys and answers come in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use serde::Deserialize;
use thiserror::Error;

/// Audience of the tokens that proxies present.
pub const AUDIENCE: &str = "istio-ca";
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 10;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;
/// What the subject of a service account token starts with.
const SUBJECT: &str = "system:serviceaccount:";

/// A Kubernetes service account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its service account.
    pub account: ServiceAccount,
    /// The pod that the token was made for, where the API server said so.
    pub pod: Option<BoundPod>,
}

impl From<ServiceAccount> for Caller {
    fn from(account: ServiceAccount) -> Self {
        Self { account, pod: None }
    }
}

/// The pod that a token is bound to: the token is no longer good when it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundPod {
    /// Name.
    pub name: String,
    /// Unique id.
    pub uid: String,
}

/// Why a token is not believed. The text never repeats the token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// No `authorization: Bearer` was sent.
    #[error("no bearer token: send the service account token as `authorization: Bearer ...`")]
    Missing,
    /// Longer than any real token.
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not a JWT.
    #[error("the token is no JWT: {0}")]
    Malformed(String),
    /// Signed in a way that is not taken.
    #[error("tokens signed with {0} are not taken: use ES256 or RS256")]
    Algorithm(String),
    /// No key of the set fits.
    #[error("no key of the key set fits the token's key id")]
    UnknownKey,
    /// Signature, issuer, audience or claims are wrong.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// Not valid any more, or not yet.
    #[error("the token is not valid at this time: it {0}")]
    Time(&'static str),
    /// For somebody else.
    #[error("the token is for `{0}`, not for the audience `{AUDIENCE}`")]
    Audience(String),
    /// The API server cannot be asked about it; whether it is good is not known.
    #[error("the token cannot be checked now, try again: {0}")]
    Unavailable(String),
    /// Not a token of a service account.
    #[error("the subject `{0}` is no service account")]
    Subject(String),
}

/// What is read from a token.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    nbf: u64,
}

/// Checks tokens of one issuer.
#[derive(Debug, Clone)]
pub struct TokenVerifier {
    keys: JwkSet,
    issuer: String,
}

impl TokenVerifier {
    /// A verifier with these keys for tokens of `issuer`.
    #[must_use]
    pub fn new(keys: JwkSet, issuer: impl Into<String>) -> Self {
        Self { keys, issuer: issuer.into() }
    }

    /// The service account of a token, at `now` (seconds since 1970).
    ///
    /// # Errors
    /// Why the token is not believed.
    pub fn verify(&self, token: &str, now: u64) -> Result<ServiceAccount, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let header = decode_header(token).map_err(|e| TokenError::Malformed(e.to_string()))?;
        if !matches!(header.alg, Algorithm::ES256 | Algorithm::RS256) {
            return Err(TokenError::Algorithm(format!("{:?}", header.alg)));
        }
        let candidates: Vec<&Jwk> = match &header.kid {
            Some(id) => self.keys.find(id).into_iter().collect(),
            None => self.keys.keys.iter().collect(),
        };
        let mut failure = TokenError::UnknownKey;
        for key in candidates {
            match self.decode(token, key, header.alg) {
                Ok(claims) => return account(&claims, now),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn decode(&self, token: &str, key: &Jwk, algorithm: Algorithm) -> Result<Claims, TokenError> {
        let refused = |error: jsonwebtoken::errors::Error| TokenError::Refused(error.to_string());
        let key = DecodingKey::from_jwk(key).map_err(refused)?;
        let mut rules = Validation::new(algorithm);
        rules.set_audience(&[AUDIENCE]);
        rules.set_issuer(&[&self.issuer]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are compared with the caller's clock below.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        decode::<Claims>(token, &key, &rules).map(|data| data.claims).map_err(refused)
    }
}

fn account(claims: &Claims, now: u64) -> Result<ServiceAccount, TokenError> {
    if claims.exp.saturating_add(LEEWAY) <= now {
        return Err(TokenError::Time("has expired"));
    }
    if claims.nbf > now.saturating_add(LEEWAY) {
        return Err(TokenError::Time("is from the future"));
    }
    account_of(&claims.sub)
}

/// The service account of a subject, or of the name by which the API server calls a user.
fn account_of(subject: &str) -> Result<ServiceAccount, TokenError> {
    let parts = subject.strip_prefix(SUBJECT).and_then(|rest| rest.split_once(':'));
    match parts {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => {
            Ok(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(TokenError::Subject(subject.to_owned())),
    }
}

/// What a token says of itself, believed only where it speaks against it.
#[derive(Debug, Deserialize)]
struct Unverified {
    exp: u64,
    #[serde(default)]
    aud: Audiences,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// When a token expires by its own words, in seconds since 1970. Nothing of it is verified.
///
/// # Errors
/// When it need not be shown to the API server, because it says itself that it is no good.
pub fn expiry(token: &str, now: u64) -> Result<u64, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let malformed = |error: &dyn std::fmt::Display| TokenError::Malformed(error.to_string());
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed(&"three parts are expected"));
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|error| malformed(&error))?;
    let Unverified { exp, aud } =
        serde_json::from_slice(&claims).map_err(|error| malformed(&error))?;
    let named = match aud {
        Audiences::One(one) => vec![one],
        Audiences::Many(many) => many,
    };
    if !named.iter().any(|name| name == AUDIENCE) {
        return Err(TokenError::Audience(named.join(", ")));
    }
    if exp.saturating_add(LEEWAY) <= now {
        return Err(TokenError::Time("has expired"));
    }
    Ok(exp)
}

/// Who a token is of, by the API server's answer to a TokenReview for our audience.
///
/// # Errors
/// Why the API server does not believe it.
pub fn reviewed(status: TokenReviewStatus) -> Result<Caller, TokenError> {
    if status.authenticated != Some(true) {
        let reason = status.error.filter(|text| !text.is_empty());
        return Err(TokenError::Refused(format!(
            "the API server says: {}",
            reason.as_deref().unwrap_or("not authenticated")
        )));
    }
    // An API server that knows no audiences names none: then the token could be for anybody.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|name| name == AUDIENCE) {
        return Err(TokenError::Audience(audiences.join(", ")));
    }
    let UserInfo { username, extra, .. } = status.user.unwrap_or_default();
    let account = account_of(&username.unwrap_or_default())?;
    let extra = extra.unwrap_or_default();
    let of_pod =
        |field: &str| extra.get(&format!("authentication.kubernetes.io/{field}"))?.first().cloned();
    let pod = of_pod("pod-name").zip(of_pod("pod-uid"));
    Ok(Caller { account, pod: pod.map(|(name, uid)| BoundPod { name, uid }) })
}

/// A name as Kubernetes takes it; anything else could change the meaning of a SPIFFE ID.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
}

/// The token of an `authorization` value.
///
/// # Errors
/// When it is no bearer token.
pub fn bearer(value: &str) -> Result<&str, TokenError> {
    let (scheme, token) = value.split_once(' ').ok_or(TokenError::Missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
        return Err(TokenError::Missing);
    }
    Ok(token.trim())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{
        AUDIENCE, BoundPod, ServiceAccount, TokenError, TokenVerifier, bearer, expiry, reviewed,
    };
    use jsonwebtoken::jwk::{Jwk, JwkSet};
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};

    /// Issuer of the tokens of tests.
    pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
    const NOW: u64 = 1_800_000_000;

    /// A new P-256 key with its key set.
    pub(crate) fn signer() -> (EncodingKey, JwkSet) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("one".to_owned());
        (key, JwkSet { keys: vec![jwk] })
    }

    /// A token with these claims.
    pub(crate) fn sign(key: &EncodingKey, claims: &Value) -> String {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, key).unwrap()
    }

    fn claims() -> Value {
        json!({
            "iss": ISSUER, "aud": [AUDIENCE], "exp": NOW + 600, "nbf": NOW,
            "sub": "system:serviceaccount:shop:cart",
            "kubernetes.io": {"namespace": "elsewhere"},
        })
    }

    #[test]
    fn a_good_token_names_its_account() {
        let (key, keys) = signer();
        let verifier = TokenVerifier::new(keys, ISSUER);
        let account = verifier.verify(&sign(&key, &claims()), NOW).unwrap();
        let expected = ServiceAccount { namespace: "shop".into(), name: "cart".into() };
        assert_eq!(account, expected);
    }

    #[test]
    fn everything_else_is_refused() {
        let (key, keys) = signer();
        let (other, _) = signer();
        let verifier = TokenVerifier::new(keys, ISSUER);
        let check = |name: &str, value: Value, at: u64| {
            let mut claims = claims();
            claims[name] = value;
            verifier.verify(&sign(&key, &claims), at).unwrap_err()
        };
        assert!(matches!(check("iss", json!("me"), NOW), TokenError::Refused(_)));
        assert!(matches!(check("aud", json!(["x"]), NOW), TokenError::Refused(_)));
        assert!(matches!(check("exp", json!(NOW - 20), NOW), TokenError::Time("has expired")));
        assert!(matches!(check("nbf", json!(NOW + 99), NOW), TokenError::Time(_)));
        for subject in ["alice", "system:serviceaccount:a", "system:serviceaccount:a:b/../c"] {
            assert!(matches!(check("sub", json!(subject), NOW), TokenError::Subject(_)));
        }
        let forged = sign(&other, &claims());
        assert!(matches!(verifier.verify(&forged, NOW), Err(TokenError::Refused(_))));
        assert!(matches!(verifier.verify("a.b", NOW), Err(TokenError::Malformed(_))));
        assert_eq!(verifier.verify(&"x".repeat(20_000), NOW), Err(TokenError::TooLong));
        let secret = EncodingKey::from_secret(b"guess");
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
        let symmetric = encode(&header, &claims(), &secret).unwrap();
        assert!(matches!(verifier.verify(&symmetric, NOW), Err(TokenError::Algorithm(_))));
        let unknown = Header { kid: Some("two".to_owned()), ..Header::new(Algorithm::ES256) };
        let unknown = encode(&unknown, &claims(), &key).unwrap();
        assert_eq!(verifier.verify(&unknown, NOW), Err(TokenError::UnknownKey));
    }

    #[test]
    fn what_speaks_against_itself_is_not_shown_to_the_api_server() {
        let (key, _) = signer();
        let check = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            expiry(&sign(&key, &claims), NOW)
        };
        assert_eq!(check("iss", json!("anybody")), Ok(NOW + 600), "that is for others to say");
        assert_eq!(check("aud", json!(AUDIENCE)), Ok(NOW + 600));
        let wrong = check("aud", json!(["a", "b"])).unwrap_err().to_string();
        assert_eq!(wrong, "the token is for `a, b`, not for the audience `istio-ca`");
        assert_eq!(check("exp", json!(NOW - 60)), Err(TokenError::Time("has expired")));
        for junk in ["", "a", "a.b", "a.b.c", "a.b.c.d", "a.e30.c"] {
            assert!(matches!(expiry(junk, NOW), Err(TokenError::Malformed(_))), "{junk}");
        }
    }

    #[test]
    fn the_api_server_says_who_it_is() {
        let answer = |value: Value| reviewed(serde_json::from_value(value).unwrap());
        let user = json!({
            "username": "system:serviceaccount:shop:cart",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["cart-1"],
                "authentication.kubernetes.io/pod-uid": ["u1"],
            },
        });
        let good = json!({"authenticated": true, "audiences": ["istio-ca"], "user": user});
        let caller = answer(good.clone()).unwrap();
        assert_eq!(
            caller.account,
            ServiceAccount { namespace: "shop".into(), name: "cart".into() }
        );
        assert_eq!(caller.pod, Some(BoundPod { name: "cart-1".into(), uid: "u1".into() }));
        let but = |name: &str, value: Value| {
            let mut status = good.clone();
            status[name] = value;
            answer(status)
        };
        assert_eq!(
            but("user", json!({"username": "system:serviceaccount:a:b"})).unwrap().pod,
            None
        );
        assert!(matches!(but("user", json!({"username": "admin"})), Err(TokenError::Subject(_))));
        assert!(matches!(but("audiences", json!([])), Err(TokenError::Audience(_))));
        assert!(matches!(but("authenticated", json!(false)), Err(TokenError::Refused(_))));
        let refused = answer(json!({"error": "token has expired"})).unwrap_err().to_string();
        assert_eq!(refused, "the token is refused: the API server says: token has expired");
    }

    #[test]
    fn a_bearer_is_a_bearer() {
        assert_eq!(bearer("Bearer abc"), Ok("abc"));
        assert_eq!(bearer("bearer abc"), Ok("abc"));
        for wrong in ["", "abc", "Basic abc", "Bearer ", "Bearer"] {
            assert_eq!(bearer(wrong), Err(TokenError::Missing), "{wrong}");
        }
    }
}
