//! Volumes of an injected pod, and where the proxy has them.
//!
//! Names and paths are Istio's, since policies, templates and tools refer to them. Must not know
//! what is in the volumes.

use lateen_api::names::{annotation, cluster, path, volume};
use serde_json::{Map, Value};

use super::InjectError;
use super::environment::Role;
use super::facts::Facts;
use crate::kube::{
    DownwardItem, FieldRef, ProjectedSource, Volume, VolumeMount, VolumeSource, to_value, to_values,
};

const TOKEN_LIFETIME_SECONDS: u32 = 43_200;
const CRL_CONFIG_MAP: &str = "istio-ca-crl";
/// Where certificates from outside are.
pub(crate) const WORKLOAD_CERTS_FOLDER: &str = "/var/run/secrets/workload-spiffe-credentials";
/// Scratch memory of the proxy; what the agent and applications have in common, where there is no proxy.
pub(crate) const SCRATCH_FOLDER: &str = "/etc/istio/proxy";

/// Volumes in the order of Istio's template.
pub(crate) fn volumes(facts: &Facts<'_>, role: Role) -> Result<Vec<Value>, InjectError> {
    let values = &facts.settings.values;
    let empty = || VolumeSource::EmptyDir { medium: None };
    let config_map = |name: String, optional| VolumeSource::ConfigMap { name, optional };
    let token = ProjectedSource::ServiceAccountToken {
        audience: values.global.sds.token.aud.clone(),
        expiration_seconds: TOKEN_LIFETIME_SECONDS,
        path: volume::TOKEN,
    };
    let or = |name: &str, default: &str| {
        if name.is_empty() { default.to_owned() } else { name.to_owned() }
    };
    let mut sources = vec![(volume::WORKLOAD_SOCKET, empty())];
    if role != Role::Agent {
        sources.push((volume::CREDENTIAL_SOCKET, empty()));
    }
    sources.extend([
        (volume::WORKLOAD_CERTS, empty()),
        (scratch(role), VolumeSource::EmptyDir { medium: Some("Memory") }),
        (volume::DATA, empty()),
        (volume::POD_INFO, pod_info()),
        (volume::TOKEN, VolumeSource::Projected { sources: vec![token] }),
        (
            volume::CA_CERT,
            config_map(or(&values.global.trust_bundle_name, cluster::CA_ROOT_CONFIG_MAP), false),
        ),
    ]);
    if role == Role::Sidecar {
        let name = or(&values.pilot.crl_config_map_name, CRL_CONFIG_MAP);
        sources.push((volume::CA_CRL, config_map(name, true)));
    }
    if let Some(name) = facts.annotations.get(annotation::BOOTSTRAP_OVERRIDE) {
        sources.push(("custom-bootstrap-volume", config_map(name.clone(), false)));
    }
    if values.global.mount_mtls_certs {
        let account = or(&facts.service_account, "default");
        sources.push((
            "istio-certs",
            VolumeSource::Secret { optional: true, secret_name: format!("istio.{account}") },
        ));
    }
    let typed: Vec<Volume> =
        sources.into_iter().map(|(name, source)| Volume { name, source }).collect();
    let mut list = to_values(&typed);
    if role != Role::Gateway {
        list.extend(of_user(facts, annotation::USER_VOLUME, "name")?);
    }
    Ok(list)
}

/// The volume of `/etc/istio/proxy`.
fn scratch(role: Role) -> &'static str {
    if role == Role::Agent { volume::XDS } else { volume::ENVOY }
}

/// A volume that can be written to.
pub(crate) fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), read_only: false }
}

fn pod_info() -> VolumeSource {
    let item = |path, field_path| DownwardItem { path, field_ref: FieldRef { field_path } };
    VolumeSource::DownwardApi {
        items: vec![item("labels", "metadata.labels"), item("annotations", "metadata.annotations")],
    }
}

/// Mounts of the proxy in the order of Istio's template.
pub(crate) fn mounts(facts: &Facts<'_>, role: Role) -> Result<Vec<Value>, InjectError> {
    let mut mounts = vec![mount(volume::WORKLOAD_SOCKET, "/var/run/secrets/workload-spiffe-uds")];
    if role != Role::Agent {
        mounts.push(mount(volume::CREDENTIAL_SOCKET, "/var/run/secrets/credential-uds"));
    }
    mounts.extend([
        mount(volume::WORKLOAD_CERTS, WORKLOAD_CERTS_FOLDER),
        mount(volume::CA_CERT, "/var/run/secrets/istio"),
    ]);
    if role == Role::Sidecar {
        mounts.push(mount(volume::CA_CRL, "/var/run/secrets/istio/crl"));
    }
    mounts.extend([
        mount(volume::DATA, path::PROXY_DATA),
        mount(scratch(role), SCRATCH_FOLDER),
        mount(volume::TOKEN, "/var/run/secrets/tokens"),
    ]);
    if role != Role::Agent && facts.annotations.contains_key(annotation::BOOTSTRAP_OVERRIDE) {
        mounts.push(mount("custom-bootstrap-volume", "/etc/istio/custom-bootstrap"));
    }
    if facts.settings.values.global.mount_mtls_certs {
        mounts.push(VolumeMount { read_only: true, ..mount("istio-certs", "/etc/certs/") });
    }
    mounts.push(mount(volume::POD_INFO, "/etc/istio/pod"));
    let mut list: Vec<Value> = mounts.iter().map(to_value).collect();
    if role != Role::Gateway {
        list.extend(of_user(facts, annotation::USER_VOLUME_MOUNT, "name")?);
    }
    Ok(list)
}

/// Volumes or mounts of an annotation: a JSON map from name to the rest.
fn of_user(facts: &Facts<'_>, key: &str, field: &str) -> Result<Vec<Value>, InjectError> {
    let Some(text) = facts.annotations.get(key) else { return Ok(Vec::new()) };
    let expected = "expected a JSON map from volume name to its fields";
    let map: Map<String, Value> =
        serde_json::from_str(text).map_err(|_| InjectError::annotation(key, expected))?;
    map.into_iter()
        .map(|(name, value)| match value {
            Value::Object(mut fields) => {
                fields.insert(field.to_owned(), Value::from(name));
                Ok(Value::Object(fields))
            }
            _ => Err(InjectError::annotation(key, expected)),
        })
        .collect()
}
