//! The webhook's registration: which pods the API server asks it about.
//!
//! The five hooks with the selectors of Istio's chart, for a revision, and the conditions that leave out
//! what needs no call. Pure data; who writes it
//! to the API server and who rotates the CA bundle is decided elsewhere.

use base64::Engine as _;
use lateen_api::names::cluster::IGNORED_NAMESPACES;
use lateen_api::names::label;
use serde_json::{Value, json};

use crate::conditions::{self, Condition};
use crate::fallback;
use crate::settings::InjectionSettings;

/// Suffix of all hook names, by which tools find them.
pub const HOOK_SUFFIX: &str = "sidecar-injector.istio.io";

/// The MutatingWebhookConfiguration of the settings' revision. `ca_bundle` is PEM: roots that the
/// API server trusts for the webhook's certificate.
#[must_use]
pub fn webhook_configuration(settings: &InjectionSettings, ca_bundle: &[u8]) -> Value {
    let namespace = &settings.values.global.istio_namespace;
    let client = json!({
        "service": {
            "name": settings.control_plane_service(), "namespace": namespace,
            "path": "/inject", "port": 443,
        },
        "caBundle": base64::engine::general_purpose::STANDARD.encode(ca_bundle),
    });
    let webhook = &settings.values.sidecar_injector_webhook;
    let policy = webhook.reinvocation_policy.as_str();
    let policy = if policy.is_empty() { "IfNeeded" } else { policy };
    let served = webhook.fallback && fallback::unserved(settings).is_none();
    let failure = if served { "Ignore" } else { "Fail" };
    let conditions: Vec<Value> = conditions::all().iter().map(Condition::declared).collect();
    let hooks: Vec<Value> = selectors(settings)
        .into_iter()
        .map(|(prefix, namespace_selector, object_selector)| {
            json!({
                "name": format!("{prefix}.{HOOK_SUFFIX}"),
                "clientConfig": client,
                "rules": [{
                    "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                    "resources": ["pods"],
                }],
                "failurePolicy": failure,
                "reinvocationPolicy": policy,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "namespaceSelector": namespace_selector,
                "objectSelector": object_selector,
                "matchConditions": conditions,
            })
        })
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": configuration_name(settings),
            "labels": {"app": "sidecar-injector", "istio.io/rev": settings.revision},
        },
        "webhooks": hooks,
    })
}

/// Name of the configuration of the settings' revision.
#[must_use]
pub fn configuration_name(settings: &InjectionSettings) -> String {
    let namespace = &settings.values.global.istio_namespace;
    let mut name = "istio-sidecar-injector".to_owned();
    if settings.revision != "default" {
        name = format!("{name}-{}", settings.revision);
    }
    if namespace != "istio-system" {
        name = format!("{name}-{namespace}");
    }
    name
}

/// The hooks: first part of the name, selector of namespaces, selector of pods.
pub(crate) fn selectors(settings: &InjectionSettings) -> Vec<(&'static str, Value, Value)> {
    let one = |key: &str, operator: &str, values: &[&str]| {
        let mut expression = json!({"key": key, "operator": operator});
        if !values.is_empty() {
            expression["values"] = json!(values);
        }
        expression
    };
    let all = |expressions: &[Value]| json!({"matchExpressions": expressions});
    let revision = settings.revision.as_str();
    let no_revision = one(label::REVISION, "DoesNotExist", &[]);
    let no_injection = one(label::NAMESPACE_INJECTION, "DoesNotExist", &[]);
    let not_refused = one(label::INJECT, "NotIn", &["false"]);
    let this_revision = one(label::REVISION, "In", &[revision]);
    let mut hooks = vec![
        (
            "rev.namespace",
            all(&[this_revision.clone(), no_injection.clone()]),
            all(std::slice::from_ref(&not_refused)),
        ),
        (
            "rev.object",
            all(&[no_revision.clone(), no_injection.clone()]),
            all(&[not_refused.clone(), this_revision]),
        ),
    ];
    if revision != "default" {
        return hooks;
    }
    hooks.push((
        "namespace",
        all(&[one(label::NAMESPACE_INJECTION, "In", &["enabled"])]),
        all(&[not_refused]),
    ));
    hooks.push((
        "object",
        all(&[no_injection.clone(), no_revision.clone()]),
        all(&[one(label::INJECT, "In", &["true"]), no_revision.clone()]),
    ));
    if settings.values.sidecar_injector_webhook.enable_namespaces_by_default {
        hooks.push((
            "auto",
            all(&[
                no_injection,
                no_revision.clone(),
                one(label::NAMESPACE_NAME, "NotIn", &IGNORED_NAMESPACES),
            ]),
            all(&[one(label::INJECT, "DoesNotExist", &[]), no_revision]),
        ));
    }
    hooks
}

#[cfg(test)]
mod tests {
    use super::webhook_configuration;
    use crate::selectors::{AdmittedRequest, Labels, hooks_for};
    use crate::settings::{InjectionSettings, Options};
    use serde_json::{Value, json};

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        let key = |key: &str| match key {
            "inject" => "sidecar.istio.io/inject".to_owned(),
            "rev" => "istio.io/rev".to_owned(),
            "injection" => "istio-injection".to_owned(),
            "name" => "kubernetes.io/metadata.name".to_owned(),
            other => other.to_owned(),
        };
        pairs.map(|(name, value)| (key(name), value.to_owned())).collect()
    }

    fn configuration(revision: &str, by_default: bool) -> Value {
        let options = Options { revision: revision.to_owned(), ..Options::default() };
        let values = json!({
            "sidecarInjectorWebhook": {"enableNamespacesByDefault": by_default}
        });
        let settings = InjectionSettings::from_sources(Some(&values), None, options).unwrap();
        webhook_configuration(&settings, b"PEM")
    }

    /// The hooks that fire: `D` of revision default, `C` of canary, `T` of the tag prod, whose
    /// configuration has the selectors of a revision of its name.
    fn fired(namespace: &str, pod: &str, by_default: bool) -> String {
        let (namespace, pod) = (labels(namespace), labels(pod));
        let request = AdmittedRequest {
            operation: "CREATE",
            group: "",
            version: "v1",
            resource: "pods",
            namespace_labels: &namespace,
            object_labels: &pod,
            namespace: "shop",
            object: &Value::Null,
        };
        let mut fired = Vec::new();
        for (letter, revision) in [("D", "default"), ("C", "canary"), ("T", "prod")] {
            for hook in hooks_for(&configuration(revision, by_default), &request).unwrap() {
                let name = hook.name.strip_suffix(".sidecar-injector.istio.io").unwrap();
                fired.push(format!("{letter}/{name}"));
            }
        }
        if fired.is_empty() { "-".to_owned() } else { fired.join(" ") }
    }

    /// The truth table of Istio's selectors: rows are namespace labels, columns pod labels. The fifth
    /// hook, where it is on, changes the one cell in which nobody says anything.
    #[test]
    fn truth_table() {
        let columns = [
            "",
            "inject=true",
            "inject=false",
            "inject=yes",
            "rev=default",
            "rev=canary",
            "inject=true,rev=canary",
            "inject=false,rev=canary",
            "rev=prod",
        ];
        let (no, dn, dr) = ("-", "D/namespace", "D/rev.namespace");
        let (cr, co, tr) = ("C/rev.namespace", "C/rev.object", "T/rev.namespace");
        let rows = [
            ("", [no, "D/object", no, no, "D/rev.object", co, co, no, "T/rev.object"]),
            ("injection=enabled", [dn, dn, no, dn, dn, dn, dn, no, dn]),
            ("injection=disabled", [no; 9]),
            ("rev=default", [dr, dr, no, dr, dr, dr, dr, no, dr]),
            ("rev=canary", [cr, cr, no, cr, cr, cr, cr, no, cr]),
            ("rev=prod", [tr, tr, no, tr, tr, tr, tr, no, tr]),
            ("injection=enabled,rev=canary", [dn, dn, no, dn, dn, dn, dn, no, dn]),
            ("injection=disabled,rev=canary", [no; 9]),
        ];
        for (namespace, expected) in rows {
            for (pod, expected) in columns.iter().zip(expected) {
                for by_default in [false, true] {
                    let silent = namespace.is_empty() && pod.is_empty();
                    let expected = if by_default && silent { "D/auto" } else { expected };
                    let got = fired(namespace, pod, by_default);
                    assert_eq!(got, expected, "{namespace:?} {pod:?} {by_default}");
                }
            }
        }
    }

    #[test]
    fn auto_hook_is_for_pods_that_nobody_said_anything_about() {
        assert_eq!(fired("name=shop", "", true), "D/auto");
        assert_eq!(fired("name=kube-system", "", true), "-");
        assert_eq!(fired("name=shop", "inject=true", true), "D/object");
        assert_eq!(fired("name=shop,injection=disabled", "", true), "-");
        assert_eq!(fired("name=shop", "", false), "-");
    }

    #[test]
    fn configuration_is_complete() {
        let configuration = configuration("canary", false);
        assert_eq!(configuration["metadata"]["name"], "istio-sidecar-injector-canary");
        assert_eq!(configuration["metadata"]["labels"]["istio.io/rev"], "canary");
        let client = &configuration["webhooks"][0]["clientConfig"];
        assert_eq!(client["service"]["name"], "istiod-canary");
        assert_eq!(client["caBundle"], "UEVN");
        let hook = &configuration["webhooks"][0];
        assert_eq!(
            (&hook["failurePolicy"], &hook["sideEffects"]),
            (&json!("Fail"), &json!("None"))
        );
        assert_eq!(hook["matchConditions"].as_array().unwrap().len(), 4);
    }
}
