//! What Istio's ConfigMap `istio-sidecar-injector` says holds as soon as it is written, and what cannot be
//! used of it is named and changes nothing.

use std::time::{Duration, Instant};

use lateen_webhook::client::{Endpoint, Outcome, apply, build_review, call};
use serde_json::{Value, json};

use crate::daemon::{Daemon, Home, PATIENCE};

/// The ConfigMap as Istio's chart writes it, with this under `config`.
fn config_map(config: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio-sidecar-injector", "namespace": "istio-system"},
        "data": {
            "values": json!({"global": {"tag": "1", "proxy": {"autoInject": "enabled"}}}).to_string(),
            "config": config,
        },
    })
    .to_string()
}

fn config(policy: &str, label: &str) -> String {
    format!(
        "policy: {policy}\ndefaultTemplates: [sidecar, mine]\nalwaysInjectSelector:\n  []\n\
         injectedAnnotations:\ntemplates:\n  mine: |\n    metadata:\n      labels:\n        \
         told: {label}\n"
    )
}

/// What the webhook says of a pod, and the label that the template gives it.
async fn asked(home: &Home, daemon: &Daemon) -> (Outcome, Option<String>) {
    let endpoint = Endpoint {
        address: daemon.webhook,
        server_name: "istiod.istio-system.svc".to_owned(),
        path: "/inject".to_owned(),
    };
    let pod = json!({"metadata": {"name": "a", "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]}});
    let review = build_review(&pod, "shop", "1", false);
    let outcome = call(&endpoint, home.roots().as_bytes(), &review, PATIENCE).await.unwrap();
    let mut injected = pod;
    apply(&mut injected, &outcome).unwrap();
    let told = injected["metadata"]["labels"]["told"].as_str().map(str::to_owned);
    (outcome, told)
}

async fn until_told(home: &Home, daemon: &Daemon, wanted: &str) {
    let begun = Instant::now();
    loop {
        let (outcome, told) = asked(home, daemon).await;
        if told.as_deref() == Some(wanted) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{told:?} {outcome:?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn findings(home: &Home) -> Vec<Value> {
    home.published("status.json")["findings"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_injectors_config_map_is_followed_and_a_broken_one_changes_nothing() {
    let home = Home::new();
    home.put("injector.yaml", &config_map(&config("disabled", "one")));
    let mut daemon = home.start().await;
    let (outcome, _) = asked(&home, &daemon).await;
    assert_eq!(outcome.reason.as_deref(), Some("skipped.default-policy"), "{outcome:?}");
    assert_eq!(findings(&home), Vec::<Value>::new());

    home.put("injector.yaml", &config_map(&config("enabled", "'{{ .ObjectMeta.Name }}-two'")));
    until_told(&home, &daemon, "a-two").await;

    for (broken, needle) in [
        (config("enabled", "{{ frobnicate }}"), "injection template \"mine\": line 3, column 14"),
        (config("[]", "three"), "injection configuration: policy: expected a string"),
        (config("enabled: [", "three"), "key config: injector.yaml:1: not valid YAML"),
    ] {
        home.put("injector.yaml", &config_map(&broken));
        let line = daemon.logged(needle).await;
        assert!(line.contains("ERROR"), "{line}");
        daemon.page_with("/metrics", "lateen_config_errors 1\n").await;
        assert_eq!(asked(&home, &daemon).await.1.as_deref(), Some("a-two"), "{needle}");
    }
    let named = findings(&home).iter().any(|it| it.to_string().contains("key config"));
    assert!(named, "{:?}", findings(&home));

    home.put("injector.yaml", &config_map(&config("enabled", "four")));
    until_told(&home, &daemon, "four").await;
    daemon.page_with("/metrics", "lateen_config_errors 0\n").await;
}
