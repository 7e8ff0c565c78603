//! Kubernetes' strategic merge of a piece of a pod onto a pod.
//!
//! Maps merge deeply, `null` deletes, lists with a merge key merge by it (new elements come
//! first), other lists are replaced; `$patch: replace` and `$patch: delete` are honoured. The
//! merge keys are those of the pod types of `core/v1`. Must not know what injection is about.

use serde_json::{Map, Value};

/// Field by which the elements of a list of a pod are the same, if its elements have one.
fn merge_key(list: &str) -> Option<&'static str> {
    match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "ports" => Some("containerPort"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

/// Lays `patch` over `base`.
pub fn merge(base: &mut Map<String, Value>, patch: Map<String, Value>) {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            base.clear();
        }
        Some("delete") => {
            base.clear();
            return;
        }
        _ => {}
    }
    for (key, value) in patch {
        if key.starts_with('$') {
            continue;
        }
        match value {
            Value::Null => {
                base.remove(&key);
            }
            Value::Object(patch) => match base.get_mut(&key) {
                Some(Value::Object(base)) => merge(base, patch),
                _ => {
                    base.insert(key, Value::Object(fresh(patch)));
                }
            },
            Value::Array(patch) => merge_list(base, key, patch),
            value => {
                base.insert(key, value);
            }
        }
    }
}

/// What a patch makes where there was nothing.
fn fresh(patch: Map<String, Value>) -> Map<String, Value> {
    let mut fresh = Map::with_capacity(patch.len());
    merge(&mut fresh, patch);
    fresh
}

fn merge_list(base: &mut Map<String, Value>, key: String, patch: Vec<Value>) {
    let Some(name) = merge_key(&key) else {
        base.insert(key, Value::Array(patch));
        return;
    };
    let is_replace = |element: &Value| {
        element["$patch"] == "replace" && element.as_object().is_some_and(|map| map.len() == 1)
    };
    let replaces = patch.iter().any(is_replace);
    let old = match base.remove(&key) {
        Some(Value::Array(old)) if !replaces => old,
        _ => Vec::new(),
    };
    let mut old: Vec<Option<Value>> = old.into_iter().map(Some).collect();
    let mut merged = Vec::with_capacity(old.len() + patch.len());
    for element in patch {
        if is_replace(&element) {
            continue;
        }
        let Value::Object(fields) = element else { continue };
        let (own, deletes) = (fields.get(name).filter(|own| !own.is_null()), is_delete(&fields));
        let same = old
            .iter_mut()
            .find(|old| old.as_ref().is_some_and(|old| own.is_some_and(|own| old[name] == *own)));
        match same {
            Some(slot) if deletes => *slot = None,
            Some(Some(Value::Object(old))) => merge_element(&key, old, fields),
            _ if deletes => {}
            _ => merged.push(Value::Object(fresh(fields))),
        }
    }
    merged.extend(old.into_iter().flatten());
    base.insert(key, Value::Array(merged));
}

fn is_delete(fields: &Map<String, Value>) -> bool {
    fields.get("$patch").is_some_and(|patch| patch == "delete")
}

/// Elements with exactly one source (environment, volumes) take the patch's whole.
fn merge_element(list: &str, base: &mut Map<String, Value>, patch: Map<String, Value>) {
    let single_source = matches!(list, "env" | "volumes");
    if single_source && patch.keys().any(|key| key != "name" && !base.contains_key(key)) {
        base.clear();
    }
    if list == "env" {
        base.retain(|key, _| patch.contains_key(key));
    }
    merge(base, patch);
}

#[cfg(test)]
mod tests {
    use super::merge;
    use serde_json::{Value, json};

    fn merged(base: Value, patch: Value) -> Value {
        let (Value::Object(mut base), Value::Object(patch)) = (base, patch) else {
            panic!("not maps")
        };
        merge(&mut base, patch);
        Value::Object(base)
    }

    #[test]
    fn named_lists_merge_and_new_elements_come_first() {
        let base = json!({"containers": [{"name": "a", "args": ["x"], "image": "i"}]});
        let patch = json!({"containers": [{"name": "a", "args": ["y"]}, {"name": "p"}]});
        assert_eq!(
            merged(base, patch),
            json!({"containers": [{"name": "p"}, {"name": "a", "args": ["y"], "image": "i"}]})
        );
    }

    #[test]
    fn null_and_directives_delete() {
        let base = json!({"a": 1, "b": {"c": 1, "d": 2}, "env": [{"name": "X"}, {"name": "Y"}],
                          "volumes": [{"name": "v"}]});
        let patch = json!({"a": null, "b": {"$patch": "replace", "e": 1},
                           "env": [{"name": "X", "$patch": "delete"}],
                           "volumes": [{"$patch": "replace"}, {"name": "w"}]});
        assert_eq!(
            merged(base, patch),
            json!({"b": {"e": 1}, "env": [{"name": "Y"}], "volumes": [{"name": "w"}]})
        );
    }

    #[test]
    fn a_volume_has_one_source_and_a_variable_too() {
        let base = json!({"volumes": [{"name": "s", "emptyDir": {}}],
                          "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "p"}}}]});
        let patch = json!({"volumes": [{"name": "s", "csi": {"driver": "d"}}],
                           "env": [{"name": "X", "value": "1"}]});
        assert_eq!(
            merged(base, patch),
            json!({"volumes": [{"name": "s", "csi": {"driver": "d"}}],
                   "env": [{"name": "X", "value": "1"}]})
        );
    }
}
