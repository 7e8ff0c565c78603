//! The user's own containers over the injected ones.
//!
//! A container that the user defines under the name of an injected one wins field by field;
//! `image: auto` means ours. What the user wrote is kept in an annotation, so that injection can
//! be repeated. Must not know what is injected.

use lateen_api::names::container;
use serde_json::{Map, Value};

use crate::strategic_merge::merge;

const PROBES: [&str; 3] = ["readinessProbe", "livenessProbe", "startupProbe"];
const HOOKS: [&str; 2] = ["preStop", "postStart"];
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Takes out of a container of the user what means "as injected".
pub(crate) fn normalise(user: &mut Map<String, Value>, drops_user_ids: bool) {
    if user.get("image").is_some_and(|image| image == "auto" || image == "") {
        user.remove("image");
    }
    user.retain(|_, value| !value.is_null());
    if drops_user_ids && let Some(Value::Object(context)) = user.get_mut("securityContext") {
        context.remove("runAsUser");
        context.remove("runAsGroup");
    }
}

/// Lays the user's container over ours. Our list entries come first, so that the user's
/// environment can refer to ours.
pub(crate) fn over(ours: &Map<String, Value>, user: &Map<String, Value>) -> Value {
    let mut merged = user.clone();
    merge(&mut merged, ours.clone());
    merge(&mut merged, user.clone());
    for probe in PROBES {
        single_handler(merged.get_mut(probe), user.get(probe));
    }
    for hook in HOOKS {
        let users = user.get("lifecycle").and_then(|hooks| hooks.get(hook));
        single_handler(merged.get_mut("lifecycle").and_then(|hooks| hooks.get_mut(hook)), users);
    }
    Value::Object(merged)
}

/// Where the user chose another handler, ours must go: there may be only one.
fn single_handler(merged: Option<&mut Value>, user: Option<&Value>) {
    let (Some(Value::Object(merged)), Some(user)) = (merged, user) else { return };
    if let Some(chosen) = HANDLERS.into_iter().find(|handler| user[*handler].is_object()) {
        merged.retain(|key, _| key == chosen || !HANDLERS.contains(&key.as_str()));
    }
}

/// The annotation that keeps the user's containers.
pub(crate) fn annotation(
    containers: &[Map<String, Value>],
    init_containers: &[Map<String, Value>],
) -> String {
    let mut lists = Map::new();
    for (list, entries) in [("containers", containers), ("initContainers", init_containers)] {
        if !entries.is_empty() {
            let entries = entries.iter().cloned().map(Value::Object).collect();
            lists.insert(list.to_owned(), Value::Array(entries));
        }
    }
    Value::Object(lists).to_string()
}

/// Takes the user's own `istio-proxy` and init containers of ours out of the pod.
pub(crate) fn take(spec: &mut Map<String, Value>) -> Vec<Value> {
    let mut taken = Vec::new();
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(elements)) = spec.get_mut(list) else { continue };
        elements.retain_mut(|element| {
            let ours = element["name"].as_str().is_some_and(super::previous::is_ours);
            if ours && taken.iter().all(|known: &Value| known["name"] != element["name"]) {
                taken.push(element.take());
                return false;
            }
            true
        });
    }
    taken
}

/// The proxy among the containers that were taken.
pub(crate) fn proxy(taken: &[Value]) -> Option<&Value> {
    taken.iter().find(|user| user["name"] == container::PROXY)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::needless_pass_by_value, reason = "literals are passed as they stand")]

    use super::{normalise, over};
    use serde_json::{Value, json};

    fn merged(ours: Value, user: &Value) -> Value {
        let mut user = user.as_object().unwrap().clone();
        normalise(&mut user, false);
        over(ours.as_object().unwrap(), &user)
    }

    #[test]
    fn the_user_wins_and_auto_is_ours() {
        let ours = json!({"name": "p", "image": "ours", "args": ["a", "b"],
                          "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                          "resources": {"limits": {"cpu": "1"}}});
        let user = json!({"name": "p", "image": "auto", "args": ["x"],
                          "env": [{"name": "C", "value": "$(A)"}, {"name": "B", "value": "9"}],
                          "resources": {"limits": {"cpu": "2"}}});
        let got = merged(ours, &user);
        assert_eq!(got["image"], "ours");
        assert_eq!(got["args"], json!(["x"]));
        assert_eq!(got["resources"]["limits"]["cpu"], "2");
        let names: Vec<&str> =
            got["env"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["A", "C", "B"]);
        assert_eq!(got["env"][2]["value"], "9");
    }

    #[test]
    fn a_probe_has_one_handler() {
        let ours = json!({"name": "p", "readinessProbe": {"httpGet": {"port": 1}, "periodSeconds": 2},
                          "lifecycle": {"preStop": {"exec": {"command": ["a"]}}}});
        let user = json!({"name": "p", "readinessProbe": {"tcpSocket": {"port": 9}},
                          "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}});
        let got = merged(ours, &user);
        assert_eq!(got["readinessProbe"], json!({"tcpSocket": {"port": 9}, "periodSeconds": 2}));
        assert_eq!(got["lifecycle"]["preStop"], json!({"sleep": {"seconds": 1}}));
    }
}
