//! What holds for any object that claims to be of one of the mesh's kinds.

use std::sync::LazyLock;

use lateen_api::kind::KINDS;
use lateen_api::{Severity, kind, stream, validate};
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// Specs that are accepted, with most fields there are.
static GOOD: LazyLock<Vec<Value>> = LazyLock::new(|| {
    vec![
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"hosts": ["cart"], "gateways": ["mesh"], "exportTo": ["*"], "http": [{
                "match": [{"uri": {"regex": "/a.*"}, "headers": {"x": {"exact": "1"}}, "port": 80}],
                "route": [{"destination": {"host": "cart", "subset": "v1", "port": {"number": 80}},
                    "weight": 80, "headers": {"request": {"set": {"a": "b"}, "remove": ["c"]}}},
                    {"destination": {"host": "cart"}, "weight": 20}],
                "timeout": "1s", "retries": {"attempts": 2, "perTryTimeout": "0.5s"},
                "fault": {"abort": {"httpStatus": 500, "percentage": {"value": 1.5}},
                    "delay": {"fixedDelay": "1s"}},
                "rewrite": {"uri": "/"}, "mirror": {"host": "cart"}}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"host": "cart", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"},
                "loadBalancer": {"consistentHash": {"httpHeaderName": "x"}},
                "connectionPool": {"tcp": {"maxConnections": 1, "connectTimeout": "1s"}},
                "outlierDetection": {"consecutive5xxErrors": 1, "interval": "1s"}},
                "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"hosts": ["a.example"], "addresses": ["10.0.0.1"], "resolution": "STATIC",
                "location": "MESH_EXTERNAL",
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
                "endpoints": [{"address": "1.2.3.4", "ports": {"http": 8080}}]}}),
        json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "action": "DENY", "rules": [{
                "from": [{"source": {"principals": ["*"], "ipBlocks": ["10.0.0.0/8"]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": ["/a*"], "ports": ["80"]}}],
                "when": [{"key": "source.ip", "values": ["1.2.3.4"]}]}]}}),
        json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "mtls": {"mode": "STRICT"},
                "portLevelMtls": {"80": {"mode": "DISABLE"}}}}),
        json!({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "jwtRules": [{"issuer": "a",
                "jwks": "{\"keys\":[{\"kty\":\"RSA\",\"n\":\"a\",\"e\":\"b\"}]}", "timeout": "1s",
                "fromHeaders": [{"name": "x", "prefix": "y"}], "audiences": ["b"],
                "outputClaimToHeaders": [{"claim": "c", "header": "d"}]}]}}),
        json!({"apiVersion": "telemetry.istio.io/v1", "kind": "Telemetry",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"targetRefs": [{"kind": "Service", "group": "", "name": "a"}],
                "metrics": [{"providers": [{"name": "b"}], "reportingInterval": "1s",
                    "overrides": [{"match": {"metric": "REQUEST_COUNT", "mode": "CLIENT"},
                        "disabled": true, "tagOverrides": {"x": {"operation": "REMOVE"}}}]}],
                "tracing": [{"randomSamplingPercentage": 1.5,
                    "customTags": {"x": {"header": {"name": "y"}}}}],
                "accessLogging": [{"filter": {"expression": "true"}}]}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "Sidecar",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"workloadSelector": {"labels": {"app": "a"}},
                "ingress": [{"port": {"number": 80, "protocol": "HTTPS", "name": "a"},
                    "bind": "::", "defaultEndpoint": "127.0.0.1:80", "captureMode": "NONE",
                    "tls": {"mode": "SIMPLE", "serverCertificate": "c", "privateKey": "k"},
                    "connectionPool": {"tcp": {"maxConnections": 1}}}],
                "egress": [{"port": {"number": 0, "protocol": "HTTP"}, "bind": "unix:///a",
                    "hosts": ["./*"]}, {"hosts": ["*/a.example", "~/*"]}],
                "outboundTrafficPolicy": {"mode": "ALLOW_ANY",
                    "egressProxy": {"host": "a.example", "port": {"number": 80}}}}}),
        json!({"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"metadata": {"labels": {"a.b": "d"}, "annotations": {"e": "f"}},
                "template": {"address": "1.2.3.4", "ports": {"http": 80}, "weight": 1},
                "probe": {"httpGet": {"port": 80, "scheme": "HTTP",
                    "httpHeaders": [{"name": "x", "value": "y"}]}, "periodSeconds": 1}}}),
        json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "ProxyConfig",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"concurrency": 1, "environmentVariables": {"a": "b"},
                "image": {"imageType": "debug"}, "selector": {"matchLabels": {"app": "a"}}}}),
        json!({"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"priority": -1, "configPatches": [{"applyTo": "HTTP_FILTER",
                "match": {"context": "SIDECAR_INBOUND", "proxy": {"proxyVersion": "1.*"},
                    "listener": {"portNumber": 80, "filterChain": {"filter": {
                        "name": "envoy.filters.network.http_connection_manager",
                        "subFilter": {"name": "envoy.filters.http.router"}}}}},
                "patch": {"operation": "INSERT_BEFORE", "value": {"name": "x"}}}]}}),
        json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"url": "oci://a/b", "pluginConfig": {"a": [1]}, "priority": 1,
                "match": [{"mode": "CLIENT", "ports": [{"number": 80}]}],
                "vmConfig": {"env": [{"name": "a", "value": "b"}]}}}),
        json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "TrafficExtension",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"phase": "AUTHN", "lua": {"inlineCode": "a"}}}),
    ]
});

fn any_json() -> impl Strategy<Value = Value> {
    let text = select(vec!["", "*", "a", "10.0.0.0/99", "1s", "-1s", "STRICT", "\u{0}", "[", "::"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        let members = proptest::collection::btree_map("[a-z]{0,5}", inner.clone(), 0..3);
        prop_oneof![
            proptest::collection::vec(inner, 0..3).prop_map(Value::from),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (key, value) in members {
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

/// Reads, checks and looks at what is said: a refusal names the field, and nothing is lost.
fn check(document: &Value) {
    let stream = stream::parse("x.yaml", &document.to_string());
    for object in &stream.objects {
        let checked = validate::check(object);
        let refused = checked.findings.iter().any(|it| it.severity == Severity::Error);
        assert!(!(refused && checked.resource.is_some()), "{document}");
        for finding in &checked.findings {
            assert_eq!(finding.file.as_deref(), Some("x.yaml"), "{finding:?}");
            assert!(finding.object.is_some() && !finding.message.is_empty(), "{finding:?}");
        }
    }
    assert!(!stream.objects.is_empty() || !stream.findings.is_empty() || document.is_null());
}

#[test]
fn good_objects_are_accepted() {
    for document in GOOD.iter() {
        let stream = stream::parse("x.yaml", &document.to_string());
        let checked = validate::check(&stream.objects[0]);
        assert!(!checked.is_refused(), "{document}: {:?}", checked.findings);
        let honoured = kind::of(&stream.objects[0]).unwrap().support == kind::Support::Honoured;
        assert_eq!(checked.resource.is_some(), honoured, "{document}");
    }
}

#[test]
fn a_list_stands_for_no_object() {
    let mut document = GOOD[0].clone();
    document["spec"]["http"][0]["route"][0]["destination"] = json!(["cart", "v1"]);
    let stream = stream::parse("x.yaml", &document.to_string());
    let checked = validate::check(&stream.objects[0]);
    assert!(checked.is_refused());
    assert_eq!(checked.findings[0].path, "spec.http[0].route[0].destination");
}

proptest! {
    #[test]
    fn an_object_with_a_wrong_part_is_accepted_or_refused(
        good in any::<Index>(), at in any::<Index>(), part in any_json(),
    ) {
        let mut document = good.get(GOOD.as_slice()).clone();
        let mut all = Vec::new();
        places(&document, "", &mut all);
        let place: &String = at.get(&all);
        *document.pointer_mut(place).unwrap() = part;
        // A list of nothing is a document without objects.
        if document["kind"] != "List" {
            check(&document);
        }
    }

    #[test]
    fn any_spec_of_any_kind_is_accepted_or_refused(kind in any::<Index>(), spec in any_json()) {
        let info = kind.get(&KINDS);
        check(&json!({
            "apiVersion": format!("{}/{}", info.group, info.versions[0]), "kind": info.name,
            "metadata": {"name": "a", "namespace": "shop"}, "spec": spec,
        }));
    }
}
