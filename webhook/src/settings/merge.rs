//! Overlays of untyped settings.
//!
//! Helm values merge as Helm does it, mesh configuration as Istio does it. Must not know what any
//! field means, except which lists have names.

use serde_json::{Map, Value};

/// Lays Helm values over others: maps deeply, everything else replaces, `null` removes.
pub(crate) fn overlay(base: &mut Value, over: &Value) {
    let Value::Object(over) = over else {
        *base = over.clone();
        return;
    };
    if !base.is_object() {
        *base = Value::Object(Map::new());
    }
    let Value::Object(base) = base else { return };
    for (key, value) in over {
        if value.is_null() {
            base.remove(key);
        } else if value.is_object() {
            overlay(base.entry(key.clone()).or_insert(Value::Null), value);
        } else {
            base.insert(key.clone(), value.clone());
        }
    }
}

/// Lays a MeshConfig over another: `defaultConfig` and `defaultProviders` field by field,
/// `proxyMetadata` by key, `extensionProviders` by name, everything else replaces.
pub(crate) fn overlay_mesh(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        if value.is_null() {
            continue;
        }
        match (key.as_str(), base.get_mut(key), value) {
            ("defaultConfig", Some(Value::Object(base)), Value::Object(over)) => {
                overlay_proxy_config(base, over);
            }
            ("defaultProviders", Some(Value::Object(base)), Value::Object(over)) => {
                base.extend(over.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
            ("extensionProviders", Some(Value::Array(base)), Value::Array(over)) => {
                overlay_named(base, over);
            }
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Lays a ProxyConfig over another: `proxyMetadata` by key, messages field by field, everything
/// else replaces. An empty message in `over` is present, as in protobuf.
pub(crate) fn overlay_proxy_config(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    for (key, value) in over {
        if value.is_null() {
            continue;
        }
        match (base.get_mut(key), value) {
            (Some(Value::Object(base)), Value::Object(over)) => overlay_proxy_config(base, over),
            _ => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}

fn overlay_named(base: &mut Vec<Value>, over: &[Value]) {
    for entry in over {
        match base.iter_mut().find(|known| known["name"] == entry["name"]) {
            Some(known) => *known = entry.clone(),
            None => base.push(entry.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{overlay, overlay_mesh};
    use serde_json::{Value, json};

    #[test]
    fn values_merge_deeply_and_null_removes() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        overlay(&mut base, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": []}));
        assert_eq!(base, json!({"a": {"c": 2, "d": {"f": 1}}, "l": []}));
    }

    #[test]
    fn mesh_config_merges_providers_by_name() {
        let Value::Object(mut base) = json!({
            "extensionProviders": [{"name": "a", "x": 1}, {"name": "b"}],
            "defaultConfig": {"proxyMetadata": {"A": "1"}, "drainDuration": "45s"},
            "accessLogFile": "",
        }) else {
            panic!("not a map")
        };
        let Value::Object(over) = json!({
            "extensionProviders": [{"name": "a", "y": 2}, {"name": "c"}],
            "defaultConfig": {"proxyMetadata": {"B": "2"}, "tracing": {}},
        }) else {
            panic!("not a map")
        };
        overlay_mesh(&mut base, &over);
        assert_eq!(
            Value::Object(base),
            json!({
                "extensionProviders": [{"name": "a", "y": 2}, {"name": "b"}, {"name": "c"}],
                "defaultConfig": {
                    "proxyMetadata": {"A": "1", "B": "2"}, "drainDuration": "45s", "tracing": {},
                },
                "accessLogFile": "",
            })
        );
    }
}
