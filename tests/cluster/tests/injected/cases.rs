//! What injection makes of the cases of others, whose folder is in `LATEEN_CONFORMANCE`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lateen_cluster::api_server::ApiServer;
use lateen_cluster::binaries::Version;
use lateen_webhook::InjectionSettings;
use lateen_webhook::settings::Options;
use lateen_webhook::stream::{self, StreamOptions};
use serde_json::{Value, json};

use crate::creation::{client, rehearse};

const NAMESPACE: &str = "cases";

fn folder() -> PathBuf {
    let root = std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    Path::new(&root).join("inject")
}

fn documents(path: &str) -> Vec<Value> {
    stream::parse(&std::fs::read_to_string(folder().join(path)).unwrap()).unwrap()
}

/// The pods of a case, injected; none where it is to be refused.
fn injected(case: &Value) -> Vec<Value> {
    let mut values = case["values"].clone();
    values["global"]["hub"] = json!("registry.istio.io/testing");
    values["global"]["tag"] = json!("latest");
    let features = &case["features"];
    let options = Options {
        native_sidecars: features["nativeSidecars"] == true,
        openshift: features["platform"] == "openshift",
        ..Options::default()
    };
    let mesh = Some(&case["meshConfig"]).filter(|mesh| mesh.is_object());
    let settings = InjectionSettings::from_sources(Some(&values), mesh, options).unwrap();
    let namespaces = match case["namespaceMetadata"].as_str() {
        Some(path) => stream::namespaces(&documents(path)),
        None => BTreeMap::new(),
    };
    let options = StreamOptions { settings: &settings, namespaces: &namespaces };
    match stream::inject_as_webhook(&documents(case["input"].as_str().unwrap()), &options) {
        Ok(injected) => injected.documents,
        Err(error) => {
            assert!(case["expectErrorContains"].is_string(), "{}: {error}", case["name"]);
            Vec::new()
        }
    }
}

/// The pod as a controller would create it.
fn created(mut pod: Value, number: usize) -> Value {
    let metadata = &mut pod["metadata"];
    metadata["namespace"] = json!(NAMESPACE);
    // Two cases are named as no object can be.
    if let Some(name) = metadata["generateName"].as_str() {
        metadata["generateName"] = json!(name.to_lowercase());
    }
    for owner in metadata["ownerReferences"].as_array_mut().into_iter().flatten() {
        owner["uid"] = json!(format!("case-{number}"));
    }
    pod
}

#[tokio::test]
#[ignore = "builds Kubernetes: make e2e"]
async fn istio_cases_become_pods_that_the_api_server_takes() {
    let cases = std::fs::read_to_string(folder().join("cases.json")).unwrap();
    let cases: Value = serde_json::from_str(&cases).unwrap();
    let server = ApiServer::start(Version::V1_36).await.unwrap();
    let client = client(&server).await;
    let kubectl = server.kubectl();
    kubectl.run(["create", "namespace", NAMESPACE]).await.unwrap();
    let (mut taken, mut refused, mut accounts) = (0, Vec::new(), BTreeSet::new());
    for (number, case) in cases["cases"].as_array().unwrap().iter().enumerate() {
        for pod in injected(case) {
            let pod = created(pod, number);
            let account =
                pod["spec"]["serviceAccountName"].as_str().unwrap_or("default").to_owned();
            if accounts.insert(account.clone()) {
                let words = ["create", "serviceaccount", &account, "-n", NAMESPACE];
                kubectl.run(words).await.unwrap();
            }
            match rehearse(&client, NAMESPACE, &pod).await {
                Ok(_) => taken += 1,
                Err(reason) => refused.push(format!("{}: {reason}", case["name"])),
            }
        }
    }
    assert!(refused.is_empty(), "{taken} taken; {refused:#?}");
    assert!(taken >= 86, "only {taken} pods were made");
}
