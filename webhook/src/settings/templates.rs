//! Templates of the user: read once, when settings change, so that a wrong one is refused then.
//!
//! A text without actions is an overlay as it stands; any other is rendered for each pod. Must not
//! know pods.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::SettingsError;
use super::stock::{self, Origin};
use crate::gotemplate::Template;
use crate::inject::custom::{self, Shared};

/// What a template of the user says.
#[derive(Debug, Clone)]
pub(crate) enum UserTemplate {
    /// A piece of a pod.
    Overlay(Value),
    /// Renders one.
    Rendered(Template),
}

/// Templates of the user.
#[derive(Debug, Clone, Default)]
pub(crate) struct Templates {
    by_name: BTreeMap<String, UserTemplate>,
    shared: Option<Shared>,
}

impl Templates {
    /// Reads all templates but those that are Istio's own, which stand for Lateen's; values and mesh
    /// configuration are what they will see.
    ///
    /// # Errors
    /// The first that cannot be used, and where it is wrong.
    pub(super) fn read(
        (texts, place): (&BTreeMap<String, String>, &'static str),
        values: &Value,
        mesh: &Map<String, Value>,
    ) -> Result<Self, SettingsError> {
        let mut by_name = BTreeMap::new();
        for (name, text) in texts {
            if stock::origin(name, text) == Some(Origin::Istio) {
                continue;
            }
            let template = read(text).map_err(|reason| SettingsError::Template {
                name: name.clone(),
                reason,
                place,
            })?;
            by_name.insert(name.clone(), template);
        }
        let renders = by_name.values().any(|t| matches!(t, UserTemplate::Rendered(_)));
        Ok(Self { by_name, shared: renders.then(|| Shared::new(values, mesh)) })
    }

    /// A template by its name.
    pub(crate) fn get(&self, name: &str) -> Option<(&str, &UserTemplate)> {
        self.by_name.get_key_value(name).map(|(name, template)| (name.as_str(), template))
    }

    /// What rendered templates see of the settings; `None` if there are none.
    pub(crate) fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }
}

fn read(text: &str) -> Result<UserTemplate, String> {
    if text.contains("{{") {
        return custom::parse(text).map(UserTemplate::Rendered).map_err(|error| error.to_string());
    }
    overlay(text).map(UserTemplate::Overlay)
}

/// Reads a piece of a pod. A key that is there twice counts as its last, as for Istio.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn overlay(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
    };
    let overlay = match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Null) => Value::Object(Map::new()),
        Ok(overlay) => overlay,
        Err(error) => return Err(format!("not valid YAML: {error}")),
    };
    for (field, part) in [
        ("the template", Some(&overlay)),
        ("metadata", overlay.get("metadata")),
        ("spec", overlay.get("spec")),
    ] {
        if part.is_some_and(|part| !(part.is_object() || part.is_null())) {
            return Err(format!("{field}: expected a map"));
        }
    }
    Ok(overlay)
}
