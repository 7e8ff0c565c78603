//! Reviews that an API server sends, and the settings they are answered by.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use lateen_api::stream;
use lateen_webhook::admission::{self, Injector};
use lateen_webhook::inject::{AdmissionContext, Injection, inject};
use lateen_webhook::settings::{InjectionSettings, Options};
use lateen_webhook::validation;
use serde_json::{Value, json};

/// Longest answer: an API server takes 3 MiB.
const MAX_ANSWER: usize = 3 << 20;

static INJECTOR: LazyLock<Option<Injector>> = LazyLock::new(|| {
    let settings = InjectionSettings::from_sources(None, None, Options::default()).ok()?;
    Some(Injector { settings, namespaces: BTreeMap::new() })
});

fn context() -> AdmissionContext {
    let namespace_labels = [("istio-injection".to_owned(), "enabled".to_owned())].into();
    AdmissionContext {
        namespace: "shop".to_owned(),
        namespace_labels,
        ..AdmissionContext::default()
    }
}

/// Every body gets an answer that is JSON, of bounded length.
pub(crate) fn review(body: &[u8]) {
    let Some(injector) = INJECTOR.as_ref() else { return };
    let answer = admission::answer(body, injector, &BTreeMap::new());
    let text = serde_json::to_vec(&answer.review).expect("an answer is JSON");
    // A patch may say all that the pod says, in base64.
    assert!(text.len() <= MAX_ANSWER + 2 * body.len(), "{} bytes", text.len());
    let response = &answer.review.response;
    assert!(response.allowed != response.status.is_some(), "{response:?}");
}

/// Every body gets an answer; what is refused gets a reason.
pub(crate) fn validation(body: &[u8]) {
    let response = validation::answer(body).review.response;
    assert!(response.allowed != response.status.is_some(), "{response:?}");
    let said = response.status.as_ref().is_none_or(|status| !status.message.is_empty());
    assert!(said, "a refusal without a reason");
    assert!(serde_json::to_vec(&response).is_ok());
}

/// A pod is injected or refused; the patch applies, and injecting again changes nothing.
pub(crate) fn pod(text: &[u8]) {
    let Some(injector) = INJECTOR.as_ref() else { return };
    let Ok(pod) = serde_json::from_slice::<Value>(text) else { return };
    let Ok(injection) = inject(&pod, &injector.settings, &context()) else { return };
    let once = patched(pod, &injection);
    if !injection.reason.injects() {
        return;
    }
    match inject(&once, &injector.settings, &context()) {
        Ok(again) => assert_eq!(once, again.pod, "injecting again changes the pod"),
        Err(error) => panic!("what was injected is refused: {error}"),
    }
}

/// The pod with the patch of its injection, which is the pod that injection makes.
fn patched(mut pod: Value, injection: &Injection) -> Value {
    let operations = serde_json::to_value(injection.patch(&pod)).expect("a patch is JSON");
    let patch: json_patch::Patch = serde_json::from_value(operations).expect("a patch is one");
    json_patch::patch(&mut pod, &patch).expect("a patch applies");
    assert_eq!(pod, injection.pod, "the patch makes another pod");
    pod
}

/// A template is taken or refused; one that is taken renders the same for a pod each time, or denies it
/// each time in the same words, and what it renders can be laid over the pod.
pub(crate) fn template(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let webhook = json!({"templates": {"mine": text}, "defaultTemplates": ["sidecar", "mine"]});
    let values = json!({"sidecarInjectorWebhook": webhook});
    let Ok(settings) = InjectionSettings::from_sources(Some(&values), None, Options::default())
    else {
        return;
    };
    let pod = rich();
    match (inject(&pod, &settings, &context()), inject(&pod, &settings, &context())) {
        (Ok(once), Ok(again)) => {
            assert_eq!(once.pod, again.pod, "another pod each time");
            patched(pod, &once);
        }
        (Err(once), Err(again)) => assert_eq!(once, again, "other words each time"),
        (once, again) => panic!("once {once:?}, then {again:?}"),
    }
}

/// A pod in which a template finds something.
fn rich() -> Value {
    json!({
        "metadata": {
            "name": "cart", "labels": {"app": "cart", "version": "v1"},
            "annotations": {"example.test/a": "1", "example.test/b": "{\"c\": [1, 2.5, null]}"},
        },
        "spec": {
            "serviceAccountName": "cart",
            "containers": [
                {"name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 8080}],
                    "env": [{"name": "A", "value": "b"}], "resources": {"limits": {"cpu": "1"}}},
                {"name": "log", "image": "log:1"},
            ],
            "volumes": [{"name": "cache", "emptyDir": {}}],
        },
    })
}

/// Settings are taken or refused; those that are taken inject a plain pod, or say why not.
pub(crate) fn settings(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(document) = stream::value(text) else { return };
    let part = |name: &str| document.get(name).filter(|it| !it.is_null());
    let (values, mesh) = (part("values"), part("mesh"));
    let Ok(settings) = InjectionSettings::from_sources(values, mesh, Options::default()) else {
        return;
    };
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}});
    let _outcome = inject(&pod, &settings, &context());
}
