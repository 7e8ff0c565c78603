//! What is refused, with which field, and what only draws a remark.

mod extensions;
mod recognised;

use crate::finding::{Finding, Severity};
use crate::kind::{KINDS, Support};
use crate::stream;

use super::{Checked, check};

fn checked(kind: &str, spec: &str) -> Checked {
    let info = KINDS.iter().find(|info| info.name == kind).unwrap();
    let (group, version) = (info.group, info.versions[0]);
    let text = format!(
        "{{apiVersion: {group}/{version}, kind: {kind}, metadata: {{name: a, namespace: shop}}, spec: {spec}}}"
    );
    let mut read = stream::parse("a.yaml", &text);
    assert!(read.findings.is_empty(), "{:?}", read.findings);
    check(&read.objects.remove(0))
}

/// The field of the first error.
fn refusal(kind: &str, spec: &str) -> String {
    let checked = checked(kind, spec);
    let error = checked.findings.iter().find(|finding| finding.is_error());
    let error: &Finding = error.unwrap_or_else(|| panic!("accepted: {kind} {spec}"));
    assert!(error.object.is_some() && error.file.is_some());
    assert!(checked.resource.is_none());
    error.path.clone()
}

fn accepted(kind: &str, spec: &str) -> Vec<String> {
    let checked = checked(kind, spec);
    let errors: Vec<String> =
        checked.findings.iter().filter(|it| it.is_error()).map(ToString::to_string).collect();
    let honoured = KINDS.iter().any(|it| it.name == kind && it.support == Support::Honoured);
    assert!(errors.is_empty() && checked.resource.is_some() == honoured, "{errors:?}");
    let warnings = checked.findings.iter().filter(|it| it.severity == Severity::Warning);
    warnings.map(|finding| finding.path.clone()).collect()
}

#[test]
fn virtual_services_are_refused_with_the_field() {
    let to = "route: [{destination: {host: a}}]";
    for (spec, path) in [
        (format!("{{hosts: [], tcp: [{{{to}}}]}}"), "spec.hosts"),
        (format!("{{hosts: [a, A], http: [{{{to}}}]}}"), "spec.hosts[1]"),
        (format!("{{hosts: ['*'], http: [{{{to}}}]}}"), "spec.hosts[0]"),
        ("{hosts: [a], http: [{}]}".to_owned(), "spec.http[0]"),
        (format!("{{hosts: [a], http: [{{{to}, redirect: {{uri: /}}}}]}}"), "spec.http[0]"),
        (
            "{hosts: [a], http: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}]}".to_owned(),
            "spec.http[0].route",
        ),
        (
            "{hosts: [a], http: [{route: [{destination: {host: a}, weight: heavy}]}]}".to_owned(),
            "spec.http[0].route[0].weight",
        ),
        (
            format!("{{hosts: [a], http: [{{match: [{{uri: {{regex: '('}}}}], {to}}}]}}"),
            "spec.http[0].match[0].uri",
        ),
        (
            format!("{{hosts: [a], http: [{{match: [{{port: 70000}}], {to}}}]}}"),
            "spec.http[0].match[0].port",
        ),
        (format!("{{hosts: [a], http: [{{{to}, timeout: 1us}}]}}"), "spec.http[0].timeout"),
        (
            format!("{{hosts: [a], http: [{{{to}, retries: {{attempts: 1, retryOn: sometimes}}}}]}}"),
            "spec.http[0].retries.retryOn",
        ),
        (
            format!("{{hosts: [a], http: [{{{to}, fault: {{abort: {{httpStatus: 99}}}}}}]}}"),
            "spec.http[0].fault.abort.httpStatus",
        ),
        (
            "{hosts: [a], tls: [{match: [{sniHosts: [b]}], route: [{destination: {host: a}}]}]}".to_owned(),
            "spec.tls[0].match[0].sniHosts[0]",
        ),
        (format!("{{hosts: [a], http: [{{{to}}}], exportTo: ['~', x]}}"), "spec.exportTo"),
        (format!("{{hosts: [a], htpp: [{{{to}}}]}}"), "spec.htpp"),
    ] {
        assert_eq!(refusal("VirtualService", &spec), path, "{spec}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    let spec =
        "{hosts: [a], http: [{match: [{statPrefix: x}], route: [{destination: {host: a}}]}]}";
    assert_eq!(accepted("VirtualService", spec), ["spec.http[0].match[0].statPrefix"]);
    assert_eq!(accepted("VirtualService", "{hosts: [a]}"), ["spec"]);
    let spec = "{host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: true}}}}";
    assert_eq!(
        accepted("DestinationRule", spec),
        ["spec.trafficPolicy.loadBalancer.localityLbSetting"]
    );
}

#[test]
fn snake_case_and_numbers_are_read() {
    let spec =
        "{host: a, traffic_policy: {tls: {mode: 3}, load_balancer: {simple: 2}}, export_to: null}";
    assert!(accepted("DestinationRule", spec).is_empty());
    let spec = "{hosts: [a], http: [{match: [{query_params: {x: {exact: z}}}], route: [{destination: {host: a}}], cors_policy: {allow_origins: [{exact: x}]}}]}";
    assert!(accepted("VirtualService", spec).is_empty());
}

#[test]
fn destination_rules_are_refused_with_the_field() {
    for (spec, path) in [
        ("{}", "spec.host"),
        ("{host: a, subsets: [{name: v1}, {name: v1}]}", "spec.subsets[1].name"),
        ("{host: a, trafficPolicy: {tls: {mode: STRICT}}}", "spec.trafficPolicy.tls.mode"),
        (
            "{host: a, trafficPolicy: {tls: {mode: MUTUAL}}}",
            "spec.trafficPolicy.tls.clientCertificate",
        ),
        (
            "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}",
            "spec.trafficPolicy.loadBalancer",
        ),
        (
            "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 10}}}}}",
            "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize",
        ),
        (
            "{host: a, trafficPolicy: {portLevelSettings: [{tls: {mode: DISABLE}}]}}",
            "spec.trafficPolicy.portLevelSettings[0].port.number",
        ),
    ] {
        assert_eq!(refusal("DestinationRule", spec), path, "{spec}");
    }
}

#[test]
fn service_entries_are_refused_with_the_field() {
    let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
    for (spec, path) in [
        (format!("{{{ports}}}"), "spec.hosts"),
        (
            format!("{{hosts: [a.com], {ports}, endpoints: [{{address: 1.1.1.1}}]}}"),
            "spec.endpoints",
        ),
        (
            format!(
                "{{hosts: [a.com], {ports}, resolution: STATIC, endpoints: [{{address: b.com}}]}}"
            ),
            "spec.endpoints[0].address",
        ),
        (format!("{{hosts: ['*.a.com'], {ports}, resolution: DNS}}"), "spec.hosts"),
        (
            format!("{{hosts: [a.com], {ports}, resolution: DNS, addresses: [10.0.0.0/8]}}"),
            "spec.addresses[0]",
        ),
        ("{hosts: [a.com], ports: [{number: 0, name: x}]}".to_owned(), "spec.ports[0].number"),
        (
            "{hosts: [a.com], ports: [{number: 1, name: x, protocol: SMTP}]}".to_owned(),
            "spec.ports[0].protocol",
        ),
    ] {
        assert_eq!(refusal("ServiceEntry", &spec), path, "{spec}");
    }
    assert_eq!(refusal("WorkloadEntry", "{}"), "spec.address");
}

#[test]
fn policies_are_refused_with_the_field() {
    assert_eq!(
        refusal("PeerAuthentication", "{portLevelMtls: {80: {mode: STRICT}}}"),
        "spec.portLevelMtls"
    );
    assert_eq!(refusal("PeerAuthentication", "{mtls: {mode: MAYBE}}"), "spec.mtls.mode");
    let ports = "{selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: DISABLE}}}";
    assert!(accepted("PeerAuthentication", ports).is_empty());
    for (spec, path) in [
        ("{action: DENY}", "spec.rules"),
        ("{action: CUSTOM, rules: [{}]}", "spec.provider.name"),
        ("{rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source"),
        (
            "{rules: [{to: [{operation: {ports: ['x']}}]}]}",
            "spec.rules[0].to[0].operation.ports[0]",
        ),
        ("{rules: [{when: [{key: a, values: [b]}]}]}", "spec.rules[0].when[0].key"),
        (
            "{rules: [{to: [{operation: {paths: ['/a*/{*}']}}]}]}",
            "spec.rules[0].to[0].operation.paths[0]",
        ),
        ("{rules: [{form: []}]}", "spec.rules[0].form"),
    ] {
        assert_eq!(refusal("AuthorizationPolicy", spec), path, "{spec}");
    }
    assert!(accepted("AuthorizationPolicy", "{}").is_empty());
}

#[test]
fn gateways_are_refused_with_the_field() {
    let server = |port: &str, rest: &str| {
        format!("{{servers: [{{port: {port}, hosts: [a.example.com]{rest}}}]}}")
    };
    let http = "{number: 80, name: http, protocol: HTTP}";
    let https = "{number: 443, name: https, protocol: HTTPS}";
    for (spec, path) in [
        ("{}".to_owned(), "spec.servers"),
        ("{servers: [{hosts: [a]}]}".to_owned(), "spec.servers[0].port"),
        (server("{number: 0, name: a, protocol: HTTP}", ""), "spec.servers[0].port.number"),
        (server("{number: 1, name: '', protocol: HTTP}", ""), "spec.servers[0].port.name"),
        (server("{number: 1, name: a, protocol: SCTP}", ""), "spec.servers[0].port.protocol"),
        (server(http, ", bind: here"), "spec.servers[0].bind"),
        (format!("{{servers: [{{port: {http}, hosts: []}}]}}"), "spec.servers[0].hosts"),
        (format!("{{servers: [{{port: {http}, hosts: ['~/a']}}]}}"), "spec.servers[0].hosts[0]"),
        (format!("{{servers: [{{port: {http}, hosts: ['a*']}}]}}"), "spec.servers[0].hosts[0]"),
        (
            format!("{{servers: [{{port: {http}, hosts: [a]}}, {{port: {http}, hosts: [b]}}]}}"),
            "spec.servers[1].port.name",
        ),
        (server(https, ""), "spec.servers[0].tls"),
        (server(https, ", tls: {mode: SIMPLE}"), "spec.servers[0].tls"),
        (server(https, ", tls: {mode: SIMPLE, privateKey: k}"), "spec.servers[0].tls"),
        (
            server(https, ", tls: {mode: SIMPLE, credentialName: a, privateKey: k}"),
            "spec.servers[0].tls",
        ),
        (
            server(https, ", tls: {mode: MUTUAL, serverCertificate: c, privateKey: k}"),
            "spec.servers[0].tls.caCertificates",
        ),
        (server(https, ", tls: {mode: ISTIO_MUTUAL, credentialName: a}"), "spec.servers[0].tls"),
        (server(https, ", tls: {mode: AUTO_PASSTHROUGH}"), "spec.servers[0].tls.mode"),
        (server(https, ", tls: {mode: EASY}"), "spec.servers[0].tls.mode"),
    ] {
        assert_eq!(refusal("Gateway", &spec), path, "{spec}");
    }
}

#[test]
fn gateways_are_accepted_with_remarks() {
    let server = |port: &str, rest: &str| {
        format!(
            "{{selector: {{istio: ingress}}, servers: [{{port: {port}, hosts: ['./*']{rest}}}]}}"
        )
    };
    let http = "{number: 80, name: http, protocol: HTTP}";
    let tls = "{number: 443, name: tls, protocol: TLS}";
    for (spec, remarks) in [
        (server(http, ", tls: {httpsRedirect: true}"), &[][..]),
        (server(http, ", tls: {mode: SIMPLE}"), &["spec.servers[0].tls"]),
        (server(tls, ", tls: {}"), &[]),
        (server(tls, ", tls: {mode: SIMPLE, credentialName: a}"), &[]),
        (
            server(tls, ", tls: {mode: SIMPLE, credentialName: a, cipherSuites: [x]}"),
            &["spec.servers[0].tls.cipherSuites"],
        ),
        (server(tls, ", tls: {mode: AUTO_PASSTHROUGH}"), &["spec.servers[0].tls.mode"]),
    ] {
        assert_eq!(accepted("Gateway", &spec), remarks, "{spec}");
    }
}
