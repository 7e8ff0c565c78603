//! Whether a pod would be injected, by whom and why: selectors, conditions, policy and mutation in one.
//!
//! The same functions as in the API server's stead and in the webhook, over objects that the caller
//! has read. Pure; must not know where objects come from.

use std::collections::BTreeMap;

use lateen_api::names::label;
use serde::Serialize;
use serde_json::Value;

use crate::admission::NamespaceMetadata;
use crate::hooks::HOOK_SUFFIX;
use crate::inject::{AdmissionContext, Injection, inject};
use crate::kube::text_map;
use crate::policy::Reason;
use crate::selectors::{AdmittedRequest, HookTarget, Verdict, decode_hook, verdict};
use crate::server::environment;
use crate::settings::InjectionSettings;

/// What is known of a cluster.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// MutatingWebhookConfigurations; those of others are passed over.
    pub configurations: Vec<Value>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, NamespaceMetadata>,
    /// Settings by revision; an error says why they cannot be had.
    pub settings: BTreeMap<String, Result<InjectionSettings, String>>,
}

/// A hook of a webhook configuration, and what it makes of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookVerdict {
    /// The configuration.
    pub configuration: String,
    /// First part of the hook's name, such as `rev.namespace`.
    pub hook: String,
    /// Revision of the control plane that is called.
    pub revision: String,
    /// Tag whose configuration it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Where it is called.
    pub calls: String,
    /// Whether it is called for the pod.
    pub fires: bool,
    /// Why it is called or not.
    pub why: String,
}

/// What becomes of a pod, and why.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Reason code.
    #[serde(serialize_with = "code")]
    pub reason: Reason,
    /// The reason in words.
    pub explanation: String,
    /// Revision that decides; `None` when no hook is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// What to do for a sidecar, where the pod gets none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What its owner should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// All hooks that inject.
    pub hooks: Vec<HookVerdict>,
    /// What the pod becomes, where it is injected.
    #[serde(skip)]
    pub injection: Option<Injection>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn code<S: serde::Serializer>(reason: &Reason, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(reason.code())
}

/// Explains a pod of a namespace.
#[must_use]
pub fn explain(pod: &Value, namespace: &str, around: &Surroundings) -> Explanation {
    let known = around.namespaces.get(namespace).cloned().unwrap_or_default();
    let verdicts = verdicts(pod, namespace, around);
    let mut warnings = Vec::new();
    let firing: Vec<&HookVerdict> =
        verdicts.iter().map(|(hook, _)| hook).filter(|hook| hook.fires).collect();
    if firing.len() > 1 {
        let names: Vec<&str> = firing.iter().map(|hook| hook.configuration.as_str()).collect();
        warnings.push(format!(
            "{} hooks are called for the pod ({}): revisions or tags overlap, and who comes last wins",
            firing.len(),
            names.join(", ")
        ));
    }
    let mut explanation = match firing.first() {
        None => {
            let reason = uncalled(pod, &known, &verdicts);
            Explanation {
                reason,
                explanation: reason.explanation().to_owned(),
                revision: None,
                advice: None,
                warnings,
                hooks: Vec::new(),
                injection: None,
            }
        }
        Some(hook) => {
            let declared = declared(&hook.configuration, &hook.hook, around);
            warnings.extend(declared.and_then(|it| trust(&hook.configuration, it)));
            let context = AdmissionContext {
                namespace: namespace.to_owned(),
                namespace_labels: known.labels.clone(),
                namespace_annotations: known.annotations.clone(),
                environment: declared.map(environment_of).unwrap_or_default(),
                workload: None,
            };
            called(pod, &context, &hook.revision, around, warnings)
        }
    };
    explanation.hooks = verdicts.into_iter().map(|(hook, _)| hook).collect();
    explanation.advice = advice(&explanation, pod, (namespace, &known));
    explanation
}

/// Every hook that injects, and what it makes of the pod.
fn verdicts(
    pod: &Value,
    namespace: &str,
    around: &Surroundings,
) -> Vec<(HookVerdict, Option<Verdict>)> {
    let mut namespace_labels =
        around.namespaces.get(namespace).map(|it| it.labels.clone()).unwrap_or_default();
    // The API server puts it on every namespace.
    namespace_labels
        .entry(label::NAMESPACE_NAME.to_owned())
        .or_insert_with(|| namespace.to_owned());
    let object_labels = text_map(&pod["metadata"]["labels"]);
    let request = AdmittedRequest {
        operation: "CREATE",
        group: "",
        version: "v1",
        resource: "pods",
        namespace_labels: &namespace_labels,
        object_labels: &object_labels,
        namespace,
        object: pod,
    };
    let mut all = Vec::new();
    for configuration in &around.configurations {
        let metadata = &configuration["metadata"];
        for hook in configuration["webhooks"].as_array().into_iter().flatten() {
            let Some(name) = injector(hook) else { continue };
            let (fires, why, verdict) = match verdict(hook, &request) {
                Ok(verdict) => (verdict == Verdict::Fires, words(&verdict), Some(verdict)),
                Err(error) => (false, format!("cannot be evaluated: {error}"), None),
            };
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let hook = HookVerdict {
                configuration: text(&metadata["name"]).unwrap_or_default(),
                hook: name.to_owned(),
                revision: text(&metadata["labels"][label::REVISION])
                    .unwrap_or_else(|| "default".to_owned()),
                tag: text(&metadata["labels"][label::REVISION_TAG]),
                calls: place(hook),
                fires,
                why,
            };
            all.push((hook, verdict));
        }
    }
    all
}

/// First part of the name of a hook that injects.
fn injector(hook: &Value) -> Option<&str> {
    hook["name"].as_str()?.strip_suffix(HOOK_SUFFIX)?.strip_suffix('.')
}

fn place(hook: &Value) -> String {
    match decode_hook(hook).map(|hook| hook.target) {
        Ok(HookTarget::Service { namespace, name, port, .. }) => {
            format!("{name}.{namespace}.svc:{port}")
        }
        Ok(HookTarget::Url(url)) => url,
        Err(error) => error.to_string(),
    }
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Fires => "both selectors match".to_owned(),
        Verdict::OtherRequests => "its rules are not about the creation of pods".to_owned(),
        Verdict::OtherNamespaces(why) => format!("namespace label {why}"),
        Verdict::OtherObjects(why) => format!("pod label {why}"),
        Verdict::LeftOut(name, reason) => {
            format!("match condition {name}: {}", reason.explanation())
        }
    }
}

/// Why no hook is called.
fn uncalled(
    pod: &Value,
    namespace: &NamespaceMetadata,
    verdicts: &[(HookVerdict, Option<Verdict>)],
) -> Reason {
    let left_out = verdicts.iter().find_map(|(_, verdict)| match verdict {
        Some(Verdict::LeftOut(_, reason)) => Some(*reason),
        _ => None,
    });
    if let Some(reason) = left_out {
        return reason;
    }
    if verdicts.iter().any(|(_, verdict)| verdict.is_none()) {
        return Reason::Unknown;
    }
    let labels = &pod["metadata"]["labels"];
    if labels[label::INJECT] == "false" {
        return Reason::SkippedPodLabel;
    }
    let asked = match namespace.labels.get(label::NAMESPACE_INJECTION).map(String::as_str) {
        Some("enabled") => Some("default"),
        Some(_) => return Reason::SkippedNamespaceLabel,
        None => namespace
            .labels
            .get(label::REVISION)
            .map(String::as_str)
            .or_else(|| labels[label::REVISION].as_str())
            .or_else(|| (labels[label::INJECT] == "true").then_some("default")),
    };
    match asked {
        Some(asked) if !serves(verdicts, asked) => Reason::SkippedUnknownRevision,
        _ => Reason::SkippedNotSelected,
    }
}

/// Whether some control plane has the revision or tag `asked`.
fn serves(verdicts: &[(HookVerdict, Option<Verdict>)], asked: &str) -> bool {
    verdicts.iter().any(|(hook, _)| hook.tag.as_deref().unwrap_or(&hook.revision) == asked)
}

/// What the control plane of a revision makes of a pod.
fn called(
    pod: &Value,
    context: &AdmissionContext,
    revision: &str,
    around: &Surroundings,
    mut warnings: Vec<String>,
) -> Explanation {
    let (reason, explanation, injection) = match around.settings.get(revision) {
        None => {
            let why = format!("the settings of revision {revision} are not known");
            (Reason::Unknown, why, None)
        }
        Some(Err(why)) => (Reason::Unknown, why.clone(), None),
        Some(Ok(settings)) => match inject(pod, settings, context) {
            Err(error) => (error.reason(), error.to_string(), None),
            Ok(injection) => {
                warnings.extend(injection.warnings.iter().cloned());
                let reason = injection.reason;
                let injection = reason.injects().then_some(injection);
                (reason, reason.explanation().to_owned(), injection)
            }
        },
    };
    Explanation {
        reason,
        explanation,
        revision: Some(revision.to_owned()),
        advice: None,
        warnings,
        hooks: Vec::new(),
        injection,
    }
}

/// A hook as it is declared.
fn declared<'a>(configuration: &str, name: &str, around: &'a Surroundings) -> Option<&'a Value> {
    let found = around.configurations.iter().find(|it| it["metadata"]["name"] == configuration)?;
    found["webhooks"].as_array()?.iter().find(|hook| injector(hook) == Some(name))
}

/// Environment of the proxy in the path of a hook.
fn environment_of(hook: &Value) -> BTreeMap<String, String> {
    let path = match decode_hook(hook).map(|hook| hook.target) {
        Ok(HookTarget::Service { path, .. }) => path,
        Ok(HookTarget::Url(url)) => {
            let behind = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
            behind.find('/').map(|at| behind[at..].to_owned()).unwrap_or_default()
        }
        Err(_) => String::new(),
    };
    environment(&path).unwrap_or_default()
}

/// A hook that the API server cannot believe.
fn trust(configuration: &str, hook: &Value) -> Option<String> {
    let bundle = hook["clientConfig"]["caBundle"].as_str().unwrap_or_default();
    (bundle.is_empty() && hook["clientConfig"]["service"].is_object()).then(|| {
        format!(
            "{configuration} has no caBundle: the API server does not believe the webhook until \
             its control plane has written one"
        )
    })
}

/// What to do for a sidecar.
fn advice(
    explanation: &Explanation,
    pod: &Value,
    (namespace, known): (&str, &NamespaceMetadata),
) -> Option<String> {
    let pod_label = "the pod (in a workload: spec.template.metadata)";
    Some(match explanation.reason {
        Reason::SkippedNotSelected => format!(
            "kubectl label namespace {namespace} {}, or label {pod_label} {}=true",
            whole_namespace(&explanation.hooks),
            label::INJECT
        ),
        Reason::SkippedNamespaceLabel => format!(
            "kubectl label namespace {namespace} {}=enabled --overwrite",
            label::NAMESPACE_INJECTION
        ),
        Reason::SkippedUnknownRevision => {
            let labels = &pod["metadata"]["labels"];
            let revision = known.labels.get(label::REVISION).map(String::as_str);
            let asked = revision.or_else(|| labels[label::REVISION].as_str()).unwrap_or("default");
            let mut there: Vec<&str> = explanation
                .hooks
                .iter()
                .map(|hook| hook.tag.as_deref().unwrap_or(&hook.revision))
                .collect();
            there.sort_unstable();
            there.dedup();
            if there.is_empty() {
                "install a control plane: see docs/install.md".to_owned()
            } else {
                format!(
                    "correct label {}: nobody serves {asked:?}, but there are {}",
                    label::REVISION,
                    there.join(", ")
                )
            }
        }
        Reason::SkippedPodLabel => {
            format!("take label {}=false from {pod_label}", label::INJECT)
        }
        Reason::SkippedPodAnnotation => {
            format!("take annotation {}=false from {pod_label}", label::INJECT)
        }
        Reason::SkippedHostNetwork => {
            "take spec.hostNetwork from the pod; its traffic is the node's otherwise".to_owned()
        }
        Reason::SkippedIgnoredNamespace => "run the pod in another namespace".to_owned(),
        Reason::SkippedNeverSelector | Reason::SkippedDefaultPolicy => {
            format!("label {pod_label} {}=true", label::INJECT)
        }
        _ => return None,
    })
}

/// The label by which a whole namespace asks.
fn whole_namespace(hooks: &[HookVerdict]) -> String {
    let name = |hook: &HookVerdict| hook.tag.clone().unwrap_or_else(|| hook.revision.clone());
    match hooks.iter().map(name).find(|name| name != "default") {
        Some(other) if !hooks.iter().any(|hook| name(hook) == "default") => {
            format!("{}={other}", label::REVISION)
        }
        _ => format!("{}=enabled", label::NAMESPACE_INJECTION),
    }
}

#[cfg(test)]
mod tests {
    use super::{Surroundings, explain};
    use crate::admission::NamespaceMetadata;
    use crate::hooks::webhook_configuration;
    use crate::settings::{InjectionSettings, Options};
    use serde_json::{Value, json};

    fn settings(revision: &str) -> InjectionSettings {
        let options = Options { revision: revision.to_owned(), ..Options::default() };
        InjectionSettings::from_sources(None, None, options).unwrap()
    }

    fn around(namespace: &Value) -> Surroundings {
        let mut tag = webhook_configuration(&settings("prod"), b"PEM");
        tag["metadata"]["name"] = json!("istio-revision-tag-prod");
        tag["metadata"]["labels"] = json!({"istio.io/rev": "canary", "istio.io/tag": "prod"});
        let own = ["default", "canary"].map(|it| webhook_configuration(&settings(it), b"PEM"));
        let labels = serde_json::from_value(namespace.clone()).unwrap();
        let metadata = NamespaceMetadata { labels, ..NamespaceMetadata::default() };
        Surroundings {
            configurations: own.into_iter().chain([tag]).collect(),
            namespaces: [("shop".to_owned(), metadata)].into(),
            settings: ["default", "canary"].map(|it| (it.to_owned(), Ok(settings(it)))).into(),
        }
    }

    fn pod(labels: &Value, host: bool) -> Value {
        json!({"metadata": {"name": "a", "labels": labels},
            "spec": {"hostNetwork": host, "containers": [{"name": "a", "image": "a"}]}})
    }

    #[test]
    fn each_reason_is_found_with_who_decides() {
        let none = json!({});
        let cases = [
            (
                json!({"istio-injection": "enabled"}),
                &none,
                false,
                "injected.namespace-label",
                "default",
            ),
            (json!({"istio.io/rev": "prod"}), &none, false, "injected.namespace-label", "canary"),
            (
                json!({}),
                &json!({"istio.io/rev": "canary"}),
                false,
                "injected.default-policy",
                "canary",
            ),
            (json!({}), &none, false, "skipped.not-selected", ""),
            (json!({"istio-injection": "disabled"}), &none, false, "skipped.namespace-label", ""),
            (json!({"istio.io/rev": "old"}), &none, false, "skipped.unknown-revision", ""),
            (
                json!({"istio-injection": "enabled"}),
                &json!({"sidecar.istio.io/inject": "false"}),
                false,
                "skipped.pod-label",
                "",
            ),
            (json!({"istio-injection": "enabled"}), &none, true, "skipped.host-network", ""),
        ];
        for (namespace, labels, host, reason, revision) in cases {
            let explained = explain(&pod(labels, host), "shop", &around(&namespace));
            assert_eq!(explained.reason.code(), reason, "{namespace} {labels}");
            assert_eq!(explained.revision.as_deref().unwrap_or(""), revision, "{namespace}");
            assert_eq!(explained.injection.is_some(), reason.starts_with("injected."));
            assert_eq!(explained.advice.is_none(), reason.starts_with("injected."));
            assert_eq!(explained.hooks.len(), 8, "four of default, two of canary, two of the tag");
        }
    }

    #[test]
    fn what_nobody_can_decide_is_said() {
        let mut unreadable = around(&json!({"istio-injection": "enabled"}));
        unreadable.settings.insert("default".to_owned(), Err("no ConfigMap".to_owned()));
        let explained = explain(&pod(&json!({}), false), "shop", &unreadable);
        assert_eq!(
            (explained.reason.code(), explained.explanation.as_str()),
            ("unknown", "no ConfigMap")
        );

        let mut foreign = around(&json!({"istio-injection": "enabled"}));
        for configuration in &mut foreign.configurations {
            for hook in configuration["webhooks"].as_array_mut().unwrap() {
                hook["matchConditions"] = json!([{"name": "x", "expression": "true"}]);
            }
        }
        let explained = explain(&pod(&json!({}), false), "shop", &foreign);
        assert_eq!(explained.reason.code(), "unknown");
        assert!(explained.hooks[0].why.contains("matchConditions[0]"), "{:?}", explained.hooks[0]);
    }

    #[test]
    fn overlap_and_missing_trust_are_warned_of() {
        let mut twice = around(&json!({"istio-injection": "enabled"}));
        let mut copy = twice.configurations[0].clone();
        copy["metadata"]["name"] = json!("other");
        for hook in twice.configurations[0]["webhooks"].as_array_mut().unwrap() {
            hook["clientConfig"]["caBundle"] = json!("");
        }
        twice.configurations.push(copy);
        let warnings = explain(&pod(&json!({}), false), "shop", &twice).warnings;
        assert!(warnings[0].contains("2 hooks"), "{warnings:?}");
        assert!(warnings[1].contains("caBundle"), "{warnings:?}");
    }
}
