//! Whether the API server reaches the webhook: a pod is created in thought (dry run) in our own
//! namespace, as a user would, and what comes back is looked at.
//!
//! Nobody else can tell a webhook that calls do not reach it. The leader tests; readiness does not depend
//! on it, since a replica that serves discovery well must not leave the Service because of a firewall.
//! What an answer means is decided by pure functions.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Api;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use lateen_api::names::{annotation, label};
use lateen_webhook::admission::Injector;
use lateen_webhook::explain::{Surroundings, explain};
use lateen_webhook::inject::is_injected;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ask::{Failure, Trouble, ask};
use super::denied::Tried;
use super::events::{Events, Note};
use crate::cluster::Cluster;
use crate::serve::metrics::Metrics;
use crate::serve::readiness::Readiness;

/// Time between looks at whether it is time to test.
const BEAT: Duration = Duration::from_millis(500);
/// Longest time until a test that failed is repeated.
const AGAIN: Duration = Duration::from_secs(3);
/// Hint on a network that lets nothing through.
const NETWORK: &str = "is port 15017 of the pods of app=istiod open to the API server (firewall of a \
    private cluster, NetworkPolicy)?";

/// What a test has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The pod came back injected by a webhook of ours.
    Reached,
    /// It did not; which kind of trouble, and in words.
    Unreached(&'static str, String),
    /// It could not be tested, and why.
    Untested(&'static str, String),
}

impl Outcome {
    /// Every result by which tests are counted.
    pub const RESULTS: [&'static str; 12] = [
        "reached",
        "refused",
        "timeout",
        "certificate",
        "no-endpoints",
        "name",
        "bare",
        "fallback",
        "error",
        "not-selected",
        "not-permitted",
        "inconclusive",
    ];

    /// Short name of the result.
    #[must_use]
    pub fn result(&self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Unreached(kind, _) | Self::Untested(kind, _) => kind,
        }
    }
}

/// The tester.
#[derive(Debug)]
pub struct SelfTest {
    cluster: Cluster,
    injector: Arc<ArcSwap<Injector>>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    period: Duration,
    trouble: Trouble,
    said: Option<Outcome>,
}

impl SelfTest {
    /// One that tests every `period`.
    #[must_use]
    pub fn new(
        cluster: &Cluster,
        injector: Arc<ArcSwap<Injector>>,
        events: Arc<Events>,
        (metrics, period): (Arc<Metrics>, Duration),
        readiness: &Arc<Readiness>,
    ) -> Self {
        let trouble = Trouble::none("self-test of injection", Arc::clone(readiness));
        let cluster = cluster.clone();
        Self { cluster, injector, events, metrics, period, trouble, said: None }
    }

    /// Tests while this replica leads, until `stop`.
    pub async fn run(mut self, leads: watch::Receiver<bool>, stop: CancellationToken) {
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(BEAT) => {}
            }
            if !*leads.borrow() {
                if self.said.take().is_some() {
                    self.metrics.set_self_test(None);
                }
                self.trouble.forget();
                continue;
            }
            if tokio::time::Instant::now() < next {
                continue;
            }
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.test() => outcome,
            };
            let reached = outcome == Outcome::Reached;
            self.metrics.set_self_test(Some(outcome.result()));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.say(outcome) => {}
            }
            let pause = if reached { self.period } else { self.period.min(AGAIN) };
            next = tokio::time::Instant::now() + pause;
        }
    }

    async fn test(&self) -> Outcome {
        let pod = probe(&self.injector.load().settings.revision);
        if let Err(outcome) = self.selected(&pod).await {
            return outcome;
        }
        let pods = self.api(("", "Pod", "pods"), Some(&self.cluster.namespace));
        let Ok(object) = serde_json::from_value::<DynamicObject>(pod) else {
            return Outcome::Untested("error", "the pod of the test cannot be made".to_owned());
        };
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let tried = Tried::new("create", "pods").within(&self.cluster.namespace);
        match ask(tried, pods.create(&params, &object)).await {
            Ok(created) => came_back(&serde_json::to_value(created).unwrap_or_default()),
            Err(failure) => refused(&failure),
        }
    }

    /// Whether a hook of our revision is called for the pod.
    async fn selected(&self, pod: &Value) -> Result<(), Outcome> {
        const GROUP: &str = "admissionregistration.k8s.io";
        const PLURAL: &str = "mutatingwebhookconfigurations";
        let api = self.api((GROUP, "MutatingWebhookConfiguration", PLURAL), None);
        let tried = Tried::new("list", PLURAL).of(GROUP);
        let listed = ask(tried, api.list(&ListParams::default())).await;
        let listed = listed.map_err(|it| Outcome::Untested("error", it.to_string()))?;
        let injector = self.injector.load_full();
        let revision = injector.settings.revision.clone();
        let around = Surroundings {
            configurations: listed
                .items
                .into_iter()
                .filter_map(|it| serde_json::to_value(it).ok())
                .collect(),
            namespaces: injector.namespaces.clone(),
            settings: [(revision.clone(), Ok(injector.settings.clone()))].into(),
        };
        let explained = explain(pod, &self.cluster.namespace, &around);
        if explained.revision.as_ref() == Some(&revision) {
            return Ok(());
        }
        Err(Outcome::Untested(
            "not-selected",
            format!(
                "no webhook of revision {revision} is called for the pod of the test in namespace {}: {} \
                 ({})",
                self.cluster.namespace, explained.explanation, explained.reason
            ),
        ))
    }

    fn api(
        &self,
        (group, kind, plural): (&str, &str, &str),
        namespace: Option<&str>,
    ) -> Api<DynamicObject> {
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        let client = self.cluster.client.clone();
        match namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }

    /// Logs and tells what has changed since the last test.
    async fn say(&mut self, outcome: Outcome) {
        let changed = self.said.as_ref() != Some(&outcome);
        match &outcome {
            Outcome::Reached => self.trouble.over(),
            Outcome::Untested(_, why) => {
                let _pause = self.trouble.again(format!(
                    "it is not known whether the API server reaches the webhook: {why}"
                ));
            }
            Outcome::Unreached(_, why) => {
                let _pause = self.trouble.again(why.clone());
            }
        }
        let note = match &outcome {
            Outcome::Unreached(_, why) => {
                Some(Note { warning: true, reason: "InjectionUnreached", text: why })
            }
            Outcome::Reached if self.said.is_some() => Some(Note {
                warning: false,
                reason: "InjectionReached",
                text: "the API server reaches the injection webhook",
            }),
            _ => None,
        };
        if let (true, Some(note)) = (changed, note) {
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(self.cluster.pod.clone()),
                namespace: Some(self.cluster.namespace.clone()),
                ..ObjectReference::default()
            };
            self.events.tell(&about, note).await;
        }
        self.said = Some(outcome);
    }
}

/// The pod of the test: one that asks for a sidecar of the revision, and that Pod Security lets pass.
fn probe(revision: &str) -> Value {
    let mut labels = json!({label::INJECT: "true"});
    if revision != "default" {
        labels[label::REVISION] = json!(revision);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "lateend-self-test-", "labels": labels},
        "spec": {
            "automountServiceAccountToken": false,
            "restartPolicy": "Never",
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "self-test", "image": "never-started",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

/// What a pod that came back shows. The fallback leaves no digest.
fn came_back(pod: &Value) -> Outcome {
    let digest = pod["metadata"]["annotations"].get(annotation::DIGEST).is_some();
    match (is_injected(pod), digest) {
        (true, true) => Outcome::Reached,
        (true, false) => Outcome::Unreached(
            "fallback",
            format!(
                "the API server does not reach the webhook, and the fallback injects: {NETWORK}"
            ),
        ),
        (false, _) => Outcome::Unreached(
            "bare",
            format!(
                "a pod that asks for a sidecar is created without one: the API server does not reach \
                 the webhook, and failurePolicy lets it pass: {NETWORK}"
            ),
        ),
    }
}

/// What a refusal shows.
fn refused(failure: &Failure) -> Outcome {
    let Some(status) = failure.status() else {
        return Outcome::Untested("error", failure.to_string());
    };
    let said = status.message.as_str();
    if said.contains("failed calling webhook") {
        let (kind, hint) = cause(said);
        return Outcome::Unreached(
            kind,
            format!("the API server does not reach the injection webhook: {said}: {hint}"),
        );
    }
    let text = failure.to_string();
    if text.contains(" may not ") {
        return Outcome::Untested("not-permitted", text);
    }
    Outcome::Untested("inconclusive", format!("something else refuses the pod of the test: {said}"))
}

/// The kind of trouble that an API server has with a webhook, by its own words, and what to look at.
fn cause(said: &str) -> (&'static str, &'static str) {
    const CAUSES: [(&[&str], &str, &str); 5] = [
        (
            &["x509:", "tls:", "certificate"],
            "certificate",
            "it does not believe the webhook's certificate: is somebody else writing caBundle of the \
             MutatingWebhookConfiguration?",
        ),
        (
            &["connection refused", "connection reset"],
            "refused",
            "no replica listens there: kubectl get pods -l app=istiod, and targetPort of its Service",
        ),
        (
            &["no endpoints available", "not found"],
            "no-endpoints",
            "the Service has no ready replica: kubectl get endpointslices -l \
             kubernetes.io/service-name=istiod",
        ),
        (&["no such host", "lookup "], "name", "the name of the Service is not resolved"),
        (
            &["deadline exceeded", "i/o timeout", "handshake timeout", "no route to host"],
            "timeout",
            NETWORK,
        ),
    ];
    let said = said.to_lowercase();
    let found = CAUSES.into_iter().find(|(words, ..)| words.iter().any(|word| said.contains(word)));
    found.map_or(("error", "see the log of the API server"), |(_, kind, hint)| (kind, hint))
}

#[cfg(test)]
mod tests {
    use super::{Outcome, came_back, cause, probe, refused};
    use crate::kubernetes::ask::Failure;
    use crate::kubernetes::denied::Tried;
    use kube::core::Status;
    use lateen_webhook::admission::NamespaceMetadata;
    use lateen_webhook::explain::{Surroundings, explain};
    use lateen_webhook::hooks::webhook_configuration;
    use lateen_webhook::settings::Options;
    use lateen_webhook::{InjectionSettings, Reason};
    use serde_json::json;

    #[test]
    fn the_words_of_the_api_server_name_the_trouble() {
        let said = |text: &str| {
            format!(
                "Internal error occurred: failed calling webhook \"x\": failed to call webhook: Post \"https://istiod.istio-system.svc:443/inject?timeout=10s\": {text}"
            )
        };
        for (text, kind) in [
            ("dial tcp 10.0.0.1:443: connect: connection refused", "refused"),
            (
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
                "certificate",
            ),
            ("context deadline exceeded", "timeout"),
            ("dial tcp 10.0.0.1:15017: i/o timeout", "timeout"),
            ("no endpoints available for service \"istiod\"", "no-endpoints"),
            ("service \"istiod\" not found", "no-endpoints"),
            ("dial tcp: lookup istiod.istio-system.svc: no such host", "name"),
            ("EOF", "error"),
        ] {
            assert_eq!(cause(&said(text)).0, kind, "{text}");
            assert!(Outcome::RESULTS.contains(&kind));
        }
    }

    fn answer(code: u16, reason: &str, message: &str) -> Failure {
        let status =
            json!({"code": code, "reason": reason, "message": message, "status": "Failure"});
        let status: Status = serde_json::from_value(status).unwrap();
        let error = Box::new(kube::Error::Api(status.boxed()));
        Failure::Refusal { tried: Tried::new("create", "pods").within("mesh"), error }
    }

    #[test]
    fn a_refusal_by_others_says_nothing_of_the_webhook() {
        let of = |code, reason, message: &str| refused(&answer(code, reason, message)).result();
        assert_eq!(of(403, "Forbidden", "pods is forbidden: exceeded quota: q"), "inconclusive");
        let user = "pods is forbidden: User \"system:serviceaccount:mesh:istiod\" cannot create \
                    resource \"pods\" in API group \"\" in the namespace \"mesh\"";
        assert_eq!(of(403, "Forbidden", user), "not-permitted");
        let call = "Internal error occurred: failed calling webhook \"object.x\": EOF";
        assert_eq!(of(500, "InternalError", call), "error");
    }

    #[test]
    fn the_pod_of_the_test_is_injected_and_shows_by_whom() {
        for revision in ["default", "canary"] {
            let options = Options { revision: revision.to_owned(), ..Options::default() };
            let settings = InjectionSettings::from_sources(None, None, options).unwrap();
            let around = Surroundings {
                configurations: vec![webhook_configuration(&settings, b"PEM")],
                namespaces: [("mesh".to_owned(), NamespaceMetadata::default())].into(),
                settings: [(revision.to_owned(), Ok(settings))].into(),
            };
            let explained = explain(&probe(revision), "mesh", &around);
            assert!(explained.reason.injects() && explained.reason != Reason::Unknown);
            let mut pod = explained.injection.unwrap().pod;
            assert_eq!(came_back(&pod), Outcome::Reached);
            pod["metadata"]["annotations"]
                .as_object_mut()
                .unwrap()
                .remove("inject.lateen.dev/digest");
            assert_eq!(came_back(&pod).result(), "fallback");
            assert_eq!(came_back(&probe(revision)).result(), "bare");
        }
    }
}
