//! The charts in API servers of each version: installed, changed by lateend, upgraded, applied again
//! by others, uninstalled.

use std::collections::BTreeMap;
use std::time::Duration;

use lateen_cluster::api_server::ApiServer;
use lateen_cluster::binaries::Version;
use lateen_cluster::{ClusterError, Kubectl};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::helm::{CHARTS, chart, conformance, helm, release};

/// What is set besides the defaults, so that every template is rendered.
fn given(name: &str) -> &'static [&'static str] {
    match name {
        // The definitions are to leave with the release.
        "base" => &["--set", "base.keepCRDs=false"],
        "lateend" => &[
            "--set",
            "autoscaleMin=2,revisionTags={prod},global.networkPolicy.enabled=true,memory.targetAverageUtilization=80",
        ],
        "cni" => &["--set", "resourceQuotas.enabled=true,global.networkPolicy.enabled=true"],
        _ => &[
            "--set",
            "autoscaling.minReplicas=2,podDisruptionBudget.minAvailable=1,global.networkPolicy.enabled=true",
        ],
    }
}

async fn act(server: &ApiServer, verb: &str, name: &str, more: &[&str]) -> String {
    let folder = chart(name).display().to_string();
    let (release, namespace) = release(name);
    let mut words = vec![verb, release];
    if verb != "uninstall" {
        words.push(&folder);
        words.extend(given(name));
    }
    words.extend(["--namespace", namespace]);
    words.extend(more);
    let done = helm(&words, Some(server.kubeconfig())).await;
    done.unwrap_or_else(|error| panic!("helm {words:?}: {error}"))
}

/// Kind, namespace and name of every object that people made, with its content. What the API server
/// keeps for itself, and Helm's own notes, are left out.
async fn everything(kubectl: &Kubectl) -> BTreeMap<String, Value> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match look(kubectl).await {
            Ok(all) => return all,
            // Definitions come and go a moment before their kinds do.
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn look(kubectl: &Kubectl) -> Result<BTreeMap<String, Value>, ClusterError> {
    let kinds = kubectl.run(["api-resources", "--verbs=list", "-o", "name"]).await?;
    let own = [
        "leases.coordination.k8s.io",
        "events",
        "events.events.k8s.io",
        "apiservices.apiregistration.k8s.io",
    ];
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !own.contains(kind)).collect();
    let list = kubectl.json(&["get", &kinds.join(","), "--all-namespaces"]).await?;
    let items = list["items"].as_array().unwrap().iter();
    let items = items.filter(|it| it["type"] != "helm.sh/release.v1");
    let key = |it: &Value| {
        let meta = &it["metadata"];
        format!("{} {} {}", it["kind"], meta["namespace"], meta["name"])
    };
    Ok(items.map(|it| (key(it), it.clone())).collect())
}

/// As [`everything`], without who set which field and how often.
async fn content(kubectl: &Kubectl) -> BTreeMap<String, Value> {
    let mut all = everything(kubectl).await;
    for object in all.values_mut() {
        let meta = object["metadata"].as_object_mut().unwrap();
        for field in ["managedFields", "resourceVersion"] {
            meta.remove(field);
        }
    }
    all
}

fn difference(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<String> {
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let differs = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    differs.map(|key| format!("{key}: {:?} -> {:?}", before.get(key), after.get(key))).collect()
}

/// Gives each hook of a configuration a bundle, as lateend does.
async fn believe(kubectl: &Kubectl, kind: &str, name: &str) {
    let found = kubectl.json(&["get", kind, name]).await.unwrap();
    let names = found["webhooks"].as_array().unwrap().iter().map(|hook| &hook["name"]);
    let order: Vec<Value> = names.clone().map(|name| json!({"name": name})).collect();
    // Any certificate does: the API server only reads it.
    let bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJYRENDQVFPZ0F3SUJBZ0lVTHZYbjRDQT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";
    let hooks = names.map(|name| json!({"name": name, "clientConfig": {"caBundle": bundle}}));
    let patch = json!({
        "$setElementOrder/webhooks": order, "webhooks": hooks.collect::<Vec<_>>(),
    });
    let patch = patch.to_string();
    kubectl.run(["patch", kind, name, "--type=strategic", "--patch", &patch]).await.unwrap();
}

async fn ready(version: Version) -> ApiServer {
    let server = ApiServer::start(version).await.unwrap();
    for namespace in ["istio-system", "istio-ingress"] {
        server.kubectl().run(["create", "namespace", namespace]).await.unwrap();
    }
    server
}

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn nothing_changes_without_a_reason_and_nothing_is_left() {
    for version in Version::ALL {
        let server = ready(version).await;
        let kubectl = server.kubectl();
        let before = everything(kubectl).await;
        for name in CHARTS {
            act(&server, "install", name, &[]).await;
        }
        for (kind, name) in [
            ("mutatingwebhookconfiguration", "istio-sidecar-injector"),
            ("mutatingwebhookconfiguration", "istio-revision-tag-prod"),
            ("validatingwebhookconfiguration", "istio-validator-istio-system"),
            ("validatingwebhookconfiguration", "istiod-default-validator"),
        ] {
            believe(kubectl, kind, name).await;
        }
        let installed = everything(kubectl).await;
        for name in CHARTS {
            act(&server, "upgrade", name, &[]).await;
        }
        let upgraded = everything(kubectl).await;
        assert_eq!(difference(&installed, &upgraded), Vec::<String>::new(), "{version:?}");
        for name in CHARTS.iter().rev() {
            act(&server, "uninstall", name, &[]).await;
        }
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let left = everything(kubectl).await;
            if left.keys().eq(before.keys()) {
                break;
            }
            let left = difference(&before, &left);
            assert!(Instant::now() < end, "{version:?}: left behind: {left:#?}");
            sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn others_may_apply_the_charts_again() {
    let server = ready(Version::V1_36).await;
    let kubectl = server.kubectl();
    for name in CHARTS {
        act(&server, "install", name, &[]).await;
    }
    let injector = ("mutatingwebhookconfiguration", "istio-sidecar-injector");
    believe(kubectl, injector.0, injector.1).await;
    let before = content(kubectl).await;
    for name in CHARTS {
        let folder = chart(name).display().to_string();
        let (release, namespace) = release(name);
        let words = ["template", release, &folder, "--namespace", namespace];
        let manifests = helm(&[&words[..], given(name)].concat(), None).await.unwrap();
        let mut apply = vec!["apply", "--server-side", "--field-manager=gitops", "-f", "-"];
        // Amounts that users give are written otherwise by the API server, which it takes for a conflict.
        if matches!(name, "cni" | "gateway") {
            apply.push("--force-conflicts");
        }
        kubectl.feed(&apply, &manifests).await.unwrap();
        let once = everything(kubectl).await;
        kubectl.feed(&apply, &manifests).await.unwrap();
        let twice = everything(kubectl).await;
        assert_eq!(difference(&once, &twice), Vec::<String>::new(), "{name}");
        assert_eq!(difference(&before, &content(kubectl).await), Vec::<String>::new(), "{name}");
        // kubectl diff fails when there is a difference.
        kubectl.feed(["diff", "-f", "-"], &manifests).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn a_hook_that_lateend_wrote_into_can_be_taken_away() {
    let server = ready(Version::V1_36).await;
    let kubectl = server.kubectl();
    let hooks = async || {
        let name = "istio-sidecar-injector";
        let found = kubectl.json(&["get", "mutatingwebhookconfiguration", name]).await.unwrap();
        found["webhooks"].as_array().unwrap().clone()
    };
    let auto = ["--set", "sidecarInjectorWebhook.enableNamespacesByDefault=true"];
    act(&server, "install", "lateend", &auto).await;
    believe(kubectl, "mutatingwebhookconfiguration", "istio-sidecar-injector").await;
    assert_eq!(hooks().await.len(), 5);
    act(&server, "upgrade", "lateend", &[]).await;
    let left = hooks().await;
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(|hook| hook["clientConfig"]["caBundle"].is_string()), "{left:#?}");
}

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn definitions_stay_unless_told_otherwise() {
    let server = ready(Version::V1_36).await;
    act(&server, "install", "base", &["--set", "base.keepCRDs=true"]).await;
    act(&server, "uninstall", "base", &[]).await;
    let left = server.kubectl().json(&["get", "customresourcedefinitions"]).await.unwrap();
    assert_eq!(left["items"].as_array().unwrap().len(), 15);
    // As docs/install.md says.
    let all = ["delete", "customresourcedefinitions", "-l", "app.kubernetes.io/part-of=istio"];
    let gone = server.kubectl().run(all).await.unwrap();
    assert_eq!(gone.lines().count(), 15);
}

#[tokio::test]
#[ignore = "reads files of others, builds Kubernetes: make e2e"]
async fn definitions_of_istio_are_taken_over_with_their_objects() {
    let server = ready(Version::V1_36).await;
    let kubectl = server.kubectl();
    let theirs = conformance("crds/crd-all.gen.yaml");
    let theirs =
        ["apply", "--server-side", "--field-manager=helm-3", "-f", theirs.to_str().unwrap()];
    kubectl.run(theirs).await.unwrap();
    served(kubectl).await;
    let rule = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"name": "cart", "namespace": "default"}, "spec": {"host": "cart"},
    });
    kubectl.apply(&rule.to_string()).await.unwrap();
    // As docs/install.md says.
    act(&server, "install", "base", &["--take-ownership", "--force-conflicts"]).await;
    act(&server, "upgrade", "base", &[]).await;
    let kept = kubectl.json(&["get", "destinationrule", "cart", "-n", "default"]).await.unwrap();
    assert_eq!(kept["spec"]["host"], "cart");
    let definition = ["get", "crd", "destinationrules.networking.istio.io", "-o", "yaml"];
    let definition = kubectl.run(definition).await.unwrap();
    assert!(definition.contains("such as 250ms, 5s or 1h"), "it is not ours");
}

/// Waits until the API server knows the kinds.
async fn served(kubectl: &Kubectl) {
    let end = Instant::now() + Duration::from_secs(30);
    let list = ["api-resources", "--categories=istio-io", "-o", "name", "--cached=false"];
    loop {
        let known = kubectl.run(list).await.map_or(0, |text| text.lines().count());
        if known == 15 {
            return;
        }
        assert!(Instant::now() < end, "{known} of 15 kinds are served");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Objects of Istio's kinds below a folder, without their namespaces, which are not there.
fn objects(folder: &str) -> Vec<Value> {
    let mut folders = vec![conformance(folder)];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let all: Vec<Option<Value>> = serde_saphyr::from_multiple(&text)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.extend(all.into_iter().flatten());
            }
        }
    }
    // The installer's input is no kind of an API server.
    found.retain(|it| {
        let group = it["apiVersion"].as_str().and_then(|text| text.split_once(".istio.io/"));
        group.is_some_and(|(group, _)| group != "install")
    });
    for object in &mut found {
        object["metadata"].as_object_mut().unwrap().remove("namespace");
    }
    found
}

/// A tree in which 100 and 100.0 are the same.
fn amounts(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.iter().map(amounts).collect(),
        Value::Object(parts) => parts.iter().map(|(key, it)| (key.clone(), amounts(it))).collect(),
        other => other.clone(),
    }
}

#[tokio::test]
#[ignore = "reads files of others, builds Kubernetes: make e2e"]
async fn definitions_take_and_refuse_what_istios_do() {
    for version in Version::ALL {
        let server = ready(version).await;
        let kubectl = server.kubectl();
        act(&server, "install", "base", &["--set", "defaultRevision="]).await;
        served(kubectl).await;
        // Strict kubectl would refuse fields that Istio has dropped, which an API server leaves out.
        let ask = ["create", "--dry-run=server", "--validate=false", "-o", "json", "-f", "-"];
        for (folder, least) in [("samples", 15), ("validation/accept", 50)] {
            let good = objects(folder);
            assert!(good.len() >= least, "only {} objects found in {folder}", good.len());
            let list = json!({"apiVersion": "v1", "kind": "List", "items": good});
            let taken = kubectl.feed(ask, &list.to_string()).await.unwrap();
            let taken = serde_json::Deserializer::from_str(&taken).into_iter::<Value>();
            let taken: Vec<Value> = taken.collect::<Result<_, _>>().unwrap();
            assert_eq!(taken.len(), good.len());
            for (given, taken) in good.iter().zip(&taken).filter(|_| folder == "samples") {
                let name = &given["metadata"]["name"];
                let (given, taken) = (amounts(&given["spec"]), amounts(&taken["spec"]));
                assert_eq!(given, taken, "{version:?}: {name}");
            }
        }
        let cases = std::fs::read_to_string(conformance("validation/cases.json")).unwrap();
        let cases: Value = serde_json::from_str(&cases).unwrap();
        let documents = cases["cases"].as_array().unwrap().iter();
        for case in documents.filter(|case| case["file"].as_str().unwrap().starts_with("docs/")) {
            let file = conformance("validation").join(case["file"].as_str().unwrap());
            let said = kubectl.feed(ask, &std::fs::read_to_string(file).unwrap()).await;
            assert_eq!(
                said.is_ok(),
                case["expect"] == "accept",
                "{version:?}: {} {said:?}",
                case["id"]
            );
        }
    }
}
