//! Host names of the mesh: exact names, `*.suffix` wildcards and `*`.
//!
//! Short names are completed by the namespace of the rule they stand in; of several names that
//! match, the most specific wins. Names are compared without regard to case, as DNS does.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::fmt;

use thiserror::Error;

/// Longest DNS name.
const MAX_NAME: usize = 255;
/// Longest DNS label.
const MAX_LABEL: usize = 63;

/// Why a text is no host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostError {
    /// Nothing there.
    #[error("host is empty")]
    Empty,
    /// Longer than DNS allows.
    #[error("host `{0}` is longer than 255 characters")]
    TooLong(String),
    /// A label is malformed.
    #[error(
        "host `{host}`: label `{label}` must be 1 to 63 of a-z, 0-9, `-` and `_`, with neither a `-` at its start or end"
    )]
    Label {
        /// The whole name.
        host: String,
        /// The label.
        label: String,
    },
    /// `*` stands somewhere else than in front.
    #[error("host `{0}`: `*` may only be the whole first label")]
    Wildcard(String),
}

/// An exact name, a wildcard `*.suffix`, or `*`; lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

impl Host {
    /// Checks a name. A trailing dot is removed.
    ///
    /// # Errors
    /// When the text is not a DNS name or wildcard.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(HostError::TooLong(name));
        }
        let rest = match name.strip_prefix('*') {
            Some("") => return Ok(Self(name)),
            Some(rest) => match rest.strip_prefix('.') {
                Some(suffix) => suffix,
                None => return Err(HostError::Wildcard(name)),
            },
            None => name.as_str(),
        };
        for label in rest.split('.') {
            if label.contains('*') {
                return Err(HostError::Wildcard(name.clone()));
            }
            if !is_label(label) {
                return Err(HostError::Label { host: name.clone(), label: label.to_owned() });
            }
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `*` or `*.suffix`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether every name that `other` stands for is one this stands for.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => {
                let name = other.0.strip_prefix('*').unwrap_or(&other.0);
                name.ends_with(suffix) && (other.is_wildcard() || name.len() > suffix.len())
            }
            None => self == other,
        }
    }

    /// Whether some name is one that both stand for.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl AsRef<str> for Host {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether `label` is one DNS label; `_` is let through because service names in the field have it.
#[must_use]
pub fn is_label(label: &str) -> bool {
    let fits = !label.is_empty() && label.len() <= MAX_LABEL;
    let letters =
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    fits && letters && !label.starts_with('-') && !label.ends_with('-')
}

/// The full name of `name` in a rule of `namespace`: a name without a dot is a service of that
/// namespace; names with a dot and wildcards are complete already.
#[must_use]
pub fn resolve(name: &str, namespace: &str, domain: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.contains('.') || name.contains('*') || namespace.is_empty() {
        return name;
    }
    service_name(&name, namespace, domain)
}

/// The full name of a Kubernetes Service.
#[must_use]
pub fn service_name(name: &str, namespace: &str, domain: &str) -> String {
    format!("{name}.{namespace}.svc.{domain}")
}

/// Of the names that cover `wanted`, the most specific: the exact one, else the wildcard with the
/// longest suffix; the first of equals.
pub fn most_specific<'a>(
    wanted: &Host,
    candidates: impl IntoIterator<Item = &'a Host>,
) -> Option<&'a Host> {
    candidates
        .into_iter()
        .filter(|candidate| candidate.covers(wanted))
        .min_by_key(|candidate| (candidate.is_wildcard(), Reverse(candidate.0.len())))
}

#[cfg(test)]
mod tests {
    use super::{Host, HostError, most_specific, resolve};
    use proptest::prelude::{prop_assert, proptest};

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn wildcards_cover_longer_names_only() {
        assert!(host("*.example.com").covers(&host("a.example.com")));
        assert!(host("*.example.com").covers(&host("a.b.example.com")));
        assert!(host("*.example.com").covers(&host("*.b.example.com")));
        assert!(!host("*.example.com").covers(&host("example.com")));
        assert!(!host("*.b.example.com").covers(&host("*.example.com")));
        assert!(host("*").covers(&host("anything")));
        assert!(host("*").covers(&host("*.com")));
    }

    #[test]
    fn the_most_specific_name_wins() {
        let known = [host("*"), host("*.com"), host("*.example.com"), host("a.example.com")];
        let pick = |name| most_specific(&host(name), &known).map(Host::as_str);
        assert_eq!(pick("a.example.com"), Some("a.example.com"));
        assert_eq!(pick("b.example.com"), Some("*.example.com"));
        assert_eq!(pick("b.other.com"), Some("*.com"));
        assert_eq!(pick("cart"), Some("*"));
        assert_eq!(most_specific(&host("cart"), &known[1..]), None);
    }

    #[test]
    fn short_names_belong_to_the_namespace_of_the_rule() {
        assert_eq!(resolve("cart", "shop", "cluster.local"), "cart.shop.svc.cluster.local");
        assert_eq!(resolve("cart.shop", "other", "cluster.local"), "cart.shop");
        assert_eq!(resolve("*", "shop", "cluster.local"), "*");
    }

    #[test]
    fn malformed_names_are_refused() {
        assert_eq!(Host::parse(""), Err(HostError::Empty));
        assert!(matches!(Host::parse("a*.com"), Err(HostError::Wildcard(_))));
        assert!(matches!(Host::parse("*a.com"), Err(HostError::Wildcard(_))));
        assert!(matches!(Host::parse("a..com"), Err(HostError::Label { .. })));
        assert!(matches!(Host::parse("-a.com"), Err(HostError::Label { .. })));
        assert!(matches!(Host::parse(&"a.".repeat(200)), Err(HostError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ignored = Host::parse(&text);
        }

        #[test]
        fn a_pick_covers_and_none_covering_is_longer(
            names in proptest::collection::vec("(\\*\\.)?[ab]{1,2}(\\.[ab]{1,2}){0,3}", 0..8),
            wanted in "[ab]{1,2}(\\.[ab]{1,2}){0,4}",
        ) {
            let known: Vec<Host> = names.iter().map(|name| host(name)).collect();
            let wanted = host(&wanted);
            match most_specific(&wanted, &known) {
                Some(best) => {
                    prop_assert!(best.covers(&wanted));
                    let no_longer = |other: &&Host| {
                        other.is_wildcard() && other.as_str().len() <= best.as_str().len()
                    };
                    let covering = || known.iter().filter(|other| other.covers(&wanted));
                    let longer = covering().filter(|other| *other != best && !no_longer(other));
                    prop_assert!(longer.count() == 0);
                }
                None => prop_assert!(!known.iter().any(|other| other.covers(&wanted))),
            }
        }

        #[test]
        fn covering_is_transitive(
            a in "(\\*\\.)?[ab](\\.[ab]){0,3}", b in "(\\*\\.)?[ab](\\.[ab]){0,3}", c in "[ab](\\.[ab]){0,3}",
        ) {
            let (a, b, c) = (host(&a), host(&b), host(&c));
            if a.covers(&b) && b.covers(&c) {
                prop_assert!(a.covers(&c));
            }
        }
    }
}
