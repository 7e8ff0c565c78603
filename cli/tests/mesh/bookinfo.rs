//! Istio's bookinfo as it is published. Its manifests are not part of this project:
//! `LATEEN_CONFORMANCE` names the folder that holds `samples/bookinfo`.

use std::path::PathBuf;

use serde_json::Value;

use crate::lab::{Lab, text};

pub(crate) fn samples() -> PathBuf {
    let root = std::env::var_os("LATEEN_CONFORMANCE").expect("LATEEN_CONFORMANCE names the files");
    let folder = PathBuf::from(root).join("samples");
    assert!(folder.is_dir(), "{} is missing: set LATEEN_CONFORMANCE", folder.display());
    folder
}

#[test]
#[ignore = "runs the release binaries: make test-mesh"]
fn bookinfo_is_a_mesh_as_it_is_published() {
    let bookinfo = samples().join("bookinfo");
    let labelled = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(
        labelled.path(),
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n  labels: {istio-injection: enabled}\n",
    )
    .unwrap();
    let app = bookinfo.join("platform/kube/bookinfo.yaml");
    let rules = bookinfo.join("networking/destination-rule-all.yaml");
    let all_v1 = bookinfo.join("networking/virtual-service-all-v1.yaml");
    let files = [labelled.path(), &app, &rules, &all_v1].map(|f| f.to_string_lossy().into_owned());
    let arguments: Vec<&str> = files.iter().flat_map(|file| ["-f", file]).collect();
    let lab = Lab::up("bookinfo", &arguments);
    let pods = lab.pods();
    assert_eq!(pods.len(), 6, "{pods:?}");
    for pod in &pods {
        let containers = pod["containers"].as_array().unwrap();
        assert!(containers.contains(&Value::from("istio-proxy")), "{pod}");
        assert_eq!(containers.len(), 2, "{pod}");
    }
    let page = lab.pod("productpage-v1");
    let reviews = "http://reviews:9080/reviews/0";
    let summary = lab.get(&page, &[reviews, "-n", "60"]);
    assert_eq!(summary["versions"]["v1"], 60, "{summary}");
    let body: Value = serde_json::from_str(summary["last_body"].as_str().unwrap()).unwrap();
    let client = body["headers"]["x-forwarded-client-cert"].as_str().unwrap_or_default();
    let identity = "URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage";
    assert!(client.contains(identity), "{body}");

    let by_header = bookinfo.join("networking/virtual-service-reviews-test-v2.yaml");
    let output = lab.apply(&by_header);
    assert!(output.status.success(), "{}", text(&output));
    let jason = [reviews, "-n", "30", "-H", "end-user: jason"];
    let arrived = (0..50).any(|_| lab.get(&page, &jason)["versions"]["v2"] == 30);
    assert!(arrived, "jason is not sent to v2");
    assert_eq!(lab.get(&page, &[reviews, "-n", "30"])["versions"]["v1"], 30);
}
