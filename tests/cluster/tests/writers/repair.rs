//! What is written is kept as it should be, and nobody else's fields are touched.

use std::time::Duration;

use crate::daemon::{Bench, bundles, decoded};
use crate::front::Front;

const MAP: &str = "configmap istio-ca-root-cert -n shop";
const HOOKS: &str = "mutatingwebhookconfiguration istio-sidecar-injector";
/// The promise is a second; the machine of a test and kubectl take some of it.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn root_certificates_are_where_pods_are_and_are_repaired() {
    let bench = Bench::start().await;
    let replica = bench.lateend("lateend-0", &[]);
    replica.until_ready().await;
    bench.until("configmap istio-ca-root-cert -n default", |_| true).await;
    let secret = bench.object("secret istio-ca-secret -n istio-system").await.unwrap();
    let root = decoded(&secret, "ca-cert.pem");
    let right = |map: &serde_json::Value| {
        map["data"]["root-cert.pem"].as_str() == Some(root.as_str())
            && map["metadata"]["labels"]["istio.io/config"] == "true"
    };

    bench.kubectl("create namespace shop").await;
    let took = bench.until(MAP, right).await;
    assert!(took < SOON, "a new namespace: {took:?}");
    bench.kubectl(&format!("delete {MAP}")).await;
    let took = bench.until(MAP, right).await;
    assert!(took < SOON, "a deleted one: {took:?}");
    let broken =
        r#"{"data":{"root-cert.pem":"nothing"},"metadata":{"labels":{"istio.io/config":null}}}"#;
    bench.kubectl(&format!("patch {MAP} --type=merge -p {broken}")).await;
    let took = bench.until(MAP, right).await;
    assert!(took < SOON, "a changed one: {took:?}");
    for system in ["kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(bench.object(&format!("configmap istio-ca-root-cert -n {system}")).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn bundles_are_repaired_and_nothing_else_is_touched() {
    let bench = Bench::start().await;
    let replica = bench.lateend("lateend-0", &[]);
    replica.until_ready().await;
    let front = Front::of(&bench, vec![replica.webhook]).await;
    let secret = bench.object("secret istio-ca-secret -n istio-system").await.unwrap();
    let root = decoded(&secret, "ca-cert.pem");
    let right = |object: &serde_json::Value| bundles(object).iter().all(|bundle| *bundle == root);

    // Installed later than lateend, with a hook of somebody else's in it.
    let mut both = front.configuration(&["namespace", "object"]);
    both["webhooks"][1]["clientConfig"]["service"]["name"] = "other".into();
    Front::apply(&bench, &both).await;
    let ours = |object: &serde_json::Value| bundles(object)[0] == root;
    let took = bench.until(HOOKS, ours).await;
    assert!(took < SOON, "a new configuration: {took:?}");
    let object = bench.object(HOOKS).await.unwrap();
    assert_eq!(bundles(&object)[1], "", "another's hook is left alone");
    assert_eq!(object["webhooks"][0]["name"], both["webhooks"][0]["name"], "the order stays");

    // An apply by whoever installed it changes nothing, and may take a hook away.
    let both = front.configuration(&["namespace", "object"]);
    Front::apply(&bench, &both).await;
    bench.until(HOOKS, right).await;
    let version = |object: serde_json::Value| object["metadata"]["resourceVersion"].clone();
    let before = version(bench.object(HOOKS).await.unwrap());
    Front::apply(&bench, &both).await;
    assert_eq!(version(bench.object(HOOKS).await.unwrap()), before, "no difference, no fight");
    Front::apply(&bench, &front.configuration(&["namespace"])).await;
    let object = bench.object(HOOKS).await.unwrap();
    assert_eq!(bundles(&object), std::slice::from_ref(&root));
    Front::apply(&bench, &both).await;
    let took = bench.until(HOOKS, |object| bundles(object) == [root.clone(), root.clone()]).await;
    assert!(took < SOON, "a hook that came back: {took:?}");

    // The other kind of webhook, too.
    let mut judge = front.configuration(&["rev.validation"]);
    judge["kind"] = "ValidatingWebhookConfiguration".into();
    judge["metadata"]["name"] = "istio-validator-istio-system".into();
    Front::apply(&bench, &judge).await;
    bench.until("validatingwebhookconfiguration istio-validator-istio-system", right).await;

    // Overwritten, emptied, and made anew.
    bench.kubectl(&format!(
        r#"patch {HOOKS} --type=json -p [{{"op":"remove","path":"/webhooks/1/clientConfig/caBundle"}}]"#
    )).await;
    let took = bench.until(HOOKS, right).await;
    assert!(took < SOON, "an emptied one: {took:?}");
    bench.kubectl(&format!("delete {HOOKS}")).await;
    Front::apply(&bench, &both).await;
    let took = bench.until(HOOKS, right).await;
    assert!(took < SOON, "one made anew: {took:?}");
}
