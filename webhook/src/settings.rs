//! Everything injection depends on apart from the pod: Helm values, mesh configuration, and what
//! the cluster can do.
//!
//! Text is read by the caller; untyped values come in, typed settings go out. The structs are
//! checked once, when settings change, so that injection itself cannot fail on them.

mod config;
pub(crate) mod merge;
pub mod mesh;
mod stock;
pub(crate) mod templates;
pub mod values;

use serde_json::Value;

use config::Config;
pub use mesh::MeshSettings;
pub(crate) use templates::Templates;
pub use values::Values;

/// Settings that cannot be used; the ones before stay in force.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A Helm value has the wrong type.
    #[error("injection values: {path}: {reason}; correct the value")]
    Value {
        /// Dotted path of the value.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The mesh configuration has the wrong shape.
    #[error("mesh configuration: {path}: {reason}; correct the field")]
    Mesh {
        /// Dotted path of the field.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Istio's configuration of the injector has the wrong shape.
    #[error("injection configuration: {path}: {reason}; correct {CONFIG}")]
    Config {
        /// Dotted path of the field.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A template of the user cannot be read.
    #[error("injection template {name:?}: {reason}; correct {place}")]
    Template {
        /// Its name.
        name: String,
        /// What is wrong with it, and where.
        reason: String,
        /// Where the text stands.
        place: &'static str,
    },
}

/// Where [`Sources::config`] stands.
const CONFIG: &str = "key config of ConfigMap istio-sidecar-injector";
/// Where templates stand without it.
const TEMPLATES: &str = "sidecarInjectorWebhook.templates";

/// What settings are read from; `None` is what nobody wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'a> {
    /// Helm values: key `values` of Istio's ConfigMap `istio-sidecar-injector`.
    pub values: Option<&'a Value>,
    /// Policy, selectors, annotations and templates: its key `config`. Where it is given, the values are
    /// not asked for these.
    pub config: Option<&'a Value>,
    /// Mesh configuration: key `mesh` of Istio's ConfigMap `istio`.
    pub mesh: Option<&'a Value>,
}

/// What the cluster and the installation are, beyond values and mesh configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// Revision of this control plane; empty: the one of the values, else `default`.
    pub revision: String,
    /// Name of this cluster where the values name none.
    pub cluster_id: String,
    /// Whether every node runs native sidecars.
    pub native_sidecars: bool,
    /// Whether ids of the proxy come from the namespace's ranges, as OpenShift wants it.
    pub openshift: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            revision: String::new(),
            cluster_id: "Kubernetes".to_owned(),
            native_sidecars: true,
            openshift: false,
        }
    }
}

/// Everything injection depends on apart from the pod and its namespace.
#[derive(Debug, Clone)]
pub struct InjectionSettings {
    /// Helm values.
    pub values: Values,
    /// Mesh configuration.
    pub mesh: MeshSettings,
    /// Revision, never empty.
    pub revision: String,
    /// Name of this cluster.
    pub cluster_id: String,
    /// Whether every node runs native sidecars.
    pub native_sidecars: bool,
    /// Whether ids of the proxy come from the namespace's ranges.
    pub openshift: bool,
    /// Templates of the user, by name.
    pub(crate) templates: Templates,
    /// What of [`Sources::config`] is not as its writer may think.
    notes: Vec<String>,
}

impl InjectionSettings {
    /// Settings from Helm values and mesh configuration alone.
    ///
    /// # Errors
    /// As of [`InjectionSettings::read`].
    pub fn from_sources(
        values: Option<&Value>,
        mesh: Option<&Value>,
        options: Options,
    ) -> Result<Self, SettingsError> {
        Self::read(Sources { values, config: None, mesh }, options)
    }

    /// Reads settings. Values that are given complete Istio's chart defaults, since they were written for
    /// that chart; without values, Lateen's own defaults hold (the CNI plugin redirects). Without mesh
    /// configuration the proxy answers DNS.
    ///
    /// # Errors
    /// A value or field of the wrong type, by its path; a template that cannot be read, by its name.
    pub fn read(sources: Sources<'_>, options: Options) -> Result<Self, SettingsError> {
        let Sources { values, config, mesh } = sources;
        let mut effective =
            if values.is_some() { values::chart_defaults() } else { values::lateen_defaults() };
        if let Some(values) = values {
            if !values.is_object() {
                let reason = "expected a map".to_owned();
                return Err(SettingsError::Value { path: "(root)".to_owned(), reason });
            }
            merge::overlay(&mut effective, values);
        }
        let mut values = decode_values(effective.clone())?;
        let mut notes = Vec::new();
        if let Some(config) = config {
            let mut config = Config::read(config)?;
            notes.append(&mut config.warnings);
            config.overrule(&mut values);
        }
        let mesh = MeshSettings::from_source(mesh)?;
        let place = if config.is_some() { CONFIG } else { TEMPLATES };
        let texts = &values.sidecar_injector_webhook.templates;
        let templates = Templates::read((texts, place), &effective, &mesh.document)?;
        let revision = [options.revision, values.revision.clone(), "default".to_owned()]
            .into_iter()
            .find(|revision| !revision.is_empty())
            .unwrap_or_default();
        let cluster = &values.global.multi_cluster.cluster_name;
        Ok(Self {
            revision,
            cluster_id: if cluster.is_empty() { options.cluster_id } else { cluster.clone() },
            native_sidecars: options.native_sidecars,
            openshift: options.openshift,
            templates,
            values,
            mesh,
            notes,
        })
    }

    /// What of the settings cannot be honoured, or is not as its writer may think; for status and log.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.mesh.warnings.iter().chain(&self.notes).map(String::as_str)
    }

    /// Name of the control plane's Service.
    #[must_use]
    pub fn control_plane_service(&self) -> String {
        if self.revision == "default" {
            "istiod".to_owned()
        } else {
            format!("istiod-{}", self.revision)
        }
    }

    /// Trust domain of workload identities.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let value = &self.values.global.trust_domain;
        if value.is_empty() { &self.mesh.trust_domain } else { value }
    }
}

fn decode_values(values: Value) -> Result<Values, SettingsError> {
    serde_path_to_error::deserialize(values).map_err(|error| SettingsError::Value {
        path: error.path().to_string(),
        reason: error.into_inner().to_string(),
    })
}

/// Reads one YAML document as Kubernetes reads it. Pods bring such texts: what aliases may make
/// of a short one is bounded.
///
/// # Errors
/// What is wrong, with its place in the text.
pub(crate) fn parse_yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 10_000 },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::{InjectionSettings, Options};
    use serde_json::json;

    #[test]
    fn without_values_the_cni_plugin_redirects_and_dns_is_answered() {
        let settings = InjectionSettings::from_sources(None, None, Options::default()).unwrap();
        assert!(settings.values.pilot.cni.enabled);
        assert_eq!(settings.mesh.proxy_metadata()["ISTIO_META_DNS_CAPTURE"], "true");
        assert_eq!(settings.revision, "default");
        assert_eq!(settings.values.global.hub, "ghcr.io/lateen-mesh");
    }

    #[test]
    fn chart_values_complete_the_charts_defaults() {
        let values = json!({"global": {"tag": 1.32}, "revision": "canary"});
        let settings =
            InjectionSettings::from_sources(Some(&values), Some(&json!({})), Options::default())
                .unwrap();
        assert!(!settings.values.pilot.cni.enabled);
        assert_eq!(settings.values.global.tag, "1.32");
        assert_eq!(settings.control_plane_service(), "istiod-canary");
        assert!(settings.mesh.proxy_metadata().is_empty());
    }

    #[test]
    fn a_wrong_type_is_named_by_its_path() {
        let values = json!({"global": {"proxy": {"privileged": "maybe"}}});
        let error = InjectionSettings::from_sources(Some(&values), None, Options::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("global.proxy.privileged"), "{error}");
    }

    #[test]
    fn a_wrong_template_is_refused_with_its_name_and_place() {
        for (text, needle) in [
            ("spec:\n  nodeName: {{ .Spec.NodeName\n", "line 2, column 13: unclosed action"),
            ("spec:\n\n  a: {{ frobnicate }}", "line 3, column 9: function \"frobnicate\""),
            ("- a", "the template: expected a map"),
            ("spec: []", "spec: expected a map"),
            ("spec: [", "not valid YAML"),
        ] {
            let values = json!({"sidecarInjectorWebhook": {"templates": {"mine": text}}});
            let error = InjectionSettings::from_sources(Some(&values), None, Options::default())
                .unwrap_err()
                .to_string();
            assert!(error.contains("template \"mine\"") && error.contains(needle), "{error}");
        }
    }
}
