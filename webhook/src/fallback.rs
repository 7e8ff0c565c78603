//! Injection by the API server itself, for the time in which the webhook cannot be called.
//!
//! A MutatingAdmissionPolicy that gives pods the sidecar of the present settings, and a
//! ValidatingAdmissionPolicy that refuses what came through without one: an outage neither stops
//! the cluster nor lets a bare pod into the mesh. Policies run before webhooks, and the webhook
//! takes an earlier injection out first, so a webhook that answers has the last word. Pure: who
//! writes the policies is decided elsewhere.
//!
//! The sidecar is that of a pod that says nothing about its proxy: probes are not rewritten and
//! annotations that change the proxy have no effect. Pods that name templates, or lay something
//! over the proxy, cannot be served this way and are refused.

mod cel;
mod conditions;
mod model;

use serde_json::{Value, json};

use crate::hooks;
use crate::inject::InjectError;
use crate::settings::InjectionSettings;

/// The policies and their bindings, in the order in which they are to be written: what refuses
/// comes last.
///
/// Kubernetes 1.36 or later has the kinds in version v1.
///
/// # Errors
/// When the settings cannot inject even a pod that asks for nothing.
pub fn policies(settings: &InjectionSettings) -> Result<Vec<Value>, InjectError> {
    let name = format!("{}-fallback", hooks::configuration_name(settings));
    let mutation = model::mutation(settings)?;
    let mutating = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": pods(),
        "matchConditions": conditions::to_inject(settings),
        "variables": model::variables(),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": mutation}}],
    });
    let validating = json!({
        "failurePolicy": "Fail",
        "matchConstraints": pods(),
        "matchConditions": conditions::wanted(settings),
        "validations": [{
            "expression": conditions::INJECTED,
            "message": conditions::REFUSAL,
            "reason": "Forbidden",
        }],
    });
    let mut all = Vec::new();
    for (kind, spec, bound) in [
        ("MutatingAdmissionPolicy", mutating, json!({})),
        ("ValidatingAdmissionPolicy", validating, json!({"validationActions": ["Deny"]})),
    ] {
        all.push(object(settings, kind, &name, &spec));
        for (hook, namespaces, objects) in hooks::selectors(settings) {
            let mut spec = bound.clone();
            spec["policyName"] = json!(name);
            spec["matchResources"] =
                json!({"namespaceSelector": namespaces, "objectSelector": objects});
            let name = format!("{name}-{}", hook.replace('.', "-"));
            all.push(object(settings, &format!("{kind}Binding"), &name, &spec));
        }
    }
    Ok(all)
}

fn object(settings: &InjectionSettings, kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"app": "sidecar-injector", "istio.io/rev": settings.revision},
        },
        "spec": spec,
    })
}

/// The creation of pods.
fn pods() -> Value {
    json!({"resourceRules": [{
        "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
    }]})
}

#[cfg(test)]
mod tests {
    use super::policies;
    use crate::settings::{InjectionSettings, Options};
    use serde_json::{Value, json};

    fn made(values: &Value) -> Vec<Value> {
        let settings =
            InjectionSettings::from_sources(Some(values), None, Options::default()).unwrap();
        policies(&settings).unwrap()
    }

    #[test]
    fn every_hook_of_the_webhook_has_its_binding() {
        let all = made(&json!({}));
        let kinds: Vec<_> = all.iter().filter_map(|it| it["kind"].as_str()).collect();
        let of = |kind: &str| kinds.iter().filter(|it| **it == kind).count();
        assert_eq!(of("MutatingAdmissionPolicy"), 1);
        assert_eq!(of("MutatingAdmissionPolicyBinding"), 4);
        assert_eq!(of("ValidatingAdmissionPolicyBinding"), 4);
        assert_eq!(all[1]["spec"]["policyName"], all[0]["metadata"]["name"]);
        assert_eq!(
            all[3]["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0]["values"],
            json!(["enabled"])
        );
    }

    #[test]
    fn settings_reach_the_mutation_and_no_marker_stays() {
        let all = made(&json!({"global": {"hub": "example.test/mesh", "tag": "9.9"}}));
        let mutation = all[0]["spec"]["mutations"][0]["jsonPatch"]["expression"].as_str().unwrap();
        assert!(mutation.contains(r#"dyn("example.test/mesh/proxyv2:9.9")"#), "{mutation}");
        assert!(mutation.contains("variables.workload"), "{mutation}");
        assert!(!mutation.contains("@{"), "{mutation}");
    }

    #[test]
    fn never_selectors_become_conditions() {
        let webhook = json!({"neverInjectSelector": [{"matchLabels": {"job": "x\"y"}}]});
        let all = made(&json!({"sidecarInjectorWebhook": webhook}));
        let conditions = all[0]["spec"]["matchConditions"].to_string();
        assert!(conditions.contains("x\\\\\\\"y"), "{conditions}");
    }
}
