//! What comes out: the patch gives the pod, names are unique, and nothing that the user wrote is
//! lost, known here or not.

use lateen_webhook::inject;
use proptest::prelude::proptest;
use serde_json::{Value, json};

use crate::pods::{context, patched, pod, settings_of, some_settings};

proptest! {
    #[test]
    fn the_patch_gives_the_pod_and_unknown_fields_survive(
        pod in pod(), settings in some_settings(),
    ) {
        let injection = inject(&pod, &settings, &context()).unwrap();
        assert_eq!(patched(&pod, &injection), injection.pod);
        assert_eq!(injection.pod["spec"]["xUnknown"], json!({"a": [1]}));
        assert_eq!(injection.pod["metadata"]["xUnknown"], 1);
        let all = |pod: &Value| -> Vec<Value> {
            ["containers", "initContainers"]
                .iter()
                .filter_map(|list| pod["spec"][*list].as_array())
                .flatten()
                .cloned()
                .collect()
        };
        let after = all(&injection.pod);
        for user in all(&pod) {
            let same = after.iter().find(|container| container["name"] == user["name"]).unwrap();
            assert_eq!(same["xUnknown"], json!({"keep": [1]}));
            let proxied = pod["metadata"]["annotations"]["inject.istio.io/templates"] != "grpc-simple";
            assert!(!(proxied && same["image"] == "auto"), "{same}");
        }
    }

    #[test]
    fn names_are_unique_and_mounts_have_volumes(pod in pod(), settings in some_settings()) {
        let pod = inject(&pod, &settings, &context()).unwrap().pod;
        let names = |list: &Value| -> Vec<String> {
            let elements = list.as_array().into_iter().flatten();
            elements.map(|element| element["name"].as_str().unwrap().to_owned()).collect()
        };
        let spec = &pod["spec"];
        let mut containers = names(&spec["containers"]);
        containers.extend(names(&spec["initContainers"]));
        let proxies = ["containers", "initContainers"].iter().filter_map(|l| spec[*l].as_array());
        for proxy in proxies.flatten().filter(|c| c["name"] == "istio-proxy") {
            let volumes = names(&spec["volumes"]);
            for mount in names(&proxy["volumeMounts"]).iter().filter(|name| *name != "own") {
                assert!(volumes.contains(mount), "{mount} is mounted but is no volume");
            }
            containers.extend(names(&proxy["env"]).iter().map(|name| format!("env {name}")));
        }
        containers.extend(names(&spec["volumes"]).iter().map(|name| format!("volume {name}")));
        containers
            .extend(names(&spec["imagePullSecrets"]).iter().map(|name| format!("secret {name}")));
        let count = containers.len();
        containers.sort();
        containers.dedup();
        assert_eq!(containers.len(), count, "{containers:?}");
    }
}

#[test]
fn the_order_of_labels_and_annotations_is_of_no_consequence() {
    let pods = [
        json!({"metadata": {"name": "a", "labels": {"app": "a", "version": "1"}},
               "spec": {"containers": [{"name": "a", "image": "i"}]}}),
        json!({"metadata": {"name": "a", "labels": {"version": "1", "app": "a"}},
               "spec": {"containers": [{"name": "a", "image": "i"}]}}),
    ];
    let [first, second] =
        pods.map(|pod| inject(&pod, &settings_of(None, true), &context()).unwrap().pod);
    assert_eq!(first, second);
}
