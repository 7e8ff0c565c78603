//! What is said of injection, and what is done about it, on a real API server: conditions, events,
//! self-test, audit, and the commands that explain and restart.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../writers/daemon.rs"]
#[expect(dead_code, reason = "a part of it is for the writers")]
mod daemon;
mod shop;

use std::time::Instant;

use serde_json::{Value, json};
use shop::Shop;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn the_webhook_is_asked_about_no_pod_that_it_would_skip() {
    let shop = Shop::open("1h").await;
    let calls = async || shop.metric("sidecar_injection_requests_total").await.unwrap_or(0);
    // The self-test of this replica comes first, and then not again for an hour.
    shop.until_metric("lateen_injection_self_test{result=\"reached\"}", 1).await;
    let before = calls().await;
    let host = json!({"spec": {"hostNetwork": true}});
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "h"}},
        "spec": {"nodeName": "n", "automountServiceAccountToken": false}});
    let refused = json!({"metadata": {"annotations": {"sidecar.istio.io/inject": "false"}}});
    for change in [&host, &mirror, &refused] {
        let (pod, said) = shop.dry_run(change).await;
        assert!(!said.contains("no sidecar") && !Shop::has_sidecar(&pod), "{change}: {said}");
    }
    assert_eq!(calls().await, before, "none of them was asked about");
    let mut asking = host.clone();
    asking["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "true"});
    let (pod, said) = shop.dry_run(&asking).await;
    assert!(!Shop::has_sidecar(&pod));
    assert!(
        said.contains("Warning: no sidecar") && said.contains("skipped.host-network"),
        "{said}"
    );
    let silent = json!({"spec": {"automountServiceAccountToken": false}});
    let (pod, said) = shop.dry_run(&silent).await;
    assert!(Shop::has_sidecar(&pod) && said.is_empty(), "{said}");
    assert_eq!(calls().await, before + 2);
    // The API server mounts its token into the container that we added, and asks again.
    let (pod, _) = shop.dry_run(&json!({})).await;
    assert!(Shop::has_sidecar(&pod));
    assert_eq!(calls().await, before + 4);
    let decided = "lateen_injection_decisions_total{reason=\"skipped.host-network\"}";
    assert_eq!(shop.metric(decided).await, Some(1));
    shop.command(&["check-inject", "-n", "shop", "-o", "json"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn owners_are_told_of_denied_pods_and_the_api_server_is_tried() {
    let shop = Shop::open("1s").await;
    shop.until_metric("lateen_injection_self_test{result=\"reached\"}", 1).await;
    let wrong = json!({"sidecar.istio.io/proxyCPU": "much"});
    // Of a dry run nobody is told.
    let denied = json!({"metadata": {"name": "dry", "annotations": wrong}});
    let said = shop.try_dry_run(&denied).await.unwrap_err();
    assert!(said.contains("sidecar.istio.io/proxyCPU"), "{said}");
    shop.deploy("broken", 1, &wrong).await;
    let event = shop.event("SidecarDenied").await;
    assert_eq!(event["involvedObject"]["kind"], "ReplicaSet");
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("proxyCPU") && message.contains("denied.annotation"), "{message}");
    let all = shop.events("SidecarDenied").await;
    assert!(all.iter().all(|it| it["involvedObject"]["kind"] == "ReplicaSet"), "{all:#?}");

    let port = shop.call_port(1).await;
    shop.until_metric("lateen_injection_self_test{result=\"refused\"}", 1).await;
    let (_, ready) = shop.replica.ready().await;
    assert!(ready.starts_with("ready") && ready.contains("connection refused"), "{ready}");
    let told = shop.event_in("istio-system", "InjectionUnreached").await;
    assert!(told["message"].as_str().unwrap().contains("kubectl get pods -l app=istiod"), "{told}");
    shop.call_port(port).await;
    shop.until_metric("lateen_injection_self_test{result=\"reached\"}", 1).await;
    shop.event_in("istio-system", "InjectionReached").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn pods_with_a_stale_sidecar_are_found_and_their_workloads_restarted() {
    let shop = Shop::open("0s").await;
    shop.bench.kubectl("label namespace shop istio-injection-").await;
    shop.deploy("early", 2, &json!({})).await;
    shop.until_pods("early", 2).await;
    let _kubelet = shop.kubelet();
    shop.bench.kubectl("label namespace shop istio-injection=enabled").await;
    shop.until_metric("lateen_injection_pods{state=\"missing\"}", 2).await;
    let event = shop.event("SidecarMissing").await;
    assert!(event["message"].as_str().unwrap().contains("lateen restart --stale -n shop"));
    let early = shop.explained("deployment/early").await;
    assert_eq!(early[0]["reason"], "injected.namespace-label");

    // A budget that the rollout would break, whenever it began.
    shop.budget(2).await;
    let refused = shop.command(&["restart", "--stale", "-n", "shop"]).await.unwrap_err();
    assert!(
        refused.contains("not restarted") && refused.contains("PodDisruptionBudget"),
        "{refused}"
    );
    shop.bench.kubectl("delete poddisruptionbudget early -n shop").await;
    let dry = shop.command(&["restart", "--stale", "-n", "shop", "--dry-run"]).await.unwrap();
    assert!(dry.contains("would be restarted"), "{dry}");
    let said = shop.command(&["restart", "--stale", "-n", "shop"]).await.unwrap();
    assert!(said.contains("1/1 deployment/early in shop: 2 pods, missing"), "{said}");
    assert!(said.contains("restarted in"), "{said}");
    let states = |rows: &Value| -> Vec<String> {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    };
    let rows = shop.listed().await;
    assert_eq!(states(&rows), ["current", "current"], "{rows:#}");
    assert_eq!(rows[0]["sidecar"], true);

    // Nothing of the result changes, then something does.
    shop.values(&json!({"global": {"tag": "1", "configValidation": false}})).await;
    shop.until_metric("lateen_injection_pods{state=\"current\"}", 2).await;
    assert_eq!(states(&shop.listed().await), ["current", "current"]);
    shop.values(&json!({"global": {"tag": "2"}})).await;
    shop.until_metric("lateen_injection_pods{state=\"stale\"}", 2).await;
    assert_eq!(states(&shop.listed().await), ["stale", "stale"]);
    let said = shop.command(&["restart", "--stale"]).await.unwrap();
    assert!(said.contains("2 pods, stale") && said.contains("restarted in"), "{said}");
    let rows = shop.listed().await;
    assert_eq!(
        (states(&rows).join(" "), rows[0]["version"].as_str()),
        ("current current".to_owned(), Some("2"))
    );
    let nothing = shop.command(&["restart", "--stale"]).await.unwrap();
    assert!(nothing.contains("no workload is to be restarted"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_template_that_cannot_be_read_changes_nothing() {
    let shop = Shop::open("1h").await;
    let template = |label: &str| {
        let text = format!("metadata:\n  labels:\n    told: {label}\n");
        let webhook = json!({"templates": {"mine": text}, "defaultTemplates": ["sidecar", "mine"]});
        json!({"global": {"tag": "1"}, "sidecarInjectorWebhook": webhook})
    };
    let told = async || {
        let (pod, _) = shop.dry_run(&json!({})).await;
        assert!(Shop::has_sidecar(&pod), "{pod:#}");
        pod["metadata"]["labels"]["told"].as_str().map(str::to_owned)
    };
    let until_told = async |wanted: &str| {
        let begun = Instant::now();
        while told().await.as_deref() != Some(wanted) {
            assert!(begun.elapsed() < daemon::PATIENCE, "{}", shop.replica.log());
        }
    };
    shop.values(&template("one")).await;
    until_told("one").await;
    shop.values(&template("{{ frobnicate }}")).await;
    shop.until_metric("lateen_config_errors", 1).await;
    let named = "injection template \"mine\": line 3, column 14: function \"frobnicate\"";
    assert!(shop.replica.log().contains(named), "{}", shop.replica.log());
    let said = shop.command(&["check-inject", "-n", "shop", "-o", "json"]).await.unwrap();
    assert!(said.contains("frobnicate"), "{said}");
    assert_eq!(told().await.as_deref(), Some("one"), "what was in force stays");
    shop.values(&template("two")).await;
    until_told("two").await;
    shop.until_metric("lateen_config_errors", 0).await;
}
