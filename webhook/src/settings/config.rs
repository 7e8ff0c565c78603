//! The key `config` of Istio's ConfigMap `istio-sidecar-injector`: policy, selectors, annotations and
//! templates.
//!
//! Where it is given it alone says these, as in Istio (`Config` in `pkg/kube/inject/inject.go`): Istio's
//! chart writes it from the values, and users change it in place. Must not know pods.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::SettingsError;
use super::stock::{self, Origin};
use super::values::{Values, text, text_map};

/// Keys that are read.
const KEYS: [&str; 7] = [
    "policy",
    "defaultTemplates",
    "templates",
    "aliases",
    "neverInjectSelector",
    "alwaysInjectSelector",
    "injectedAnnotations",
];
/// A key that is there to make an Istio before 1.9 fail, with what stands in it then.
const DECOY: (&str, &str) = ("template", "Template_Version_And_Istio_Version_Mismatched");

/// What is read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    #[serde(deserialize_with = "text")]
    policy: String,
    #[serde(deserialize_with = "or_nothing")]
    default_templates: Vec<String>,
    #[serde(deserialize_with = "or_nothing")]
    templates: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_nothing")]
    aliases: BTreeMap<String, Vec<String>>,
    #[serde(deserialize_with = "or_nothing")]
    never_inject_selector: Vec<Value>,
    #[serde(deserialize_with = "or_nothing")]
    always_inject_selector: Vec<Value>,
    #[serde(deserialize_with = "text_map")]
    injected_annotations: BTreeMap<String, String>,
    /// What of it is not as its writer may think.
    #[serde(skip)]
    pub(super) warnings: Vec<String>,
}

impl Config {
    /// Reads the document under the key.
    ///
    /// # Errors
    /// A field of the wrong type, by its path.
    pub(super) fn read(document: &Value) -> Result<Self, SettingsError> {
        let refuse = |path: String, reason: String| SettingsError::Config { path, reason };
        let keys = match document {
            Value::Null => return Ok(Self::default()),
            Value::Object(keys) => keys,
            _ => return Err(refuse("(root)".to_owned(), "expected a map".to_owned())),
        };
        let mut config: Self = serde_path_to_error::deserialize(document)
            .map_err(|error| refuse(error.path().to_string(), error.into_inner().to_string()))?;
        let unknown = keys.iter().filter(|(key, text)| {
            let decoy = *key == DECOY.0 && text.as_str().is_some_and(|it| it.contains(DECOY.1));
            !(KEYS.contains(&key.as_str()) || decoy)
        });
        config.warnings = unknown.map(|(key, _)| meaningless(key)).collect();
        config
            .warnings
            .extend(config.templates.iter().filter_map(|(name, text)| changed(name, text)));
        Ok(config)
    }

    /// Puts what is said here in the place of what the values say.
    pub(super) fn overrule(self, values: &mut Values) {
        values.global.proxy.auto_inject = self.policy;
        let webhook = &mut values.sidecar_injector_webhook;
        webhook.default_templates = self.default_templates;
        webhook.templates = self.templates;
        webhook.aliases = self.aliases;
        webhook.never_inject_selector = self.never_inject_selector;
        webhook.always_inject_selector = self.always_inject_selector;
        webhook.injected_annotations = self.injected_annotations;
    }
}

fn meaningless(key: &str) -> String {
    format!("key {key:?} of the injection configuration has no meaning; take it out or correct it")
}

/// What there is to say about a template under a name of Istio's.
fn changed(name: &str, text: &str) -> Option<String> {
    let what = match stock::origin(name, text)? {
        Origin::Istio => return None,
        Origin::InPlaceOfOurs => {
            "it is rendered in place of Lateen's own template, with whatever commands it names; \
             take it out to have Lateen's, and put what you changed into a template of another name"
        }
        Origin::ForGateways => {
            "Lateen makes no pods of Gateway resources: only pods that name it get what it renders"
        }
    };
    Some(format!(
        "injection template {name:?} of the injection configuration is not the text of an Istio \
         release from {} to {}: {what}",
        stock::RELEASES.0,
        stock::RELEASES.1,
    ))
}

/// A key without a value is an empty one.
fn or_nothing<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use crate::settings::{InjectionSettings, Options, SettingsError, Sources};
    use serde_json::{Value, json};

    fn read(values: &Value, config: &Value) -> Result<InjectionSettings, SettingsError> {
        let sources = Sources { values: Some(values), config: Some(config), mesh: None };
        InjectionSettings::read(sources, Options::default())
    }

    fn warned(config: &Value) -> Vec<String> {
        read(&json!({}), config).unwrap().warnings().map(str::to_owned).collect()
    }

    #[test]
    fn what_it_says_stands_and_the_rest_is_the_values() {
        let values = json!({
            "global": {"proxy": {"autoInject": "enabled", "logLevel": "info"}},
            "sidecarInjectorWebhook": {
                "templates": {"of-values": "spec: {}"}, "injectedAnnotations": {"a": "1"},
                "neverInjectSelector": [{"matchLabels": {"a": "b"}}], "rewriteAppHTTPProbe": false,
            },
        });
        let config = json!({
            "policy": "disabled", "defaultTemplates": ["sidecar", "mine"], "aliases": {"both": ["sidecar", "mine"]},
            "templates": {"mine": "spec: {nodeName: {{ .Spec.NodeName }}}"},
            "alwaysInjectSelector": [{"matchLabels": {"c": "d"}}], "neverInjectSelector": null,
            "injectedAnnotations": {"b": 2},
            "template": "{{ Template_Version_And_Istio_Version_Mismatched_Check_Installation }}",
        });
        let settings = read(&values, &config).unwrap();
        let webhook = &settings.values.sidecar_injector_webhook;
        assert_eq!(settings.values.global.proxy.auto_inject, "disabled");
        assert_eq!(webhook.default_templates, ["sidecar", "mine"]);
        assert_eq!(webhook.aliases["both"], ["sidecar", "mine"]);
        assert!(settings.templates.get("mine").is_some());
        assert!(settings.templates.get("of-values").is_none(), "the values' are not asked");
        assert!(webhook.never_inject_selector.is_empty());
        assert_eq!(webhook.always_inject_selector.len(), 1);
        assert_eq!(webhook.injected_annotations, [("b".to_owned(), "2".to_owned())].into());
        assert_eq!(settings.values.global.proxy.log_level, "info");
        assert!(!webhook.rewrite_app_http_probe);
        assert_eq!(settings.warnings().count(), 0);
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_name() {
        for (config, needle) in [
            (json!([]), "(root): expected a map"),
            (json!({"policy": []}), "policy: expected a string"),
            (json!({"defaultTemplates": "sidecar"}), "defaultTemplates: invalid type"),
            (json!({"templates": {"mine": 1}}), "templates.mine: invalid type"),
            (
                json!({"templates": {"mine": "{{ frobnicate }}"}}),
                "template \"mine\": line 1, column 4",
            ),
            (json!({"neverInjectSelector": {}}), "neverInjectSelector: invalid type"),
            (
                json!({"injectedAnnotations": {"a": []}}),
                "injectedAnnotations: a: expected a scalar",
            ),
        ] {
            let error = read(&json!({}), &config).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
            assert!(error.contains("key config of ConfigMap istio-sidecar-injector"), "{error}");
        }
    }

    #[test]
    fn what_has_no_meaning_and_what_replaces_ours_is_said() {
        let mine = "metadata: {labels: {a: b}}";
        for (config, needle) in [
            (json!({"neverInjectSelectors": []}), "\"neverInjectSelectors\""),
            (json!({"template": "spec: {}"}), "\"template\""),
            (json!({"templates": {"sidecar": mine}}), "rendered in place of Lateen's own"),
            (json!({"templates": {"waypoint": mine}}), "no pods of Gateway resources"),
            (json!({"templates": {"grpc-agent": mine}}), "rendered in place of Lateen's own"),
        ] {
            let warned = warned(&config);
            assert!(warned.len() == 1 && warned[0].contains(needle), "{warned:?}");
        }
        assert_eq!(warned(&json!({"templates": {"mine": mine}})), Vec::<String>::new());
        assert_eq!(warned(&Value::Null), Vec::<String>::new());
    }
}
