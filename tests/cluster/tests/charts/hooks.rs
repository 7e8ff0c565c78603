//! The charts and the webhook crate mean the same: hooks, and settings of injection.

use lateen_webhook::InjectionSettings;
use lateen_webhook::hooks::webhook_configuration;
use lateen_webhook::settings::Options;
use serde_json::{Value, json};

use crate::helm::{object, render};

/// A setting of the chart as Helm's words, revision, namespace.
const CASES: [(&[&str], &str, &str); 6] = [
    (&[], "default", "istio-system"),
    (&["--set", "revision=canary"], "canary", "istio-system"),
    (&[], "default", "mesh"),
    (
        &["--set", "sidecarInjectorWebhook.enableNamespacesByDefault=true"],
        "default",
        "istio-system",
    ),
    (&["--set", "sidecarInjectorWebhook.fallback=true"], "default", "istio-system"),
    (
        &[
            "--set",
            "sidecarInjectorWebhook.fallback=true",
            "--set",
            "sidecarInjectorWebhook.templates.mine=metadata:",
            "--set",
            "sidecarInjectorWebhook.defaultTemplates={sidecar,mine}",
        ],
        "default",
        "istio-system",
    ),
];

fn data(objects: &[Value], name: &str, key: &str) -> Value {
    let text = object(objects, "ConfigMap", name)["data"][key].as_str().unwrap().to_owned();
    serde_saphyr::from_str(&text).unwrap()
}

fn settings(objects: &[Value], revision: &str) -> InjectionSettings {
    let suffix = if revision == "default" { String::new() } else { format!("-{revision}") };
    let values = data(objects, &format!("istio-sidecar-injector{suffix}"), "values");
    let mesh = data(objects, &format!("istio{suffix}"), "mesh");
    let options = Options { revision: revision.to_owned(), ..Options::default() };
    InjectionSettings::from_sources(Some(&values), Some(&mesh), options).unwrap()
}

/// Labels for Helm and the bundle aside, which the chart leaves to lateend.
fn plain(mut configuration: Value) -> Value {
    configuration["metadata"] = json!({
        "name": configuration["metadata"]["name"],
        "app": configuration["metadata"]["labels"]["app"],
        "rev": configuration["metadata"]["labels"]["istio.io/rev"],
    });
    for hook in configuration["webhooks"].as_array_mut().unwrap() {
        hook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
        // What is not said is this.
        hook["rules"][0]["scope"] = json!("*");
    }
    configuration
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn hooks_are_those_of_the_webhook() {
    for (words, revision, namespace) in CASES {
        let objects = render("lateend", ("istiod", namespace), words).await.unwrap();
        let theirs = webhook_configuration(&settings(&objects, revision), b"");
        let name = theirs["metadata"]["name"].as_str().unwrap();
        let ours = object(&objects, "MutatingWebhookConfiguration", name).clone();
        assert!(ours["webhooks"][0]["clientConfig"].get("caBundle").is_none());
        assert_eq!(plain(ours), plain(theirs), "{words:?}");
    }
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn a_tag_is_asked_for_as_a_revision_of_its_name() {
    let words = ["--set", "revision=canary", "--set", "revisionTags={prod,default}"];
    let objects = render("lateend", ("istiod", "istio-system"), &words).await.unwrap();
    let hooks = |name: &str| {
        let configuration = object(&objects, "MutatingWebhookConfiguration", name);
        let hooks = configuration["webhooks"].as_array().unwrap().clone();
        assert!(hooks.iter().all(|it| it["clientConfig"]["service"]["name"] == "istiod-canary"));
        hooks
    };
    let prod = hooks("istio-revision-tag-prod");
    assert_eq!(prod.len(), 2);
    let selector = &prod[0]["namespaceSelector"]["matchExpressions"][0];
    assert_eq!(*selector, json!({"key": "istio.io/rev", "operator": "In", "values": ["prod"]}));
    assert_eq!(hooks("istio-revision-tag-default").len(), 4, "also istio-injection=enabled");
}

#[tokio::test]
#[ignore = "builds Helm: make e2e"]
async fn injection_is_set_as_the_values_say() {
    let words = ["--set", "global.hub=example.org/mesh", "--set", "global.proxy.logLevel=debug"];
    let objects = render("lateend", ("istiod", "istio-system"), &words).await.unwrap();
    let settings = settings(&objects, "default");
    assert_eq!(settings.values.global.hub, "example.org/mesh");
    assert_eq!(settings.values.global.tag, env!("CARGO_PKG_VERSION"));
    assert_eq!(settings.values.global.proxy.log_level, "debug");
    assert!(settings.values.pilot.cni.enabled, "pods need no privileged init container");
    assert_eq!(settings.mesh.warnings, Vec::<String>::new());
    assert_eq!(settings.trust_domain(), "cluster.local");
}
