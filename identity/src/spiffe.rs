//! SPIFFE IDs: `spiffe://<trust domain>/<path>`.
//!
//! Parsing follows the SPIFFE ID standard (lower-case trust domain, no empty or dot segments, no
//! escapes, at most 2048 bytes); workloads of the mesh use the path `/ns/<ns>/sa/<sa>`.

use std::fmt;
use std::str::FromStr;
use thiserror::Error;

const SCHEME: &str = "spiffe://";
/// Longest SPIFFE ID, by the standard.
const MAX_ID: usize = 2048;
/// Longest trust domain, by the standard.
const MAX_TRUST_DOMAIN: usize = 255;

/// Why a text is no SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpiffeError {
    /// Another scheme, or none.
    #[error("`{0}` does not start with spiffe://")]
    Scheme(String),
    /// Too long.
    #[error("a SPIFFE ID has at most {MAX_ID} bytes")]
    TooLong,
    /// The trust domain is malformed.
    #[error("trust domain `{0}` must be 1 to {MAX_TRUST_DOMAIN} of a-z, 0-9, `.`, `-` and `_`")]
    TrustDomain(String),
    /// The path is malformed.
    #[error("path segment `{0}` must be letters, digits, `.`, `-` or `_`, and not `.` or `..`")]
    Path(String),
}

/// A trust domain, such as `cluster.local`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Checks a name.
    ///
    /// # Errors
    /// When the text is not a trust domain name.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(allowed) {
            return Err(SpiffeError::TrustDomain(text.chars().take(MAX_TRUST_DOMAIN).collect()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or starting with `/`.
    path: String,
}

impl SpiffeId {
    /// The identity of a service account in the mesh.
    ///
    /// # Errors
    /// When a name holds what a SPIFFE ID cannot.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, SpiffeError> {
        for segment in [namespace, service_account] {
            check_segment(segment)?;
        }
        let path = format!("/ns/{namespace}/sa/{service_account}");
        if SCHEME.len() + trust_domain.0.len() + path.len() > MAX_ID {
            return Err(SpiffeError::TooLong);
        }
        Ok(Self { trust_domain: trust_domain.clone(), path })
    }

    /// Trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Path, with its leading slash; empty for the trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Namespace and service account, when the path has that form.
    #[must_use]
    pub fn namespace_and_account(&self) -> Option<(&str, &str)> {
        let (namespace, account) = self.path.strip_prefix("/ns/")?.split_once("/sa/")?;
        (!namespace.contains('/') && !account.contains('/')).then_some((namespace, account))
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > MAX_ID {
            return Err(SpiffeError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| SpiffeError::Scheme(text.to_owned()))?;
        let (domain, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let trust_domain = TrustDomain::parse(domain)?;
        for segment in path.split('/').skip(1) {
            check_segment(segment)?;
        }
        Ok(Self { trust_domain, path: path.to_owned() })
    }
}

fn check_segment(segment: &str) -> Result<(), SpiffeError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(allowed) {
        return Err(SpiffeError::Path(segment.to_owned()));
    }
    Ok(())
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{}", self.trust_domain, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn workload_ids_have_istios_form() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let id = SpiffeId::workload(&domain, "shop", "reviews").unwrap();
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(id.namespace_and_account(), Some(("shop", "reviews")));
        assert!(SpiffeId::workload(&domain, "a/sa/b", "c").is_err());
    }

    #[test]
    fn malformed_ids_are_refused() {
        let bad = [
            "",
            "http://a/b",
            "spiffe://",
            "spiffe:///a",
            "spiffe://A/b",
            "spiffe://a/",
            "spiffe://a//b",
            "spiffe://a/../b",
            "spiffe://a/%41",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
        ];
        for text in bad {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
        let id: SpiffeId = "spiffe://a".parse().unwrap();
        assert_eq!((id.path(), id.namespace_and_account()), ("", None));
    }

    proptest! {
        #[test]
        fn what_parses_is_written_as_it_was(text in "\\PC{0,60}|spiffe://[a-z.]{1,9}(/[a-zA-Z.-]{0,4}){0,4}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
