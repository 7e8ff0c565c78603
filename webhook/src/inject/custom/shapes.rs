//! What the data of templates is in Go: names of fields, and what an unset one is.
//!
//! The structs that templates read most are written out, so that a misspelled field is refused as
//! Go refuses it; of the rest only the rule is known by which Go's names follow from JSON's.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::gotemplate::{Kind, Record, Value};

/// An unset field.
#[derive(Clone, Copy)]
enum Unset {
    Text,
    Int,
    Bool,
    List,
    Texts,
    Struct(&'static Record),
    Pointer,
}

impl Unset {
    fn value(self) -> Value {
        match self {
            Self::Text => Value::text(""),
            Self::Int => Value::Int(0),
            Self::Bool => Value::Bool(false),
            Self::List => Value::given_list(Vec::new()),
            Self::Texts => Value::given_map([].into(), Kind::Texts),
            Self::Struct(record) => Value::given_map([].into(), Kind::Record(record)),
            Self::Pointer => Value::Nil,
        }
    }
}

/// Name in Go, name in JSON, what it is when unset.
type Field = (&'static str, &'static str, Unset);

fn find(fields: &[Field], name: &str) -> Option<(String, Value)> {
    let (_, json, unset) = fields.iter().find(|(go, _, _)| *go == name)?;
    Some(((*json).to_owned(), unset.value()))
}

macro_rules! record {
    ($name:ident, $go:literal, $fields:expr) => {
        pub(super) static $name: Record = Record { name: $go, field: |name| find($fields, name) };
    };
}

record!(
    ROOT,
    "SidecarTemplateData",
    &[
        ("TypeMeta", "TypeMeta", Unset::Struct(&TYPE)),
        ("DeploymentMeta", "DeploymentMeta", Unset::Struct(&NAMESPACED)),
        ("ObjectMeta", "ObjectMeta", Unset::Struct(&OBJECT)),
        ("Spec", "Spec", Unset::Struct(&SPEC)),
        ("ProxyConfig", "ProxyConfig", Unset::Struct(&PROXY)),
        ("MeshConfig", "MeshConfig", Unset::Struct(&MESH)),
        ("Values", "Values", Unset::Pointer),
        ("Revision", "Revision", Unset::Text),
        ("NativeSidecars", "NativeSidecars", Unset::Bool),
        ("ProxyImage", "ProxyImage", Unset::Text),
        ("ProxyInitImage", "ProxyInitImage", Unset::Text),
        ("ProxyUID", "ProxyUID", Unset::Int),
        ("ProxyGID", "ProxyGID", Unset::Int),
        ("InboundTrafficPolicyMode", "InboundTrafficPolicyMode", Unset::Text),
        ("CompliancePolicy", "CompliancePolicy", Unset::Text),
    ]
);

record!(
    TYPE,
    "TypeMeta",
    &[("Kind", "kind", Unset::Text), ("APIVersion", "apiVersion", Unset::Text),]
);

record!(
    NAMESPACED,
    "NamespacedName",
    &[("Name", "name", Unset::Text), ("Namespace", "namespace", Unset::Text),]
);

record!(
    OBJECT,
    "ObjectMeta",
    &[
        ("Name", "name", Unset::Text),
        ("GenerateName", "generateName", Unset::Text),
        ("Namespace", "namespace", Unset::Text),
        ("SelfLink", "selfLink", Unset::Text),
        ("UID", "uid", Unset::Text),
        ("ResourceVersion", "resourceVersion", Unset::Text),
        ("Generation", "generation", Unset::Int),
        ("CreationTimestamp", "creationTimestamp", Unset::Pointer),
        ("DeletionTimestamp", "deletionTimestamp", Unset::Pointer),
        ("DeletionGracePeriodSeconds", "deletionGracePeriodSeconds", Unset::Pointer),
        ("Labels", "labels", Unset::Texts),
        ("Annotations", "annotations", Unset::Texts),
        ("OwnerReferences", "ownerReferences", Unset::List),
        ("Finalizers", "finalizers", Unset::List),
        ("ManagedFields", "managedFields", Unset::List),
    ]
);

record!(
    SPEC,
    "PodSpec",
    &[
        ("Volumes", "volumes", Unset::List),
        ("InitContainers", "initContainers", Unset::List),
        ("Containers", "containers", Unset::List),
        ("EphemeralContainers", "ephemeralContainers", Unset::List),
        ("RestartPolicy", "restartPolicy", Unset::Text),
        ("TerminationGracePeriodSeconds", "terminationGracePeriodSeconds", Unset::Pointer),
        ("ActiveDeadlineSeconds", "activeDeadlineSeconds", Unset::Pointer),
        ("DNSPolicy", "dnsPolicy", Unset::Text),
        ("NodeSelector", "nodeSelector", Unset::Texts),
        ("ServiceAccountName", "serviceAccountName", Unset::Text),
        ("DeprecatedServiceAccount", "serviceAccount", Unset::Text),
        ("AutomountServiceAccountToken", "automountServiceAccountToken", Unset::Pointer),
        ("NodeName", "nodeName", Unset::Text),
        ("HostNetwork", "hostNetwork", Unset::Bool),
        ("HostPID", "hostPID", Unset::Bool),
        ("HostIPC", "hostIPC", Unset::Bool),
        ("ShareProcessNamespace", "shareProcessNamespace", Unset::Pointer),
        ("SecurityContext", "securityContext", Unset::Pointer),
        ("ImagePullSecrets", "imagePullSecrets", Unset::List),
        ("Hostname", "hostname", Unset::Text),
        ("Subdomain", "subdomain", Unset::Text),
        ("Affinity", "affinity", Unset::Pointer),
        ("SchedulerName", "schedulerName", Unset::Text),
        ("Tolerations", "tolerations", Unset::List),
        ("HostAliases", "hostAliases", Unset::List),
        ("PriorityClassName", "priorityClassName", Unset::Text),
        ("Priority", "priority", Unset::Pointer),
        ("DNSConfig", "dnsConfig", Unset::Pointer),
        ("ReadinessGates", "readinessGates", Unset::List),
        ("RuntimeClassName", "runtimeClassName", Unset::Pointer),
        ("EnableServiceLinks", "enableServiceLinks", Unset::Pointer),
        ("PreemptionPolicy", "preemptionPolicy", Unset::Pointer),
        ("Overhead", "overhead", Unset::Texts),
        ("TopologySpreadConstraints", "topologySpreadConstraints", Unset::List),
        ("SetHostnameAsFQDN", "setHostnameAsFQDN", Unset::Pointer),
        ("OS", "os", Unset::Pointer),
        ("HostUsers", "hostUsers", Unset::Pointer),
        ("SchedulingGates", "schedulingGates", Unset::List),
        ("ResourceClaims", "resourceClaims", Unset::List),
        ("Resources", "resources", Unset::Pointer),
        ("HostnameOverride", "hostnameOverride", Unset::Pointer),
    ]
);

record!(
    CONTAINER,
    "Container",
    &[
        ("Name", "name", Unset::Text),
        ("Image", "image", Unset::Text),
        ("Command", "command", Unset::List),
        ("Args", "args", Unset::List),
        ("WorkingDir", "workingDir", Unset::Text),
        ("Ports", "ports", Unset::List),
        ("EnvFrom", "envFrom", Unset::List),
        ("Env", "env", Unset::List),
        ("Resources", "resources", Unset::Struct(&OTHER)),
        ("ResizePolicy", "resizePolicy", Unset::List),
        ("RestartPolicy", "restartPolicy", Unset::Pointer),
        ("RestartPolicyRules", "restartPolicyRules", Unset::List),
        ("VolumeMounts", "volumeMounts", Unset::List),
        ("VolumeDevices", "volumeDevices", Unset::List),
        ("LivenessProbe", "livenessProbe", Unset::Pointer),
        ("ReadinessProbe", "readinessProbe", Unset::Pointer),
        ("StartupProbe", "startupProbe", Unset::Pointer),
        ("Lifecycle", "lifecycle", Unset::Pointer),
        ("TerminationMessagePath", "terminationMessagePath", Unset::Text),
        ("TerminationMessagePolicy", "terminationMessagePolicy", Unset::Text),
        ("ImagePullPolicy", "imagePullPolicy", Unset::Text),
        ("SecurityContext", "securityContext", Unset::Pointer),
        ("Stdin", "stdin", Unset::Bool),
        ("StdinOnce", "stdinOnce", Unset::Bool),
        ("TTY", "tty", Unset::Bool),
    ]
);

record!(
    PORT,
    "ContainerPort",
    &[
        ("Name", "name", Unset::Text),
        ("HostPort", "hostPort", Unset::Int),
        ("ContainerPort", "containerPort", Unset::Int),
        ("Protocol", "protocol", Unset::Text),
        ("HostIP", "hostIP", Unset::Text),
    ]
);

record!(
    VARIABLE,
    "EnvVar",
    &[
        ("Name", "name", Unset::Text),
        ("Value", "value", Unset::Text),
        ("ValueFrom", "valueFrom", Unset::Pointer),
    ]
);

record!(
    MOUNT,
    "VolumeMount",
    &[
        ("Name", "name", Unset::Text),
        ("ReadOnly", "readOnly", Unset::Bool),
        ("RecursiveReadOnly", "recursiveReadOnly", Unset::Pointer),
        ("MountPath", "mountPath", Unset::Text),
        ("SubPath", "subPath", Unset::Text),
        ("MountPropagation", "mountPropagation", Unset::Pointer),
        ("SubPathExpr", "subPathExpr", Unset::Text),
    ]
);

/// Fields of ProxyConfig that are texts or numbers; the others are messages.
const PROXY_SCALARS: &[Field] = &[
    ("AvailabilityZone", "availabilityZone", Unset::Text),
    ("BinaryPath", "binaryPath", Unset::Text),
    ("ConfigPath", "configPath", Unset::Text),
    ("CustomConfigFile", "customConfigFile", Unset::Text),
    ("DiscoveryAddress", "discoveryAddress", Unset::Text),
    ("EnvoyMetricsServiceAddress", "envoyMetricsServiceAddress", Unset::Text),
    ("InterceptionMode", "interceptionMode", Unset::Text),
    ("MeshId", "meshId", Unset::Text),
    ("ProxyAdminPort", "proxyAdminPort", Unset::Int),
    ("ProxyBootstrapTemplatePath", "proxyBootstrapTemplatePath", Unset::Text),
    ("ProxyMetadata", "proxyMetadata", Unset::Texts),
    ("RuntimeValues", "runtimeValues", Unset::Texts),
    ("ServiceCluster", "serviceCluster", Unset::Text),
    ("StatNameLength", "statNameLength", Unset::Int),
    ("StatsdUdpAddress", "statsdUdpAddress", Unset::Text),
    ("StatusPort", "statusPort", Unset::Int),
    ("TracingServiceName", "tracingServiceName", Unset::Text),
    ("ZipkinAddress", "zipkinAddress", Unset::Text),
];

/// The effective ProxyConfig.
pub(super) static PROXY: Record = Record {
    name: "ProxyConfig",
    field: |name| {
        find(PROXY_SCALARS, name).or_else(|| {
            let json = json_name(name);
            crate::inject::proxy_config::is_field(&json).then_some((json, Value::Nil))
        })
    },
};

/// The mesh configuration.
pub(super) static MESH: Record =
    Record { name: "MeshConfig", field: |name| Some((json_name(name), Value::Nil)) };

/// Any other struct.
pub(super) static OTHER: Record =
    Record { name: "struct", field: |name| Some((json_name(name), Value::Nil)) };

/// JSON's name of a Go field: the capitals at the beginning become small.
fn json_name(name: &str) -> String {
    let capitals = name.chars().take_while(char::is_ascii_uppercase).count();
    let small = match capitals {
        1 => 1,
        n if n == name.len() => n,
        n => n.saturating_sub(1),
    };
    name.char_indices().map(|(at, c)| if at < small { c.to_ascii_lowercase() } else { c }).collect()
}

/// Fields of a map, each by its own shape.
fn with(json: &Json, record: &'static Record, shape: impl Fn(&str, &Json) -> Value) -> Value {
    let Json::Object(map) = json else {
        return Value::given_map([].into(), Kind::Record(record));
    };
    let set = map.iter().filter(|(_, value)| !value.is_null());
    let entries = set.map(|(key, value)| (Arc::from(key.as_str()), shape(key, value)));
    Value::given_map(entries.collect(), Kind::Record(record))
}

fn each(json: &Json, shape: impl Fn(&Json) -> Value) -> Value {
    Value::given_list(json.as_array().into_iter().flatten().map(shape).collect())
}

/// A struct of which only the names' rule is known.
pub(super) fn other(json: &Json) -> Value {
    match json {
        Json::Object(_) => with(json, &OTHER, |_, value| other(value)),
        Json::Array(_) => each(json, other),
        scalar => Value::given(scalar),
    }
}

/// A map of texts.
pub(super) fn texts(json: &Json) -> Value {
    let entries = json.as_object().into_iter().flatten();
    let entry = |(key, value): (&String, &Json)| {
        let text = crate::settings::values::scalar(value)?;
        Some((Arc::from(key.as_str()), Value::from(text)))
    };
    Value::given_map(entries.filter_map(entry).collect(), Kind::Texts)
}

/// Metadata of the pod.
pub(super) fn metadata(json: &Json) -> Value {
    with(json, &OBJECT, |key, value| match key {
        "labels" | "annotations" => texts(value),
        _ => other(value),
    })
}

/// Specification of the pod.
pub(super) fn spec(json: &Json) -> Value {
    with(json, &SPEC, |key, value| match key {
        "containers" | "initContainers" | "ephemeralContainers" => each(value, container),
        "nodeSelector" | "overhead" => texts(value),
        _ => other(value),
    })
}

fn container(json: &Json) -> Value {
    with(json, &CONTAINER, |key, value| match key {
        "ports" => each(value, |port| with(port, &PORT, |_, value| other(value))),
        "env" => each(value, |entry| with(entry, &VARIABLE, |_, value| other(value))),
        "volumeMounts" => each(value, |mount| with(mount, &MOUNT, |_, value| other(value))),
        _ => other(value),
    })
}

/// The effective ProxyConfig of the pod.
pub(super) fn proxy_config(json: &Json) -> Value {
    with(json, &PROXY, |key, value| match key {
        "proxyMetadata" | "runtimeValues" => texts(value),
        _ => other(value),
    })
}

/// The mesh configuration.
pub(super) fn mesh_config(json: &Json) -> Value {
    with(json, &MESH, |key, value| match key {
        "defaultConfig" => proxy_config(value),
        _ => other(value),
    })
}

#[cfg(test)]
mod tests {
    use super::json_name;

    #[test]
    fn names_of_go_become_names_of_json() {
        for (go, json) in [
            ("HTTPGet", "httpGet"),
            ("DNSPolicy", "dnsPolicy"),
            ("SELinuxOptions", "seLinuxOptions"),
            ("CSI", "csi"),
            ("APIVersion", "apiVersion"),
            ("ConfigMap", "configMap"),
            ("RunAsUser", "runAsUser"),
            ("GCEPersistentDisk", "gcePersistentDisk"),
            ("cpu", "cpu"),
            ("", ""),
        ] {
            assert_eq!(json_name(go), json);
        }
    }
}
