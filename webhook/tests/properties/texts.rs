//! Texts that become neither structure nor another field, whatever annotation they stand in.

use lateen_webhook::{InjectError, inject};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::sample::select;
use serde_json::{Value, json};

use crate::pods::{context, patched, plain_pod, settings_of};

/// An annotation, a harmless value of it, and what it decides beside itself; a star stands for one
/// name. Where it decides nothing an earlier injection or other annotations must be there too.
type Annotation = (&'static str, &'static str, &'static [&'static str]);

const IMAGE: &[&str] = &["spec/initContainers/*/image"];
const PROBES: &[&str] = &[
    "spec/containers/web/readinessProbe/httpGet/*",
    "spec/initContainers/istio-proxy/env/ISTIO_KUBE_APP_PROBERS/*",
];
const SCRAPE: &[&str] = &["spec/initContainers/istio-proxy/env/ISTIO_PROMETHEUS_ANNOTATIONS/value"];

/// Every annotation that injection reads.
const ANNOTATIONS: [Annotation; 44] = [
    ("sidecar.istio.io/logLevel", "info", &["spec/*/istio-proxy/args/--proxyLogLevel"]),
    (
        "sidecar.istio.io/componentLogLevel",
        "misc:info",
        &["spec/*/istio-proxy/args/--proxyComponentLogLevel"],
    ),
    (
        "sidecar.istio.io/agentLogLevel",
        "default:info",
        &["spec/*/istio-proxy/args/--log_output_level"],
    ),
    ("sidecar.istio.io/proxyImage", "a/b:c", IMAGE),
    ("sidecar.istio.io/proxyImageType", "debug", IMAGE),
    ("sidecar.istio.io/proxyCPU", "1", &["spec/initContainers/*/resources/requests/cpu"]),
    ("sidecar.istio.io/proxyCPULimit", "1", &["spec/initContainers/*/resources/limits/cpu"]),
    ("sidecar.istio.io/proxyMemory", "1", &["spec/initContainers/*/resources/requests/memory"]),
    ("sidecar.istio.io/proxyMemoryLimit", "1", &["spec/initContainers/*/resources/limits/memory"]),
    ("sidecar.istio.io/bootstrapOverride", "own", &["spec/volumes/*/configMap/name"]),
    ("sidecar.istio.io/discoveryAddress", "a:1", &[]),
    ("sidecar.istio.io/capNetBindService", "no", &[]),
    ("sidecar.istio.io/nativeSidecar", "maybe", &[]),
    ("sidecar.istio.io/interceptionMode", "REDIRECT", &[]),
    ("sidecar.istio.io/rewriteAppHTTPProbers", "maybe", PROBES),
    ("sidecar.istio.io/userVolume", "{}", &[]),
    ("sidecar.istio.io/userVolumeMount", "{}", &[]),
    ("sidecar.istio.io/status", "x", &["metadata/annotations/sidecar.istio.io~1status"]),
    ("sidecar.istio.io/extraStatTags", "x", &[]),
    ("sidecar.istio.io/inject", "maybe", &[]),
    ("proxy.istio.io/overrides", "x", &[]),
    ("proxy.istio.io/config", "{}", &["spec/*/istio-proxy/env/PROXY_CONFIG/value"]),
    ("inject.istio.io/templates", "sidecar", &[]),
    (
        "status.sidecar.istio.io/port",
        "15020",
        &[
            "spec/initContainers/*/args/-d",
            "spec/*/istio-proxy/lifecycle/preStop/exec/command/*",
            "spec/containers/web/readinessProbe/httpGet/port",
            "metadata/annotations/traffic.sidecar.istio.io~1excludeInboundPorts",
            "metadata/annotations/prometheus.io~1port",
        ],
    ),
    (
        "readiness.status.sidecar.istio.io/initialDelaySeconds",
        "1",
        &["spec/*/istio-proxy/readinessProbe/initialDelaySeconds"],
    ),
    (
        "readiness.status.sidecar.istio.io/periodSeconds",
        "1",
        &["spec/*/istio-proxy/readinessProbe/periodSeconds"],
    ),
    (
        "readiness.status.sidecar.istio.io/failureThreshold",
        "1",
        &["spec/*/istio-proxy/readinessProbe/failureThreshold"],
    ),
    ("readiness.status.sidecar.istio.io/applicationPorts", "80", &[]),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", "*", &["spec/*/*/args/-i"]),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.0.0.0/8", &["spec/*/*/args/-x"]),
    ("traffic.sidecar.istio.io/includeInboundPorts", "*", &["spec/*/*/args/-b"]),
    ("traffic.sidecar.istio.io/excludeInboundPorts", "15020", &["spec/*/*/args/-d"]),
    ("traffic.sidecar.istio.io/includeOutboundPorts", "80", &["spec/*/*/args/-q"]),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", "80", &["spec/*/*/args/-o"]),
    ("traffic.sidecar.istio.io/excludeInterfaces", "eth1", &["spec/*/*/args/-c"]),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", "eth1", &["spec/*/*/args/-k"]),
    ("istio.io/reroute-virtual-interfaces", "eth1", &["spec/*/*/args/-k"]),
    ("k8s.v1.cni.cncf.io/networks", "net", &[]),
    ("prometheus.istio.io/merge-metrics", "true", &[]),
    ("prometheus.istio.io/scrape-targets", "80:/m", SCRAPE),
    ("prometheus.io/path", "/m", SCRAPE),
    ("prometheus.io/port", "80", SCRAPE),
    ("kubectl.kubernetes.io/default-container", "web", &[]),
    ("kubectl.kubernetes.io/default-logs-container", "web", &[]),
];

/// A digest of all the rest, which changes when anything does.
const DIGEST: &str = "metadata/annotations/inject.lateen.dev~1digest";

/// Annotations for which an empty text is no text, and takes an argument with it.
fn may_be_empty(key: &str) -> bool {
    key.starts_with("traffic.")
        || key.starts_with("prometheus.")
        || key == "istio.io/reroute-virtual-interfaces"
        || key == "sidecar.istio.io/componentLogLevel"
}

/// A pod that asks for everything that annotations have a say in.
fn asking(key: &str, text: &str) -> Value {
    let mut pod = plain_pod(("prometheus.io/scrape", "true"));
    pod["metadata"]["annotations"][key] = json!(text);
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080, "name": "http"}]);
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"port": "http", "path": "/ready"}});
    pod
}

/// Where two pods differ, as paths; elements are called by their name, arguments by their flag.
fn differences(path: &str, a: &Value, b: &Value, out: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let new = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(new) {
                let at = format!("{path}/{}", key.replace('/', "~1"));
                differences(at.trim_start_matches('/'), &a[key], &b[key], out);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let text = |at: usize| left[at].as_str().unwrap_or_default();
            for (at, (a, b)) in left.iter().zip(right).enumerate() {
                let argument = path.ends_with("/args");
                let name = match (a["name"].as_str(), text(at).split_once('=')) {
                    (Some(name), _) => name.to_owned(),
                    (None, Some((flag, _))) if argument => flag.to_owned(),
                    _ if argument && at > 0 && text(at - 1).starts_with('-') => {
                        text(at - 1).to_owned()
                    }
                    _ => at.to_string(),
                };
                differences(&format!("{path}/{name}"), a, b, out);
            }
        }
        _ if a == b => {}
        _ => out.push(path.to_owned()),
    }
}

fn is_at(path: &str, pattern: &str) -> bool {
    let (path, pattern) = (path.split('/'), pattern.split('/'));
    path.clone().count() == pattern.clone().count()
        && path.zip(pattern).all(|(name, wanted)| wanted == "*" || wanted == name)
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\\n\\r\\t \"'{}\\[\\]:,&*#?|<>=!%@`$()\\\\-]{1,40}",
        "[0-9a-z.:/,*=-]{1,12}",
        (0..70_000_u32).prop_map(|number| number.to_string()),
        select(vec![
            "a\"\n  - name: evil\n    image: evil".to_owned(),
            "{{ .Values }}".to_owned(),
            "a/b:c\"\nsecurityContext:\n  privileged: true".to_owned(),
            "$(POD_NAME)".to_owned(),
            "--cleanup".to_owned(),
            "-u".to_owned(),
            "\u{0}".to_owned(),
        ]),
    ]
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1024))]
    #[test]
    fn hostile_text_changes_only_its_own_field(
        (key, harmless, own) in select(ANNOTATIONS.to_vec()), text in hostile(), cni in any::<bool>(),
    ) {
        let values = json!({"pilot": {"cni": {"enabled": cni, "provider": "multus"}}});
        let settings = settings_of(Some(&values), true);
        let expected = inject(&asking(key, harmless), &settings, &context()).unwrap().pod;
        match inject(&asking(key, &text), &settings, &context()) {
            Err(InjectError::Annotation { key: named, .. }) => assert_eq!(named, key),
            Err(InjectError::Template { .. }) if key == "inject.istio.io/templates" => {}
            Err(other) => panic!("{key}={text:?}: {other}"),
            Ok(_) if may_be_empty(key) && text.trim().is_empty() => {}
            Ok(injection) => {
                let mut changed = Vec::new();
                differences("", &expected, &injection.pod, &mut changed);
                let itself = format!("metadata/annotations/{}", key.replace('/', "~1"));
                changed.retain(|path| {
                    *path != itself && path != DIGEST && !own.iter().any(|own| is_at(path, own))
                });
                assert!(changed.is_empty(), "{key}={text:?} changes {changed:?}");
            }
        }
    }

    #[test]
    fn names_in_a_pod_stay_where_they_are(
        at in select(vec![
            "/metadata/labels/app", "/metadata/generateName", "/spec/serviceAccountName",
            "/spec/containers/0/image", "/spec/containers/0/ports/0/name",
            "/spec/containers/0/readinessProbe/httpGet/path", "/metadata/ownerReferences/0/name",
        ]),
        text in hostile(),
    ) {
        let pod = |text: &str| {
            let mut pod = asking("x", "y");
            pod["metadata"]["labels"] = json!({"app": "web"});
            pod["metadata"]["generateName"] = json!("web-");
            pod["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web-1",
                "apiVersion": "apps/v1", "controller": true, "uid": "1"}]);
            pod["spec"]["serviceAccountName"] = json!("web");
            pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] = json!(8080);
            *pod.pointer_mut(at).unwrap() = json!(text);
            pod
        };
        let settings = settings_of(None, true);
        let expected = inject(&pod("plain"), &settings, &context()).unwrap().pod;
        let got = inject(&pod(&text), &settings, &context()).unwrap().pod;
        let mut changed = Vec::new();
        differences("", &expected, &got, &mut changed);
        // What says who the workload is, for labels and telemetry, and the text itself.
        let own = [
            "metadata/generateName", "spec/serviceAccountName", "metadata/labels/*",
            "metadata/ownerReferences/*/name", "spec/containers/web/image",
            "spec/containers/web/ports/*/name", "spec/containers/web/readinessProbe/httpGet/path",
            "spec/initContainers/istio-proxy/env/*/value", DIGEST,
        ];
        changed.retain(|path| !own.iter().any(|own| is_at(path, own)));
        assert!(changed.is_empty(), "{at}={text:?} changes {changed:?}");
    }

    #[test]
    fn no_annotation_panics(annotations in btree_map("[a-z./]{1,40}", any::<String>(), 0..5),
                            known in vec((select(ANNOTATIONS.to_vec()), any::<String>()), 0..3),
                            state in any::<String>()) {
        let mut pod = plain_pod(("proxy.istio.io/overrides", &state));
        for (key, value) in annotations {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        for ((key, ..), value) in known {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        for key in ["sidecar.istio.io/status", "proxy.istio.io/config", "sidecar.istio.io/userVolume"] {
            pod["metadata"]["annotations"][key] = json!(state);
            match inject(&pod, &settings_of(None, true), &context()) {
                Ok(injection) => assert_eq!(patched(&pod, &injection), injection.pod),
                Err(error) => assert!(error.reason().code().starts_with("denied."), "{error}"),
            }
        }
    }
}
