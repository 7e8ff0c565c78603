//! Code of users and changes to generated configuration.

use super::recognised::remarks;
use super::refusal;

#[test]
fn modules() {
    for (kind, before, root) in
        [("WasmPlugin", "", "spec"), ("TrafficExtension", "wasm: ", "spec.wasm")]
    {
        let spec = |fields: &str| match before {
            "" => format!("{{{fields}}}"),
            _ => format!("{{{before}{{{fields}}}}}"),
        };
        for (fields, field) in [
            ("url: ''", "url"),
            ("sha256: ''", "url"),
            ("url: 'fake://a'", "url"),
            ("url: '#%blah$#@'", "url"),
            ("url: a, sha256: foo", "sha256"),
            ("url: a, imagePullSecret: ''", "imagePullSecret"),
            ("url: a, pluginName: ''", "pluginName"),
            ("url: a, type: TCP", "type"),
            ("url: a, pluginConfig: [a]", "pluginConfig"),
            ("url: a, vmConfig: {env: [{name: ''}]}", "vmConfig.env[0].name"),
            ("url: a, vmConfig: {env: [{name: a}, {name: a}]}", "vmConfig.env[1].name"),
            (
                "url: a, vmConfig: {env: [{name: a, valueFrom: HOST, value: b}]}",
                "vmConfig.env[0].value",
            ),
        ] {
            assert_eq!(refusal(kind, &spec(fields)), format!("{root}.{field}"), "{fields}");
        }
        let many: String = (0..257).map(|index| format!("{{name: a{index}}},")).collect();
        let many = spec(&format!("url: a, vmConfig: {{env: [{many}]}}"));
        assert_eq!(refusal(kind, &many), format!("{root}.vmConfig.env"));
        let good = "url: 'oci://a/b:c', plugin_config: {a: [1]}, vmConfig: {env: [{name: a}]}";
        assert!(remarks(kind, &spec(good)).is_empty());
        assert!(remarks(kind, &spec("url: a")).is_empty());
    }
}

#[test]
fn extensions() {
    for (spec, path) in [
        ("{}", "spec"),
        ("{wasm: {url: a}, lua: {inlineCode: a}}", "spec"),
        ("{lua: {}}", "spec.lua.inlineCode"),
        ("{lua: {inlineCode: a}, match: [{ports: [{}]}]}", "spec.match[0].ports[0].number"),
        (
            "{lua: {inlineCode: a}, match: [{ports: [{number: 1}, {number: 1}]}]}",
            "spec.match[0].ports[1].number",
        ),
        ("{lua: {inlineCode: a}, phase: UNSPECIFIED_PHASE}", "spec.phase"),
    ] {
        assert_eq!(refusal("TrafficExtension", spec), path, "{spec}");
    }
    let long = format!("{{lua: {{inlineCode: {}}}}}", "x".repeat(65_537));
    assert_eq!(refusal("TrafficExtension", &long), "spec.lua.inlineCode");
}

#[test]
fn envoy_filters() {
    let patch = |fields: &str| format!("{{configPatches: [{{{fields}}}]}}");
    let add = "patch: {operation: ADD, value: {}}";
    let at = "spec.configPatches[0]";
    for (fields, field) in [
        (add.to_owned(), "applyTo"),
        ("applyTo: CLUSTER".to_owned(), "patch"),
        ("applyTo: CLUSTER, patch: {}".to_owned(), "patch.operation"),
        ("applyTo: CLUSTER, patch: {operation: ADD}".to_owned(), "patch.value"),
        ("applyTo: CLUSTER, patch: {operation: ADD, value: a}".to_owned(), "patch.value"),
        (
            format!("applyTo: CLUSTER, match: {{proxy: {{proxyVersion: '('}}}}, {add}"),
            "match.proxy.proxyVersion",
        ),
        (format!("applyTo: CLUSTER, match: {{listener: {{}}}}, {add}"), "match"),
        (format!("applyTo: HTTP_ROUTE, match: {{cluster: {{}}}}, {add}"), "match"),
        (format!("applyTo: HTTP_FILTER, match: {{routeConfiguration: {{}}}}, {add}"), "match"),
        (format!("applyTo: CLUSTER, match: {{cluster: {{}}, listener: {{}}}}, {add}"), "match"),
        (format!("applyTo: CLUSTER, match: {{context: WAYPOINT}}, {add}"), "match.waypoint"),
        (
            format!(
                "applyTo: CLUSTER, match: {{waypoint: {{portNumber: 65536}}, context: WAYPOINT}}, {add}"
            ),
            "match.waypoint.portNumber",
        ),
        (
            format!(
                "applyTo: HTTP_FILTER, match: {{listener: {{filterChain: {{filter: {{}}}}}}}}, {add}"
            ),
            "match.listener.filterChain.filter.name",
        ),
        (
            format!(
                "applyTo: NETWORK_FILTER, match: {{listener: {{filterChain: {{filter: {{name: a, subFilter: {{name: b}}}}}}}}}}, {add}"
            ),
            "match.listener.filterChain.filter.subFilter",
        ),
    ] {
        let spec = patch(&fields);
        assert_eq!(refusal("EnvoyFilter", &spec), format!("{at}.{field}"), "{spec}");
    }
    let both = "{workloadSelector: {labels: {a: b}}, targetRefs: [{kind: Service, name: a}]}";
    assert_eq!(refusal("EnvoyFilter", both), "spec");
    let filter = |kind: &str, name: &str| {
        patch(&format!(
            "applyTo: {kind}, match: {{listener: {{filterChain: {{filter: {{name: {name}}}}}}}}}, {add}"
        ))
    };
    assert!(remarks("EnvoyFilter", &filter("HTTP_FILTER", "envoy.filters.http.lua")).is_empty());
    let path = format!("{at}.match.listener.filterChain.filter");
    assert_eq!(remarks("EnvoyFilter", &filter("LISTENER", "a")), [path.as_str()]);
    let old = filter("NETWORK_FILTER", "envoy.tcp_proxy");
    assert_eq!(remarks("EnvoyFilter", &old), [format!("{path}.name")]);
}
