//! The Kubernetes types that injection constructs, as far as it sets them.
//!
//! Pods of users stay untyped, so that their unknown fields survive; what we add is typed, so
//! that no text can become structure. Has no behaviour.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// Lists of a pod's spec that injection adds to; their elements have names.
pub(crate) const NAMED_LISTS: [&str; 4] =
    ["initContainers", "containers", "volumes", "imagePullSecrets"];

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) image_pull_policy: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) args: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ports: Vec<ContainerPort>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) env: Vec<EnvVar>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) resources: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) volume_mounts: Vec<VolumeMount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) startup_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) readiness_probe: Option<Probe>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) lifecycle: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) security_context: Option<SecurityContext>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restart_policy: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerPort {
    pub(crate) name: &'static str,
    pub(crate) container_port: u16,
    pub(crate) protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnvVar {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value_from: Option<EnvSource>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum EnvSource {
    #[serde(rename_all = "camelCase")]
    FieldRef {
        field_path: &'static str,
    },
    ResourceFieldRef {
        divisor: &'static str,
        resource: &'static str,
    },
}

impl EnvVar {
    pub(crate) fn value(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: Some(value.into()), value_from: None }
    }

    pub(crate) fn field(name: &str, field_path: &'static str) -> Self {
        let source = EnvSource::FieldRef { field_path };
        Self { name: name.to_owned(), value: None, value_from: Some(source) }
    }

    pub(crate) fn resource(name: &str, resource: &'static str) -> Self {
        let source = EnvSource::ResourceFieldRef { divisor: "1", resource };
        Self { name: name.to_owned(), value: None, value_from: Some(source) }
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VolumeMount {
    pub(crate) name: String,
    pub(crate) mount_path: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) read_only: bool,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Volume {
    pub(crate) name: &'static str,
    #[serde(flatten)]
    pub(crate) source: VolumeSource,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum VolumeSource {
    EmptyDir {
        #[serde(skip_serializing_if = "Option::is_none")]
        medium: Option<&'static str>,
    },
    #[serde(rename = "downwardAPI")]
    DownwardApi {
        items: Vec<DownwardItem>,
    },
    Projected {
        sources: Vec<ProjectedSource>,
    },
    ConfigMap {
        name: String,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        optional: bool,
    },
    #[serde(rename_all = "camelCase")]
    Secret {
        optional: bool,
        secret_name: String,
    },
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DownwardItem {
    pub(crate) path: &'static str,
    pub(crate) field_ref: FieldRef,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FieldRef {
    pub(crate) field_path: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ProjectedSource {
    #[serde(rename_all = "camelCase")]
    ServiceAccountToken { audience: String, expiration_seconds: u32, path: &'static str },
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Probe {
    pub(crate) http_get: HttpGet,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) initial_delay_seconds: u32,
    pub(crate) period_seconds: u32,
    pub(crate) timeout_seconds: u32,
    pub(crate) failure_threshold: u32,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct HttpGet {
    pub(crate) path: &'static str,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecurityContext {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) allow_privilege_escalation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) privileged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read_only_root_filesystem: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_as_group: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_as_non_root: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) run_as_user: Option<u64>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) seccomp_profile: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Capabilities {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) add: Vec<&'static str>,
    pub(crate) drop: Vec<&'static str>,
}

/// What injection did, written to the pod; the order of fields is part of the format, and lists
/// without elements are `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) init_containers: Option<Vec<String>>,
    pub(crate) containers: Option<Vec<String>>,
    pub(crate) volumes: Option<Vec<String>>,
    pub(crate) image_pull_secrets: Option<Vec<String>>,
    pub(crate) revision: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A constructed value as JSON. Its types have only string keys, so this cannot fail.
pub(crate) fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A constructed list as JSON, sorted by nothing: the order is kept.
pub(crate) fn to_values<T: Serialize>(values: &[T]) -> Vec<Value> {
    values.iter().map(to_value).collect()
}

/// Labels or annotations of a pod that are text, as the API server accepts no others.
pub(crate) fn text_map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
