//! Pods and settings of every shape, and how two pods are compared.

use lateen_webhook::settings::Options;
use lateen_webhook::{AdmissionContext, Injection, InjectionSettings};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use serde_json::{Value, json};

pub(crate) fn settings_of(values: Option<&Value>, native: bool) -> InjectionSettings {
    let options = Options { native_sidecars: native, ..Options::default() };
    InjectionSettings::from_sources(values, None, options).unwrap()
}

pub(crate) fn context() -> AdmissionContext {
    AdmissionContext { namespace: "shop".to_owned(), ..AdmissionContext::default() }
}

pub(crate) fn port() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!("http")),
        Just(json!("nope")),
        Just(json!("81")),
        (1..65535_u16).prop_map(Value::from)
    ]
}

pub(crate) fn probe() -> impl Strategy<Value = Value> {
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

pub(crate) fn container() -> impl Strategy<Value = Value> {
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

pub(crate) fn unique(containers: Vec<Value>, seen: &mut Vec<String>) -> Vec<Value> {
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

pub(crate) fn annotations() -> impl Strategy<Value = Value> {
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
        ("inject.istio.io/templates", "grpc-agent"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "22,15020"),
        ("sidecar.istio.io/proxyCPU", "1"),
        ("kubectl.kubernetes.io/default-container", "db"),
        ("sidecar.istio.io/status", "{"),
    ]);
    vec(pairs, 0..4).prop_map(|pairs| pairs.into_iter().collect::<Value>())
}

pub(crate) fn pod() -> impl Strategy<Value = Value> {
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

pub(crate) fn some_settings() -> impl Strategy<Value = InjectionSettings> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(lateen, native, secrets, hold)| {
            let values = json!({
                "global": {
                    "imagePullSecrets": if secrets { json!(["global"]) } else { json!([]) },
                    "proxy": {"holdApplicationUntilProxyStarts": hold},
                },
            });
            settings_of((!lateen).then_some(&values), native)
        },
    )
}

pub(crate) fn patched(pod: &Value, injection: &Injection) -> Value {
    let patch: json_patch::Patch =
        serde_json::from_value(serde_json::to_value(injection.patch(pod)).unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// Compares two pods and names the first place where they differ.
pub(crate) fn assert_same(got: &Value, expected: &Value) {
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
pub(crate) fn without_empty(value: &Value) -> Value {
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

pub(crate) fn plain_pod(annotation: (&str, &str)) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": {annotation.0: annotation.1}},
        "spec": {"containers": [{"name": "web", "image": "a/web:1"}]},
    })
}

/// Every place in a value, as a JSON pointer.
pub(crate) fn places(value: &Value, at: &str, out: &mut Vec<String>) {
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
