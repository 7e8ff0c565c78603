//! What cannot be used or may not be done is said with what to do, and waited for.

use serde_json::json;

use crate::authority::{root, root_until};
use crate::daemon::{Bench, SYSTEM};

fn plugged_in((certificate, key): &(String, String), roots: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "cacerts", "namespace": SYSTEM},
        "stringData": {"ca-cert.pem": certificate, "ca-key.pem": key, "root-cert.pem": roots,
            "cert-chain.pem": certificate},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_secret_that_cannot_be_used_is_refused_and_left_alone() {
    let bench = Bench::start().await;
    let ended = root_until("ended", 2021);
    bench.apply(&plugged_in(&ended, &ended.0)).await;
    let secret = "secret cacerts -n istio-system";
    let before = bench.object(secret).await.unwrap();
    let replica = bench.lateend("lateend-0", &[]);
    let text = replica.until(|status, text| status == 503 && text.contains("has ended")).await;
    assert!(
        text.contains(
            "certificate authority: Secret `cacerts` of namespace `istio-system`: the CA \
             certificate has ended on 2021-01-01T00:00:00Z; lateend does not write over it"
        ),
        "{text}"
    );
    let (good, other) = (root("good"), root("other"));
    bench.apply(&plugged_in(&(good.0.clone(), other.1.clone()), &good.0)).await;
    replica.until(|status, text| status == 503 && text.contains("is not the key of")).await;
    bench.apply(&plugged_in(&good, &other.0)).await;
    replica.until(|status, text| status == 503 && text.contains("does not lead to")).await;
    assert_eq!(bench.object("secret istio-ca-secret -n istio-system").await, None);
    let after = bench.object(secret).await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    // Repaired, it is taken without a restart.
    bench.apply(&plugged_in(&good, &good.0)).await;
    replica.until_ready().await;
    let log = replica.log();
    assert!(!log.contains(good.1.lines().nth(1).unwrap()), "the key is in the log");
    // While it runs, a bad one changes nothing.
    bench.apply(&plugged_in(&ended, &ended.0)).await;
    let text = replica.until(|_, text| text.contains("stays in force")).await;
    assert!(text.starts_with("ready\n"), "{text}");
}

const ROLES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lateend-test}
rules:
- {apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [''], resources: [WHICH], verbs: [create, patch]}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create, update]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lateend-test}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lateend-test}
subjects: [{kind: ServiceAccount, name: istiod, namespace: istio-system}]
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_permission_to_write_that_is_missing_is_named() {
    let bench = Bench::start().await;
    let account = bench.account("istiod").await;
    bench.apply(&ROLES.replace("WHICH", "configmaps")).await;
    let replica = bench.lateend_as("lateend-0", &account, &[]);
    let text = replica.until(|status, text| status == 503 && text.contains("may not create")).await;
    assert!(
        text.contains(
            "certificate authority: ServiceAccount `istiod` of namespace `istio-system` may not \
             create secrets in namespace `istio-system`: the chart `lateend` grants it"
        ),
        "{text}"
    );
    // Granted; and another taken away, without which it serves, but says so.
    bench.apply(&ROLES.replace("WHICH", "secrets")).await;
    replica.until_ready().await;
    let named = "root certificates: ServiceAccount `istiod` of namespace `istio-system` may not \
                 patch configmaps `istio-ca-root-cert` in namespace `";
    let text = replica.until(|_, text| text.contains(named)).await;
    assert!(text.starts_with("ready\n"), "{text}");
    bench.apply(&ROLES.replace("WHICH", "secrets, configmaps")).await;
    bench.until("configmap istio-ca-root-cert -n default", |_| true).await;
    replica.until(|_, text| !text.contains("may not")).await;
}
