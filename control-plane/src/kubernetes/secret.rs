//! The authority's Secret: which of two is taken, what is in it, and whether it can be used.
//!
//! A Secret that is there is taken as it is or refused with the reason; it is never written over,
//! and never a reason to make another authority. Pure over what was read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use lateen_identity::Ca;
use lateen_identity::ca::directory::{CERTIFICATE, CHAIN, KEY, ROOTS};
use lateen_identity::ca::{CaError, CaFiles};
use thiserror::Error;

use super::roots::Roots;

/// The Secret of an authority that somebody plugged in.
pub const PLUGGED_IN: &str = "cacerts";
/// The Secret of the authority that the control plane made for itself.
pub const OWN: &str = "istio-ca-secret";
/// Type of the latter.
const OWN_TYPE: &str = "istio.io/ca-root";

/// Keys of a Secret of type `kubernetes.io/tls`, as cert-manager writes it.
const TLS: Keys =
    Keys { certificate: "tls.crt", key: "tls.key", roots: "ca.crt", chain: "tls.crt" };
/// Keys of a Secret with plugged-in certificates.
const PEM: Keys = Keys { certificate: CERTIFICATE, key: KEY, roots: ROOTS, chain: CHAIN };

/// What a Secret holds.
pub type Data = BTreeMap<String, ByteString>;

struct Keys {
    certificate: &'static str,
    key: &'static str,
    roots: &'static str,
    chain: &'static str,
}

/// An authority, and the Secret that it is from.
#[derive(Debug)]
pub struct Taken {
    /// The authority.
    pub ca: Arc<Ca>,
    /// Name of the Secret.
    pub secret: &'static str,
    files: CaFiles,
}

impl Taken {
    /// Its roots.
    #[must_use]
    pub fn roots(&self) -> Roots {
        Roots::of_bundle(self.ca.bundle())
    }

    /// Whether another is the same authority, to the letter.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let texts = |it: &Self| {
            let CaFiles { certificate, key, roots, chain } = it.files.clone();
            [certificate, key, roots, chain]
        };
        texts(self) == texts(other)
    }
}

/// Why a Secret is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("Secret `{name}` of namespace `{namespace}`: {reason}; {}", Advice(name))]
pub struct SecretError {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: &'static str,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    /// A key is not there, or is empty.
    #[error("key `{0}` is missing")]
    Missing(&'static str),
    /// What a key holds is no text.
    #[error("key `{0}` is no PEM text")]
    NoText(&'static str),
    /// The parts do not make an authority.
    #[error(transparent)]
    Unusable(#[from] CaError),
    /// It is over.
    #[error("the CA certificate has ended on {0}")]
    Ended(Timestamp),
    /// It is not yet valid.
    #[error("the CA certificate is valid only from {0} on (is the clock right?)")]
    Early(Timestamp),
    /// Its roots are over.
    #[error("every root in it has ended")]
    RootsEnded,
}

/// What to do about a Secret that cannot be used.
struct Advice<'a>(&'a str);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("lateend does not write over it: put a good one in its place")?;
        if self.0 == OWN {
            out.write_str(
                ", from a backup; or delete it for a new authority, after which all workloads must \
                 be started anew",
            )?;
        } else {
            write!(out, ", or delete it and `{OWN}` is used")?;
        }
        out.write_str(" (it is looked at again every few seconds)")
    }
}

/// The authority of the Secrets that are there; `None` when neither is.
///
/// # Errors
/// When the one that counts cannot be used.
pub fn choose(
    namespace: &str,
    plugged_in: Option<&Data>,
    own: Option<&Data>,
    now: SystemTime,
) -> Result<Option<Taken>, SecretError> {
    let (secret, data) = match (plugged_in, own) {
        (Some(data), _) => (PLUGGED_IN, data),
        (None, Some(data)) => (OWN, data),
        (None, None) => return Ok(None),
    };
    let refused = |reason| SecretError { namespace: namespace.to_owned(), name: secret, reason };
    let taken = files(secret, data).and_then(|files| {
        let ca = Ca::from_files(&files)?;
        check_time(&ca, now)?;
        Ok(Taken { ca: Arc::new(ca), secret, files })
    });
    taken.map(Some).map_err(refused)
}

/// The Secret of a new authority, with the keys and the type that Istio's has.
#[must_use]
pub fn own_secret(namespace: &str, files: &CaFiles) -> Secret {
    let bytes = |text: &String| ByteString(text.clone().into_bytes());
    let data =
        [(CERTIFICATE.to_owned(), bytes(&files.certificate)), (KEY.to_owned(), bytes(&files.key))];
    Secret {
        metadata: ObjectMeta {
            name: Some(OWN.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some(OWN_TYPE.to_owned()),
        data: Some(BTreeMap::from(data)),
        ..Secret::default()
    }
}

fn files(secret: &str, data: &Data) -> Result<CaFiles, Reason> {
    let there = |key: &str| data.get(key).is_some_and(|it| !it.0.is_empty());
    let keys = if there(TLS.key) && !there(PEM.key) { TLS } else { PEM };
    let text = |key: &'static str| {
        let bytes = data.get(key).filter(|it| !it.0.is_empty()).ok_or(Reason::Missing(key))?;
        String::from_utf8(bytes.0.clone()).map_err(|_| Reason::NoText(key))
    };
    let certificate = text(keys.certificate)?;
    let roots =
        if secret == OWN && !there(keys.roots) { certificate.clone() } else { text(keys.roots)? };
    let chain = if there(keys.chain) { text(keys.chain)? } else { String::new() };
    Ok(CaFiles { key: text(keys.key)?, certificate, roots, chain })
}

fn check_time(ca: &Ca, now: SystemTime) -> Result<(), Reason> {
    let stamp = |time: SystemTime| Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    let own = ca.certificate();
    if own.not_after <= now {
        return Err(Reason::Ended(stamp(own.not_after)));
    }
    if own.not_before > now {
        return Err(Reason::Early(stamp(own.not_before)));
    }
    if Roots::of_bundle(ca.bundle()).lasting(now).is_empty() {
        return Err(Reason::RootsEnded);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::roots::tests::authority;
    use super::{Data, OWN, PLUGGED_IN, choose, own_secret};
    use k8s_openapi::ByteString;
    use lateen_identity::ca::{CaFiles, ROOT_LIFETIME};
    use std::time::{Duration, SystemTime};

    fn data(pairs: &[(&str, &str)]) -> Data {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        pairs.iter().map(|(key, text)| ((*key).to_owned(), bytes(text))).collect()
    }

    fn plugged_in(files: &CaFiles) -> Data {
        data(&[
            ("ca-cert.pem", &files.certificate),
            ("ca-key.pem", &files.key),
            ("root-cert.pem", &files.roots),
            ("cert-chain.pem", &files.chain),
        ])
    }

    fn refusal(plugged: Option<&Data>, own: Option<&Data>, now: SystemTime) -> String {
        choose("mesh", plugged, own, now).unwrap_err().to_string()
    }

    #[test]
    fn what_is_plugged_in_comes_first() {
        let (a, b) = (authority(), authority());
        let now = SystemTime::now();
        let own = own_secret("mesh", &b).data.unwrap();
        let taken = choose("mesh", Some(&plugged_in(&a)), Some(&own), now).unwrap().unwrap();
        assert_eq!((taken.secret, taken.ca.roots_pem()), (PLUGGED_IN, a.roots.as_str()));
        let taken = choose("mesh", None, Some(&own), now).unwrap().unwrap();
        assert_eq!((taken.secret, taken.ca.roots_pem()), (OWN, b.roots.as_str()));
        assert!(choose("mesh", None, None, now).unwrap().is_none());
    }

    #[test]
    fn the_form_of_cert_manager_is_read() {
        let a = authority();
        let tls = data(&[("tls.crt", &a.certificate), ("tls.key", &a.key), ("ca.crt", &a.roots)]);
        let taken = choose("mesh", Some(&tls), None, SystemTime::now()).unwrap().unwrap();
        assert_eq!(taken.ca.roots_pem(), a.roots);
        let bare = data(&[("tls.crt", &a.certificate), ("tls.key", &a.key)]);
        let text = refusal(Some(&bare), None, SystemTime::now());
        assert!(text.contains("Secret `cacerts` of namespace `mesh`: key `ca.crt` is missing"));
    }

    #[test]
    fn what_cannot_be_used_is_refused_though_another_could() {
        let (a, b) = (authority(), authority());
        let now = SystemTime::now();
        let own = own_secret("mesh", &b).data.unwrap();
        let text = refusal(Some(&data(&[("ca-cert.pem", &a.certificate)])), Some(&own), now);
        assert!(text.contains("key `root-cert.pem` is missing"), "{text}");
        let text = refusal(Some(&data(&[])), Some(&own), now);
        assert!(text.contains("key `ca-cert.pem` is missing; lateend does not write"), "{text}");
        let mixed = CaFiles { key: b.key.clone(), ..a.clone() };
        let text = refusal(Some(&plugged_in(&mixed)), Some(&own), now);
        assert!(text.contains("the CA key is not the key of the CA certificate"), "{text}");
        let foreign = CaFiles { roots: b.roots, chain: String::new(), ..a.clone() };
        let text = refusal(Some(&plugged_in(&foreign)), Some(&own), now);
        assert!(text.contains("does not lead to a certificate of root-cert.pem"), "{text}");
        assert!(!text.contains(a.key.lines().nth(1).unwrap()), "no key in a message");
    }

    #[test]
    fn what_is_not_valid_now_is_refused_with_the_date() {
        let own = own_secret("mesh", &authority()).data.unwrap();
        let now = SystemTime::now();
        let text = refusal(None, Some(&own), now + 2 * ROOT_LIFETIME);
        assert!(text.contains("the CA certificate has ended on 20"), "{text}");
        assert!(text.contains("from a backup"), "{text}");
        let text = refusal(None, Some(&own), now - Duration::from_secs(86_400));
        assert!(text.contains("valid only from"), "{text}");
    }

    #[test]
    fn the_same_is_the_same() {
        let a = authority();
        let now = SystemTime::now();
        let take = |data: &Data| choose("mesh", Some(data), None, now).unwrap().unwrap();
        let more = CaFiles { roots: format!("{}{}", a.roots, authority().roots), ..a.clone() };
        assert!(take(&plugged_in(&a)).is_same(&take(&plugged_in(&a))));
        assert!(!take(&plugged_in(&a)).is_same(&take(&plugged_in(&more))));
    }
}
