//! Whether a pod that reached the webhook gets a sidecar, and why.
//!
//! The order of rules is Istio's: mirror pods, host network and system namespaces never, then what the
//! pod says, then the never and always selectors, then the policy of the mesh. Pure; every outcome has
//! a stable reason code, the same in log, warning, event, metric and command line.

use std::fmt;

use lateen_api::names::cluster::IGNORED_NAMESPACES;
use lateen_api::names::label;
use serde_json::Value;

use crate::conditions::is_mirror;
use crate::inject::AdmissionContext;
use crate::kube::text_map;
use crate::selectors::{Labels, SelectorError, matches};
use crate::settings::InjectionSettings;

/// Why a pod is injected, skipped or denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The pod's label asks for it.
    InjectedPodLabel,
    /// The pod's (deprecated) annotation asks for it.
    InjectedPodAnnotation,
    /// An always-inject selector matches.
    InjectedAlwaysSelector,
    /// The namespace's label asks for it.
    InjectedNamespaceLabel,
    /// The mesh injects pods that say nothing.
    InjectedDefaultPolicy,
    /// The pod stands for one that the kubelet runs from a file.
    SkippedMirrorPod,
    /// The pod uses the node's network, which must not be redirected.
    SkippedHostNetwork,
    /// The namespace belongs to the cluster.
    SkippedIgnoredNamespace,
    /// The pod's label refuses it.
    SkippedPodLabel,
    /// The pod's (deprecated) annotation refuses it.
    SkippedPodAnnotation,
    /// A never-inject selector matches.
    SkippedNeverSelector,
    /// The mesh does not inject pods that say nothing.
    SkippedDefaultPolicy,
    /// The mesh's policy has no known value.
    SkippedUnknownPolicy,
    /// No hook is for the pod: neither it nor its namespace asks for a sidecar.
    SkippedNotSelected,
    /// The namespace's label refuses sidecars.
    SkippedNamespaceLabel,
    /// The revision that namespace or pod names is nobody's.
    SkippedUnknownRevision,
    /// An annotation of the pod has a value that cannot be honoured.
    DeniedAnnotation,
    /// The pod asks for a template that is unknown or unusable.
    DeniedTemplate,
    /// The pod itself cannot be read or injected.
    DeniedPod,
    /// The review is not one of a pod's creation.
    DeniedReview,
    /// A webhook configuration, or the settings of a revision, cannot be read.
    Unknown,
}

impl Reason {
    /// All of them, in their order.
    pub const ALL: [Self; 21] = [
        Self::InjectedPodLabel,
        Self::InjectedPodAnnotation,
        Self::InjectedAlwaysSelector,
        Self::InjectedNamespaceLabel,
        Self::InjectedDefaultPolicy,
        Self::SkippedMirrorPod,
        Self::SkippedHostNetwork,
        Self::SkippedIgnoredNamespace,
        Self::SkippedPodLabel,
        Self::SkippedPodAnnotation,
        Self::SkippedNeverSelector,
        Self::SkippedDefaultPolicy,
        Self::SkippedUnknownPolicy,
        Self::SkippedNotSelected,
        Self::SkippedNamespaceLabel,
        Self::SkippedUnknownRevision,
        Self::DeniedAnnotation,
        Self::DeniedTemplate,
        Self::DeniedPod,
        Self::DeniedReview,
        Self::Unknown,
    ];

    /// Place in [`Self::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InjectedPodLabel => "injected.pod-label",
            Self::InjectedPodAnnotation => "injected.pod-annotation",
            Self::InjectedAlwaysSelector => "injected.always-selector",
            Self::InjectedNamespaceLabel => "injected.namespace-label",
            Self::InjectedDefaultPolicy => "injected.default-policy",
            Self::SkippedMirrorPod => "skipped.mirror-pod",
            Self::SkippedHostNetwork => "skipped.host-network",
            Self::SkippedIgnoredNamespace => "skipped.ignored-namespace",
            Self::SkippedPodLabel => "skipped.pod-label",
            Self::SkippedPodAnnotation => "skipped.pod-annotation",
            Self::SkippedNeverSelector => "skipped.never-selector",
            Self::SkippedDefaultPolicy => "skipped.default-policy",
            Self::SkippedUnknownPolicy => "skipped.unknown-policy",
            Self::SkippedNotSelected => "skipped.not-selected",
            Self::SkippedNamespaceLabel => "skipped.namespace-label",
            Self::SkippedUnknownRevision => "skipped.unknown-revision",
            Self::DeniedAnnotation => "denied.annotation",
            Self::DeniedTemplate => "denied.template",
            Self::DeniedPod => "denied.pod",
            Self::DeniedReview => "denied.review",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the pod is refused.
    #[must_use]
    pub fn denies(self) -> bool {
        self.code().starts_with("denied.")
    }

    /// Whether the pod gets a sidecar.
    #[must_use]
    pub fn injects(self) -> bool {
        self.code().starts_with("injected.")
    }

    /// The reason in words, for the owner of the pod.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Self::SkippedMirrorPod => {
                "the pod stands for one that the kubelet runs from a file (a static pod)"
            }
            Self::SkippedNotSelected => "neither the namespace nor the pod asks for a sidecar",
            Self::SkippedNamespaceLabel => "label istio-injection of the namespace refuses it",
            Self::SkippedUnknownRevision => "no control plane has the revision that is asked for",
            Self::Unknown => "what decides about the pod cannot be read",
            Self::SkippedHostNetwork => {
                "the pod uses the node's network (spec.hostNetwork), whose traffic must not be \
                 redirected"
            }
            Self::SkippedIgnoredNamespace => "the namespace is one of the cluster's own",
            Self::SkippedPodLabel => "label sidecar.istio.io/inject is false",
            Self::SkippedPodAnnotation => "annotation sidecar.istio.io/inject is false",
            Self::SkippedNeverSelector => "a selector of neverInjectSelector matches the pod",
            Self::SkippedDefaultPolicy => "injection is off for pods that do not ask for it",
            Self::SkippedUnknownPolicy => {
                "the policy of the mesh (global.proxy.autoInject, or policy in the injector's \
                 configuration) is neither enabled nor disabled, so nothing is injected"
            }
            Self::DeniedAnnotation
            | Self::DeniedTemplate
            | Self::DeniedPod
            | Self::DeniedReview => "the pod is denied",
            Self::InjectedPodLabel => "label sidecar.istio.io/inject of the pod is true",
            Self::InjectedPodAnnotation => "annotation sidecar.istio.io/inject of the pod is true",
            Self::InjectedAlwaysSelector => "a selector of alwaysInjectSelector matches the pod",
            Self::InjectedNamespaceLabel => "a label of the namespace asks for sidecars",
            Self::InjectedDefaultPolicy => "injection is on for pods that say nothing",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

/// A decision, and what was not understood on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What happens to the pod, and why.
    pub reason: Reason,
    /// What was not understood, naming object and field.
    pub warnings: Vec<String>,
}

/// Decides about a pod.
#[must_use]
pub fn decide(pod: &Value, settings: &InjectionSettings, context: &AdmissionContext) -> Decision {
    let mut warnings = Vec::new();
    let reason = reason(pod, settings, context, &mut warnings);
    Decision { reason, warnings }
}

fn reason(
    pod: &Value,
    settings: &InjectionSettings,
    context: &AdmissionContext,
    warnings: &mut Vec<String>,
) -> Reason {
    if is_mirror(pod) {
        return Reason::SkippedMirrorPod;
    }
    if pod["spec"]["hostNetwork"] == true {
        return Reason::SkippedHostNetwork;
    }
    if IGNORED_NAMESPACES.contains(&context.namespace.as_str()) {
        return Reason::SkippedIgnoredNamespace;
    }
    if let Some(reason) = asked(pod, warnings) {
        return reason;
    }
    let labels = text_map(&pod["metadata"]["labels"]);
    let webhook = &settings.values.sidecar_injector_webhook;
    let mut any = |selectors: &[Value], name: &str| {
        selectors.iter().any(|selector| {
            selects(selector, &labels).unwrap_or_else(|error| {
                warnings.push(format!("{name}: {error}; ignored"));
                false
            })
        })
    };
    if any(&webhook.never_inject_selector, "neverInjectSelector") {
        return Reason::SkippedNeverSelector;
    }
    if any(&webhook.always_inject_selector, "alwaysInjectSelector") {
        return Reason::InjectedAlwaysSelector;
    }
    match settings.values.global.proxy.auto_inject.as_str() {
        "enabled" if asks_for_injection(&context.namespace_labels) => {
            Reason::InjectedNamespaceLabel
        }
        "enabled" => Reason::InjectedDefaultPolicy,
        "disabled" => Reason::SkippedDefaultPolicy,
        _ => Reason::SkippedUnknownPolicy,
    }
}

/// Whether a label selector matches; an empty one selects nothing here, as in Istio.
fn selects(selector: &Value, labels: &Labels) -> Result<bool, SelectorError> {
    let nothing = |field: &Value| match field {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        _ => false,
    };
    let empty = selector.as_object().is_none_or(|fields| fields.values().all(nothing));
    Ok(matches(selector, labels)? && !empty)
}

/// What the pod itself says, if it is understood.
fn asked(pod: &Value, warnings: &mut Vec<String>) -> Option<Reason> {
    let metadata = &pod["metadata"];
    let label = metadata["labels"][label::INJECT].as_str();
    let (value, kind, yes, no) = match label {
        Some(value) => (value, "label", Reason::InjectedPodLabel, Reason::SkippedPodLabel),
        None => (
            metadata["annotations"][label::INJECT].as_str()?,
            "annotation",
            Reason::InjectedPodAnnotation,
            Reason::SkippedPodAnnotation,
        ),
    };
    match value {
        "true" => Some(yes),
        "false" => Some(no),
        "" => None,
        other => {
            let other: String = other.chars().take(64).collect();
            warnings.push(format!(
                "{kind} {}: {other:?} is neither true nor false and has no effect",
                label::INJECT
            ));
            None
        }
    }
}

fn asks_for_injection(labels: &Labels) -> bool {
    labels.get(label::NAMESPACE_INJECTION).is_some_and(|value| value == "enabled")
        || labels.contains_key(label::REVISION)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "literals are passed as they stand")]

    use super::{Reason, decide};
    use crate::inject::AdmissionContext;
    use crate::settings::{InjectionSettings, Options};
    use serde_json::{Value, json};

    fn decided(pod: &Value, webhook: Value, policy: &str, namespace: &str) -> Reason {
        let values = json!({
            "sidecarInjectorWebhook": webhook,
            "global": {"proxy": {"autoInject": policy}},
        });
        let settings =
            InjectionSettings::from_sources(Some(&values), None, Options::default()).unwrap();
        let context = AdmissionContext { namespace: namespace.to_owned(), ..Default::default() };
        decide(pod, &settings, &context).reason
    }

    fn pod(label: Option<&str>, annotation: Option<&str>) -> Value {
        let mut pod = json!({"metadata": {"labels": {"app": "a"}, "annotations": {}}, "spec": {}});
        if let Some(value) = label {
            pod["metadata"]["labels"]["sidecar.istio.io/inject"] = json!(value);
        }
        if let Some(value) = annotation {
            pod["metadata"]["annotations"]["sidecar.istio.io/inject"] = json!(value);
        }
        pod
    }

    /// Rows: label, annotation; columns: policy enabled, disabled, unknown.
    #[test]
    fn truth_table() {
        use Reason as R;
        let by_policy =
            [R::InjectedDefaultPolicy, R::SkippedDefaultPolicy, R::SkippedUnknownPolicy];
        let rows = [
            (None, None, by_policy),
            (Some("true"), None, [R::InjectedPodLabel; 3]),
            (Some("false"), None, [R::SkippedPodLabel; 3]),
            (Some(""), None, by_policy),
            (Some("yes"), None, by_policy),
            (None, Some("true"), [R::InjectedPodAnnotation; 3]),
            (None, Some("false"), [R::SkippedPodAnnotation; 3]),
            (None, Some("on"), by_policy),
            (Some("true"), Some("false"), [R::InjectedPodLabel; 3]),
            (Some("false"), Some("true"), [R::SkippedPodLabel; 3]),
            (Some("yes"), Some("false"), by_policy),
        ];
        for (label, annotation, expected) in rows {
            for (policy, expected) in ["enabled", "disabled", "sometimes"].into_iter().zip(expected)
            {
                let got = decided(&pod(label, annotation), json!({}), policy, "shop");
                assert_eq!(got, expected, "{label:?} {annotation:?} {policy}");
            }
        }
    }

    #[test]
    fn reasons_have_their_place_and_their_own_code() {
        let codes: std::collections::BTreeSet<&str> =
            Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
    }

    #[test]
    fn host_network_and_system_namespaces_come_first() {
        let mut host = pod(Some("true"), None);
        host["spec"]["hostNetwork"] = json!(true);
        assert_eq!(decided(&host, json!({}), "enabled", "shop"), Reason::SkippedHostNetwork);
        for namespace in ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"] {
            let got = decided(&pod(Some("true"), None), json!({}), "enabled", namespace);
            assert_eq!(got, Reason::SkippedIgnoredNamespace);
        }
    }

    #[test]
    fn never_beats_always_and_the_pod_beats_both() {
        let selector = json!([{"matchLabels": {"app": "a"}}]);
        let both = json!({"neverInjectSelector": selector, "alwaysInjectSelector": selector});
        let always = json!({"alwaysInjectSelector": selector});
        assert_eq!(
            decided(&pod(None, None), both.clone(), "enabled", "shop"),
            Reason::SkippedNeverSelector
        );
        assert_eq!(
            decided(&pod(None, None), always.clone(), "disabled", "shop"),
            Reason::InjectedAlwaysSelector
        );
        assert_eq!(
            decided(&pod(Some("true"), None), both, "disabled", "shop"),
            Reason::InjectedPodLabel
        );
        assert_eq!(
            decided(&pod(None, Some("false")), always, "enabled", "shop"),
            Reason::SkippedPodAnnotation
        );
    }

    #[test]
    fn empty_and_invalid_selectors_match_nothing() {
        for selector in [
            json!({}),
            json!({"matchLabels": {}}),
            json!({"matchExpressions": [{"key": "app", "operator": "Like"}]}),
        ] {
            let webhook = json!({"neverInjectSelector": [selector]});
            let got = decided(&pod(None, None), webhook, "enabled", "shop");
            assert_eq!(got, Reason::InjectedDefaultPolicy, "{selector}");
        }
    }

    #[test]
    fn the_namespace_that_asked_is_named_as_the_reason() {
        let settings = InjectionSettings::from_sources(None, None, Options::default()).unwrap();
        let context = AdmissionContext {
            namespace: "shop".to_owned(),
            namespace_labels: [("istio-injection".to_owned(), "enabled".to_owned())].into(),
            ..Default::default()
        };
        let decision = decide(&pod(Some("maybe"), None), &settings, &context);
        assert_eq!(decision.reason.code(), "injected.namespace-label");
        assert!(decision.warnings[0].contains("sidecar.istio.io/inject"));
    }
}
