//! Pods that are broken somewhere, or written to cost more than their size.

use std::time::{Duration, Instant};

use lateen_webhook::inject;
use proptest::collection::{btree_map, vec};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::{Index, select};
use serde_json::{Value, json};

use crate::pods::{context, patched, places, plain_pod, pod, settings_of, some_settings};

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
        inject(&plain_pod(("proxy.istio.io/config", &bomb)), &settings_of(None, true), &context());
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
            match inject(&pod, &settings_of(None, true), &context()) {
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
    let settings = settings_of(None, true);
    let best = |pod: &Value| -> Duration {
        let mut times: Vec<Duration> = (0..15)
            .map(|_| {
                let start = Instant::now();
                let injection = inject(pod, &settings, &context()).unwrap();
                assert!(!injection.patch(pod).is_empty());
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
