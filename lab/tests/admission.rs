//! Admission over real TLS, against a webhook that answers what the test says.
#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod hook;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_lab::api_server::admission::{
    AdmissionError, Admitted, HOOK_FAILED, NOT_SELECTED, Resolve, Surroundings, admit,
};
use serde_json::{Value, json};

use hook::{Webhook, certificates};

/// Finds every Service at one address, or nowhere.
struct At(Option<SocketAddr>);

impl Resolve for At {
    fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String> {
        assert_eq!((namespace, name, port), ("test", "hook", 443));
        self.0.ok_or_else(|| "no endpoint that is ready".to_owned())
    }
}

async fn admitted(hooks: Vec<Value>, meshed: bool, at: &At) -> Result<Admitted, AdmissionError> {
    let labels: BTreeMap<String, String> =
        if meshed { [("mesh".to_owned(), "yes".to_owned())].into() } else { BTreeMap::new() };
    let configuration = json!({ "webhooks": hooks });
    let around = Surroundings {
        configuration: &configuration,
        namespace: "shop",
        namespace_labels: &labels,
        dry_run: false,
    };
    let pod = json!({"metadata": {"generateName": "a-"}, "spec": {"containers": []}});
    admit(pod, around, at).await
}

fn patch(operations: &Value, reason: &str) -> Value {
    json!({
        "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string()),
        "auditAnnotations": {"reason": reason},
    })
}

#[tokio::test]
async fn each_hook_sees_what_the_one_before_left() {
    let first = patch(
        &json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]),
        "injected.namespace-label",
    );
    let second = json!({"allowed": true, "warnings": ["mind the gap"]});
    let webhook = Webhook::start(vec![first, second]).await;
    let hooks = vec![webhook.hook("Fail"), webhook.hook("Fail")];
    let admitted = admitted(hooks, true, &At(Some(webhook.address))).await.unwrap();
    assert_eq!(admitted.pod["metadata"]["labels"]["a"], "b");
    assert_eq!(admitted.warnings, ["mind the gap"]);
    assert_eq!(admitted.hooks.len(), 2);
    let asked = webhook.asked.lock().unwrap();
    assert_eq!(asked[0]["request"]["namespace"], "shop");
    assert!(asked[0]["request"]["object"]["metadata"]["labels"].is_null());
    assert_eq!(asked[1]["request"]["object"]["metadata"]["labels"]["a"], "b");
}

#[tokio::test]
async fn the_reason_is_the_hooks() {
    let answer = patch(
        &json!([{"op": "add", "path": "/metadata/labels", "value": {}}]),
        "injected.namespace-label",
    );
    let webhook = Webhook::start(vec![answer]).await;
    let at = At(Some(webhook.address));
    let meshed = admitted(vec![webhook.hook("Fail")], true, &at).await.unwrap();
    assert_eq!(meshed.reason, "injected.namespace-label");
    let other = admitted(vec![webhook.hook("Fail")], false, &at).await.unwrap();
    assert_eq!((other.reason.as_str(), other.hooks.len()), (NOT_SELECTED, 0));
}

#[tokio::test]
async fn a_denial_is_told_in_the_hooks_words() {
    let answer = json!({
        "allowed": false,
        "status": {"message": "annotation x is odd", "code": 400, "reason": "denied.annotation"},
    });
    let webhook = Webhook::start(vec![answer]).await;
    let at = At(Some(webhook.address));
    let error = admitted(vec![webhook.hook("Ignore")], true, &at).await.unwrap_err();
    assert_eq!(error.reason(), "denied.annotation");
    assert!(error.to_string().contains("annotation x is odd"), "{error}");
}

#[tokio::test]
async fn the_failure_policy_decides_about_a_hook_that_does_not_answer() {
    let webhook = Webhook::start(Vec::new()).await;
    for (at, said) in
        [(At(None), "no endpoint that is ready"), (At(Some(webhook.address)), "127.0.0.1")]
    {
        let error = admitted(vec![webhook.hook("Fail")], true, &at).await.unwrap_err();
        assert_eq!(error.reason(), "failed.webhook-call");
        assert!(error.to_string().contains(said), "{error}");
        let passed = admitted(vec![webhook.hook("Ignore")], true, &at).await.unwrap();
        assert_eq!(passed.reason, HOOK_FAILED);
        assert!(passed.warnings[0].contains(said), "{:?}", passed.warnings);
    }
}

#[tokio::test]
async fn a_certificate_of_another_root_is_no_answer() {
    let webhook = Webhook::start(vec![json!({"allowed": true})]).await;
    let (foreign, _) = certificates("hook.test.svc");
    let mut hook = webhook.hook("Fail");
    hook["clientConfig"]["caBundle"] = json!(STANDARD.encode(foreign));
    let error = admitted(vec![hook], true, &At(Some(webhook.address))).await.unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}

#[tokio::test]
async fn a_patch_that_does_not_fit_fails_the_call() {
    let answer = patch(&json!([{"op": "remove", "path": "/nowhere/at/all"}]), "x");
    let webhook = Webhook::start(vec![answer]).await;
    let at = At(Some(webhook.address));
    let error = admitted(vec![webhook.hook("Fail")], true, &at).await.unwrap_err();
    assert!(error.to_string().contains("patch"), "{error}");
}
