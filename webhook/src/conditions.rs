//! Match conditions of the hooks: pods that the API server need not ask about.
//!
//! Each is the text that the API server evaluates and the same in Rust, for whoever stands in for the
//! API server or explains it. They leave out only what [`crate::policy`] would skip, and no pod that
//! asks for a sidecar, since its owner is to be told why it gets none. Texts that are not these are
//! not evaluated here. Must not know selectors.

use lateen_api::names::cluster::IGNORED_NAMESPACES;
use lateen_api::names::{annotation, label};
use serde_json::{Value, json};

use crate::policy::Reason;

/// A condition under which a hook is called.
#[derive(Debug)]
pub struct Condition {
    /// Name, as the API server reports it.
    pub name: &'static str,
    /// CEL.
    pub expression: String,
    /// Why a pod that does not meet it gets no sidecar.
    pub otherwise: Reason,
    holds: fn(&Value, &str) -> bool,
}

impl Condition {
    /// Whether a pod of a namespace meets it.
    #[must_use]
    pub fn holds(&self, pod: &Value, namespace: &str) -> bool {
        (self.holds)(pod, namespace)
    }

    /// As a webhook configuration has it.
    #[must_use]
    pub fn declared(&self) -> Value {
        json!({"name": self.name, "expression": self.expression})
    }
}

/// The conditions of every hook.
#[must_use]
pub fn all() -> [Condition; 4] {
    let asked = format!("({} || {})", says("labels", "true"), says("annotations", "true"));
    let ignored = IGNORED_NAMESPACES.map(|name| format!("'{name}'")).join(", ");
    [
        Condition {
            name: "not-mirror-pod",
            expression: format!("!({})", has("annotations", annotation::MIRROR)),
            otherwise: Reason::SkippedMirrorPod,
            holds: |pod, _| !is_mirror(pod),
        },
        Condition {
            name: "not-host-network",
            expression: format!(
                "!(has(object.spec.hostNetwork) && object.spec.hostNetwork) || {asked}"
            ),
            otherwise: Reason::SkippedHostNetwork,
            holds: |pod, _| pod["spec"]["hostNetwork"] != true || asks(pod),
        },
        Condition {
            name: "not-of-the-cluster",
            expression: format!("!(request.namespace in [{ignored}]) || {asked}"),
            otherwise: Reason::SkippedIgnoredNamespace,
            holds: |pod, namespace| !IGNORED_NAMESPACES.contains(&namespace) || asks(pod),
        },
        Condition {
            name: "not-refused",
            expression: format!(
                "{} || !{}",
                has("labels", label::INJECT),
                says("annotations", "false")
            ),
            otherwise: Reason::SkippedPodAnnotation,
            holds: |pod, _| {
                let said = |map: &str| pod["metadata"][map][label::INJECT].as_str();
                said("labels").is_some() || said("annotations") != Some("false")
            },
        },
    ]
}

/// Whether a pod stands for one that the kubelet runs from a file.
pub(crate) fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(annotation::MIRROR).is_some()
}

/// Whether a pod asks for a sidecar, by label or (deprecated) annotation.
pub(crate) fn asks(pod: &Value) -> bool {
    let metadata = &pod["metadata"];
    let said = |map: &str| metadata[map][label::INJECT] == "true";
    said("labels") || said("annotations")
}

fn has(map: &str, key: &str) -> String {
    format!("(has(object.metadata.{map}) && '{key}' in object.metadata.{map})")
}

fn says(map: &str, value: &str) -> String {
    let key = label::INJECT;
    format!(
        "(has(object.metadata.{map}) && '{key}' in object.metadata.{map} && \
         object.metadata.{map}['{key}'] == '{value}')"
    )
}

#[cfg(test)]
mod tests {
    use super::all;
    use crate::inject::AdmissionContext;
    use crate::policy::decide;
    use crate::settings::{InjectionSettings, Options};
    use serde_json::json;

    /// Every pod that is left out is one that the policy would skip for the same reason, and none
    /// that asks is left out but a mirror pod.
    #[test]
    fn conditions_leave_out_what_the_policy_skips() {
        let settings = InjectionSettings::from_sources(None, None, Options::default()).unwrap();
        let mut left_out = Vec::new();
        for label in [None, Some("true"), Some("false"), Some("yes")] {
            for annotation in [None, Some("true"), Some("false")] {
                for (host, mirror) in [(false, false), (true, false), (false, true), (true, true)] {
                    for namespace in ["shop", "kube-system"] {
                        let mut pod = json!({"metadata": {"labels": {}, "annotations": {}},
                            "spec": {"hostNetwork": host}});
                        if let Some(value) = label {
                            pod["metadata"]["labels"]["sidecar.istio.io/inject"] = json!(value);
                        }
                        let annotations = &mut pod["metadata"]["annotations"];
                        if let Some(value) = annotation {
                            annotations["sidecar.istio.io/inject"] = json!(value);
                        }
                        if mirror {
                            annotations["kubernetes.io/config.mirror"] = json!("h");
                        }
                        let conditions = all();
                        let Some(unmet) = conditions.iter().find(|it| !it.holds(&pod, namespace))
                        else {
                            continue;
                        };
                        let context = AdmissionContext {
                            namespace: namespace.to_owned(),
                            ..AdmissionContext::default()
                        };
                        let decided = decide(&pod, &settings, &context).reason;
                        assert_eq!(decided, unmet.otherwise, "{pod}");
                        assert!(mirror || !super::asks(&pod), "{pod}");
                        left_out.push(decided);
                    }
                }
            }
        }
        left_out.sort_unstable();
        left_out.dedup();
        assert_eq!(left_out.len(), 4, "each condition leaves something out: {left_out:?}");
    }
}
