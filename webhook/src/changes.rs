//! What injection changes in a pod, told for people: what is added and what is changed, by name.
//!
//! Over the pod before and after; must not know how it was injected.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::kube::NAMED_LISTS;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// `added`, `changed` or `removed`.
    pub what: &'static str,
    /// Where, such as `initContainers` or `labels`.
    pub place: String,
    /// Name or key.
    pub name: String,
    /// Image of what is added, value of a label or annotation, fields of what is changed.
    pub detail: String,
}

/// The changes from a pod to what it becomes.
#[must_use]
pub fn between(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    for list in NAMED_LISTS {
        named(list, &before["spec"][list], &after["spec"][list], &mut changes);
    }
    for map in ["labels", "annotations"] {
        let (before, after) = (&before["metadata"][map], &after["metadata"][map]);
        fields(map, before, after, &mut changes);
    }
    let rest = |pod: &Value| {
        let fields = pod["spec"].as_object().into_iter().flatten();
        let rest = fields.filter(|(key, _)| !NAMED_LISTS.contains(&key.as_str()));
        Value::Object(rest.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
    };
    fields("spec", &rest(before), &rest(after), &mut changes);
    changes
}

fn named(list: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    let elements = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (before, after) = (elements(before), elements(after));
    let find = |all: &[Value], name: &Value| all.iter().find(|it| it["name"] == *name).cloned();
    for element in &after {
        let (what, detail) = match find(&before, &element["name"]) {
            None => ("added", element["image"].as_str().unwrap_or_default().to_owned()),
            Some(known) if known != *element => ("changed", differing(&known, element)),
            Some(_) => continue,
        };
        changes.push(change(what, list, element["name"].as_str().unwrap_or_default(), detail));
    }
    for element in before.iter().filter(|it| find(&after, &it["name"]).is_none()) {
        let name = element["name"].as_str().unwrap_or_default();
        changes.push(change("removed", list, name, String::new()));
    }
}

/// Fields in which two elements differ.
fn differing(before: &Value, after: &Value) -> String {
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
    };
    let mut all = keys(before);
    all.extend(keys(after).into_iter().filter(|key| before.get(key).is_none()));
    all.retain(|key| before.get(key) != after.get(key));
    all.join(", ")
}

fn fields(place: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for (key, value) in after.as_object().into_iter().flatten() {
        let what = match before.get(key) {
            None => "added",
            Some(known) if known != value => "changed",
            Some(_) => continue,
        };
        changes.push(change(what, place, key, text(value)));
    }
    for (key, _) in before.as_object().into_iter().flatten() {
        if after.get(key).is_none() {
            changes.push(change("removed", place, key, String::new()));
        }
    }
}

fn change(what: &'static str, place: &str, name: &str, detail: String) -> Change {
    Change { what, place: place.to_owned(), name: name.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::between;
    use serde_json::json;

    #[test]
    fn additions_changes_and_removals_are_told_by_name() {
        let before = json!({
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "i", "livenessProbe": 1}],
                "volumes": [{"name": "gone"}]},
        });
        let after = json!({
            "metadata": {"labels": {"app": "b"}, "annotations": {"n": "1"}},
            "spec": {"containers": [{"name": "a", "image": "i", "livenessProbe": 2}],
                "initContainers": [{"name": "p", "image": "proxy"}], "securityContext": {"x": 1}},
        });
        let told: Vec<String> = between(&before, &after)
            .into_iter()
            .map(|it| format!("{} {} {} {}", it.what, it.place, it.name, it.detail))
            .collect();
        assert_eq!(
            told,
            [
                "added initContainers p proxy",
                "changed containers a livenessProbe",
                "removed volumes gone ",
                "changed labels app b",
                "added annotations n 1",
                "added spec securityContext {\"x\":1}",
            ]
        );
        assert!(between(&after, &after).is_empty());
    }
}
