//! Whether a pod can be run in the lab.
//!
//! Pure. What would be carried out otherwise than it is written is refused, with its field.

use lateen_api::core::{Container, PodSpec, Volume};
use serde_json::Value;

use super::CheckError;
use super::facts::subscript;
use super::rights::rights;

/// Volumes that can be mounted.
pub(super) const VOLUMES: [&str; 5] =
    ["emptyDir", "configMap", "secret", "downwardAPI", "projected"];
/// Sources of a projected volume.
const PROJECTED: [&str; 4] = ["serviceAccountToken", "configMap", "secret", "downwardAPI"];
/// Fields that ask for what a lab does not have.
const REFUSED: [(&str, &str); 5] = [
    ("hostPID", "a lab shares no processes of the machine"),
    ("hostIPC", "a lab shares no memory of the machine"),
    ("shareProcessNamespace", "containers of a lab do not see each other's processes"),
    ("ephemeralContainers", "use `lateen lab exec`"),
    ("schedulingGates", "a lab schedules at once"),
];

pub(super) fn check(spec: &PodSpec) -> Result<(), CheckError> {
    let refuse = |path: String, message: String| Err(CheckError { path, message });
    if spec.host_network == Some(true) {
        let text = "pods of a lab have a network of their own; leave the field out";
        return refuse("spec.hostNetwork".to_owned(), text.to_owned());
    }
    for (field, why) in REFUSED {
        let value = spec.extra.get(field);
        let is_set = value.is_some_and(|it| ![Value::Null, false.into()].contains(it));
        if is_set && value.and_then(Value::as_array).is_none_or(|list| !list.is_empty()) {
            return refuse(format!("spec.{field}"), why.to_owned());
        }
    }
    if let Some(bad) = sysctls(spec).iter().find(|(name, _)| network_setting(name).is_none()) {
        let text = format!("{:?} is not a setting of a pod's own network (net.*)", bad.0);
        return refuse("spec.securityContext.sysctls".to_owned(), text);
    }
    for (index, volume) in spec.volumes.iter().enumerate() {
        if !is_name(&volume.name) {
            return refuse(format!("spec.volumes[{index}].name"), not_a_name(&volume.name));
        }
        check_volume(volume, &format!("spec.volumes[{index}]"))?;
    }
    let init = spec.init_containers.iter().enumerate();
    let init = init.map(|(index, it)| (format!("spec.initContainers[{index}]"), it));
    let apps = spec.containers.iter().enumerate();
    let apps = apps.map(|(index, it)| (format!("spec.containers[{index}]"), it));
    let mut names = Vec::new();
    for (path, container) in init.chain(apps) {
        if !is_name(&container.name) {
            return refuse(format!("{path}.name"), not_a_name(&container.name));
        }
        if names.contains(&container.name.as_str()) {
            let text = format!("{:?} is the name of another container", container.name);
            return refuse(format!("{path}.name"), text);
        }
        names.push(&container.name);
        check_container(container, spec, &path)?;
    }
    if spec.containers.is_empty() {
        return refuse("spec.containers".to_owned(), "at least one is needed".to_owned());
    }
    Ok(())
}

/// Kernel settings a pod asks for.
pub(super) fn sysctls(spec: &PodSpec) -> Vec<(&str, &str)> {
    let context = spec.security_context.as_ref();
    let list = context.and_then(|it| it.inherited.extra.get("sysctls")?.as_array());
    list.into_iter()
        .flatten()
        .map(|it| {
            let text = |key: &str| it[key].as_str().unwrap_or_default();
            (text("name"), text("value"))
        })
        .collect()
}

/// The file below `/proc/sys/net` of a setting that belongs to a network.
pub(super) fn network_setting(name: &str) -> Option<String> {
    let rest = name.strip_prefix("net.").or_else(|| name.strip_prefix("net/"))?;
    let clean = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let parts: Vec<&str> = rest.split(['.', '/']).collect();
    let all = parts.iter().all(|part| !part.is_empty() && part.chars().all(clean));
    all.then(|| parts.join("/"))
}

/// Whether a text can be a name, and so part of a path.
pub(super) fn is_name(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let clean = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    text.len() <= 253
        && ends(text.bytes().next())
        && ends(text.bytes().last())
        && text.bytes().all(clean)
}

fn not_a_name(text: &str) -> String {
    format!("{text:?} is not a name: letters, digits and - are")
}

fn check_volume(volume: &Volume, path: &str) -> Result<(), CheckError> {
    for (kind, source) in volume.source.iter().filter(|(_, source)| !source.is_null()) {
        let path = format!("{path}.{kind}");
        if !VOLUMES.contains(&kind.as_str()) {
            let known = VOLUMES.join(", ");
            let message = format!("a lab does not have such volumes, only {known}");
            return Err(CheckError { path, message });
        }
        let sources = source["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (index, source) in sources.iter().enumerate() {
            let kinds = source.as_object().into_iter().flatten();
            let unknown = kinds.map(|(kind, _)| kind).find(|it| !PROJECTED.contains(&it.as_str()));
            if let Some(kind) = unknown {
                let known = PROJECTED.join(", ");
                let message = format!("a lab does not have such sources, only {known}");
                let path = format!("{path}.sources[{index}].{kind}");
                return Err(CheckError { path, message });
            }
        }
    }
    Ok(())
}

fn check_container(container: &Container, spec: &PodSpec, path: &str) -> Result<(), CheckError> {
    let refuse = |field: String, message: String| {
        Err(CheckError { path: format!("{path}.{field}"), message })
    };
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        if !spec.volumes.iter().any(|volume| volume.name == mount.name) {
            let text = format!("the pod has no volume {:?}", mount.name);
            return refuse(format!("volumeMounts[{index}].name"), text);
        }
        let sub_path = mount.sub_path.as_deref().unwrap_or_default();
        if sub_path.starts_with('/') || sub_path.split('/').any(|part| part == "..") {
            let text = format!("{sub_path:?} leads out of the volume");
            return refuse(format!("volumeMounts[{index}].subPath"), text);
        }
        if mount.mount_path.trim_matches('/').is_empty() {
            let text = "a path other than the root is needed".to_owned();
            return refuse(format!("volumeMounts[{index}].mountPath"), text);
        }
    }
    for (index, port) in container.ports.iter().enumerate() {
        let host = port.extra.get("hostPort").and_then(Value::as_u64).unwrap_or_default();
        if host != 0 {
            let text = "pods of a lab are reached by their own addresses; leave the field out";
            return refuse(format!("ports[{index}].hostPort"), text.to_owned());
        }
    }
    if container.extra.get("volumeDevices").is_some_and(|it| !it.is_null()) {
        return refuse("volumeDevices".to_owned(), "a lab has no block devices".to_owned());
    }
    for (index, variable) in container.env.iter().enumerate() {
        let source = variable.value_from.as_ref().unwrap_or(&Value::Null);
        let known = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"];
        if !source.is_null() && !known.iter().any(|kind| source.get(kind).is_some()) {
            let text = format!("a lab knows only {}", known.join(", "));
            return refuse(format!("env[{index}].valueFrom"), text);
        }
        let field = source["fieldRef"]["fieldPath"].as_str().unwrap_or("metadata.name");
        if field.contains('[') && subscript(field).is_none() {
            let text = format!("{field:?} is not a field of a pod");
            return refuse(format!("env[{index}].valueFrom.fieldRef.fieldPath"), text);
        }
    }
    // That root is not wanted is said when the container is created, as kubelets do.
    match rights(spec.security_context.as_ref(), container) {
        Err(text) if !text.starts_with("runAsNonRoot") => {
            refuse("securityContext".to_owned(), text)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use serde_json::{Value, json};

    fn path(change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut spec = json!({"containers": [{"name": "a", "volumeMounts":
            [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v", "emptyDir": {}}]});
        change(&mut spec);
        check(&serde_json::from_value(spec).unwrap()).err().map(|error| error.path)
    }

    #[test]
    fn what_cannot_be_run_is_named() {
        assert_eq!(path(|_| {}), None);
        let volume = |source: Value| {
            path(|spec| {
                spec["volumes"][0] = source;
                spec["volumes"][0]["name"] = json!("v");
            })
        };
        assert_eq!(volume(json!({})), None);
        assert_eq!(volume(json!({"nfs": {}})).unwrap(), "spec.volumes[0].nfs");
        assert_eq!(volume(json!({"hostPath": {"path": "/"}})).unwrap(), "spec.volumes[0].hostPath");
        let projected = json!({"projected": {"sources": [{"secret": {}}, {"podCertificate": {}}]}});
        let wanted = "spec.volumes[0].projected.sources[1].podCertificate";
        assert_eq!(volume(projected).unwrap(), wanted);
        for (key, value, wanted) in [
            ("hostNetwork", json!(true), Some("spec.hostNetwork")),
            ("volumes", json!([{"name": "../v"}]), Some("spec.volumes[0].name")),
            ("initContainers", json!([{"name": ""}]), Some("spec.initContainers[0].name")),
            ("hostNetwork", json!(false), None),
            ("hostPID", json!(true), Some("spec.hostPID")),
            ("hostPID", json!(false), None),
            ("ephemeralContainers", json!([]), None),
            ("containers", json!([]), Some("spec.containers")),
            ("initContainers", json!([{"name": "a"}]), Some("spec.containers[0].name")),
        ] {
            assert_eq!(path(|spec| spec[key] = value.clone()).as_deref(), wanted, "{key} {value}");
        }
        for (pointer, value, wanted) in [
            ("/containers/0/volumeMounts/0/name", json!("w"), "volumeMounts[0].name"),
            ("/containers/0/volumeMounts/0/mountPath", json!("/"), "volumeMounts[0].mountPath"),
        ] {
            let got = path(|spec| *spec.pointer_mut(pointer).unwrap() = value);
            assert_eq!(got.unwrap(), format!("spec.containers[0].{wanted}"));
        }
        let sub =
            path(|spec| spec["containers"][0]["volumeMounts"][0]["subPath"] = json!("a/../b"));
        assert_eq!(sub.unwrap(), "spec.containers[0].volumeMounts[0].subPath");
        let env = json!([{"name": "E", "valueFrom": {"fileKeyRef": {}}}]);
        let got = path(|spec| spec["containers"][0]["env"] = env);
        assert_eq!(got.unwrap(), "spec.containers[0].env[0].valueFrom");
        let ports = json!([{"containerPort": 80, "hostPort": 80}]);
        let got = path(|spec| spec["containers"][0]["ports"] = ports);
        assert_eq!(got.unwrap(), "spec.containers[0].ports[0].hostPort");
        let sysctl = |name: &str| {
            let context = json!({"sysctls": [{"name": name, "value": "0"}]});
            path(|spec| spec["securityContext"] = context)
        };
        assert_eq!(sysctl("net.ipv4.ip_unprivileged_port_start"), None);
        for name in ["kernel.core_pattern", "net.", "net.../kernel/core_pattern", "net/../kernel"] {
            assert_eq!(sysctl(name).unwrap(), "spec.securityContext.sysctls", "{name}");
        }
        let context = json!({"capabilities": {"add": ["FLY"]}});
        let got = path(|spec| spec["containers"][0]["securityContext"] = context);
        assert_eq!(got.unwrap(), "spec.containers[0].securityContext");
    }
}
