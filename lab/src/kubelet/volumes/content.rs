//! What is in a volume: paths, bytes and modes.
//!
//! Pure, but for the objects and tokens it asks for.

use std::collections::BTreeMap;

use lateen_api::core::{Container, Volume};
use serde_json::Value;

use crate::kubelet::ApiServer;
use crate::kubelet::facts::Facts;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

/// Files by their path in the volume.
pub(super) type Content = BTreeMap<String, File>;

/// Gives tokens by audience and seconds.
pub(super) type Tokens<'a> = dyn FnMut(Option<String>, u64) -> Result<String, String> + 'a;

const DEFAULT_MODE: u32 = 0o644;
const TOKEN_SECONDS: u64 = 3600;

/// Content of a volume; `None` for one that is empty at first and then the containers' own.
pub(super) fn of(
    volume: &Volume,
    facts: &Facts,
    api: &dyn ApiServer,
    token: &mut Tokens<'_>,
) -> Result<Option<Content>, String> {
    let get = |kind: &str| volume.source.get(kind).filter(|it| !it.is_null());
    let mut content = Content::new();
    for kind in ["configMap", "secret", "downwardAPI"] {
        if let Some(source) = get(kind) {
            let mode = mode(source, "defaultMode").unwrap_or(DEFAULT_MODE);
            add(&mut content, (kind, source), mode, (facts, api))?;
            return Ok(Some(content));
        }
    }
    let Some(projected) = get("projected") else { return Ok(None) };
    let mode = mode(projected, "defaultMode").unwrap_or(DEFAULT_MODE);
    let sources = projected["sources"].as_array().map(Vec::as_slice).unwrap_or_default();
    for source in sources.iter().filter_map(Value::as_object) {
        for (kind, source) in source.iter().filter(|(_, source)| !source.is_null()) {
            if kind == "serviceAccountToken" {
                let audience = source["audience"].as_str().filter(|it| !it.is_empty());
                let seconds = source["expirationSeconds"].as_u64().unwrap_or(TOKEN_SECONDS);
                let bytes = token(audience.map(str::to_owned), seconds)?.into_bytes();
                insert(&mut content, text(source, "path"), File { bytes, mode })?;
            } else {
                add(&mut content, (kind, source), mode, (facts, api))?;
            }
        }
    }
    Ok(Some(content))
}

fn add(
    content: &mut Content,
    (kind, source): (&str, &Value),
    default: u32,
    (facts, api): (&Facts, &dyn ApiServer),
) -> Result<(), String> {
    if kind == "downwardAPI" {
        return add_fields(content, source, default, facts);
    }
    let namespace = &facts.key.namespace;
    // A volume of a Secret calls it `secretName`, a projected one `name`.
    let name = source["secretName"].as_str().unwrap_or_else(|| text(source, "name"));
    let found: Option<BTreeMap<String, Vec<u8>>> = match kind {
        "configMap" => api
            .config_map(namespace, name)
            .map(|map| map.into_iter().map(|(key, value)| (key, value.into_bytes())).collect()),
        "secret" => api.secret(namespace, name),
        other => return Err(format!("{other} is not a source of a lab")),
    };
    let optional = source["optional"] == true;
    let Some(found) = found else {
        return if optional {
            Ok(())
        } else {
            let kind = if kind == "secret" { "Secret" } else { "ConfigMap" };
            Err(format!("there is no {kind} {namespace}/{name}"))
        };
    };
    let Some(items) = source["items"].as_array() else {
        for (key, bytes) in found {
            insert(content, &key, File { bytes, mode: default })?;
        }
        return Ok(());
    };
    for item in items {
        let mode = mode(item, "mode").unwrap_or(default);
        match found.get(text(item, "key")) {
            Some(bytes) => {
                insert(content, text(item, "path"), File { bytes: bytes.clone(), mode })?;
            }
            None if optional => {}
            None => return Err(format!("{name} has no key {:?}", text(item, "key"))),
        }
    }
    Ok(())
}

fn add_fields(
    content: &mut Content,
    source: &Value,
    default: u32,
    facts: &Facts,
) -> Result<(), String> {
    for item in source["items"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let value = match item["fieldRef"]["fieldPath"].as_str() {
            Some(path) => facts.field(path)?,
            None => facts.resource(&item["resourceFieldRef"], &Container::default())?,
        };
        let mode = mode(item, "mode").unwrap_or(default);
        insert(content, text(item, "path"), File { bytes: value.into_bytes(), mode })?;
    }
    Ok(())
}

fn insert(content: &mut Content, path: &str, file: File) -> Result<(), String> {
    let clean = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !path.split('/').all(clean) || path.starts_with("..") {
        return Err(format!("path {path:?} does not stay in the volume"));
    }
    content.insert(path.to_owned(), file);
    Ok(())
}

fn mode(source: &Value, key: &str) -> Option<u32> {
    source[key].as_u64().and_then(|mode| u32::try_from(mode & 0o777).ok())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Content, of};
    use crate::kubelet::facts::tests::facts;
    use crate::kubelet::fake::Fake;
    use serde_json::{Value, json};

    fn content(volume: Value) -> Result<Option<Content>, String> {
        let fake = Fake::default();
        let map = [("k".into(), "v".into()), ("l".into(), "w".into())];
        fake.config_maps.lock().insert("c".into(), map.into());
        fake.secrets.lock().insert("s".into(), [("p".into(), vec![0, 255])].into());
        let facts = facts(&json!({"containers": [{"name": "a"}]}));
        let mut token = |audience: Option<String>, seconds| Ok(format!("{audience:?} {seconds}"));
        of(&serde_json::from_value(volume).unwrap(), &facts, &fake, &mut token)
    }

    fn listed(volume: Value) -> Vec<String> {
        let content = content(volume).unwrap().unwrap();
        let line = |(path, file): (&String, &super::File)| {
            format!("{path} {:o} {}", file.mode, String::from_utf8_lossy(&file.bytes))
        };
        content.iter().map(line).collect()
    }

    #[test]
    fn sources_become_files() {
        assert_eq!(content(json!({"emptyDir": {}})), Ok(None));
        assert_eq!(content(json!({})), Ok(None));
        assert_eq!(listed(json!({"configMap": {"name": "c"}})), ["k 644 v", "l 644 w"]);
        let some = json!({"configMap": {"name": "c", "defaultMode": 0o400, "items":
            [{"key": "k", "path": "a/b", "mode": 0o600}, {"key": "l", "path": "l"}]}});
        assert_eq!(listed(some), ["a/b 600 v", "l 400 w"]);
        let secret = content(json!({"secret": {"secretName": "s"}})).unwrap().unwrap();
        assert_eq!(secret["p"].bytes, [0, 255]);
        let field = json!({"downwardAPI": {"items":
            [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}},
             {"path": "c", "resourceFieldRef": {"containerName": "a", "resource": "requests.cpu"}}]}});
        assert_eq!(listed(field), ["c 644 0", "n 644 cart-1"]);
    }

    #[test]
    fn projected_sources_lie_beside_each_other() {
        let volume = json!({"projected": {"defaultMode": 0o440, "sources": [
            {"serviceAccountToken": {"audience": "istio-ca", "expirationSeconds": 43200,
                "path": "istio-token"}},
            {"serviceAccountToken": {"path": "token"}},
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "ca.crt"}]}},
            {"configMap": {"name": "none", "optional": true}},
            {"downwardAPI": {"items":
                [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}});
        let wanted = [
            "ca.crt 440 v",
            "istio-token 440 Some(\"istio-ca\") 43200",
            "namespace 440 shop",
            "token 440 None 3600",
        ];
        assert_eq!(listed(volume), wanted);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |volume: Value| content(volume).unwrap_err();
        assert_eq!(error(json!({"configMap": {"name": "x"}})), "there is no ConfigMap shop/x");
        assert_eq!(error(json!({"secret": {"secretName": "x"}})), "there is no Secret shop/x");
        let key = json!({"configMap": {"name": "c", "items": [{"key": "x", "path": "x"}]}});
        assert_eq!(error(key), "c has no key \"x\"");
        for path in ["../x", "/x", "", "a/../b", "..data"] {
            let out = json!({"configMap": {"name": "c", "items": [{"key": "k", "path": path}]}});
            assert!(error(out).contains("does not stay"), "{path}");
        }
        assert_eq!(
            content(json!({"configMap": {"name": "x", "optional": true}})),
            Ok(Some(Content::new()))
        );
    }
}
