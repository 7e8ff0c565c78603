//! Object metadata and references, as Kubernetes has them.
//!
//! Tolerant by design: fields that are not read survive in `extra`, so that an object that is
//! written back loses nothing. Nothing here knows what any label or annotation means.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Labels or annotations, sorted by key.
pub type Labels = BTreeMap<String, String>;

/// `metadata` of any object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Name; empty while only `generate_name` is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Prefix from which the API server makes a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generate_name: Option<String>,
    /// Namespace; `None` for cluster-wide objects and where the request carries it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Unique id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Version of the stored object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Version of the desired state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When the object was made (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Set once deletion has been asked for (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Labels,
    /// Owners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
    /// Fields that are not read here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ObjectMeta {
    /// Namespace, or the empty string.
    #[must_use]
    pub fn namespace_or_empty(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// The owner that controls this object.
    #[must_use]
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// API group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Unique id of the owner.
    pub uid: String,
    /// Whether the owner controls this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    /// Fields that are not read here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Which object: kind, namespace (empty for cluster-wide kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Kind.
    pub kind: String,
    /// Namespace, empty where there is none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    /// A reference from its three parts.
    #[must_use]
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(out, "{} {}", self.kind, self.name)
        } else {
            write!(out, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Whether `labels` carry every pair of `selector`. An empty selector selects everything.
#[must_use]
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::{ObjectMeta, ObjectRef, selects};
    use serde_json::json;

    #[test]
    fn unknown_fields_survive() {
        let value = json!({"name": "a", "finalizers": ["x"], "labels": {"k": "v"}});
        let meta: ObjectMeta = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(meta.labels["k"], "v");
        assert_eq!(serde_json::to_value(&meta).unwrap(), value);
    }

    #[test]
    fn references_read_like_kubectl() {
        assert_eq!(ObjectRef::new("Service", "shop", "cart").to_string(), "Service shop/cart");
        assert_eq!(ObjectRef::new("Namespace", "", "shop").to_string(), "Namespace shop");
    }

    #[test]
    fn selection_is_by_every_pair() {
        let labels = [("app".to_owned(), "a".to_owned()), ("v".to_owned(), "1".to_owned())].into();
        assert!(selects(&[("app".to_owned(), "a".to_owned())].into(), &labels));
        assert!(!selects(&[("app".to_owned(), "b".to_owned())].into(), &labels));
        assert!(selects(&[].into(), &labels));
    }
}
