//! Which pods the policies are about: the rules of [`crate::policy`] as expressions.
//!
//! Selectors of namespaces and labels are in the bindings. Must not know sidecars.

use lateen_api::names::cluster::IGNORED_NAMESPACES;
use lateen_api::names::{annotation, container, label};
use serde_json::{Value, json};

use super::cel::{literal, quoted};
use crate::settings::InjectionSettings;

/// The pod was injected, by the policy or by somebody else.
pub(super) const INJECTED: &str = "has(object.metadata.annotations) && \
    'sidecar.istio.io/status' in object.metadata.annotations";

/// What the creator of a pod reads when nobody injected it.
pub(super) const REFUSAL: &str = "the pod belongs to the mesh, but the injection webhook does not \
    answer and the pod asks for more than can be injected without it: look at the pods of app=istiod, \
    or create the pod again when they are ready";

/// Conditions under which a pod is to have a sidecar.
pub(super) fn wanted(settings: &InjectionSettings) -> Vec<Value> {
    let ignored = literal(&json!(IGNORED_NAMESPACES), &[]);
    let mut all = vec![
        condition("not-host-network", "!(has(object.spec.hostNetwork) && object.spec.hostNetwork)"),
        condition("not-of-the-cluster", &format!("!(request.namespace in {ignored})")),
        condition("not-refused", &format!("!({})", says("false"))),
    ];
    let webhook = &settings.values.sidecar_injector_webhook;
    let never: Vec<_> = webhook.never_inject_selector.iter().filter_map(selects).collect();
    if !never.is_empty() {
        let never = never.join(" || ");
        all.push(condition("not-never", &format!("({}) || !({never})", says("true"))));
    }
    if settings.values.global.proxy.auto_inject != "enabled" {
        let always: Vec<_> = webhook.always_inject_selector.iter().filter_map(selects).collect();
        let asked = std::iter::once(says("true")).chain(always).collect::<Vec<_>>().join(" || ");
        all.push(condition("asked-for", &asked));
    }
    all
}

/// Conditions under which the policy can inject.
pub(super) fn to_inject(settings: &InjectionSettings) -> Vec<Value> {
    let mut all = wanted(settings);
    all.push(condition("not-injected", &format!("!({INJECTED})")));
    let templates = quoted(annotation::INJECT_TEMPLATES);
    all.push(condition("no-templates", &format!("!({})", present("annotations", &templates))));
    let ours = [container::PROXY, container::INIT, container::VALIDATION];
    let ours = literal(&json!(ours), &[]);
    let none = |list: &str| {
        format!("!(has(object.spec.{list}) && object.spec.{list}.exists(c, c.name in {ours}))")
    };
    let overlay = format!("{} && {}", none("containers"), none("initContainers"));
    all.push(condition("no-overlay", &overlay));
    all
}

/// Conditions that no pod meets.
pub(super) fn never() -> Vec<Value> {
    vec![condition("default-templates-are-ours", "false")]
}

/// The pod's label, or without one its annotation, says `value`.
fn says(value: &str) -> String {
    let (key, value) = (quoted(label::INJECT), quoted(value));
    let label = present("labels", &key);
    let annotation = present("annotations", &key);
    format!(
        "{label} ? object.metadata.labels[{key}] == {value} : \
         ({annotation} && object.metadata.annotations[{key}] == {value})"
    )
}

fn present(map: &str, key: &str) -> String {
    format!("(has(object.metadata.{map}) && {key} in object.metadata.{map})")
}

fn condition(name: &str, expression: &str) -> Value {
    json!({"name": name, "expression": expression})
}

/// A label selector; one that is empty selects nothing here, as in the webhook, and so does one
/// that is not understood.
fn selects(selector: &Value) -> Option<String> {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let mut all: Vec<String> = labels
        .map(|(key, value)| Some(one_of(&quoted(key), &json!([value.as_str()?]))))
        .collect::<Option<_>>()?;
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = quoted(expression["key"].as_str()?);
        let values = &expression["values"];
        all.push(match expression["operator"].as_str()? {
            "In" => one_of(&key, values),
            "NotIn" => format!("!({})", one_of(&key, values)),
            "Exists" => present("labels", &key),
            "DoesNotExist" => format!("!{}", present("labels", &key)),
            _ => return None,
        });
    }
    (!all.is_empty()).then(|| format!("({})", all.join(" && ")))
}

fn one_of(key: &str, values: &Value) -> String {
    let present = present("labels", key);
    format!("({present} && dyn(object.metadata.labels[{key}]) in {})", literal(values, &[]))
}
