//! The JSON patch (RFC 6902) from the pod as it came to the pod as it leaves.
//!
//! Linear in the size of the pod: maps are compared by key, lists of named things by name, and
//! what has no name is replaced as a whole. Knows nothing of what the fields mean.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// One operation; values are those of the pod it leads to.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation<'a> {
    /// Adds a member, or inserts before the element at the index.
    Add {
        /// JSON pointer.
        path: String,
        /// What is added.
        value: &'a Value,
    },
    /// Removes a member or element that exists.
    Remove {
        /// JSON pointer.
        path: String,
    },
    /// Replaces a member or element that exists.
    Replace {
        /// JSON pointer.
        path: String,
        /// What is there afterwards.
        value: &'a Value,
    },
}

/// The operations that make `to` of `from`, to be applied in order.
#[must_use]
pub fn between<'a>(from: &Value, to: &'a Value) -> Vec<Operation<'a>> {
    let mut operations = Vec::new();
    compare(&mut String::new(), from, to, &mut operations);
    operations
}

fn compare<'a>(path: &mut String, from: &Value, to: &'a Value, out: &mut Vec<Operation<'a>>) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => compare_maps(path, from, to, out),
        (from, to) if from == to => {}
        (Value::Array(old), Value::Array(new)) => match (Keys::of(old), Keys::of(new)) {
            (Some(old), Some(new)) if old.field == new.field => {
                compare_lists(path, &old, &new, out);
            }
            _ => out.push(Operation::Replace { path: path.clone(), value: to }),
        },
        (_, to) => out.push(Operation::Replace { path: path.clone(), value: to }),
    }
}

fn compare_maps<'a>(
    path: &mut String,
    from: &Map<String, Value>,
    to: &'a Map<String, Value>,
    out: &mut Vec<Operation<'a>>,
) {
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        within(path, key, |path| out.push(Operation::Remove { path: path.clone() }));
    }
    for (key, value) in to {
        within(path, key, |path| match from.get(key) {
            None => out.push(Operation::Add { path: path.clone(), value }),
            Some(old) => compare(path, old, value, out),
        });
    }
}

/// A list whose elements have unique names.
struct Keys<'a> {
    field: &'static str,
    elements: &'a [Value],
    names: Vec<&'a str>,
    index: HashMap<&'a str, usize>,
}

impl<'a> Keys<'a> {
    fn of(elements: &'a [Value]) -> Option<Self> {
        // Mounts have both fields; only the path is unique.
        let field = ["mountPath", "name"]
            .into_iter()
            .find(|field| elements.iter().all(|element| element[field].is_string()))?;
        let names: Vec<&str> =
            elements.iter().filter_map(|element| element[field].as_str()).collect();
        let index: HashMap<&str, usize> =
            names.iter().enumerate().map(|(index, name)| (*name, index)).collect();
        (index.len() == elements.len()).then_some(Self { field, elements, names, index })
    }
}

/// Elements that keep their order among each other stay and are compared; the others are removed
/// and added.
fn compare_lists<'a>(
    path: &mut String,
    from: &Keys<'_>,
    to: &Keys<'a>,
    out: &mut Vec<Operation<'a>>,
) {
    let mut kept = vec![false; from.elements.len()];
    let mut stays = vec![None; to.elements.len()];
    let mut next = 0;
    for (position, name) in to.names.iter().enumerate() {
        if let Some(&old) = from.index.get(name).filter(|&&old| old >= next) {
            kept[old] = true;
            stays[position] = Some(old);
            next = old + 1;
        }
    }
    for old in (0..kept.len()).rev().filter(|&old| !kept[old]) {
        within(path, &old.to_string(), |path| out.push(Operation::Remove { path: path.clone() }));
    }
    for (position, element) in to.elements.iter().enumerate() {
        within(path, &position.to_string(), |path| match stays[position] {
            None => out.push(Operation::Add { path: path.clone(), value: element }),
            Some(old) => compare(path, &from.elements[old], element, out),
        });
    }
}

/// Runs `then` with the path of a member.
fn within(path: &mut String, token: &str, then: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    for character in token.chars() {
        match character {
            '~' => path.push_str("~0"),
            '/' => path.push_str("~1"),
            other => path.push(other),
        }
    }
    then(path);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::{Operation, between};
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use serde_json::{Map, Value, json};

    fn applied(from: &Value, operations: &[Operation<'_>]) -> Value {
        let patch: json_patch::Patch =
            serde_json::from_value(serde_json::to_value(operations).unwrap()).unwrap();
        let mut target = from.clone();
        json_patch::patch(&mut target, &patch).unwrap();
        target
    }

    /// Values with the shapes of pods: named lists, mounts, unnamed lists, odd keys.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..3_i64).prop_map(Value::from),
            "[a~/ é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            let named = |field: &'static str| {
                move |(name, mut value): (String, Value)| {
                    if let Value::Object(map) = &mut value {
                        map.insert(field.to_owned(), Value::from(name));
                        value
                    } else {
                        json!({field: name, "value": value})
                    }
                }
            };
            let entry = ("[a-d]", inner.clone());
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(entry.clone().prop_map(named("name")), 0..5)
                    .prop_map(Value::from),
                proptest::collection::vec(entry.prop_map(named("mountPath")), 0..5)
                    .prop_map(Value::from),
                proptest::collection::vec(("[a-c~/]{1,2}", inner), 0..5)
                    .prop_map(|entries| Value::Object(Map::from_iter(entries))),
            ]
        })
    }

    proptest! {
        #[test]
        fn applying_the_patch_gives_the_target(from in value(), to in value()) {
            let from = json!({"spec": from});
            let to = json!({"spec": to});
            assert_eq!(applied(&from, &between(&from, &to)), to);
        }

        #[test]
        fn nothing_changed_is_no_patch(value in value()) {
            assert_eq!(between(&value, &value), Vec::new());
        }
    }

    #[test]
    fn named_elements_are_not_rewritten() {
        let from = json!({"c": [{"name": "a", "env": [1, 2, 3]}, {"name": "b"}]});
        let to =
            json!({"c": [{"name": "p"}, {"name": "a", "env": [1, 2, 3]}, {"name": "b", "x": 1}]});
        assert_eq!(
            between(&from, &to),
            [
                Operation::Add { path: "/c/0".to_owned(), value: &json!({"name": "p"}) },
                Operation::Add { path: "/c/2/x".to_owned(), value: &json!(1) },
            ]
        );
    }

    #[test]
    fn paths_are_escaped() {
        let from = json!({"a": {}});
        let to = json!({"a": {"x/y~z": 1}});
        assert_eq!(
            serde_json::to_value(between(&from, &to)).unwrap(),
            json!([{"op": "add", "path": "/a/x~1y~0z", "value": 1}])
        );
    }
}
