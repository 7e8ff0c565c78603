//! Which values the charts take, and what they say about those that do nothing.

use serde_json::Value;

use crate::helm::{CHARTS, chart, file, helm, release, render, yaml};

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn helm_finds_nothing_to_say() {
    for name in CHARTS {
        let folder = chart(name).display().to_string();
        let said = helm(&["lint", "--strict", &folder], None).await.unwrap();
        assert!(said.contains("0 chart(s) failed"), "{said}");
    }
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn what_is_unknown_or_of_the_wrong_form_is_refused() {
    for (name, given, said) in [
        ("base", "bas.keepCRDs=false", "'bas'"),
        ("base", "base.validationFailurePolicy=Maybe", "validationFailurePolicy"),
        ("lateend", "autoscaleMinn=2", "'autoscaleMinn'"),
        ("lateend", "global.proxy.exludeIPRanges=10.0.0.0/8", "'exludeIPRanges'"),
        ("lateend", "replicaCount=two", "replicaCount"),
        ("lateend", "revision=Not_A_Label", "revision"),
        ("lateend", "sidecarInjectorWebhook.reinvocationPolicy=Always", "reinvocationPolicy"),
        ("cni", "repair.deletePod=true", "'deletePod'"),
        ("cni", "platform=kubernetes", "platform"),
        ("gateway", "kind=StatefulSet", "kind"),
        ("gateway", "service.port=80", "'port'"),
    ] {
        let refused = render(name, release(name), &["--set", given]).await.unwrap_err();
        assert!(refused.contains(said), "{name} {given}: {refused}");
    }
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn values_of_each_file_are_in_its_schema() {
    for name in CHARTS {
        let schema: Value = serde_json::from_str(&file(name, "values.schema.json")).unwrap();
        assert_eq!(schema["additionalProperties"], false, "{name}");
        known(name, &yaml(name, "values.yaml"), &schema, "");
        for key in yaml(name, "files/without-meaning.yaml").as_object().unwrap().keys() {
            let mut at = &schema;
            for part in key.split('.') {
                at = &at["properties"][part];
            }
            assert!(at.is_object(), "{name}: {key} is in no schema");
        }
    }
}

fn known(chart: &str, values: &Value, schema: &Value, path: &str) {
    let (Some(values), Some(known_here)) = (values.as_object(), schema["properties"].as_object())
    else {
        return;
    };
    for (key, value) in values {
        let path = format!("{path}.{key}");
        let found = known_here.get(key);
        let found = found.unwrap_or_else(|| panic!("{chart}: {path} is not in the schema"));
        known(chart, value, found, &path);
    }
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn notes_name_what_does_nothing() {
    for (name, given, key) in [
        ("base", "global.resourceScope=all", "global.resourceScope"),
        ("lateend", "traceSampling=5", "traceSampling"),
        ("lateend", "istiodRemote.enabled=true", "istiodRemote.enabled"),
        ("cni", "ambient.enabled=true", "ambient"),
        ("gateway", "runAsRoot=true", "runAsRoot"),
    ] {
        let folder = chart(name).display().to_string();
        let (release, namespace) = release(name);
        let words = ["install", release, &folder, "-n", namespace, "--dry-run=client"];
        let said = helm(&words, None).await.unwrap();
        assert!(!said.contains("do nothing"), "{name}: {said}");
        let words = [&words[..], &["--set", given]].concat();
        let said = helm(&words, None).await.unwrap();
        let line = format!("- {key}: ");
        assert!(said.contains("do nothing") && said.contains(&line), "{name} {given}: {said}");
    }
}

#[test]
fn charts_are_of_the_version_of_the_programs() {
    for name in CHARTS {
        let about = yaml(name, "Chart.yaml");
        for key in ["version", "appVersion"] {
            assert_eq!(about[key], env!("CARGO_PKG_VERSION"), "{name}: {key}");
        }
        let values = yaml(name, "values.yaml");
        if let Some(tag) = values["global"].get("tag") {
            assert_eq!(*tag, env!("CARGO_PKG_VERSION"), "{name}: global.tag");
        }
    }
}
