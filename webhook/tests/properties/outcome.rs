//! What comes out: the patch gives the pod, names are unique, Kubernetes knows every field that was
//! added, and nothing that the user wrote is lost, known here or not.

use k8s_openapi::api::core::v1::Pod;
use lateen_webhook::inject;
use proptest::prelude::{any, proptest};
use proptest::sample::Index;
use serde_json::{Value, json};

use crate::pods::{
    assert_same, context, patched, places, pod, settings_of, some_settings, without_empty,
};

/// Paths of all members `xDeep`. Containers are called by their name, whichever list they stand
/// in, since injection decides the place of some.
fn marked(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = match key.as_str() {
                    "initContainers" if at == "/spec" => "containers",
                    key => key,
                };
                let at = format!("{at}/{key}");
                if key == "xDeep" {
                    assert_eq!(*value, json!({"a": [null, {"b": 1.5}]}));
                    out.push(at.clone());
                }
                marked(value, &at, out);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                let name = value["name"].as_str().map_or_else(|| index.to_string(), str::to_owned);
                marked(value, &format!("{at}/{name}"), out);
            }
        }
        _ => {}
    }
}

/// Whether unknown members may stand in a place: maps of texts have none, and what a probe asks
/// is recorded as a whole and replaced.
fn takes_unknown(pod: &Value, place: &str) -> bool {
    let replaced = ["annotations", "labels", "limits", "httpGet", "tcpSocket", "grpc"];
    let own = ["/spec/volumes", "/spec/imagePullSecrets"];
    pod.pointer(place).is_some_and(Value::is_object)
        && !place.split('/').any(|name| replaced.contains(&name))
        && !(own.iter().any(|list| place.starts_with(list))
            && ["istio-data", "global"]
                .iter()
                .any(|name| pod.pointer(place).unwrap()["name"] == **name))
}

/// The pod as the types of Kubernetes hold it: what they do not know is gone.
fn known(pod: &Value) -> Value {
    let typed: Pod =
        serde_json::from_value(pod.clone()).unwrap_or_else(|error| panic!("{error}: {pod}"));
    without_empty(&serde_json::to_value(typed).unwrap())
}

proptest! {
    #[test]
    fn what_is_unknown_survives_wherever_it_stands(
        pod in pod(), settings in some_settings(), at in any::<Index>(),
    ) {
        let mut pod = pod;
        let mut all = Vec::new();
        places(&pod, "", &mut all);
        all.retain(|place| takes_unknown(&pod, place));
        let place = at.get(&all);
        pod.pointer_mut(place).unwrap()["xDeep"] = json!({"a": [null, {"b": 1.5}]});
        let injected = inject(&pod, &settings, &context()).unwrap().pod;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        marked(&pod, "", &mut before);
        marked(&injected, "", &mut after);
        assert_eq!(before.len(), 1);
        assert_eq!(after, before, "{place} in {injected}");
    }

    #[test]
    fn kubernetes_knows_every_field_of_an_injected_pod(pod in pod(), settings in some_settings()) {
        let pod = known(&pod);
        let injected = inject(&pod, &settings, &context()).unwrap().pod;
        assert_same(&known(&injected), &without_empty(&injected));
    }

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
