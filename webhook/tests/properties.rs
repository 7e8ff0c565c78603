//! What holds for every pod: injecting twice is injecting once, the patch gives the pod, unknown
//! fields survive, no text becomes structure, and cost grows with size.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends at what it does not expect")]

use std::time::{Duration, Instant};

use lateen_webhook::settings::Options;
use lateen_webhook::{AdmissionContext, InjectError, InjectionSettings, inject};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::{Index, select};
use serde_json::{Value, json};

fn settings(values: Option<&Value>, native: bool) -> InjectionSettings {
    let options = Options { native_sidecars: native, ..Options::default() };
    InjectionSettings::from_sources(values, None, options).unwrap()
}

fn context() -> AdmissionContext {
    AdmissionContext { namespace: "shop".to_owned(), ..AdmissionContext::default() }
}

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("http")),
        Just(json!("nope")),
        Just(json!("81")),
        (1..65535_u16).prop_map(Value::from)
    ]
}

fn probe() -> impl Strategy<Value = Value> {
    let handler = prop_oneof![
        port().prop_map(|port| json!({"httpGet": {"port": port, "path": "/x", "scheme": "HTTPS"}})),
        port().prop_map(|port| json!({"httpGet": {"port": port, "unknown": [1]}})),
        port().prop_map(|port| json!({"tcpSocket": {"port": port}})),
        Just(json!({"grpc": {"port": 9000, "service": null}})),
        Just(json!({"exec": {"command": ["true"]}})),
    ];
    (handler, option::of(1..9_u8)).prop_map(|(mut probe, timeout)| {
        if let Some(timeout) = timeout {
            probe["timeoutSeconds"] = json!(timeout);
        }
        probe
    })
}

fn container() -> impl Strategy<Value = Value> {
    let name = select(vec!["web", "db", "istio-proxy", "istio-init", "istio-validation", "x-1"]);
    (name, any::<bool>(), option::of(probe()), option::of(probe()), any::<bool>()).prop_map(
        |(name, auto, readiness, liveness, extras)| {
            let image = if auto && name == "istio-proxy" { "auto" } else { "example.test/a:1" };
            let mut container = json!({
                "name": name, "image": image,
                "ports": [{"name": "http", "containerPort": 8080}], "xUnknown": {"keep": [1]},
            });
            if let Some(probe) = readiness {
                container["readinessProbe"] = probe;
            }
            if let Some(probe) = liveness {
                container["lifecycle"] = json!({"preStop": probe});
            }
            if extras {
                container["env"] =
                    json!([{"name": "A", "value": "1"}, {"name": "POD_NAME", "value": "x"}]);
                container["resources"] = json!({"limits": {"cpu": "3"}});
                container["volumeMounts"] = json!([{"name": "own", "mountPath": "/own"}]);
                container["securityContext"] = json!({"runAsUser": 1234});
            }
            container
        },
    )
}

fn unique(containers: Vec<Value>, seen: &mut Vec<String>) -> Vec<Value> {
    let fresh = |container: &Value| {
        let name = container["name"].as_str().unwrap().to_owned();
        if seen.contains(&name) {
            return false;
        }
        seen.push(name);
        true
    };
    containers.into_iter().filter(fresh).collect()
}

fn annotations() -> impl Strategy<Value = Value> {
    let pairs = select(vec![
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/scrape", "false"),
        ("prometheus.io/port", "8080"),
        ("prometheus.io/path", "/m"),
        ("prometheus.istio.io/scrape-targets", "8080:/m"),
        ("sidecar.istio.io/nativeSidecar", "false"),
        ("sidecar.istio.io/interceptionMode", "NONE"),
        ("sidecar.istio.io/interceptionMode", "TPROXY"),
        ("status.sidecar.istio.io/port", "0"),
        ("status.sidecar.istio.io/port", "15999"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "false"),
        ("inject.istio.io/templates", "gateway"),
        ("inject.istio.io/templates", "grpc-simple"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "22,15020"),
        ("sidecar.istio.io/proxyCPU", "1"),
        ("kubectl.kubernetes.io/default-container", "db"),
        ("sidecar.istio.io/status", "{"),
    ]);
    vec(pairs, 0..4).prop_map(|pairs| pairs.into_iter().collect::<Value>())
}

fn pod() -> impl Strategy<Value = Value> {
    let secrets = option::of(vec(select(vec!["a", "global"]), 0..3));
    (
        vec(container(), 1..4),
        option::of(vec(container(), 0..3)),
        annotations(),
        secrets,
        option::of(vec(select(vec!["own", "istio-data"]), 0..3)),
    )
        .prop_map(|(containers, init, annotations, secrets, volumes)| {
            let mut seen = Vec::new();
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "web", "annotations": annotations, "xUnknown": 1},
                "spec": {"containers": unique(containers, &mut seen), "xUnknown": {"a": [1]}},
            });
            let names = |list: Vec<&str>| {
                let mut list: Vec<&str> = list;
                list.sort_unstable();
                list.dedup();
                list.into_iter().map(|name| json!({"name": name})).collect::<Vec<_>>()
            };
            if let Some(init) = init {
                pod["spec"]["initContainers"] = json!(unique(init, &mut seen));
            }
            if let Some(secrets) = secrets {
                pod["spec"]["imagePullSecrets"] = json!(names(secrets));
            }
            if let Some(volumes) = volumes {
                pod["spec"]["volumes"] = json!(names(volumes));
            }
            pod
        })
}

fn some_settings() -> impl Strategy<Value = InjectionSettings> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(lateen, native, secrets, hold)| {
            let values = json!({
                "global": {
                    "imagePullSecrets": if secrets { json!(["global"]) } else { json!([]) },
                    "proxy": {"holdApplicationUntilProxyStarts": hold},
                },
            });
            settings((!lateen).then_some(&values), native)
        },
    )
}

fn patched(pod: &Value, injection: &lateen_webhook::Injection) -> Value {
    let patch: json_patch::Patch =
        serde_json::from_value(serde_json::to_value(&injection.patch).unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// Compares two pods and names the first place where they differ.
fn assert_same(got: &Value, expected: &Value) {
    fn walk(path: &str, got: &Value, expected: &Value) -> Option<String> {
        match (got, expected) {
            (Value::Object(a), Value::Object(b)) => {
                let keys = a.keys().chain(b.keys());
                keys.map(|key| (key, &got[key], &expected[key]))
                    .find_map(|(key, a, b)| walk(&format!("{path}/{key}"), a, b))
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                let pairs = a.iter().zip(b).enumerate();
                pairs
                    .map(|(at, (a, b))| walk(&format!("{path}/{at}"), a, b))
                    .find_map(|difference| difference)
            }
            _ if got == expected => None,
            _ => Some(format!("{path}: {got}, expected {expected}")),
        }
    }
    if let Some(difference) = walk("", got, expected) {
        panic!("{}", difference.chars().take(2000).collect::<String>());
    }
}

/// Empty lists and maps do not tell a pod from one that has none.
fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| (key.clone(), without_empty(value)));
            let full = |value: &Value| {
                !(value.is_null()
                    || value.as_object().is_some_and(serde_json::Map::is_empty)
                    || value.as_array().is_some_and(Vec::is_empty))
            };
            Value::Object(fields.filter(|(_, value)| full(value)).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_empty).collect()),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn injecting_twice_is_injecting_once(pod in pod(), settings in some_settings()) {
        let once = inject(&pod, &settings, &context()).unwrap();
        let twice = inject(&once.pod, &settings, &context()).unwrap();
        assert_same(&twice.pod, &once.pod);
        assert_eq!(twice.patch, []);
    }

    #[test]
    fn a_changed_setting_gives_what_a_new_pod_would_get(
        pod in pod(), before in some_settings(), after in some_settings(),
    ) {
        let fresh = inject(&pod, &after, &context()).unwrap();
        let old = inject(&pod, &before, &context()).unwrap();
        let again = inject(&old.pod, &after, &context()).unwrap();
        // A secret that is both ours and the user's moves to the front, where it stays.
        let spec = |pod: &Value| {
            let mut spec = without_empty(&pod["spec"]);
            if let Some(Value::Array(secrets)) = spec.get_mut("imagePullSecrets") {
                secrets.sort_by_key(|secret| secret["name"].to_string());
            }
            spec
        };
        // Redirection annotations of the CNI plugin count as the user's from then on, so that
        // only pods of the same redirector are comparable in full.
        if before.values.pilot.cni.enabled == after.values.pilot.cni.enabled {
            let metadata = |pod: &Value| without_empty(&pod["metadata"]);
            assert_same(&metadata(&again.pod), &metadata(&fresh.pod));
        }
        assert_same(&spec(&again.pod), &spec(&fresh.pod));
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

/// Annotations whose text ends up in the pod, and a harmless value of each.
const TEXTS: [(&str, &str); 12] = [
    ("sidecar.istio.io/logLevel", "info"),
    ("sidecar.istio.io/componentLogLevel", "misc:info"),
    ("sidecar.istio.io/agentLogLevel", "default:info"),
    ("sidecar.istio.io/proxyImage", "a/b:c"),
    ("sidecar.istio.io/proxyImageType", "debug"),
    ("sidecar.istio.io/bootstrapOverride", "own"),
    ("sidecar.istio.io/discoveryAddress", "a:1"),
    ("traffic.sidecar.istio.io/excludeInterfaces", "eth1"),
    ("traffic.sidecar.istio.io/includeOutboundPorts", "80"),
    ("k8s.v1.cni.cncf.io/networks", "net"),
    ("prometheus.io/path", "/m"),
    ("kubectl.kubernetes.io/default-container", "web"),
];

fn plain_pod(annotation: (&str, &str)) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": {annotation.0: annotation.1}},
        "spec": {"containers": [{"name": "web", "image": "a/web:1"}]},
    })
}

/// Every path to a scalar: the structure of a pod without its texts.
fn structure(value: &Value) -> Vec<String> {
    fn walk(path: &str, value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                map.iter().for_each(|(key, value)| walk(&format!("{path}/{key}"), value, out));
            }
            Value::Array(list) => {
                let indexed = list.iter().enumerate();
                indexed.for_each(|(at, value)| walk(&format!("{path}/{at}"), value, out));
            }
            _ => out.push(path.to_owned()),
        }
    }
    let mut out = Vec::new();
    walk("", value, &mut out);
    out.sort();
    out
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\\n\\r\\t \"'{}\\[\\]:,&*#?|<>=!%@`$()\\\\-]{1,40}",
        select(vec![
            "a\"\n  - name: evil\n    image: evil".to_owned(),
            "{{ .Values }}".to_owned(),
            "a/b:c\"\nsecurityContext:\n  privileged: true".to_owned(),
            "$(POD_NAME)".to_owned(),
        ]),
    ]
}

proptest! {
    #[test]
    fn hostile_text_changes_only_its_own_field(
        (key, harmless) in select(TEXTS.to_vec()), text in hostile(),
    ) {
        let values = json!({"pilot": {"cni": {"enabled": true, "provider": "multus"}}});
        let settings = settings(Some(&values), true);
        let expected = inject(&plain_pod((key, harmless)), &settings, &context()).unwrap().pod;
        match inject(&plain_pod((key, &text)), &settings, &context()) {
            Err(InjectError::Annotation { key: named, .. }) => assert_eq!(named, key),
            Err(other) => panic!("{key}={text:?}: {other}"),
            Ok(injection) => {
                // An image without a slash is none; an empty text unsets an argument.
                let optional = ["sidecar.istio.io/componentLogLevel"].contains(&key)
                    || key.starts_with("traffic.")
                    || key.starts_with("prometheus.");
                if !(optional && text.trim().is_empty()) {
                    assert_eq!(structure(&injection.pod), structure(&expected), "{key}={text:?}");
                }
            }
        }
    }

    #[test]
    fn no_annotation_panics(annotations in btree_map("[a-z./]{1,40}", any::<String>(), 0..5),
                            known in vec((select(TEXTS.to_vec()), any::<String>()), 0..3),
                            state in any::<String>()) {
        let mut pod = plain_pod(("proxy.istio.io/overrides", &state));
        for (key, value) in annotations {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        for ((key, _), value) in known {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        for key in ["sidecar.istio.io/status", "proxy.istio.io/config", "sidecar.istio.io/userVolume"] {
            pod["metadata"]["annotations"][key] = json!(state);
            match inject(&pod, &settings(None, true), &context()) {
                Ok(injection) => assert_eq!(patched(&pod, &injection), injection.pod),
                Err(error) => assert!(error.reason().code().starts_with("denied."), "{error}"),
            }
        }
    }
}

/// JSON of the shapes that pods do and do not have.
fn any_json() -> impl Strategy<Value = Value> {
    let text = select(vec!["", "a", "istio-proxy", "80", "{}", "app", "default", "\u{0}"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(1.5)),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        let keys = select(vec!["name", "value", "httpGet", "port", "exec", "x", "limits"]);
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            btree_map(keys.prop_map(str::to_owned), inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Every place in a value, as a JSON pointer.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{at}/{key}"), out);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn a_pod_with_a_wrong_part_is_injected_or_denied(
        pod in pod(), again in any::<bool>(), settings in some_settings(),
        at in any::<Index>(), part in any_json(),
    ) {
        let mut pod = pod;
        pod["metadata"]["labels"] = json!({"app": "web"});
        pod["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web-1",
            "apiVersion": "apps/v1", "controller": true}]);
        if again {
            pod = inject(&pod, &settings, &context()).unwrap().pod;
        }
        let mut all = Vec::new();
        places(&pod, "", &mut all);
        let place = at.get(&all);
        *pod.pointer_mut(place).unwrap() = part;
        match inject(&pod, &settings, &context()) {
            Ok(injection) => assert_eq!(patched(&pod, &injection), injection.pod, "{place}"),
            Err(error) => assert!(error.reason().code().starts_with("denied."), "{error}"),
        }
    }
}

#[test]
fn annotations_that_grow_when_read_are_bounded() {
    let lines = (0..40).map(|n| {
        let uses = vec![format!("*a{n}"); 10].join(",");
        format!("k{}: &a{} [{uses}]\n", n + 1, n + 1)
    });
    let bomb = format!("k0: &a0 [x]\n{}", lines.collect::<String>());
    let deep = "[".repeat(100_000);
    let wide = format!("{{\"containers\":[{}\"x\"]}}", "\"x\",".repeat(100_000));
    let denied =
        inject(&plain_pod(("proxy.istio.io/config", &bomb)), &settings(None, true), &context());
    let denied = denied.unwrap_err().to_string();
    assert!(denied.contains("10000"), "{denied}");
    for key in [
        "proxy.istio.io/config",
        "proxy.istio.io/overrides",
        "sidecar.istio.io/status",
        "sidecar.istio.io/userVolume",
        "sidecar.istio.io/userVolumeMount",
        "k8s.v1.cni.cncf.io/networks",
        "sidecar.istio.io/extraStatTags",
    ] {
        for text in [&bomb, &deep, &wide] {
            let start = Instant::now();
            let mut pod = plain_pod((key, text));
            if key == "proxy.istio.io/overrides" {
                pod["metadata"]["annotations"]["sidecar.istio.io/status"] = json!("{}");
            }
            match inject(&pod, &settings(None, true), &context()) {
                Ok(injection) => assert_eq!(patched(&pod, &injection), injection.pod),
                Err(error) => assert!(error.to_string().contains(key), "{error}"),
            }
            let took = start.elapsed();
            assert!(took < Duration::from_secs(5), "{key}: {took:?}");
        }
    }
}

#[test]
fn two_thousand_variables_cost_little() {
    let env = |count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({"name": format!("N_{n}"), "value": "v"})).collect()
    };
    let pod = |count: usize| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
               "spec": {"containers": [{"name": "web", "image": "a/web:1", "env": env(count)}]}})
    };
    let settings = settings(None, true);
    let best = |pod: &Value| -> Duration {
        let mut times: Vec<Duration> = (0..15)
            .map(|_| {
                let start = Instant::now();
                let injection = inject(pod, &settings, &context()).unwrap();
                assert!(!injection.patch.is_empty());
                start.elapsed()
            })
            .collect();
        times.sort();
        times[0]
    };
    let (small, large) = (best(&pod(2_000)), best(&pod(16_000)));
    let limit = if cfg!(debug_assertions) { 50 } else { 5 };
    assert!(small < Duration::from_millis(limit), "2,000 variables take {small:?}");
    assert!(large < small * 24, "eight times the size takes {large:?} instead of {small:?}");
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
        pods.map(|pod| inject(&pod, &settings(None, true), &context()).unwrap().pod);
    assert_eq!(first, second);
}
