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
//! over the proxy, cannot be served this way and are refused. Where every pod gets a template of the
//! user, none can be served: then all that is left is to refuse, as with `failurePolicy: Fail`.

mod cel;
mod conditions;
mod model;

use serde_json::{Value, json};

use crate::hooks;
use crate::inject::InjectError;
use crate::settings::InjectionSettings;

/// The template that policies can stand in for.
const SIDECAR: &str = "sidecar";

/// Why the API server cannot make what the webhook makes of a pod that says nothing; `None` where it can.
///
/// A template of the user sees the pod, and so does what it is laid over; policies only know a model.
#[must_use]
pub fn unserved(settings: &InjectionSettings) -> Option<String> {
    let webhook = &settings.values.sidecar_injector_webhook;
    let ours = |name: &str| {
        name == SIDECAR
            && settings.templates.get(name).is_none()
            && !webhook.aliases.contains_key(name)
    };
    let mut names = webhook.default_templates.iter().map(String::as_str);
    let other = if webhook.default_templates.is_empty() {
        Some(SIDECAR).filter(|name| !ours(name))
    } else {
        names.find(|name| !ours(name))
    };
    other.map(|name| {
        format!(
            "the API server cannot inject in place of the webhook, since pods get the template {name:?} \
             by default: while the webhook does not answer, pods of the mesh are refused; take the \
             template out of defaultTemplates, or set sidecarInjectorWebhook.fallback to false"
        )
    })
}

/// The policies and their bindings, in the order in which they are to be written: what refuses
/// comes last. Where the settings are [`unserved`] the first changes no pod, so that the last refuses
/// each that the webhook did not inject.
///
/// Kubernetes 1.36 or later has the kinds in version v1.
///
/// # Errors
/// When the settings cannot inject even a pod that asks for nothing.
pub fn policies(settings: &InjectionSettings) -> Result<Vec<Value>, InjectError> {
    let name = format!("{}-fallback", hooks::configuration_name(settings));
    let (conditions, mutation) = if unserved(settings).is_some() {
        (conditions::never(), model::NOTHING.to_owned())
    } else {
        (conditions::to_inject(settings), model::mutation(settings)?)
    };
    let mutating = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": pods(),
        "matchConditions": conditions,
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
    use super::{policies, unserved};
    use crate::hooks::webhook_configuration;
    use crate::settings::{InjectionSettings, Options};
    use serde_json::{Value, json};

    fn settings(values: &Value) -> InjectionSettings {
        InjectionSettings::from_sources(Some(values), None, Options::default()).unwrap()
    }

    fn made(values: &Value) -> Vec<Value> {
        policies(&settings(values)).unwrap()
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
    fn templates_of_the_user_for_all_pods_leave_nothing_but_to_refuse() {
        let mine = "metadata: {labels: {who: '{{ .ObjectMeta.Name }}'}}";
        let of = |more: Value| {
            let mut values =
                json!({"sidecarInjectorWebhook": {"fallback": true, "templates": {"mine": mine}}});
            for (key, value) in more.as_object().unwrap() {
                values["sidecarInjectorWebhook"][key] = value.clone();
            }
            settings(&values)
        };
        let failure = |settings: &InjectionSettings| {
            webhook_configuration(settings, b"")["webhooks"][0]["failurePolicy"].clone()
        };
        for served in [json!({}), json!({"defaultTemplates": ["sidecar"]})] {
            let settings = of(served);
            assert_eq!(unserved(&settings), None);
            assert_eq!(failure(&settings), "Ignore");
        }
        for (more, name) in [
            (json!({"defaultTemplates": ["sidecar", "mine"]}), "mine"),
            (json!({"defaultTemplates": ["grpc-simple"]}), "grpc-simple"),
            (json!({"defaultTemplates": ["grpc-agent"]}), "grpc-agent"),
            (json!({"templates": {"sidecar": "spec: {}"}}), "sidecar"),
            (json!({"aliases": {"sidecar": ["sidecar", "mine"]}}), "sidecar"),
        ] {
            let settings = of(more);
            let reason = unserved(&settings).unwrap();
            assert!(reason.contains(&format!("template {name:?}")), "{reason}");
            assert_eq!(failure(&settings), "Fail", "{name}");
            let all = policies(&settings).unwrap();
            let mutating = &all[0]["spec"];
            assert_eq!(mutating["matchConditions"][0]["expression"], "false", "{name}");
            assert!(!mutating["mutations"].to_string().contains("istio-proxy"), "{mutating}");
            let refusing = all.iter().find(|it| it["kind"] == "ValidatingAdmissionPolicy").unwrap();
            assert_eq!(refusing["spec"], policies(&of(json!({}))).unwrap()[5]["spec"]);
        }
    }

    #[test]
    fn never_selectors_become_conditions() {
        let webhook = json!({"neverInjectSelector": [{"matchLabels": {"job": "x\"y"}}]});
        let all = made(&json!({"sidecarInjectorWebhook": webhook}));
        let conditions = all[0]["spec"]["matchConditions"].to_string();
        assert!(conditions.contains("x\\\\\\\"y"), "{conditions}");
    }
}
