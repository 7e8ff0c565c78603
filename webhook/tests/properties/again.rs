//! Injecting again: twice is once, whatever changed in between.

use lateen_webhook::inject;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;
use serde_json::{Value, json};

use crate::pods::{assert_same, context, pod, settings_of, some_settings, without_empty};

/// Annotations that name a container: the first time's choice is the user's from then on.
const CHOSEN: [&str; 2] =
    ["kubectl.kubernetes.io/default-container", "kubectl.kubernetes.io/default-logs-container"];

/// A secret that is both ours and the user's moves to the front, where it stays.
fn spec(pod: &Value) -> Value {
    let mut spec = without_empty(&pod["spec"]);
    if let Some(Value::Array(secrets)) = spec.get_mut("imagePullSecrets") {
        secrets.sort_by_key(|secret| secret["name"].to_string());
    }
    spec
}

fn metadata(pod: &Value) -> Value {
    let mut metadata = without_empty(&pod["metadata"]);
    if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.retain(|key, _| !CHOSEN.contains(&key.as_str()));
    }
    metadata
}

/// A container of another webhook, as a sidecar or before the others, and where it is put.
#[derive(Debug, Clone)]
struct Addition {
    list: &'static str,
    first: bool,
    container: Value,
}

fn addition() -> impl Strategy<Value = Addition> {
    let container = prop_oneof![
        Just(json!({"name": "added", "image": "example.test/added:1"})),
        Just(json!({
            "name": "added", "image": "example.test/added:1",
            "ports": [{"containerPort": 9090, "name": "http"}],
            "readinessProbe": {"httpGet": {"port": "http", "path": "/ready"}},
            "lifecycle": {"postStart": {"tcpSocket": {"port": 9090}}},
            "env": [{"name": "A", "value": "$(POD_NAME)"}],
        })),
    ];
    (select(vec!["containers", "initContainers"]), any::<bool>(), any::<bool>(), container)
        .prop_map(|(list, first, always, mut container)| {
            let init = list == "initContainers";
            if init && always {
                container["restartPolicy"] = json!("Always");
            } else if init && let Some(fields) = container.as_object_mut() {
                // Only what goes on has probes and handlers.
                fields.retain(|key, _| !["readinessProbe", "lifecycle"].contains(&key.as_str()));
            }
            Addition { list, first, container }
        })
}

impl Addition {
    fn to(&self, pod: &Value) -> Value {
        let mut pod = pod.clone();
        let list = &mut pod["spec"][self.list];
        if list.is_null() {
            *list = json!([]);
        }
        let list = list.as_array_mut().unwrap();
        list.insert(if self.first { 0 } else { list.len() }, self.container.clone());
        pod
    }
}

/// As the API server does before each call: the service account's token is mounted into the containers that
/// have none.
fn with_token(pod: &Value) -> Value {
    const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut pod = pod.clone();
    let mount = json!({"name": "kube-api-access-x", "readOnly": true, "mountPath": PATH});
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            match container["volumeMounts"].as_array_mut() {
                Some(mounts) if mounts.iter().any(|it| it["mountPath"] == PATH) => {}
                Some(mounts) => mounts.push(mount.clone()),
                None => container["volumeMounts"] = json!([mount]),
            }
        }
    }
    let volume = json!({"name": "kube-api-access-x", "projected": {"sources": []}});
    match pod["spec"]["volumes"].as_array_mut() {
        Some(volumes) if volumes.contains(&volume) => {}
        Some(volumes) => volumes.push(volume),
        None => pod["spec"]["volumes"] = json!([volume]),
    }
    pod
}

proptest! {
    /// What `reinvocationPolicy: IfNeeded` costs: one more call, which takes the token out of the containers
    /// that were added and changes nothing else; then there is nothing left to do.
    #[test]
    fn the_token_that_the_api_server_mounts_is_taken_out_again(
        pod in pod(), settings in some_settings(),
    ) {
        let once = inject(&with_token(&pod), &settings, &context()).unwrap().pod;
        let given = with_token(&once);
        let again = inject(&given, &settings, &context()).unwrap();
        assert_same(&again.pod, &once);
        for operation in again.patch(&given) {
            let operation = serde_json::to_value(operation).unwrap();
            let path = operation["path"].as_str().unwrap();
            assert!(path.contains("/volumeMounts"), "{operation}");
        }
        assert_eq!(inject(&again.pod, &settings, &context()).unwrap().patch(&again.pod), []);
    }

    #[test]
    fn injecting_twice_is_injecting_once(pod in pod(), settings in some_settings()) {
        let once = inject(&pod, &settings, &context()).unwrap();
        let twice = inject(&once.pod, &settings, &context()).unwrap();
        assert_same(&twice.pod, &once.pod);
        assert_eq!(twice.patch(&once.pod), []);
    }

    #[test]
    fn a_changed_setting_gives_what_a_new_pod_would_get(
        pod in pod(), before in some_settings(), after in some_settings(),
    ) {
        let fresh = inject(&pod, &after, &context()).unwrap();
        let old = inject(&pod, &before, &context()).unwrap();
        let again = inject(&old.pod, &after, &context()).unwrap();
        // Redirection annotations of the CNI plugin count as the user's from then on, so that
        // only pods of the same redirector are comparable in full.
        if before.values.pilot.cni.enabled == after.values.pilot.cni.enabled {
            let all = |pod: &Value| without_empty(&pod["metadata"]);
            assert_same(&all(&again.pod), &all(&fresh.pod));
        }
        assert_same(&spec(&again.pod), &spec(&fresh.pod));
    }

    #[test]
    fn a_newer_version_and_the_other_kind_of_sidecar_leave_nothing_behind(
        pod in pod(), cni in any::<bool>(), native in any::<bool>(), back in any::<bool>(),
    ) {
        let of = |tag: &str, native: bool| {
            let values = json!({
                "global": {"tag": tag, "proxy": {"logLevel": tag}},
                "pilot": {"cni": {"enabled": cni}},
            });
            settings_of(Some(&values), native)
        };
        let (old, new) = (of("old-tag", native), of("new-tag", native != back));
        let fresh = inject(&pod, &new, &context()).unwrap().pod;
        let before = inject(&pod, &old, &context()).unwrap().pod;
        let again = inject(&before, &new, &context()).unwrap().pod;
        assert_same(&spec(&again), &spec(&fresh));
        assert_same(&without_empty(&again["metadata"]), &without_empty(&fresh["metadata"]));
        let grpc = pod["metadata"]["annotations"]["inject.istio.io/templates"] == "grpc-simple";
        assert!(grpc || before.to_string().contains("old-tag"), "{before}");
        assert!(!again.to_string().contains("old-tag"), "{again}");
        // And back again: the first pod, not one that remembers the second.
        let first = inject(&again, &old, &context()).unwrap().pod;
        assert_same(&spec(&first), &spec(&before));
    }

    #[test]
    fn a_container_that_another_webhook_added_is_taken_in(
        pod in pod(), settings in some_settings(), added in addition(),
    ) {
        let fresh = inject(&added.to(&pod), &settings, &context()).unwrap().pod;
        let once = inject(&pod, &settings, &context()).unwrap().pod;
        let again = inject(&added.to(&once), &settings, &context()).unwrap();
        assert_same(&spec(&again.pod), &spec(&fresh));
        assert_same(&metadata(&again.pod), &metadata(&fresh));
        assert_eq!(inject(&again.pod, &settings, &context()).unwrap().patch(&again.pod), []);
    }
}
