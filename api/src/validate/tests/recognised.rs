//! Kinds that have no effect yet are judged as those that have.

use super::{accepted, refusal};

/// The remark that the kind has no effect stands first, with no field.
pub(super) fn remarks(kind: &str, spec: &str) -> Vec<String> {
    let mut paths = accepted(kind, spec);
    assert_eq!(paths.remove(0), "", "{kind} {spec}");
    paths
}

#[test]
fn request_authentications() {
    let rule = |rest: &str| format!("{{jwtRules: [{{issuer: a{rest}}}]}}");
    for (spec, path) in [
        ("{jwtRules: [{issuer: ''}]}".to_owned(), "spec.jwtRules[0].issuer"),
        ("{jwtRules: [{audiences: [a]}]}".to_owned(), "spec.jwtRules[0]"),
        (rule(", audiences: ['']"), "spec.jwtRules[0].audiences[0]"),
        (rule(", jwksUri: 'ftp://a'"), "spec.jwtRules[0].jwksUri"),
        (rule(", jwksUri: 'a.example'"), "spec.jwtRules[0].jwksUri"),
        (rule(", jwksUri: 'http://a', jwks: '{}'"), "spec.jwtRules[0]"),
        (rule(", jwks: '{'"), "spec.jwtRules[0].jwks"),
        (rule(", jwks: '{}'"), "spec.jwtRules[0].jwks"),
        (rule(r#", jwks: '{"keys":[{"kty":"RSA","n":"a"}]}'"#), "spec.jwtRules[0].jwks.keys[0]"),
        (rule(", fromHeaders: [{prefix: a}]"), "spec.jwtRules[0].fromHeaders[0].name"),
        (rule(", fromParams: [a, '']"), "spec.jwtRules[0].fromParams[1]"),
        (rule(", fromCookies: ['']"), "spec.jwtRules[0].fromCookies[0]"),
        (
            rule(", outputClaimToHeaders: [{header: a}]"),
            "spec.jwtRules[0].outputClaimToHeaders[0].claim",
        ),
        (
            rule(", outputClaimToHeaders: [{claim: a, header: 'a b'}]"),
            "spec.jwtRules[0].outputClaimToHeaders[0].header",
        ),
        (rule(", timeout: 10us"), "spec.jwtRules[0].timeout"),
        (rule(", timeout: apple"), "spec.jwtRules[0].timeout"),
        (rule(", presence: MANDATORY"), "spec.jwtRules[0].presence"),
        (rule(", spaceDelimitedClaims: ['']"), "spec.jwtRules[0].spaceDelimitedClaims[0]"),
    ] {
        assert_eq!(refusal("RequestAuthentication", &spec), path, "{spec}");
    }
    let private = rule(r#", jwks: '{"keys":[{"kty":"RSA","n":"a","e":"b","d":"c"}]}'"#);
    assert_eq!(remarks("RequestAuthentication", &private), ["spec.jwtRules[0].jwks.keys[0]"]);
    let full = rule(
        ", jwks_uri: 'https://a.example/keys', fromHeaders: [{name: x}], timeout: 5s, presence: REQUIRED",
    );
    assert!(remarks("RequestAuthentication", &full).is_empty());
}

#[test]
fn attachments() {
    for kind in ["RequestAuthentication", "Telemetry"] {
        for (spec, path) in [
            ("{selector: {matchLabels: {a: 'b*'}}}", "spec.selector.matchLabels.a"),
            ("{selector: {}, targetRefs: [{kind: Service, name: a}]}", "spec"),
            ("{targetRef: {kind: Service}}", "spec.targetRef.name"),
            ("{targetRef: {kind: Service, name: a, namespace: b}}", "spec.targetRef.namespace"),
            ("{targetRefs: [{kind: Pod, name: a}]}", "spec.targetRefs[0].kind"),
            ("{targetRefs: [{group: apps, kind: Service, name: a}]}", "spec.targetRefs[0].kind"),
        ] {
            assert_eq!(refusal(kind, spec), path, "{kind} {spec}");
        }
        let gateway = "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}]}";
        assert!(remarks(kind, gateway).is_empty());
        assert_eq!(remarks(kind, "{selector: {}}"), ["spec.selector.matchLabels"]);
    }
}

#[test]
fn telemetries() {
    for (spec, path) in [
        ("{metrics: [{providers: [{}]}]}", "spec.metrics[0].providers[0].name"),
        ("{metrics: [{reportingInterval: 0s}]}", "spec.metrics[0].reportingInterval"),
        (
            "{metrics: [{overrides: [{match: {metric: ALL_METRICS, customMetric: a}}]}]}",
            "spec.metrics[0].overrides[0].match",
        ),
        (
            "{metrics: [{overrides: [{match: {customMetric: ''}}]}]}",
            "spec.metrics[0].overrides[0].match.customMetric",
        ),
        (
            "{metrics: [{overrides: [{match: {metric: MOST}}]}]}",
            "spec.metrics[0].overrides[0].match.metric",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {a: {}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.a.value",
        ),
        (
            "{metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE, value: b}}}]}]}",
            "spec.metrics[0].overrides[0].tagOverrides.a.value",
        ),
        (
            "{tracing: [{randomSamplingPercentage: 101}]}",
            "spec.tracing[0].randomSamplingPercentage",
        ),
        (
            "{tracing: [{customTags: {a: {literal: {value: ''}}}}]}",
            "spec.tracing[0].customTags.a.literal.value",
        ),
        (
            "{tracing: [{customTags: {a: {header: {}}}}]}",
            "spec.tracing[0].customTags.a.header.name",
        ),
        (
            "{tracing: [{customTags: {a: {header: {name: b}, literal: {value: c}}}}]}",
            "spec.tracing[0].customTags.a",
        ),
        ("{accessLogging: [{filter: {}}]}", "spec.accessLogging[0].filter.expression"),
        ("{accessLogging: [{match: {mode: BOTH}}]}", "spec.accessLogging[0].match.mode"),
    ] {
        assert_eq!(refusal("Telemetry", spec), path, "{spec}");
    }
    assert_eq!(remarks("Telemetry", "{tracing: [{}, {}]}"), ["spec.tracing"]);
}

#[test]
fn sidecars() {
    let ingress = |rest: &str| {
        format!("{{ingress: [{{port: {{number: 80, protocol: HTTPS, name: a}}{rest}}}]}}")
    };
    let egress = |hosts: &str| format!("{{egress: [{{hosts: [{hosts}]}}]}}");
    let files = "serverCertificate: c, privateKey: k";
    for (spec, path) in [
        ("{}".to_owned(), "spec"),
        ("{workloadSelector: {labels: {a: '*'}}, egress: [{hosts: ['*/*']}]}".to_owned(),
            "spec.workloadSelector.a"),
        ("{ingress: [{defaultEndpoint: ':80'}]}".to_owned(), "spec.ingress[0].port"),
        ("{ingress: [{port: {protocol: HTTP}}]}".to_owned(), "spec.ingress[0].port.number"),
        (ingress(", bind: here"), "spec.ingress[0].bind"),
        (ingress(", defaultEndpoint: '10.0.0.1:80'"), "spec.ingress[0].defaultEndpoint"),
        (ingress(", defaultEndpoint: '127.0.0.1:0'"), "spec.ingress[0].defaultEndpoint"),
        (ingress(", defaultEndpoint: 'unix://a'"), "spec.ingress[0].defaultEndpoint"),
        (ingress(", tls: {mode: SIMPLE}"), "spec.ingress[0].tls"),
        (ingress(", tls: {mode: ISTIO_MUTUAL}"), "spec.ingress[0].tls.mode"),
        (
            ingress(&format!(", tls: {{mode: SIMPLE, {files}, httpsRedirect: true}}")),
            "spec.ingress[0].tls.httpsRedirect",
        ),
        (
            format!("{{ingress: [{{port: {{number: 80, protocol: HTTP}}, tls: {{mode: SIMPLE, {files}}}}}]}}"),
            "spec.ingress[0].tls",
        ),
        (
            "{ingress: [{port: {number: 80, protocol: TCP}}, {port: {number: 80, protocol: TCP}}]}".to_owned(),
            "spec.ingress[1].port.number",
        ),
        (ingress(", connectionPool: {}"), "spec.ingress[0].connectionPool"),
        ("{egress: [{}]}".to_owned(), "spec.egress[0].hosts"),
        ("{egress: [{hosts: ['*/*']}, {hosts: ['*/*']}]}".to_owned(), "spec.egress[0].port"),
        (egress("a"), "spec.egress[0].hosts[0]"),
        (egress("a/b"), "spec.egress[0].hosts[0]"),
        (egress("a_b!/*"), "spec.egress[0].hosts[0]"),
        (egress("./a*.example.com"), "spec.egress[0].hosts[0]"),
        (
            "{egress: [{port: {number: 0}, bind: 10.0.0.1, hosts: ['*/*']}]}".to_owned(),
            "spec.egress[0].bind",
        ),
        (
            "{egress: [{port: {number: 0}, bind: 'unix:///a', captureMode: IPTABLES, hosts: ['*/*']}]}".to_owned(),
            "spec.egress[0].captureMode",
        ),
        (
            "{outboundTrafficPolicy: {egressProxy: {host: a.example, port: {number: 1}}}}".to_owned(),
            "spec.outboundTrafficPolicy.egressProxy",
        ),
        (
            "{outboundTrafficPolicy: {mode: ALLOW_ANY, egressProxy: {host: a.example}}}".to_owned(),
            "spec.outboundTrafficPolicy.egressProxy.port",
        ),
        ("{outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}}".to_owned(),
            "spec.outboundTrafficPolicy.mode"),
    ] {
        assert_eq!(refusal("Sidecar", &spec), path, "{spec}");
    }
    let good = ingress(&format!(
        ", bind: '::', defaultEndpoint: '[::1]:8080', tls: {{mode: SIMPLE, {files}}}"
    ));
    assert!(remarks("Sidecar", &good).is_empty());
    assert!(remarks("Sidecar", &egress("./*, ~a/*, b/c.example, '~/*'")).is_empty());
    assert_eq!(remarks("Sidecar", &egress("a/*, a/b.example")), ["spec.egress[0].hosts[1]"]);
    assert_eq!(remarks("Sidecar", &egress("'*/*', a/*")), ["spec.egress[0].hosts"]);
}

#[test]
fn workload_groups() {
    let probe = |probe: &str| format!("{{template: {{}}, probe: {probe}}}");
    for (spec, path) in [
        ("{}".to_owned(), "spec.template"),
        ("{template: {ports: {a: 0}}}".to_owned(), "spec.template.ports.a"),
        ("{template: {address: 'unix://a'}}".to_owned(), "spec.template.address"),
        ("{template: {}, metadata: {labels: {a: b c}}}".to_owned(), "spec.metadata.labels.a"),
        ("{template: {}, metadata: {labels: {'*/a': b}}}".to_owned(), "spec.metadata.labels.*/a"),
        (probe("{}"), "spec.probe"),
        (probe("{exec: {command: [a]}, tcpSocket: {port: 1}}"), "spec.probe"),
        (probe("{exec: {command: [a]}, periodSeconds: -1}"), "spec.probe.periodSeconds"),
        (probe("{exec: {}}"), "spec.probe.exec.command"),
        (probe("{tcpSocket: {port: 65536}}"), "spec.probe.tcpSocket.port"),
        (probe("{httpGet: {path: /}}"), "spec.probe.httpGet.port"),
        (probe("{httpGet: {port: 1, scheme: http}}"), "spec.probe.httpGet.scheme"),
        (
            probe("{httpGet: {port: 1, httpHeaders: [{name: '**'}]}}"),
            "spec.probe.httpGet.httpHeaders[0].name",
        ),
    ] {
        assert_eq!(refusal("WorkloadGroup", &spec), path, "{spec}");
    }
    let good = "{template: {network: a, ports: {http: 1}}, metadata: {labels: {a.b/c: ''}}, probe: {grpc: {port: 1}}}";
    assert!(remarks("WorkloadGroup", good).is_empty());
}

#[test]
fn proxy_configs() {
    for (spec, path) in [
        ("{concurrency: -1}", "spec.concurrency"),
        ("{selector: {matchLabels: {'': a}}}", "spec.selector.matchLabels"),
        ("{environmentVariables: {a: 1}}", "spec.environmentVariables.a"),
        ("{threads: 1}", "spec.threads"),
    ] {
        assert_eq!(refusal("ProxyConfig", spec), path, "{spec}");
    }
    let long = format!("{{environmentVariables: {{a: {}}}}}", "x".repeat(2049));
    assert_eq!(refusal("ProxyConfig", &long), "spec.environmentVariables.a");
    let good = "{concurrency: 2, environment_variables: {a: b}, image: {imageType: distroless}}";
    assert!(remarks("ProxyConfig", good).is_empty());
}
