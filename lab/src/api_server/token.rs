//! Service account tokens: signed for pods, as the API server's TokenRequest does.
//!
//! The key is made with the lab and ends with it.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use thiserror::Error;

use super::builtin::NODE;
use super::names;
use crate::kubelet::TokenRequest;

/// Issuer of the cluster's tokens, and their audience where none is asked for.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Shortest lifetime that is given, as in Kubernetes.
const SHORTEST: u64 = 600;
/// Longest lifetime that is given.
const LONGEST: u64 = 1 << 32;

/// A token or key could not be made.
#[derive(Debug, Error)]
#[error("service account token: {0}")]
pub struct TokenError(String);

/// The key that signs tokens.
pub struct Signer {
    key: EncodingKey,
    id: String,
    keys: JwkSet,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Signer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Signer {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, TokenError> {
        let failed = |error: &dyn std::fmt::Display| TokenError(error.to_string());
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| failed(&error))?;
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        let mut jwk =
            Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(|error| failed(&error))?;
        let id = names::uid();
        jwk.common.key_id = Some(id.clone());
        Ok(Self { key, id, keys: JwkSet { keys: vec![jwk] } })
    }

    /// The public key, for those who check tokens.
    ///
    /// # Errors
    /// Never, but for want of memory.
    pub fn key_set(&self) -> Result<String, TokenError> {
        serde_json::to_string(&self.keys).map_err(|error| TokenError(error.to_string()))
    }

    /// A token, at `now` (seconds since 1970).
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn sign(
        &self,
        request: &TokenRequest,
        account_uid: &str,
        now: u64,
    ) -> Result<String, TokenError> {
        let pod = &request.pod;
        let seconds = request.seconds.clamp(SHORTEST, LONGEST);
        let claims = json!({
            "iss": ISSUER,
            "aud": [request.audience.as_deref().unwrap_or(ISSUER)],
            "sub": format!("system:serviceaccount:{}:{}", pod.namespace, request.service_account),
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(seconds),
            "jti": names::uid(),
            "kubernetes.io": {
                "namespace": pod.namespace,
                "node": {"name": NODE},
                "pod": {"name": pod.name, "uid": pod.uid},
                "serviceaccount": {"name": request.service_account, "uid": account_uid},
            },
        });
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims, &self.key).map_err(|error| TokenError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::{ISSUER, Signer};
    use crate::kubelet::{PodKey, TokenRequest};
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    use serde_json::Value;

    #[test]
    fn a_token_is_what_its_checker_expects() {
        let signer = Signer::generate().unwrap();
        let pod =
            PodKey { namespace: "shop".to_owned(), name: "cart-1".to_owned(), uid: "u".to_owned() };
        let request = TokenRequest {
            pod,
            service_account: "cart".to_owned(),
            audience: Some("istio-ca".to_owned()),
            seconds: 1,
        };
        let now = jsonwebtoken::get_current_timestamp();
        let token = signer.sign(&request, "account", now).unwrap();
        let keys: JwkSet = serde_json::from_str(&signer.key_set().unwrap()).unwrap();
        let key = DecodingKey::from_jwk(&keys.keys[0]).unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&["istio-ca"]);
        rules.set_issuer(&[ISSUER]);
        let claims = decode::<Value>(&token, &key, &rules).unwrap().claims;
        assert_eq!(claims["sub"], "system:serviceaccount:shop:cart");
        assert_eq!(claims["kubernetes.io"]["pod"]["name"], "cart-1");
        assert_eq!(claims["exp"].as_u64().unwrap() - now, super::SHORTEST);
        rules.set_audience(&["somebody-else"]);
        assert!(decode::<Value>(&token, &key, &rules).is_err());
    }
}
