//! Objects as read from text: kind, metadata and an untyped body, with the place they came from;
//! and typed resources made of them.
//!
//! Strict decoding gives errors that name the field and what is allowed there. `null` means unset,
//! as in protobuf JSON. Nothing here knows particular kinds.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::finding::Finding;
use crate::meta::{ObjectMeta, ObjectRef};
use crate::strict::Strict;

/// Where an object was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// File name as given by the reader.
    pub file: Arc<str>,
    /// Position of the document in the file, from 1; 0 for what is not from a file.
    pub document: usize,
    /// Line where the document starts, from 1; 0 for what is not from a file.
    pub line: usize,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => out.write_str(&self.file),
            line => write!(out, "{}:{line}", self.file),
        }
    }
}

/// One Kubernetes object, body untyped.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// `apiVersion`, such as `networking.istio.io/v1` or `v1`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata`; namespaced kinds without a namespace keep `None`.
    pub metadata: ObjectMeta,
    /// The whole object.
    pub value: Value,
    /// Where it was read.
    pub origin: Origin,
}

impl Object {
    /// API group; empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// API version without its group.
    #[must_use]
    pub fn version(&self) -> &str {
        self.api_version.split_once('/').map_or(self.api_version.as_str(), |(_, version)| version)
    }

    /// Kind, namespace and name.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        ObjectRef::new(&self.kind, self.metadata.namespace_or_empty(), &self.metadata.name)
    }

    /// Decodes `spec` strictly (an absent one is empty).
    ///
    /// # Errors
    /// A finding that names the field and what is allowed there.
    pub fn decode_spec<T: DeserializeOwned>(&self) -> Result<Resource<T>, Finding> {
        let spec = self.value.get("spec").cloned().unwrap_or(Value::Null);
        let spec = decode("spec", spec).map_err(|finding| finding.about(self))?;
        Ok(Resource { meta: self.metadata.clone(), origin: self.origin.clone(), spec })
    }

    /// Decodes the whole object.
    ///
    /// # Errors
    /// A finding that names the field and what is allowed there.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Finding> {
        decode("", self.value.clone()).map_err(|finding| finding.about(self))
    }
}

/// A typed resource: metadata, origin and its `spec`.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<S> {
    /// Metadata.
    pub meta: ObjectMeta,
    /// Where it was read.
    pub origin: Origin,
    /// The typed `spec`.
    pub spec: S,
}

impl<S> Resource<S> {
    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.meta.name
    }

    /// Namespace, or the empty string.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.meta.namespace_or_empty()
    }

    /// Sort key of age: oldest first. Objects without a time stamp count as oldest, in the order
    /// in which they were read; ties of time go by name and namespace.
    #[must_use]
    pub fn age(&self) -> (&str, &str, &str) {
        match self.meta.creation_timestamp.as_deref() {
            Some(time) => (time, self.name(), self.namespace()),
            None => ("", "", ""),
        }
    }
}

/// Decodes a value strictly: `null` members are unset, errors name the path below `root`.
///
/// # Errors
/// A finding with the path of the offending field.
pub fn decode<T: DeserializeOwned>(root: &str, mut value: Value) -> Result<T, Finding> {
    strip_nulls(&mut value);
    if value.is_null() {
        value = Value::Object(serde_json::Map::new());
    }
    serde_path_to_error::deserialize(Strict(value)).map_err(|error| {
        let path = match error.path().to_string() {
            path if path == "." => root.to_owned(),
            path if root.is_empty() => path,
            path => format!("{root}.{path}"),
        };
        Finding::error(path, error.into_inner().to_string())
    })
}

/// Removes `null` members of objects, at any depth.
pub fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, strip_nulls};
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
    struct Inner {
        weight: u32,
        list: Vec<Self>,
    }

    #[test]
    fn an_error_names_the_field() {
        let value = json!({"list": [{}, {"weight": "heavy"}]});
        let finding = decode::<Inner>("spec", value).unwrap_err();
        assert_eq!(finding.path, "spec.list[1].weight");
        let finding = decode::<Inner>("spec", json!({"list": [{"wieght": 1}]})).unwrap_err();
        assert_eq!(finding.path, "spec.list[0].wieght");
        assert!(finding.message.contains("expected `weight` or `list`"), "{finding}");
    }

    #[test]
    fn null_is_unset() {
        let mut value = json!({"a": null, "b": [{"c": null}]});
        strip_nulls(&mut value);
        assert_eq!(value, json!({"b": [{}]}));
        assert_eq!(decode::<Inner>("spec", json!(null)).unwrap(), Inner::default());
    }
}
