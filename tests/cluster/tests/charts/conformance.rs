//! The charts as Istio's users know theirs: the cases and keys of `LATEEN_CONFORMANCE`.

use serde_json::{Map, Value, json};

use crate::helm::{conformance, render};

fn read(path: &str) -> Value {
    let path = conformance(path);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Our chart of Istio's name; the node proxy of ambient mode has none.
fn ours(name: &str) -> Option<&'static str> {
    match name {
        "base" => Some("base"),
        "istiod" => Some("lateend"),
        "cni" => Some("cni"),
        "gateway" => Some("gateway"),
        _ => None,
    }
}

/// A tree without what is the same as nothing, and without labels that name versions. A webhook's
/// rule that says no scope says this one.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(parts) => {
            let kept = parts.iter().filter(|(key, _)| match key.as_str() {
                "helm.sh/chart" | "app.kubernetes.io/version" => false,
                "scope" => !parts.contains_key("operations"),
                _ => true,
            });
            let kept = kept.map(|(key, value)| (key.clone(), plain(value)));
            let nothing = |it: &Value| it.is_null() || *it == json!({}) || *it == json!([]);
            Value::Object(kept.filter(|(_, value)| !nothing(value)).collect())
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
#[ignore = "reads files of others, builds Helm: make e2e"]
async fn cases_render_as_istios_do() {
    let cases = read("helm/cases.json");
    let mut compared = 0;
    for case in cases["cases"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap().to_owned();
        let Some(chart) = ours(&text("chart")) else { continue };
        let values = conformance("helm").join(text("values")).display().to_string();
        let mut words = vec!["--values", &values];
        if case["upgrade"] == true {
            words.push("--is-upgrade");
        }
        let (release, namespace) = (text("release"), text("namespace"));
        let rendered = render(chart, (&release, &namespace), &words).await.unwrap();
        let wanted = std::fs::read_to_string(conformance("helm").join(text("expected"))).unwrap();
        let wanted: Vec<Option<Value>> = serde_saphyr::from_multiple(&wanted).unwrap();
        let wanted: Vec<Value> = wanted.iter().flatten().map(plain).collect();
        let select = case["select"].as_array().unwrap();
        let is_selected = |it: &Value| {
            let fits =
                |of: &Value| of["kind"] == it["kind"] && of["name"] == it["metadata"]["name"];
            select.iter().any(fits)
        };
        let selected = rendered.iter().filter(|it| is_selected(it)).map(plain);
        assert_eq!(selected.collect::<Vec<_>>(), wanted, "{}", case["id"]);
        compared += 1;
    }
    assert_eq!(compared, 21, "all cases but that of ztunnel");
}

#[tokio::test]
#[ignore = "reads files of others, builds Helm: make e2e"]
async fn every_key_of_istios_charts_is_taken() {
    let keys = read("helm/values-keys.json");
    for (name, keys) in keys["charts"].as_object().unwrap() {
        let Some(chart) = ours(name) else { continue };
        let mut values = json!({});
        for key in keys.as_array().unwrap() {
            if let Some(default) = key.get("default") {
                put(&mut values, key["key"].as_str().unwrap(), default);
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values.json");
        std::fs::write(&file, values.to_string()).unwrap();
        let words = ["--values", file.to_str().unwrap()];
        let rendered = render(chart, ("istio-x", "istio-system"), &words).await;
        let rendered = rendered.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!rendered.is_empty());
    }
}

/// Sets a key such as `a.b\.c.d`.
fn put(values: &mut Value, key: &str, value: &Value) {
    let parts = key.replace("\\.", "\0");
    let mut at = values;
    for part in parts.split('.') {
        let part = part.replace('\0', ".");
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[part.as_str()];
    }
    *at = value.clone();
}
