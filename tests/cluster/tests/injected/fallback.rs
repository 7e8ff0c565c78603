//! What the API server makes of pods by the fallback's policies, beside what the webhook makes of
//! the same pods: what differs is what the documentation says, and nothing else.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use kube::Client;
use lateen_cluster::api_server::ApiServer;
use lateen_cluster::binaries::Version;
use lateen_webhook::fallback::policies;
use lateen_webhook::settings::Options;
use lateen_webhook::{AdmissionContext, InjectionSettings, inject};
use serde_json::{Value, json};

use crate::creation::{client, rehearse};

const NAMESPACE: &str = "shop";

/// What may differ for any pod: what the webhook remembers of itself.
const ALWAYS: [&str; 2] = [
    "metadata/annotations/inject.lateen.dev~1digest",
    "metadata/annotations/inject.lateen.dev~1added",
];
/// What may differ for a pod with ports, probes or metrics of its own, or with annotations about
/// its proxy, as `docs/compatibility.md` has it.
const PORTS: &str = "spec/initContainers/istio-proxy/env/ISTIO_META_POD_PORTS/value";
const PROBES: [&str; 2] = [
    "spec/containers/*/readinessProbe/httpGet/*",
    "spec/initContainers/istio-proxy/env/ISTIO_KUBE_APP_PROBERS",
];
const METRICS: [&str; 3] = [
    "metadata/annotations/prometheus.io~1path",
    "metadata/annotations/prometheus.io~1port",
    "spec/initContainers/istio-proxy/env/ISTIO_PROMETHEUS_ANNOTATIONS",
];

/// A pod, and what may differ beyond [`ALWAYS`]; each of it must.
struct Case {
    name: &'static str,
    pod: Value,
    differs: Vec<&'static str>,
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "web", "image": "example.test/web:1"}]}})
}

fn owned(kind: &str, name: &str, api_version: &str) -> Value {
    let mut pod = pod();
    pod["metadata"] = json!({
        "generateName": format!("{name}-"),
        "ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": name, "uid": "u-1",
            "controller": true}],
    });
    pod
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod();
    change(&mut pod);
    pod
}

fn cases() -> Vec<Case> {
    let case = |name, pod, differs: &[&'static str]| Case { name, pod, differs: differs.to_vec() };
    let mut deployed = owned("ReplicaSet", "web-7d9c5b8f6", "apps/v1");
    deployed["metadata"]["labels"] =
        json!({"app": "shop-web", "version": "v2", "pod-template-hash": "7d9c5b8f6"});
    let rich = with(|pod| {
        pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "web", "team": "a"});
        pod["metadata"]["annotations"] = json!({"example.test/note": "x", "istio.io/rev": "own"});
        pod["spec"]["initContainers"] = json!([{"name": "setup", "image": "example.test/setup:1"}]);
        pod["spec"]["volumes"] = json!([{"name": "cache", "emptyDir": {}}]);
        pod["spec"]["imagePullSecrets"] = json!([{"name": "own"}]);
        pod["spec"]["securityContext"] = json!({"runAsUser": 1234});
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "cache", "mountPath": "/cache"}]);
        let second = json!({"name": "log", "image": "example.test/log:1",
            "livenessProbe": {"exec": {"command": ["true"]}}});
        pod["spec"]["containers"].as_array_mut().unwrap().push(second);
    });
    let ports = with(|pod| {
        pod["spec"]["containers"][0]["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    });
    let probed = with(|pod| {
        pod["spec"]["containers"][0]["readinessProbe"] =
            json!({"httpGet": {"path": "/ready", "port": 8080}});
    });
    let scraped = with(|pod| {
        pod["metadata"]["annotations"] =
            json!({"prometheus.io/scrape": "true", "prometheus.io/port": "9090"});
    });
    let leveled = with(|pod| {
        pod["metadata"]["annotations"] = json!({"sidecar.istio.io/logLevel": "debug"});
    });
    vec![
        case("plain", pod(), &[]),
        case("of a Deployment", deployed, &[]),
        case("of a StatefulSet", owned("StatefulSet", "db", "apps/v1"), &[]),
        case("of a Job", owned("Job", "once", "batch/v1"), &[]),
        case("with everything of its own", rich, &[]),
        case("with ports", ports, &[PORTS]),
        case("with probes", probed, &PROBES),
        case("with metrics", scraped, &METRICS),
        case("with a level", leveled, &["spec/initContainers/istio-proxy/args/*"]),
    ]
}

/// Where two values differ; elements are called by their name.
fn differences(path: &str, a: &Value, b: &Value, out: &mut BTreeSet<String>) {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for key in keys {
                let at = format!("{path}/{}", key.replace('/', "~1"));
                differences(at.trim_start_matches('/'), &a[key], &b[key], out);
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            let name = |list: &[Value], at: usize| {
                list.get(at).and_then(|it| it["name"].as_str()).map(str::to_owned)
            };
            let named =
                |list: &[Value]| (0..list.len()).map(|at| name(list, at)).collect::<Vec<_>>();
            let find = |list: &[Value], wanted: &str| {
                list.iter().find(|it| it["name"] == wanted).cloned().unwrap_or_default()
            };
            let (names, others) = (named(left), named(right));
            // The order of what both have must be the same, in lists where it counts too.
            let both = |own: &[Option<String>], other: &[Option<String>]| {
                own.iter().filter(|name| other.contains(*name)).cloned().collect::<Vec<_>>()
            };
            if both(&names, &others) != both(&others, &names) {
                out.insert(format!("{path}: order"));
            }
            let all: BTreeSet<_> = names.iter().chain(&others).flatten().collect();
            for name in all {
                differences(&format!("{path}/{name}"), &find(left, name), &find(right, name), out);
            }
            for at in 0..left.len().max(right.len()) {
                if names.get(at).is_none_or(Option::is_none)
                    && others.get(at).is_none_or(Option::is_none)
                {
                    let (a, b) = (left.get(at), right.get(at));
                    let none = Value::Null;
                    differences(
                        &format!("{path}/{at}"),
                        a.unwrap_or(&none),
                        b.unwrap_or(&none),
                        out,
                    );
                }
            }
        }
        _ if a == b => {}
        _ => {
            out.insert(path.to_owned());
        }
    }
}

fn is_at(path: &str, pattern: &str) -> bool {
    let (path, pattern) = (path.split('/'), pattern.split('/'));
    path.clone().count() >= pattern.clone().count()
        && path.zip(pattern).all(|(name, wanted)| wanted == "*" || wanted == name)
}

/// The pod without what the API server adds to each in another way every time.
fn comparable(mut pod: Value) -> Value {
    let token =
        |it: &Value| it["name"].as_str().is_some_and(|it| it.starts_with("kube-api-access-"));
    let metadata = pod["metadata"].as_object_mut().unwrap();
    for field in ["uid", "creationTimestamp", "managedFields", "resourceVersion", "name"] {
        metadata.remove(field);
    }
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.retain(|it| !token(it));
    }
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.retain(|it| !token(it));
                if mounts.is_empty() {
                    container.as_object_mut().unwrap().remove("volumeMounts");
                }
            }
        }
    }
    pod
}

/// Waits until the policies are in force: a pod that names no template has a sidecar, and one that
/// asks for more is refused.
async fn in_force(client: &Client) {
    let asking = with(|pod| {
        pod["metadata"]["annotations"] = json!({"inject.istio.io/templates": "sidecar"});
    });
    let begun = Instant::now();
    loop {
        let injected = rehearse(client, NAMESPACE, &pod()).await;
        let refused = rehearse(client, NAMESPACE, &asking).await;
        match (&injected, &refused) {
            (Ok(pod), Err(error))
                if pod["metadata"]["annotations"]["sidecar.istio.io/status"].is_string() =>
            {
                assert!(error.contains("the injection webhook does not answer"), "{error}");
                return;
            }
            _ => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{injected:?} {refused:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn the_fallback_makes_what_the_webhook_would() {
    let server = ApiServer::start(Version::V1_36).await.unwrap();
    let client = client(&server).await;
    let kubectl = server.kubectl();
    kubectl.run(["create", "namespace", NAMESPACE]).await.unwrap();
    kubectl.run(["label", "namespace", NAMESPACE, "istio-injection=enabled"]).await.unwrap();
    kubectl.run(["create", "serviceaccount", "default", "-n", NAMESPACE]).await.unwrap();
    let values = json!({"global": {"imagePullSecrets": ["pull"]}});
    let settings =
        InjectionSettings::from_sources(Some(&values), None, Options::default()).unwrap();
    for policy in policies(&settings).unwrap() {
        kubectl.apply(&policy.to_string()).await.unwrap();
    }
    in_force(&client).await;
    let context = AdmissionContext { namespace: NAMESPACE.to_owned(), ..Default::default() };
    let mut wrong = Vec::new();
    for Case { name, pod, differs } in cases() {
        let by_policy = rehearse(&client, NAMESPACE, &pod).await.unwrap();
        // With its status the pod is one that the policies leave alone.
        let injected = inject(&pod, &settings, &context).unwrap().pod;
        let by_webhook = rehearse(&client, NAMESPACE, &injected).await.unwrap();
        let mut found = BTreeSet::new();
        differences("", &comparable(by_webhook), &comparable(by_policy), &mut found);
        found.retain(|path| !ALWAYS.iter().any(|always| is_at(path, always)));
        for pattern in &differs {
            if !found.iter().any(|path| is_at(path, pattern)) {
                wrong.push(format!("{name}: {pattern} is the same, and said to differ"));
            }
        }
        found.retain(|path| !differs.iter().any(|pattern| is_at(path, pattern)));
        wrong.extend(found.iter().map(|path| format!("{name}: {path} differs")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Where every pod gets a template of the user, the API server cannot make what the webhook would.
#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn with_templates_of_the_user_for_all_pods_each_is_refused() {
    let server = ApiServer::start(Version::V1_36).await.unwrap();
    let client = client(&server).await;
    let kubectl = server.kubectl();
    for namespace in [NAMESPACE, "outside"] {
        kubectl.run(["create", "namespace", namespace]).await.unwrap();
        kubectl.run(["create", "serviceaccount", "default", "-n", namespace]).await.unwrap();
    }
    kubectl.run(["label", "namespace", NAMESPACE, "istio-injection=enabled"]).await.unwrap();
    let webhook = json!({
        "fallback": true, "defaultTemplates": ["sidecar", "mine"],
        "templates": {"mine": "metadata: {labels: {who: '{{ .ObjectMeta.Name }}'}}"},
    });
    let values = json!({"sidecarInjectorWebhook": webhook});
    let settings =
        InjectionSettings::from_sources(Some(&values), None, Options::default()).unwrap();
    for policy in policies(&settings).unwrap() {
        kubectl.apply(&policy.to_string()).await.unwrap();
    }
    let begun = Instant::now();
    loop {
        let made = rehearse(&client, NAMESPACE, &pod()).await;
        if made.as_ref().is_err_and(|it| it.contains("the injection webhook does not answer")) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{made:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let context = AdmissionContext { namespace: NAMESPACE.to_owned(), ..Default::default() };
    let injected = inject(&pod(), &settings, &context).unwrap().pod;
    let admitted = rehearse(&client, NAMESPACE, &injected).await.unwrap();
    assert_eq!(admitted["metadata"]["labels"]["who"], "web", "what the webhook injected comes in");
    let outside = rehearse(&client, "outside", &pod()).await.unwrap();
    assert!(outside["metadata"]["annotations"].is_null(), "{outside:#}");
}
