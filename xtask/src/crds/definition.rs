//! The CustomResourceDefinition around a kind's types: names, versions, columns, status.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::notation::{Notation, NotationError};

/// The table of a kind.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kind {
    kind: String,
    /// One sentence, seen by `kubectl explain`.
    about: String,
    group: String,
    plural: String,
    #[serde(default)]
    short: Vec<String>,
    versions: Vec<String>,
    storage: String,
    #[serde(default)]
    columns: Vec<Column>,
    /// Whether an object without `spec` is refused.
    #[serde(default)]
    needs_spec: bool,
    #[serde(default)]
    pub(super) shapes: BTreeMap<String, Value>,
    spec: Value,
}

/// A column of `kubectl get`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    name: String,
    path: String,
}

impl Kind {
    /// Name of the definition.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
}

/// The whole definition.
///
/// # Errors
/// When a type is not in the notation.
pub(super) fn definition(kind: &Kind, notation: &Notation<'_>) -> Result<Value, NotationError> {
    let mut spec = notation.schema(&kind.spec)?;
    spec["description"] = json!(kind.about);
    let status = notation.schema(&json!("Status"))?;
    let mut schema = json!({"type": "object", "properties": {"spec": spec, "status": status}});
    if kind.needs_spec {
        schema["required"] = json!(["spec"]);
    }
    let columns: Vec<Value> = kind.columns.iter().map(column).collect();
    let versions: Vec<Value> = kind
        .versions
        .iter()
        .map(|name| {
            let mut version = json!({
                "name": name, "served": true, "storage": *name == kind.storage,
                "subresources": {"status": {}},
            });
            if !columns.is_empty() {
                version["additionalPrinterColumns"] = json!(columns);
            }
            version["schema"] = json!({"openAPIV3Schema": schema});
            version
        })
        .collect();
    let singular = kind.kind.to_lowercase();
    let mut names = json!({
        "kind": kind.kind, "listKind": format!("{}List", kind.kind),
        "plural": kind.plural, "singular": singular,
        "categories": ["istio-io", kind.group.replace('.', "-")],
    });
    if !kind.short.is_empty() {
        names["shortNames"] = json!(kind.short);
    }
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.name()},
        "spec": {"group": kind.group, "names": names, "scope": "Namespaced", "versions": versions},
    }))
}

fn column(column: &Column) -> Value {
    let kind = if column.path.ends_with("Timestamp") { "date" } else { "string" };
    json!({"name": column.name, "type": kind, "jsonPath": column.path})
}
