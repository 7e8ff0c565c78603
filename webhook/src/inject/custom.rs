//! Templates of the user in Go's template language, as Istio has them.
//!
//! A text is rendered with what is known about the pod, read as YAML, and laid over the pod like
//! any other overlay. Must not know how overlays are merged.

mod data;
mod functions;
mod networks;
mod shapes;
mod telemetry;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use super::InjectError;
use super::facts::Facts;
use crate::gotemplate::{self, Template, TemplateError};

/// What templates read of the settings, made once.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    values: gotemplate::Value,
    mesh: gotemplate::Value,
}

impl Shared {
    /// Of all Helm values and the whole mesh configuration.
    pub(crate) fn new(values: &Value, mesh: &Map<String, Value>) -> Self {
        Self { values: gotemplate::Value::given(values), mesh: data::mesh(mesh) }
    }
}

/// Reads a template.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn parse(text: &str) -> Result<Template, TemplateError> {
    Template::parse(text, functions::ENTRIES)
}

/// Renders a template for a pod that has no earlier injection but still all of its containers.
pub(super) fn render(
    (name, template): (&str, &Template),
    (pod, shared): (&Value, &Shared),
    facts: &Facts<'_>,
) -> Result<Value, InjectError> {
    let fail = |reason: String| InjectError::Template { name: name.to_owned(), reason };
    let text =
        template.render(&data::of(pod, shared, facts)).map_err(|error| fail(error.to_string()))?;
    match crate::settings::templates::overlay(&text) {
        Ok(overlay) => Ok(overlay),
        Err(reason) => {
            Err(fail(format!("what it renders for this pod is not a piece of a pod: {reason}")))
        }
    }
}
