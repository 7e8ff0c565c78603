//! Exchange of workload labels between sidecars by header (`istio.metadata_exchange`).
//!
//! Wire format, as Istio documents and mixed fleets need it: `x-envoy-peer-metadata-id` is the
//! node id, `x-envoy-peer-metadata` is base64 of a `google.protobuf.Struct`. What peers send is
//! hostile: sizes are bounded and text that does not decode is ignored.

use crate::config::WorkloadLabels;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// Header with the labels.
pub(super) const METADATA: HeaderName = HeaderName::from_static("x-envoy-peer-metadata");
/// Header with the node id.
pub(super) const METADATA_ID: HeaderName = HeaderName::from_static("x-envoy-peer-metadata-id");

const LARGEST: usize = 8 * 1024;
const CACHE_LIMIT: usize = 1024;

/// What this proxy tells its peers about its workload; made once.
#[derive(Debug, Clone)]
pub struct LocalPeer {
    /// Value of [`METADATA`].
    pub metadata: HeaderValue,
    /// Value of [`METADATA_ID`].
    pub id: HeaderValue,
}

impl LocalPeer {
    /// The headers for a node id, pod name and workload labels.
    ///
    /// # Errors
    /// When the node id cannot stand in a header.
    pub fn new(
        id: &str,
        pod: &str,
        labels: &WorkloadLabels,
    ) -> Result<Self, http::header::InvalidHeaderValue> {
        let encoded = STANDARD.encode(to_struct(pod, labels).encode_to_vec());
        Ok(Self { metadata: HeaderValue::try_from(encoded)?, id: HeaderValue::try_from(id)? })
    }

    /// Adds both headers.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        headers.insert(METADATA, self.metadata.clone());
        headers.insert(METADATA_ID, self.id.clone());
    }
}

/// Decoded labels of peers, by header value; one cache a worker.
#[derive(Debug, Default)]
pub(super) struct PeerCache {
    last: RefCell<Option<(HeaderValue, Arc<WorkloadLabels>)>>,
    known: RefCell<HashMap<HeaderValue, Arc<WorkloadLabels>>>,
}

/// What was taken out of a message's headers.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Labels, if they could be read.
    pub(super) labels: Option<Arc<WorkloadLabels>>,
    /// Both headers were there: the peer wants ours in return.
    pub(super) both: bool,
}

impl PeerCache {
    /// Removes the exchange headers and reads the labels.
    pub(super) fn take(&self, headers: &mut HeaderMap) -> Taken {
        if !headers.keys().any(|name| name.as_str().starts_with("x-envoy-peer-metadata")) {
            return Taken::default();
        }
        let id = headers.remove(METADATA_ID);
        let Some(value) = headers.remove(METADATA) else { return Taken::default() };
        Taken { labels: self.labels(value), both: id.is_some() }
    }

    fn labels(&self, value: HeaderValue) -> Option<Arc<WorkloadLabels>> {
        if let Some((last, labels)) = &*self.last.borrow()
            && *last == value
        {
            return Some(Arc::clone(labels));
        }
        let known = self.known.borrow().get(&value).cloned();
        let labels = match known {
            Some(labels) => labels,
            None => self.learn(&value)?,
        };
        *self.last.borrow_mut() = Some((value, Arc::clone(&labels)));
        Some(labels)
    }

    fn learn(&self, value: &HeaderValue) -> Option<Arc<WorkloadLabels>> {
        let labels = Arc::new(decode(value.as_bytes())?);
        let mut known = self.known.borrow_mut();
        if known.len() >= CACHE_LIMIT {
            known.clear();
        }
        known.insert(value.clone(), Arc::clone(&labels));
        Some(labels)
    }
}

/// Labels from the value of [`METADATA`]; `None` when it does not decode.
#[must_use]
pub fn decode(value: &[u8]) -> Option<WorkloadLabels> {
    if value.is_empty() || value.len() > LARGEST {
        return None;
    }
    let bytes = STANDARD.decode(value).ok()?;
    let fields = Struct::decode(bytes.as_slice()).ok()?.fields;
    let text = |name: &str| fields.get(name).map(string).unwrap_or_default();
    let labels = match fields.get("LABELS").and_then(|value| value.kind.as_ref()) {
        Some(Kind::StructValue(labels)) => Some(&labels.fields),
        _ => None,
    };
    let label =
        |name: &str| labels.and_then(|labels| labels.get(name)).map(string).unwrap_or_default();
    let or = |first: String, second: String| if first.is_empty() { second } else { first };
    let workload = text("WORKLOAD_NAME");
    let canonical = or(label("service.istio.io/canonical-name"), label("app"));
    let revision = or(label("service.istio.io/canonical-revision"), label("version"));
    Some(WorkloadLabels {
        canonical_service: or(canonical, workload.clone()).into(),
        canonical_revision: or(revision, "latest".to_owned()).into(),
        name: workload.into(),
        namespace: text("NAMESPACE").into(),
        app: label("app").into(),
        version: label("version").into(),
        cluster: text("CLUSTER_ID").into(),
    })
}

fn string(value: &Value) -> String {
    match &value.kind {
        Some(Kind::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn to_struct(pod: &str, labels: &WorkloadLabels) -> Struct {
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let pick = |pairs: &[(&str, &str)]| -> Struct {
        let filled = pairs.iter().filter(|(_, value)| !value.is_empty());
        Struct { fields: filled.map(|(key, value)| ((*key).to_owned(), text(value))).collect() }
    };
    let mut all = pick(&[
        ("NAME", pod),
        ("NAMESPACE", &labels.namespace),
        ("WORKLOAD_NAME", &labels.name),
        ("CLUSTER_ID", &labels.cluster),
    ]);
    let inner = pick(&[
        ("app", &labels.app),
        ("version", &labels.version),
        ("service.istio.io/canonical-name", &labels.canonical_service),
        ("service.istio.io/canonical-revision", &labels.canonical_revision),
    ]);
    all.fields.insert("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(inner)) });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> WorkloadLabels {
        WorkloadLabels {
            name: "reviews-v1".into(),
            namespace: "shop".into(),
            app: "reviews".into(),
            version: "v1".into(),
            canonical_service: "reviews".into(),
            canonical_revision: "v1".into(),
            cluster: "Kubernetes".into(),
        }
    }

    #[test]
    fn what_one_proxy_says_another_understands() {
        let peer = LocalPeer::new("sidecar~10.0.0.1~a.b~c", "reviews-v1-abc", &labels()).unwrap();
        let mut headers = HeaderMap::new();
        peer.add_to(&mut headers);
        let cache = PeerCache::default();
        for _ in 0..2 {
            let mut copy = headers.clone();
            let taken = cache.take(&mut copy);
            assert_eq!(taken.labels.as_deref(), Some(&labels()));
            assert!(taken.both && copy.is_empty());
        }
    }

    #[test]
    fn rubbish_is_removed_and_ignored() {
        let cache = PeerCache::default();
        for rubbish in ["", "%%%", "AAAA", &"A".repeat(9000)] {
            let mut headers = HeaderMap::new();
            headers.insert(METADATA, HeaderValue::try_from(rubbish).unwrap());
            let taken = cache.take(&mut headers);
            assert!(headers.is_empty() && !taken.both, "{rubbish:.10}");
            assert!(taken.labels.is_none_or(|l| l.name.is_empty()), "{rubbish:.10}");
        }
    }

    #[test]
    fn canonical_names_fall_back() {
        let bare = WorkloadLabels { name: "w".into(), ..WorkloadLabels::default() };
        let peer = LocalPeer::new("id", "pod", &bare).unwrap();
        let read = decode(peer.metadata.as_bytes()).unwrap();
        assert_eq!((&*read.canonical_service, &*read.canonical_revision), ("w", "latest"));
    }
}
