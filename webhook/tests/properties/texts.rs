//! Texts that become neither structure nor another field, whatever annotation they stand in.

use lateen_webhook::{InjectError, inject};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::sample::select;
use serde_json::{Value, json};

use crate::pods::{context, patched, plain_pod, settings_of};

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
        let settings = settings_of(Some(&values), true);
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
            match inject(&pod, &settings_of(None, true), &context()) {
                Ok(injection) => assert_eq!(patched(&pod, &injection), injection.pod),
                Err(error) => assert!(error.reason().code().starts_with("denied."), "{error}"),
            }
        }
    }
}
