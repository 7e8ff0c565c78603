//! The resource definitions of charts/base: as the tables say, and as Istio's (data named by
//! `LATEEN_CONFORMANCE`).
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn conformance(file: &str) -> String {
    let folder = std::env::var_os("LATEEN_CONFORMANCE")
        .expect("LATEEN_CONFORMANCE names the folder of the conformance data");
    let path = Path::new(&folder).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn by_name(definitions: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let name = |it: &Value| it["metadata"]["name"].as_str().unwrap().to_owned();
    definitions.into_iter().map(|it| (name(&it), it)).collect()
}

/// What a schema means, without words for people and without order where it says nothing.
fn meaning(schema: &Value) -> Value {
    let Value::Object(parts) = schema else { return schema.clone() };
    let mut kept = Map::new();
    for (key, value) in parts {
        let value = match (key.as_str(), value) {
            ("description", _) => continue,
            ("properties", Value::Object(fields)) => {
                fields.iter().map(|(name, field)| (name.clone(), meaning(field))).collect()
            }
            ("required" | "enum", Value::Array(words)) => {
                json!(words.iter().map(|word| word.as_str().unwrap()).collect::<BTreeSet<_>>())
            }
            ("x-kubernetes-validations", Value::Array(rules)) => {
                json!(rules.iter().map(condition).collect::<BTreeSet<_>>())
            }
            (_, Value::Array(items)) => items.iter().map(meaning).collect(),
            (_, value) => meaning(value),
        };
        kept.insert(key.clone(), value);
    }
    Value::Object(kept)
}

fn condition(rule: &Value) -> String {
    rule["rule"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn columns(version: &Value) -> Vec<(String, String, String)> {
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    let all = version["additionalPrinterColumns"].as_array().into_iter().flatten();
    all.map(|it| (text(&it["name"]), text(&it["type"]), text(&it["jsonPath"]))).collect()
}

#[test]
fn the_chart_is_what_the_tables_say() {
    xtask::crds::check(&root()).unwrap();
}

#[test]
#[ignore = "reads files of others: make test"]
fn definitions_mean_what_those_of_istio_mean() {
    let ours = by_name(xtask::crds::definitions(&root()).unwrap().into_values());
    let text = conformance("crds/crd-all.gen.yaml");
    let theirs: Vec<Option<Value>> = serde_saphyr::from_multiple(&text).unwrap();
    let theirs = by_name(theirs.into_iter().flatten());
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, theirs) in &theirs {
        let (ours, theirs) = (&ours[name]["spec"], &theirs["spec"]);
        for part in ["group", "scope", "names"] {
            assert_eq!(ours[part], theirs[part], "{name}: {part}");
        }
        let versions = theirs["versions"].as_array().unwrap();
        assert_eq!(ours["versions"].as_array().unwrap().len(), versions.len(), "{name}");
        for (ours, theirs) in ours["versions"].as_array().unwrap().iter().zip(versions) {
            let version = &theirs["name"];
            for part in ["name", "served", "storage", "subresources"] {
                assert_eq!(ours[part], theirs[part], "{name} {version}: {part}");
            }
            assert_eq!(columns(ours), columns(theirs), "{name} {version}: columns");
            assert_eq!(meaning(&ours["schema"]), meaning(&theirs["schema"]), "{name} {version}");
        }
    }
}

#[test]
#[ignore = "reads files of others: make test"]
fn kinds_have_the_listed_facts() {
    let ours = by_name(xtask::crds::definitions(&root()).unwrap().into_values());
    let facts: Value = serde_json::from_str(&conformance("crds/kinds.json")).unwrap();
    for kind in facts["kinds"].as_array().unwrap() {
        let spec = &ours[kind["crdName"].as_str().unwrap()]["spec"];
        let names = &spec["names"];
        for (ours, theirs) in [
            (&spec["group"], &kind["group"]),
            (&spec["scope"], &kind["scope"]),
            (&names["kind"], &kind["kind"]),
            (&names["listKind"], &kind["listKind"]),
            (&names["plural"], &kind["plural"]),
            (&names["singular"], &kind["singular"]),
            (&names["categories"], &kind["categories"]),
        ] {
            assert_eq!(ours, theirs, "{}", kind["kind"]);
        }
        let short = names.get("shortNames").cloned().unwrap_or_else(|| json!([]));
        assert_eq!(short, kind["shortNames"], "{}", kind["kind"]);
        assert!(spec.get("conversion").is_none(), "no conversion is the default");
        for (ours, theirs) in
            spec["versions"].as_array().unwrap().iter().zip(kind["versions"].as_array().unwrap())
        {
            assert_eq!(ours["name"], theirs["name"]);
            assert_eq!(ours["storage"], theirs["storage"]);
            let schema = &ours["schema"]["openAPIV3Schema"];
            assert_eq!(schema.get("required").is_some(), theirs["specRequired"] == true);
            let rules = schema.to_string().matches("\"rule\":").count();
            assert_eq!(json!(rules), theirs["celRules"], "{}", kind["kind"]);
        }
    }
}
